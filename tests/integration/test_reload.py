"""A reload drops no client, gives no wrong reply, and never writes a key through two maps at once. A short
version runs with the other tests; MILLRACE_RELOADS and MILLRACE_CLIENTS set the full one."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import (INSTRUMENTED, SLOW, Gated, Millrace, Raw, Redis, Scripted, command, free_port,
                     pool_yaml, process_state, rss_kb, silent, wait_for)

RELOADS = int(os.environ.get("MILLRACE_RELOADS", "10"))
CLIENTS = int(os.environ.get("MILLRACE_CLIENTS", "20"))
RESIZES = int(os.environ.get("MILLRACE_RESIZES", "2"))
KILLS = int(os.environ.get("MILLRACE_KILLS", "6"))


def reload(m, seconds=10):
    """Sends HUP and waits until the new configuration is in force."""
    before = m.log_text().count(" reloaded ")
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: m.log_text().count(" reloaded ") > before, seconds, "reload")


def refused(m, seconds=10):
    """Sends HUP for a file that must be refused; returns the reason."""
    before = m.log_text().count("reload_failed")
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: m.log_text().count("reload_failed") > before, seconds, "refusal")
    return re.findall(r'reload_failed reason="(.*?)" using=', m.log_text())[-1]


def settled(m):
    """Processes of earlier configurations are gone."""
    wait_for(lambda: "generation_gone" in m.log_text().rsplit(" reloaded ", 1)[1], 10,
             "end of the old workers")


class Writer(threading.Thread):
    """Pipelines writes of tagged values and checks every reply against what it wrote."""

    def __init__(self, port, index):
        super().__init__(daemon=True)
        self.index, self.port = index, port
        self.stop = False
        self.wrong, self.dropped, self.requests = [], [], 0
        self.acked = {}
        self.longest = 0.0

    def run(self):
        """Runs on one connection until told to stop, or until it is cut."""
        try:
            with Raw(self.port, timeout=20) as c:
                n = 0
                while not self.stop:
                    n += 1
                    self.one_round(c, n)
        except (OSError, EOFError) as e:
            self.dropped.append(repr(e))

    def one_round(self, c, n):
        keys = [f"c{self.index}-{(n + i) % 7}" for i in range(4)]
        values = [f"{self.index}:{n}:{i}" for i in range(4)]
        began = time.monotonic()
        c.send(b"".join(command("SET", k, v) for k, v in zip(keys, values)) +
               b"".join(command("ECHO", v) for v in values) +
               command("SET", f"shared-{n % 5}", f"{self.index}:{n}"))
        for k, v in zip(keys, values):
            if (reply := c.reply()) != b"+OK":
                self.wrong.append((k, reply))
            else:
                self.acked[k] = v.encode()
        for v in values:
            if (reply := c.reply()) != v.encode():
                self.wrong.append((v, reply))
        if (reply := c.reply()) != b"+OK":
            self.wrong.append(("shared", reply))
        self.requests += 9
        self.longest = max(self.longest, time.monotonic() - began)


class Survivor(Writer):
    """A writer that reconnects when its worker was killed, and counts how often."""

    def run(self):
        while not self.stop:
            super().run()


def finish(writers, what, n):
    """Stops them and checks that no reply was wrong and that they were busy."""
    for w in writers:
        w.stop = True
    for w in writers:
        w.join(30 * SLOW)
    requests = sum(w.requests for w in writers)
    print(f"{n} {what}, {len(writers)} clients, {requests} requests, longest round "
          f"{max(w.longest for w in writers) * 1000:.1f} ms")
    assert [w.wrong[:3] for w in writers if w.wrong] == []
    assert requests > n * len(writers)


class Monitor(threading.Thread):
    """Writes that a server received, with its clock: (time, server, key, value)."""

    def __init__(self, port, seen):
        super().__init__(daemon=True)
        self.raw, self.port, self.seen = Raw(port, timeout=3600), port, seen
        assert self.raw.ask("MONITOR") == b"+OK"

    def run(self):
        with contextlib.suppress(OSError, EOFError):
            while True:
                line = self.raw.line().decode()
                got = re.match(r'\+([\d.]+) \[.*?\] "SET" "(shared-\d+)"', line)
                if got:
                    self.seen.append((float(got[1]), self.port, got[2]))


def test_log_and_pid_file_follow_the_configuration(start, redis1):
    """All processes write to the new file at the new level; on failure the old one stays."""
    pool = pool_yaml("alpha", "127.0.0.1:@PORT@", ["localhost:%d:1" % redis1.port])
    m = start(Millrace, workers=2, log_args=[], conf="global:\n  log_file: '@DIR@/log'\n"
              "  log_level: 5\n  pid_file: '@DIR@/one.pid'\n" + pool)
    first, second = m.log, m.dir / "second"
    one, two = m.dir / "one.pid", m.dir / "two.pid"
    assert one.read_text() == str(m.pid)
    m.conf.write_text(m.conf.read_text().replace(f"{first}", f"{second}")
                      .replace("log_level: 5", "log_level: 7").replace("one.pid", "two.pid"))
    os.kill(m.pid, signal.SIGHUP)
    m.log = second
    wait_for(lambda: "generation_gone" in m.log_text(), 10, "end of the old workers")
    assert two.read_text() == str(m.pid) and not one.exists()
    before = first.read_text()
    # old workers that end, new ones and their replacements write to the new file
    assert m.log_text().count("child_exited child=worker/") == 2
    for pid in m.child_pids():
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda pid=pid: f"[{pid}] worker_draining" in m.log_text())
    wait_for(lambda: len(m.child_pids()) == 2)
    # neither file can be opened: logged, and the old ones stay
    m.conf.write_text(m.conf.read_text().replace(f"{second}", f"{m.dir}")
                      .replace("two.pid", "none/two.pid"))
    reload(m)
    assert "log_open_failed" in m.log_text() and "pid_file_failed" in m.log_text()
    settled(m)
    assert two.read_text() == str(m.pid)
    assert first.read_text() == before
    os.kill(m.pid, signal.SIGTERM)
    assert m.popen.wait(10 * SLOW) == 0
    assert not two.exists() and m.log_text().count("stopped status=0") == 1


def test_reloads_under_load_drop_nothing_and_mix_nothing(start, redis4):
    """Servers come and go; connections, replies and acknowledged writes are kept."""
    ports = [s.port for s in redis4]
    m = start(Millrace, ports[:3], workers=2)
    conf = m.conf.read_text()
    other = conf.replace(f"   - 127.0.0.1:{ports[2]}:1", f"   - 127.0.0.1:{ports[3]}:1")
    assert other != conf
    seen = []
    monitors = [Monitor(p, seen) for p in ports]
    for t in monitors:
        t.start()
    pids = [m.pid]
    writers = [Writer(m.port, i) for i in range(CLIENTS)]
    for w in writers:
        w.start()
    for i in range(RELOADS):
        m.conf.write_text(other if i % 2 == 0 else conf)
        reload(m, 30)
        time.sleep(0.05)
    finish(writers, "reloads", RELOADS)
    assert [w.dropped for w in writers if w.dropped] == []
    # keys that stayed where they are: the last acknowledged write is there
    stable = [s for s in redis4[:2]]
    held = {}
    for s in stable:
        for k in s.ask("KEYS", "c*"):
            held[k.decode()] = s.ask("GET", k)
    acked = {k: v for w in writers for k, v in w.acked.items()}
    settled(m)
    with m.raw() as c:
        for k, v in acked.items():
            got = c.ask("GET", k)
            if k in held and redis4[2].ask("EXISTS", k) == 0 and redis4[3].ask("EXISTS", k) == 0:
                assert got == v, (k, got, v)
    # a reload moves a key at most once: old and new map never overlap
    time.sleep(0.2)
    for key in {k for _, _, k in seen}:
        servers = [p for _, p, k in sorted(seen) if k == key]
        switches = sum(a != b for a, b in zip(servers, servers[1:]))
        assert switches <= RELOADS, (key, switches)
    assert m.pid == pids[0] and m.pool()["client_err"] == 0


@pytest.mark.alone
def test_workers_killed_under_load_cost_their_own_clients_only(start, redis1):
    """SIGKILL and SIGSEGV in turn: no wrong reply, other workers' clients stay, counters continue."""
    workers = 4
    m = start(Millrace, [redis1.port], workers=workers)
    writers = [Survivor(m.port, i) for i in range(CLIENTS)]
    for w in writers:
        w.start()
    wait_for(lambda: m.pool()["client_connections"] == CLIENTS, 20)
    fds, name = len(os.listdir(f"/proc/{m.pid}/fd")), f"127.0.0.1:{redis1.port}"
    before = 0
    for i in range(KILLS):
        victims = m.child_pids()
        # a sanitizer would handle SIGSEGV itself
        os.kill(victims[i % len(victims)], signal.SIGKILL if i % 2 == 0 or INSTRUMENTED else signal.SIGSEGV)
        wait_for(lambda v=victims: len(m.child_pids()) == workers and m.child_pids() != v, 15)
        wait_for(lambda: m.pool()["client_connections"] == CLIENTS, 20)
        requests = m.pool()[name]["requests"]
        assert requests >= before
        before = requests
        time.sleep(1.05)  # dying more than once a second slows the restarts down
    for w in writers:
        w.stop = True
    for w in writers:
        w.join(30 * SLOW)
    dropped = sum(len(w.dropped) for w in writers)
    print(f"{KILLS} kills of {workers} workers, {CLIENTS} clients, {dropped} connections cut: "
          f"{dropped / KILLS / CLIENTS:.2f} of the clients at each (1/N is {1 / workers:.2f})")
    assert [w.wrong[:3] for w in writers if w.wrong] == []
    assert dropped <= KILLS * (CLIENTS / workers + 2)
    assert len(os.listdir(f"/proc/{m.pid}/fd")) == fds
    assert INSTRUMENTED or "crash signal=11" in m.log_text()  # with a backtrace
    m.log.write_text("")  # otherwise the end of the test would report it


def test_what_a_client_sent_before_a_reload_is_answered(start, redis1):
    """A deep pipeline behind a slow server: requests in flight, and some not yet read."""
    m = start(Millrace, [redis1.port], workers=2)
    with m.raw(timeout=30) as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        redis1.ask("CLIENT", "PAUSE", 400)
        c.send(b"".join(command("ECHO", f"v{i}") + command("GET", "a") for i in range(3000)))
        os.kill(m.pid, signal.SIGHUP)
        for i in range(3000):
            assert c.reply() == f"v{i}".encode()
            assert c.reply() == b"1"
        wait_for(lambda: " reloaded " in m.log_text())
        settled(m)
        assert c.ask("GET", "a") == b"1"
    assert m.pool()["client_err"] == 0


def test_half_a_request_travels(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    with m.raw(timeout=20) as c, m.raw(timeout=20) as big:
        wire = command("SET", "half", "x" * 1000)
        c.send(wire[:500])
        value = os.urandom(3000000)
        whole = command("SET", "big", value)
        big.send(whole[:1500000])
        time.sleep(0.2)
        reload(m)
        settled(m)
        c.send(wire[500:])
        big.send(whole[1500000:])
        assert c.reply() == b"+OK" and big.reply() == b"+OK"
        assert big.ask("GET", "big") == value


def test_a_slow_reader_gets_the_rest_from_the_next_worker(start, redis1):
    m = start(Millrace, [redis1.port], workers=1)
    value = os.urandom(1000000)
    with m.raw(timeout=30) as c:
        assert c.ask("SET", "v", value) == b"+OK"
        c.send(command("GET", "v") * 20)  # more than the kernel buffers for a client that does not read
        wait_for(lambda: m.pool()[f"127.0.0.1:{redis1.port}"]["responses"] > 12)
        time.sleep(0.3)
        reload(m)
        time.sleep(0.3)
        for _ in range(20):
            assert c.reply() == value
        settled(m)
        assert c.ask("PING") == b"+PONG"


def test_the_session_travels(start, redis1):
    m = start(Millrace, [redis1.port], workers=2, redis_auth="secret")
    redis1.ask("CONFIG", "SET", "requirepass", "secret")
    try:
        with m.raw() as c:
            assert c.ask("AUTH", "secret") == b"+OK"
            assert c.ask("CLIENT", "SETNAME", "me") == b"+OK"
            ident = c.ask("CLIENT", "ID")
            reload(m)
            assert c.ask("CLIENT", "GETNAME") == b"me"
            assert c.ask("CLIENT", "ID") == ident
            assert c.ask("SET", "a", 1) == b"+OK"
    finally:
        with Raw(redis1.port) as c:
            c.ask("AUTH", "secret")
            c.ask("CONFIG", "SET", "requirepass", "")


def test_what_was_sent_is_never_read_as_another_protocol(start, redis1):
    """A pool changes its protocol: half a request must not be parsed as the new one."""
    told = start(Scripted, silent)
    m = start(Millrace, [redis1.port], workers=2)
    wire = command("SET", "a", "x\r\nflush_all\r\n")
    with m.raw() as c, m.raw() as idle:
        assert idle.ask("MULTI") == b"+OK"
        c.send(wire[:-16])
        m.conf.write_text(pool_yaml("alpha", f"127.0.0.1:{m.port}", [f"127.0.0.1:{told.port}:1"],
                                    redis="false"))
        reload(m)
        settled(m)
        with contextlib.suppress(OSError):
            c.send(wire[-16:])
        assert c.rest() == b"" and idle.rest() == b""
    assert b"flush_all" not in told.received


def test_bad_configurations_change_nothing(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    good = m.conf.read_text()
    taken = socket.create_server(("127.0.0.1", 0))
    bad = [good.replace("ketama", "kettle"), good + "  what: 1\n", "", "alpha: [", "\x00",
           good.replace("  servers:\n", "  servers: 5\n  x:\n"),
           good.replace(f"127.0.0.1:{m.port}", "127.0.0.1:%d" % taken.getsockname()[1]),
           good.replace(f"127.0.0.1:{m.port}", "192.0.2.1:7777"),
           "global: {worker_processes: 0}\n" + good, "global: {user: nobody-at-all}\n" + good]
    children = m.child_pids()
    with m.raw() as c:
        fds = len(os.listdir(f"/proc/{m.pid}/fd"))
        for text in bad * int(os.environ.get("MILLRACE_BAD", "1")):
            m.conf.write_text(text)
            if "worker_processes" in text:  # --workers takes precedence, so it must be changed, too
                continue
            assert refused(m), text
            assert c.ask("SET", "a", 1) == b"+OK"
        m.conf.unlink()
        assert "open" in refused(m) or "such file" in refused(m)
        assert m.child_pids() == children
        wait_for(lambda: len(os.listdir(f"/proc/{m.pid}/fd")) == fds)
        m.conf.write_text(good.replace("ketama", "kettle"))
        assert "conf.yml:" in refused(m) and "kettle" in refused(m)
        m.conf.write_text(good.replace("ketama", "kettle") + "lone: {listen: 127.0.0.1:1}\n")
        reason = refused(m)
        assert "kettle" in reason and "(and 1 more)" in reason
        logged = [line for line in m.log_text().splitlines() if " conf_error " in line]
        assert "kettle" in logged[-2] and "'lone'" in logged[-1], logged[-3:]
        m.conf.write_text(good)
        reload(m)
        assert c.ask("GET", "a") == b"1"
    taken.close()


def test_pools_and_listeners_come_and_go(start, redis4):
    a, b, c_ = free_port(), free_port(), free_port()
    first = (pool_yaml("one", f"127.0.0.1:{a}", [f"127.0.0.1:{redis4[0].port}:1"]) +
             pool_yaml("two", f"127.0.0.1:{b}", [f"127.0.0.1:{redis4[1].port}:1"]))
    second = (pool_yaml("three", f"127.0.0.1:{c_}", [f"127.0.0.1:{redis4[2].port}:1"]) +
              pool_yaml("one", f"['127.0.0.1:{a}', '@DIR@/s.sock 0600']",
                        [f"127.0.0.1:{redis4[0].port}:1"], backlog=1000))
    m = start(Millrace, conf=first, workers=2)
    with Raw(a) as one, Raw(b) as two:
        assert one.ask("SET", "k", 1) == b"+OK" and two.ask("SET", "k", 2) == b"+OK"
        m.conf.write_text(second.replace("@DIR@", str(m.dir)))
        reload(m)
        assert one.ask("GET", "k") == b"1"
        assert two.rest() == b""  # its pool was removed
        with Raw(c_) as three, Raw(str(m.dir / "s.sock")) as local:
            assert three.ask("SET", "k", 3) == b"+OK"
            assert local.ask("GET", "k") == b"1"
        assert (m.dir / "s.sock").stat().st_mode & 0o777 == 0o600
        settled(m)
        with pytest.raises(ConnectionRefusedError):
            Raw(b)
        m.conf.write_text(first)
        reload(m)
        settled(m)
        assert not (m.dir / "s.sock").exists()
        with Raw(b) as again:
            assert again.ask("GET", "k") == b"2"
        assert one.ask("GET", "k") == b"1"


def test_a_removed_address_refuses_connections_at_once(start, tmp_path):
    """Though a request that is not answered yet keeps the old workers."""
    refuses_removed_addresses(start(Gated), tmp_path, start, Millrace, signal.SIGHUP, " reloaded ", 1)


def refuses_removed_addresses(server, tmp_path, start, kind, signo, word, times):
    other, unix, admin = free_port(), tmp_path / "s.sock", free_port()
    m = start(kind, conf=f"global: {{admin: '127.0.0.1:{admin}', worker_processes: 2}}\n" + pool_yaml(
        "alpha", f"['127.0.0.1:@PORT@', '127.0.0.1:{other}', '{unix}']",
        [f"127.0.0.1:{server.port}:1"], timeout=20000), workers=None)
    with m.raw(timeout=20) as busy, Raw(other) as stays:
        busy.send(command("GET", "slow"))
        wait_for(lambda: server.waiting)
        m.conf.write_text(m.conf.read_text().replace(f", '127.0.0.1:{other}', '{unix}'", "").replace(
            f"admin: '127.0.0.1:{admin}', worker_processes: 2", "worker_processes: 1"))
        os.kill(m.pid, signo)
        wait_for(lambda: m.log_text().count(word) == times)
        for target in (other, str(unix), admin):
            with pytest.raises(OSError):
                Raw(target)
        assert stays.ask("GET", "x") == b"A"
        server.gate.set()
        assert busy.reply() == b"slow"
        assert busy.ask("GET", "x") == b"A"
    return m


def test_a_pool_whose_keys_stay_does_not_wait(start, redis1):
    """The other pool's slow server delays only that pool's clients."""
    slow_done = threading.Event()

    def serve(conn, server):
        while data := server.read(conn):
            slow_done.wait(20)
            conn.sendall(b"+OK\r\n" * data.count(b"SET"))

    slow = start(Scripted, serve)
    a, b = free_port(), free_port()
    text = (pool_yaml("calm", f"127.0.0.1:{a}", [f"127.0.0.1:{redis1.port}:1"]) +
            pool_yaml("moving", f"127.0.0.1:{b}", [f"127.0.0.1:{slow.port}:1"], timeout=15000))
    m = start(Millrace, conf=text, workers=2)
    with Raw(a, timeout=5) as calm, Raw(b, timeout=30) as moving, Raw(b, timeout=30) as waiting:
        assert calm.ask("SET", "k", 1) == b"+OK"
        moving.send(command("SET", "x", 1))
        wait_for(lambda: slow.received)
        m.conf.write_text(text.replace(f"127.0.0.1:{slow.port}:1", f"127.0.0.1:{redis1.port}:1"))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: "reload_begins" in m.log_text())
        time.sleep(0.3)
        waiting.send(command("SET", "y", 2))
        assert calm.ask("GET", "k") == b"1"  # already in the new workers
        with Raw(a, timeout=5) as fresh:
            assert fresh.ask("GET", "k") == b"1"
        assert " reloaded " not in m.log_text()
        assert redis1.ask("EXISTS", "y") == 0  # the new map is not in force yet
        slow_done.set()
        assert moving.reply() == b"+OK"
        assert waiting.reply() == b"+OK" and redis1.ask("GET", "y") == b"2"
        wait_for(lambda: " reloaded " in m.log_text())


def test_a_request_that_is_never_answered_does_not_hold_a_reload_for_ever(start, redis1):
    silent_server = start(Scripted, lambda conn, server: [None for _ in iter(
        lambda: server.read(conn), b"")])
    m = start(Millrace, [silent_server.port], timeout=300, workers=1)
    conf = m.conf.read_text()
    with m.raw(timeout=20) as c:
        c.send(command("GET", "a"))
        wait_for(lambda: silent_server.received)
        m.conf.write_text(conf.replace(f"127.0.0.1:{silent_server.port}", f"127.0.0.1:{redis1.port}"))
        os.kill(m.pid, signal.SIGHUP)
        assert c.reply().startswith(b"-ERR Connection timed out")
        assert c.ask("SET", "a", 1) == b"+OK"
    wait_for(lambda: " reloaded " in m.log_text())


def test_a_worker_that_stands_still_costs_others_nothing(start):
    """It is killed because it delays the new map; quiesced workers keep their last clients."""
    def values(conn, server):
        while data := server.read(conn):
            conn.sendall((b"$1000000\r\n" + b"v" * 1000000 + b"\r\n") * data.count(b"*2\r\n"))

    server = start(Scripted, values)
    m = start(Millrace, [server.port], timeout=2000, workers=2, client_output_limit="64mb")
    n, conf = 12, m.conf.read_text()
    clients = [m.raw() for _ in range(8)]  # some on each worker
    for c in clients:
        c.send(command("GET", "a") * n)
        c.sock.shutdown(socket.SHUT_WR)  # so it stays here until it has read everything
    wait_for(lambda: server.received.count(b"GET") == n * len(clients), what="all requests")
    still, healthy = m.child_pids()
    os.kill(still, signal.SIGSTOP)
    m.conf.write_text(conf.replace("murmur", "crc32a"))
    reload(m)
    assert f"pid={still} reason=does_not_stop" in m.log_text()
    whole = 0
    for c in clients:
        whole += len(c.rest()) == n * (1000000 + 12)
        c.close()
    assert 0 < whole < len(clients)
    assert f"pid={healthy} reason=does_not_stop" not in m.log_text()


def test_counters_go_on(start, redis4):
    m = start(Millrace, [redis4[0].port, redis4[1].port], workers=2)
    name = f"127.0.0.1:{redis4[0].port}"
    with m.raw() as c:
        for i in range(200):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
        before = m.pool()[name]["requests"]
        assert before > 0
        for _ in range(3):
            reload(m)
            settled(m)
        assert m.pool()[name]["requests"] == before
        assert m.pool()["client_connections"] == 1
        for i in range(200):
            assert c.ask("GET", f"k{i}") == str(i).encode()
        assert m.pool()[name]["requests"] == 2 * before


def test_counters_never_go_back(start, redis4):
    """Not even briefly: rates computed from them would show a restart from zero."""
    pools = "".join(pool_yaml(f"p{i}", free_port(), [f"127.0.0.1:{redis4[0].port}:1"])
                    .replace("listen: ", "listen: 127.0.0.1:") for i in range(60))
    m = start(Millrace, workers=2, conf=pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis4[0].port}:1"]) + pools)
    name = f"127.0.0.1:{redis4[0].port}"
    for _ in range(20):
        with m.raw() as c:
            assert c.ask("SET", "a", 1) == b"+OK"

    def counters():
        stats = m.stats()
        return stats["total_connections"], stats["alpha"][name]["requests"]

    before, seen, over = counters(), set(), threading.Event()

    def watch():
        while not over.is_set():
            seen.add(counters())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(10):
            reload(m)
            settled(m)
    finally:
        over.set()
        watcher.join()
    assert seen == {before}


def storm_of_connects(port, stop, failures, done):
    while not stop.is_set():
        try:
            with Raw(port, timeout=10) as c:
                if c.ask("PING") != b"+PONG":
                    failures.append("reply")
            done[0] += 1
        except (OSError, EOFError) as e:
            failures.append(repr(e))


@pytest.mark.parametrize("listen", ["127.0.0.1:@PORT@", "'@DIR@/socket'"])
def test_a_lone_client_that_connects_during_a_reload_is_served(start, redis1, listen):
    """Nobody connects after it, so it must not wait in a queue that only the old worker knows."""
    m = start(Millrace, [redis1.port], workers=2, listen=listen)
    target = m.port if "PORT" in listen else str(m.dir / "socket")
    for _ in range(40):
        before = m.log_text().count(" reloaded ")
        os.kill(m.pid, signal.SIGHUP)
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            with Raw(target) as c:
                assert c.ask("SET", "a", 1) == b"+OK"
        wait_for(lambda: m.log_text().count(" reloaded ") > before, 10, "reload")


def test_more_workers_that_cannot_be_lose_no_connection(start, redis1):
    """Sockets of workers that were never started lose no connection when they are closed."""
    m = start(Millrace, [redis1.port], workers=None, ulimit=1500)
    text = m.conf.read_text()
    m.conf.write_text("global: {worker_processes: 2, max_openfiles: 1500}\n" + text)
    reload(m)
    failures, done, stop = [], [0], threading.Event()
    threads = [threading.Thread(target=storm_of_connects, args=(m.port, stop, failures, done),
                                daemon=True) for _ in range(6)]
    for t in threads:
        t.start()
    m.conf.write_text("global: {worker_processes: 120, max_openfiles: 1500}\n" + text)
    for _ in range(10):
        assert "limit of open files" in refused(m)
    stop.set()
    for t in threads:
        t.join(20)
    assert failures == [] and done[0] > 100
    wait_for(lambda: len(m.child_pids()) == 2)


@pytest.mark.alone
@pytest.mark.parametrize("path", [(3, 1, 3), (1, 4, 2)] if RESIZES < 10 else [(8, 1, 8)])
def test_the_number_of_workers_changes_under_a_storm_of_connects(start, redis1, path):
    """No connection is refused, reset or left waiting; each gets its reply."""
    m = start(Millrace, [redis1.port], workers=None)
    text = m.conf.read_text()

    def workers(n):
        m.conf.write_text("global: {worker_processes: %d}\n" % n + text)

    workers(path[0])
    reload(m)
    failures, done, stop = [], [0], threading.Event()
    threads = [threading.Thread(target=storm_of_connects, args=(m.port, stop, failures, done),
                                daemon=True) for _ in range(6)]
    with m.raw(timeout=20) as c:
        for t in threads:
            t.start()
        for n in path[1:] * RESIZES:
            workers(n)
            reload(m)
            wait_for(lambda n=n: len(m.child_pids()) == n, 15, f"{n} workers")
            assert c.ask("PING") == b"+PONG"
        stop.set()
        for t in threads:
            t.join(20)
    print(done[0], "connections")
    assert failures == [] and done[0] > 100


@pytest.mark.alone
def test_many_reloads_cost_the_master_nothing(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    with m.raw() as c:
        for _ in range(3):
            reload(m)
            settled(m)
        fds, rss = len(os.listdir(f"/proc/{m.pid}/fd")), rss_kb(m.pid)
        for _ in range(RELOADS):
            reload(m)
            settled(m)
        assert len(os.listdir(f"/proc/{m.pid}/fd")) == fds
        assert INSTRUMENTED or rss_kb(m.pid) - rss < 2000  # sanitizers keep freed memory
        wait_for(lambda: len(m.child_pids()) == 2 and len(m.child_pids("admin")) == 1)
        assert c.ask("PING") == b"+PONG"


def test_signals_during_a_reload(start, redis1):
    """Several hang-ups lead to one more reload; TERM in the middle answers what was sent."""
    m = start(Millrace, [redis1.port], workers=2)
    with m.raw(timeout=20) as c:
        for _ in range(20):
            os.kill(m.pid, signal.SIGHUP)
            time.sleep(0.003)
        assert c.ask("SET", "a", 1) == b"+OK"
        wait_for(lambda: m.log_text().count(" reloaded ") >= 2)
        settled(m)
        time.sleep(0.3)
        settled(m)
        before = m.log_text().count("handover_begins")
        redis1.ask("CLIENT", "PAUSE", 300)
        c.send(command("GET", "a") * 50)
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.log_text().count("handover_begins") > before)
        os.kill(m.pid, signal.SIGTERM)
        assert c.rest() == b"$1\r\n1\r\n" * 50
    assert m.popen.wait(20 * SLOW) == 0


@pytest.mark.parametrize("workers", [2, 1])
def test_term_right_after_a_reload_answers_everybody(start, workers):
    """Old workers, including those of removed slots, finish and hand over."""
    server = start(Gated)
    text = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{server.port}:1"], timeout=20000)
    m = start(Millrace, conf="global: {worker_processes: 4}\n" + text, workers=None)
    clients = [m.raw(timeout=20) for _ in range(12)]
    for c in clients:
        assert c.ask("GET", "x") == b"A"
    for c in clients:
        c.send(command("GET", "slow"))
    wait_for(lambda: server.waiting)  # its requests come one at a time
    m.conf.write_text(m.conf.read_text().replace("processes: 4", "processes: %d" % workers))
    reload(m)
    os.kill(m.pid, signal.SIGTERM)
    wait_for(lambda: "stopping" in m.log_text())
    for c in clients:
        c.send(command("GET", "y"))
    server.gate.set()
    for c in clients:
        assert c.reply() == b"slow"
    for c in clients:
        c.close()
    assert m.popen.wait(20 * SLOW) == 0
    assert "refused" not in m.log_text() and "bug at" not in m.log_text()


def test_term_in_a_reload_cuts_no_reply(start):
    """After TERM a client moves with half a large reply: the new worker waits for it."""
    size = 8 << 20
    server = start(Gated, b"$%d\r\n%s\r\n" % (size, b"v" * size))
    m = start(Millrace, [server.port], workers=2, timeout=20000, client_output_limit=64 << 20)
    with m.raw(timeout=20) as c:
        assert c.ask("GET", "x") == b"A"
        c.send(command("GET", "slow"))
        wait_for(lambda: server.waiting)
        reload(m)
        c.send(command("GET", "x") * 100)
        os.kill(m.pid, signal.SIGTERM)
        wait_for(lambda: m.log_text().count("worker_draining") >= 2)
        server.gate.set()
        wait_for(lambda: m.log_text().count("child_exited child=worker") == 2)  # the old ones
        assert c.reply() == b"v" * size
        for _ in range(100):
            assert c.reply() == b"A"
        assert c.rest() == b""
    assert m.popen.wait(20 * SLOW) == 0


def test_term_while_keys_move_answers_both_sides(start):
    """Requests through the old map, and those waiting for the new one: each on its own server."""
    old, new = start(Gated), start(Gated)
    m = start(Millrace, [old.port], workers=2, timeout=20000)
    with m.raw(timeout=20) as busy, m.raw(timeout=20) as idle:
        assert busy.ask("GET", "x") == b"A" and idle.ask("GET", "x") == b"A"
        busy.send(command("GET", "slow"))
        wait_for(lambda: old.waiting)
        m.conf.write_text(m.conf.read_text().replace(str(old.port), str(new.port)))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.log_text().count("handover_begins") == 2)
        idle.send(command("GET", "moved") * 3)
        os.kill(m.pid, signal.SIGTERM)
        wait_for(lambda: "stopping" in m.log_text())
        busy.send(command("GET", "moved"))
        assert b"moved" not in old.received + new.received  # the old map is not idle yet
        old.gate.set()
        assert busy.reply() == b"slow" and busy.reply() == b"A"
        assert [idle.reply() for _ in range(3)] == [b"A"] * 3
        assert busy.rest() == idle.rest() == b""
        assert b"moved" not in old.received and new.received.count(b"moved") == 4
    assert m.popen.wait(20 * SLOW) == 0


def test_workers_that_die_during_a_reload(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    for _ in range(5):
        victim = m.child_pids()[0]
        os.kill(m.pid, signal.SIGHUP)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        time.sleep(0.2)
        with m.raw(timeout=10) as c:
            assert c.ask("PING") == b"+PONG"
        wait_for(lambda: len(m.child_pids()) == 2, 10)


def test_a_lookup_that_hangs_holds_nothing_up(start, names, redis1):
    """It delays neither the next reload nor the end: the resolver has nothing to finish."""
    names.are("127.0.0.1")
    m = start(Millrace, conf=f"""
global: {{resolve_interval: 100ms, worker_shutdown_timeout: 0, {names.conf}}}
{pool_yaml("alpha", "127.0.0.1:@PORT@", [f"cache.test:{redis1.port}:1"])}""")
    names.are("hang")
    helper, = m.child_pids("resolver")
    wait_for(names.hang, what="a lookup that hangs")
    reload(m)
    settled(m)
    assert helper not in m.child_pids("resolver")
    reload(m)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
    assert m.stop() == 0


@pytest.mark.alone
def test_ten_thousand_clients_move_in_a_moment(start, redis1):
    import resource
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(10000, most // 2 - 1000) if not INSTRUMENTED else 500
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    m = start(Millrace, [redis1.port], workers=2, backlog=4096)
    clients = []
    try:
        for _ in range(n):
            clients.append(socket.create_connection(("127.0.0.1", m.port)))
        wait_for(lambda: m.pool()["client_connections"] == n, 20)
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: "generation_gone" in m.log_text(), 30)
        print([line for line in m.log_text().splitlines() if " reloaded " in line])
        for c in clients:
            c.sendall(b"PING\r\n")
        for c in clients:
            c.settimeout(20)
            assert c.recv(100) == b"+PONG\r\n"
        assert m.pool()["client_connections"] == n
    finally:
        for c in clients:
            c.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
