"""mirror_to: what clients write in one pool arrives in another, whatever happens meanwhile."""

import contextlib
import os
import random
import re
import signal
import subprocess
import threading
import time
import urllib.request

import pytest

from cluster import Cluster
from harness import BINARY, Millrace, Raw, Redis, Scripted, command, free_port, pool_yaml, silent, wait_for


class Mirrored(Millrace):
    """Pool alpha on `sources`, mirrored to pool beta on `targets`."""

    def __init__(self, sources, targets, workers=1, beta=None, **keys):
        self.beta_port = free_port()
        self.admin = free_port()
        self.text = f"global:\n  admin: '127.0.0.1:{self.admin}'\n" + pool_yaml(
            "alpha", "127.0.0.1:@PORT@", address(sources), mirror_to="beta", **keys) + pool_yaml(
            "beta", f"127.0.0.1:{self.beta_port}", address(targets), **(beta or {}))
        super().__init__(conf=self.text, workers=workers)

    def count(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics") as page:
            return sum(map(int, re.findall(rf'^millrace_pool_mirror{name}{{pool="alpha".*}} (\d+)$',
                                           page.read().decode(), re.M)))

    def idle(self):
        wait_for(lambda: self.count("_pending") == 0, 20, "keys mirrored")


def address(servers):
    return [f"127.0.0.1:{s if isinstance(s, int) else s.port}:1" for s in servers]


def dump(servers, db=0):
    """All keys with their values and whether they expire."""
    found = {}
    for s in servers:
        for key in s.ask("KEYS", "*", db=db):
            kind = s.ask("TYPE", key, db=db)
            read = {b"+string": ("GET", key), b"+list": ("LRANGE", key, 0, -1),
                    b"+hash": ("HGETALL", key), b"+set": ("SMEMBERS", key),
                    b"+zset": ("ZRANGE", key, 0, -1, "WITHSCORES"),
                    b"+stream": ("XRANGE", key, "-", "+")}[kind]
            value = s.ask(*read, db=db)
            if kind in (b"+set",):
                value = sorted(value)
            if kind == b"+hash":
                value = dict(zip(value[::2], value[1::2]))
            assert key not in found
            found[key] = (kind, value, s.ask("PTTL", key, db=db) > 0)
    return found


def same(sources, targets, db=0):
    return dump(sources, db) == dump(targets, db)


WRITES = ("SET a 1", "INCR a", "INCR n", "APPEND s xyz", "RPUSH l 1 2 3", "LPOP l", "HSET h f v g w", "SADD t a b c",
          "ZADD z 1 a 2 b", "XADD x 1-1 f v", "SET e 1 PX 100000", "GETDEL a", "MSET k1 v1 k2 v2 k3 v3", "DEL k2",
          "SET old 1", "RENAME old {old}new", "EXPIRE n 1000", "PERSIST n", "SETEX short 1000 v", "COPY s {s}2",
          "SUNIONSTORE {t}u t t", "SORT l STORE {l}sorted", "EVAL redis.call('set',KEYS[1],ARGV[1]) 1 script value",
          "SETBIT bits 7 1", "PFADD hll a b c", "GEOADD geo 1 2 m", "UNLINK k3 nokey")


@pytest.mark.parametrize("hello", [2, 3])
def test_every_kind_of_write_arrives(start, redis4, hello):
    m = start(Mirrored, redis4[:2], redis4[2:], hash_tag='"{}"', beta={"hash_tag": '"{}"'})
    with m.raw() as c:
        c.send(command("HELLO", hello))
        c.reply()
        for w in WRITES:
            answer = c.ask(*w.split())
            assert not (isinstance(answer, bytes) and answer.startswith(b"-")), (w, answer)
        m.idle()
        assert same(redis4[:2], redis4[2:])
        assert len(dump(redis4[:2])) > 15
    assert m.count("ed_total") > 20 and m.count("_errors_total") == m.count("_dropped_total") == 0


def test_transactions_and_blocking_commands_arrive(start, redis4):
    m = start(Mirrored, redis4[:1], redis4[1:2])
    with m.raw() as c, m.raw() as d:
        for w in ("MULTI", "SET a 1", "INCR a", "RPUSH l x y", "EXEC", "WATCH a", "MULTI", "INCR a", "EXEC"):
            c.ask(*w.split())
        c.send(command("BLPOP", "q", 0))
        wait_for(lambda: b"cmd=blpop" in redis4[0].ask("CLIENT", "LIST"))
        d.ask("RPUSH", "q", "one", "two")
        assert c.reply() == [b"q", b"one"]
        c.ask("WATCH", "a")
        c.ask("SET", "a", "9")
        c.send(command("BLMOVE", "none", "other", "LEFT", "LEFT", 0))
        wait_for(lambda: b"cmd=blmove" in redis4[0].ask("CLIENT", "LIST"))
        d.ask("RPUSH", "none", "moved")
        assert c.reply() == b"moved"
    m.idle()
    assert same(redis4[:1], redis4[1:2])
    assert redis4[1].ask("LRANGE", "q", 0, -1) == [b"two"] and redis4[1].ask("GET", "a") == b"9"


def test_databases(start, redis4):
    m = start(Mirrored, redis4[:1], redis4[1:2], beta={"databases": 4})
    with m.raw() as c:
        for w in ("SET a 0", "SELECT 3", "SET a 3", "SET b 3", "MOVE b 2", "COPY a c DB 1", "SELECT 5", "SET a 5"):
            assert not isinstance(r := c.ask(*w.split()), bytes) or not r.startswith(b"-"), (w, r)
    wait_for(lambda: all(same(redis4[:1], redis4[1:2], db) for db in range(4)), 10, "the same keys")
    assert redis4[1].ask("KEYS", "*", db=5) == []
    assert m.count("_dropped_total") == 1


def test_emptying_reaches_the_mirror(start, redis4):
    m = start(Mirrored, redis4[:2], redis4[2:], allow_flush_all="true")
    with m.raw() as c:
        for i in range(50):
            c.ask("SET", f"k{i}", i)
        m.idle()
        assert len(dump(redis4[2:])) == 50
        assert c.ask("FLUSHALL") == b"+OK"
        wait_for(lambda: dump(redis4[2:]) == {}, 5, "an empty mirror")


def test_clients_see_nothing_of_a_mirror_that_is_gone(start, redis4):
    target = start(Redis)
    m = start(Mirrored, redis4[:1], [target], server_retry_timeout=100)
    with m.raw() as c:
        target.kill()
        for i in range(300):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
        assert m.count("_pending") == 300
        wait_for(lambda: m.count("_errors_total") > 0)
        port = target.port
        target = start(Redis, port=port)
        m.idle()
        assert same(redis4[:1], [target])
    assert m.count("_dropped_total") == 0


def test_a_silent_mirror_costs_a_bounded_buffer(start, redis4):
    m = start(Mirrored, redis4[:1], [start(Scripted, silent)], mirror_buffer="64kb")
    with m.raw() as c:
        for i in range(2000):
            assert c.ask("SET", f"key-{i}", i) == b"+OK"
    assert 0 < m.count("_pending") < 200
    assert m.count("_dropped_total") == 2000 - m.count("_pending")


def test_a_mirror_that_refuses_is_counted(start, redis4):
    target = start(Redis, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
    m = start(Mirrored, redis4[:1], [target])
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
    wait_for(lambda: m.count("_dropped_total") == 1, 5, "a dropped key")
    assert m.count("_pending") == 0 and "OOM" in m.log_text()


def test_values_larger_than_the_buffer_are_dropped(start, redis4):
    m = start(Mirrored, redis4[:1], redis4[1:2], mirror_buffer="64kb")
    with m.raw() as c:
        assert c.ask("SET", "big", os.urandom(200000)) == b"+OK"
        assert c.ask("SET", "small", "x") == b"+OK"
    m.idle()
    assert redis4[1].ask("KEYS", "*") == [b"small"] and m.count("_dropped_total") == 1


class Writers:
    """Clients that write at random until they are stopped."""

    def __init__(self, port, n=4, keys=200):
        self.port, self.keys, self.on, self.errors, self.done = port, keys, True, [], 0
        self.threads = [threading.Thread(target=self.write, args=(i,)) for i in range(n)]
        for t in self.threads:
            t.start()

    def write(self, seed):
        r = random.Random(seed)
        with contextlib.closing(Raw(self.port, timeout=20)) as c:
            while self.on:
                k = f"k{r.randrange(self.keys)}"
                batch = [r.choice((("SET", k, r.random()), ("DEL", k), ("SET", k, 1, "PX", 3000000))) if r.random() < .7
                         else ("RPUSH", "l" + k, r.random()) for _ in range(r.randrange(1, 20))]
                c.send(b"".join(command(*b) for b in batch))
                for _ in batch:
                    if isinstance(answer := c.reply(), bytes) and answer.startswith(b"-"):
                        self.errors.append(answer)
                self.done += len(batch)

    def stop(self):
        self.on = False
        for t in self.threads:
            t.join()


def test_many_writers_and_workers(start, redis4):
    m = start(Mirrored, redis4[:2], redis4[2:], workers=2, server_connections=2)
    writers = Writers(m.port)
    time.sleep(2)
    writers.stop()
    m.idle()
    assert not writers.errors and writers.done > 100
    assert same(redis4[:2], redis4[2:])


def test_reloads_and_upgrades(start, redis4):
    m = start(Mirrored, redis4[:2], redis4[2:], workers=2)
    writers = Writers(m.port)
    for workers in (1, 2, 3):
        time.sleep(.3)
        before = m.log_text().count("reloaded")
        m.conf.write_text(m.conf.read_text().replace("alpha:\n", f"alpha:\n  client_connections: {5000 + workers}\n", 1)
                          if workers == 1 else m.conf.read_text().replace(f"{5000 + workers - 1}", f"{5000 + workers}"))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.log_text().count("reloaded") > before, 10, "reload")
    time.sleep(.3)
    writers.stop()
    m.idle()
    wait_for(lambda: same(redis4[:2], redis4[2:]), 10, "the same keys")
    assert not writers.errors and m.count("_dropped_total") == 0


def test_stopping_brings_everything_over_first(start, redis4):
    m = start(Mirrored, redis4[:1], redis4[1:2])
    with m.raw() as c:
        c.send(b"".join(command("SET", f"k{i}", i) for i in range(5000)))
        for _ in range(5000):
            c.reply()
    m.kill(signal.SIGTERM)
    assert same(redis4[:1], redis4[1:2])


def test_to_a_cluster(start, redis4):
    nodes = Cluster(start).masters
    m = start(Mirrored, redis4[:3], nodes, workers=2,
              beta={"topology": "cluster", "hash": None, "distribution": None})
    writers = Writers(m.port)
    time.sleep(1)
    writers.stop()
    m.idle()
    assert same(redis4[:3], nodes)


@pytest.mark.parametrize("text, error", [
    ("mirror_to: gamma", "there is no pool 'gamma'"),
    ("mirror_to: alpha", "is the pool itself"),
    ("mirror_to: beta", "needs \"redis: true\" in both pools"),
    ("mirror_to: delta", "pool 'delta' is mirrored to another"),
])
def test_errors_in_the_configuration(tmp_path, text, error):
    conf = tmp_path / "conf.yml"
    servers = ["127.0.0.1:1:1"]
    conf.write_text(pool_yaml("alpha", 1001, servers).replace("alpha:\n", f"alpha:\n  {text}\n") +
                    pool_yaml("beta", 1002, servers, redis="false") + pool_yaml("delta", 1003, servers, mirror_to="alpha"))
    run = subprocess.run([BINARY, "-t", "-c", conf], capture_output=True, text=True)
    assert run.returncode != 0 and error in run.stderr + run.stdout
