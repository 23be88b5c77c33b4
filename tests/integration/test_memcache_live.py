"""Memcached pools while workers stop, die, are reloaded and upgraded: the same guarantees as for Redis."""

import os
import signal
import time

import pytest
from harness import SLOW, Millrace, Scripted, wait_for
from memcached import Memcached, packet, read_packet, stored
from test_reload import CLIENTS, KILLS, RELOADS, Survivor, Writer, finish, reload
from test_upgrade import UPGRADES, Upgradable, adopt_orphans  # noqa: F401

S = stored()


class Rounds:
    """A round in the client's dialect: tagged values are written and read back in one batch."""

    def one_round(self, c, n):
        keys = [b"c%d-%d" % (self.index, (n + i) % 7) for i in range(4)]
        tags = [b"%d:%d:%d" % (self.index, n, i) for i in range(4)]
        began = time.monotonic()
        got = [self.text, self.meta, self.binary][self.index % 3](c, keys, tags)
        if got != tags:
            self.wrong.append((keys, tags, got))
        self.acked.update(zip(keys, tags))
        self.requests += 9
        self.longest = max(self.longest, time.monotonic() - began)

    moving = False

    def own(self, found, tag):
        """A reload may move a key between write and read: then it may be missing or older."""
        older = found is None or found.split(b":")[0] == b"%d" % self.index
        return tag if self.moving and older else found

    def text(self, c, keys, tags):
        c.send(b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (k, len(t), t) for k, t in zip(keys, tags)) +
               b"set q 0 0 1 noreply\r\nx\r\nget " + b" ".join(keys) + b"\r\n")
        for _ in keys:
            if (line := c.line()) != b"STORED":
                return [line]
        found = {}
        while (line := c.line()) != b"END":
            _, key, _, size = line.split()
            found[key] = c.exactly(int(size) + 2)[:-2]
        return [self.own(found.get(k), t) for k, t in zip(keys, tags)]

    def meta(self, c, keys, tags):
        c.send(b"".join(b"ms %s %d q\r\n%s\r\n" % (k, len(t), t) for k, t in zip(keys, tags)) +
               b"".join(b"mg %s v k q O%d\r\n" % (k, i) for i, k in enumerate(keys)) + b"mn\r\n")
        found = {}
        while (line := c.line()) != b"MN":
            if not line.startswith(b"VA "):
                return [line]
            words = line.split()
            assert keys[int(words[3][1:])] == words[2][1:]
            found[words[2][1:]] = c.exactly(int(words[1]) + 2)[:-2]
        return [self.own(found.get(k), t) for k, t in zip(keys, tags)]

    def binary(self, c, keys, tags):
        c.send(b"".join(packet(0x11, k, t, S) for k, t in zip(keys, tags)) +
               b"".join(packet(0x0D, k, opaque=i) for i, k in enumerate(keys)) + packet(0x0A))
        found = {}
        while (p := read_packet(c))[0] != 0x0A:
            if p[:2] != (0x0D, 0) or keys[p[2]] != p[5]:
                return [p]
            found[p[5]] = p[6]
        return [self.own(found.get(k), t) for k, t in zip(keys, tags)]


class McWriter(Rounds, Writer):
    pass


class MovingWriter(McWriter):
    moving = True


class McSurvivor(Rounds, Survivor):
    pass


@pytest.fixture
def mc4(start):
    return [start(Memcached) for _ in range(4)]


def test_reloads_under_load(start, mc4):
    ports = [s.port for s in mc4]
    m = start(Millrace, ports[:3], workers=2, redis=None)
    conf = m.conf.read_text()
    other = conf.replace(f"   - 127.0.0.1:{ports[2]}:1", f"   - 127.0.0.1:{ports[3]}:1")
    writers = [MovingWriter(m.port, i) for i in range(CLIENTS)]
    for w in writers:
        w.start()
    for i in range(RELOADS):
        m.conf.write_text(other if i % 2 == 0 else conf)
        reload(m, 30)
        time.sleep(0.05)
    finish(writers, "reloads", RELOADS)
    assert [w.dropped for w in writers if w.dropped] == []


def test_upgrades_under_load(start, mc4):
    m = start(Upgradable, [s.port for s in mc4], workers=2, redis=None)
    writers = [McWriter(m.port, i) for i in range(CLIENTS)]
    for w in writers:
        w.start()
    for _ in range(UPGRADES):
        m.upgrade()
        time.sleep(0.05)
    finish(writers, "upgrades", UPGRADES)
    assert [w.dropped for w in writers if w.dropped] == []
    with m.raw() as c:  # no server has changed, so acknowledged values are there
        for w in writers:
            for k, v in w.acked.items():
                assert c.send(b"get " + k + b"\r\n").line().startswith(b"VALUE")
                assert c.line() == v and c.line() == b"END"


@pytest.mark.alone
def test_killed_workers_under_load(start, mc4):
    workers = 4
    m = start(Millrace, [s.port for s in mc4], workers=workers, redis=None)
    writers = [McSurvivor(m.port, i) for i in range(CLIENTS)]
    for w in writers:
        w.start()
    wait_for(lambda: m.pool()["client_connections"] == CLIENTS, 20)
    for i in range(KILLS):
        victims = m.child_pids()
        os.kill(victims[i % len(victims)], signal.SIGKILL)
        wait_for(lambda v=victims: len(m.child_pids()) == workers and m.child_pids() != v, 15)
        wait_for(lambda: m.pool()["client_connections"] == CLIENTS, 20)
        time.sleep(1.05)
    finish(writers, "kills", KILLS)
    dropped = sum(len(w.dropped) for w in writers)
    assert dropped <= KILLS * (CLIENTS / workers + 2)


def slow(conn, server):
    data = b""
    while got := server.read(conn):
        data += got
        while b"\r\n" in data:
            line, data = data.split(b"\r\n", 1)
            time.sleep(0.005)
            if line.startswith(b"version"):
                conn.sendall(b"VERSION 1\r\n")
                continue
            key = line.split()[1]
            conn.sendall(b"VALUE %s 0 1\r\nx\r\nEND\r\n" % key)


def test_a_stop_finishes_what_was_sent(start):
    m = start(Millrace, [start(Scripted, slow).port], redis=None)
    with m.raw(timeout=20) as c:
        c.send(b"".join(b"get k%d\r\n" % i for i in range(100)))
        time.sleep(0.1)
        os.kill(m.pid, signal.SIGTERM)
        for i in range(100):
            assert c.line() == b"VALUE k%d 0 1" % i and c.line() == b"x" and c.line() == b"END"
        assert c.rest() == b""
    assert m.popen.wait(20 * SLOW) == 0


@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_the_dialect_and_the_rest_of_a_refused_value_travel(start, mc4, how):
    m = start(Upgradable, [s.port for s in mc4], workers=2, redis=None, max_item_size="1kb")
    with m.raw(timeout=20) as binary, m.raw(timeout=20) as text, m.raw(timeout=20) as half:
        binary.send(packet(0x01, b"k", b"v", S))
        assert read_packet(binary)[:2] == (0x01, 0)
        text.send(b"set k2 0 0 5000\r\n" + b"flush_all\r\n" * 100)
        assert text.line() == b"SERVER_ERROR object too large for cache"
        half.send(b"set k3 0 0 10\r\n01234")
        time.sleep(0.1)
        if how == "reload":
            reload(m)
        else:
            m.upgrade()
        binary.send(packet(0x00, b"k", opaque=9)[:10])
        text.send(b"x" * (5000 - 1100) + b"\r\nget k2\r\n")
        assert text.line() == b"END"
        assert half.send(b"56789\r\n").line() == b"STORED"
        binary.send(packet(0x00, b"k", opaque=9)[10:])
        got = read_packet(binary)
        assert got[:3] == (0x00, 0, 9) and got[6] == b"v"
