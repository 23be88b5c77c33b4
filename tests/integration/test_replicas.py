"""Replicated pools: routing, failures, roles, lag, and Meitu's rules. Health checks of any pool."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest
from harness import (SLOW, Millrace, Raw, Redis, Scripted, command, free_port, pool_yaml, silent,
                     wait_for)
from memcached import Memcached
from test_admin import Admin
from test_reload import reload

READS = ["GET a", "STRLEN a", "HMGET h f", "ZREVRANGEBYSCORE z 5 0", "BITPOS a 1", "EXISTS a b c",
         "MGET a b c d", "PTTL a", "SORT_RO l", "XLEN x", "OBJECT ENCODING a", "EVAL_RO return(1) 0"]
WRITES = ["SET a 1", "DEL a b c d", "MSET a 1 b 2 c 3", "RENAME b c", "BITOP AND d a c", "MSETNX e 1 f 2",
          "SORT l", "EVAL return(1) 0", "GETEX a", "LPUSH l 1", "SINTERSTORE s s1 s2", "SCAN 0",
          "DBSIZE"]


def replica_of(start, master, *args):
    r = start(Redis, "--replicaof", "127.0.0.1", master.port, "--repl-diskless-sync-delay", 0, *args)
    wait_for(lambda: r.role()[3] == b"connected", 20, "replica in step")
    return r


@pytest.fixture
def trio(start):
    master = start(Redis, "--repl-diskless-sync-delay", 0)
    return [master, replica_of(start, master), replica_of(start, master)]


def lines(trio):
    return [f"127.0.0.1:{trio[0].port}:1 master"] + [
        f"127.0.0.1:{s.port}:1 replica{i}" for i, s in enumerate(trio[1:])]


def pool(start, trio, kind=Admin, workers=1, **keys):
    return start(kind, lines(trio), workers=workers, topology="replicated",
                 **{"health_check_interval": "100ms", **keys})


def calls(server):
    """How often each command was executed, excluding replication and probes."""
    got = {}
    for line in server.ask("INFO", "commandstats").decode().split("\r\n"):
        if line.startswith("cmdstat_"):
            name, rest = line[8:].split(":", 1)
            got[name] = int(rest.split("calls=")[1].split(",")[0])
    return got


def reset(trio):
    for s in trio:
        s.ask("CONFIG", "RESETSTAT")


def count(server, line):
    word = line.split()[0].lower()
    return sum(n for name, n in calls(server).items() if name.split("|")[0] == word)


def health(m, name):
    return next(s["health"] for s in m.own()["pools"][0]["servers"] if s["name"] == name)


def known(m, n=3):
    wait_for(lambda: sum(s["health"]["state"] == "up" for s in m.own()["pools"][0]["servers"]) == n)


def test_writes_go_to_the_master_reads_to_replicas_by_redis_own_flags(start, trio):
    m = pool(start, trio)
    known(m)
    with m.raw() as c:
        for line in READS:
            reset(trio)
            for _ in range(10):
                c.ask(*line.split())
            on = [count(s, line) for s in trio]
            assert on[0] == 0 and sum(on) == 10, (line, on)
            assert on[1] == on[2] == 5, (line, on)  # in turn, as no requests are waiting
        for line in WRITES:
            reset(trio)
            reply = c.ask(*line.split())
            if line.startswith("RENAME"):
                continue  # replicas get it by replication
            assert count(trio[0], line) == 1, (line, reply)
            assert not (isinstance(reply, bytes) and b"READONLY" in reply), (line, reply)
    assert m.own()["pools"][0]["topology"] == "replicated"
    assert [s["name"] for s in m.own()["pools"][0]["servers"]] == ["replica0", "replica1", "master"]


@pytest.mark.parametrize("read_from", ["master", "replica", "nearest"])
def test_read_from(start, trio, read_from):
    m = pool(start, trio, read_from=read_from)
    known(m)
    reset(trio)
    with m.raw() as c:
        for _ in range(20):
            c.ask("GET", "a")
    on = [count(s, "GET") for s in trio]
    assert sum(on) == 20
    if read_from == "master":
        assert on[0] == 20
    elif read_from == "replica":
        assert on[0] == 0  # all are equally near, so `nearest` may use any


def relay(target, seconds):
    def serve(conn, server):
        with socket.create_connection(("127.0.0.1", target)) as up:
            while data := server.read(conn):
                time.sleep(seconds)
                up.sendall(data)
                conn.sendall(up.recv(1 << 20))

    return serve


def test_nearest_is_the_one_whose_probes_are_fast(start, trio):
    far = [start(Scripted, relay(s.port, 0.05)) for s in trio[:2]]
    m = start(Admin, [f"127.0.0.1:{far[0].port}:1 master", f"127.0.0.1:{far[1].port}:1 far",
                      f"127.0.0.1:{trio[2].port}:1 near"], topology="replicated",
              read_from="nearest", health_check_interval="100ms")
    known(m)
    reset(trio)
    with m.raw(timeout=20) as c:
        for _ in range(20):
            c.ask("GET", "a")
    assert count(trio[2], "GET") == 20


@pytest.mark.alone
def test_load_decides_between_replicas(start, trio):
    """One replica is slow: its waiting requests send further ones elsewhere."""
    slow = start(Scripted, relay(trio[1].port, 0.1))
    m = start(Admin, [f"127.0.0.1:{trio[0].port}:1 master", f"127.0.0.1:{slow.port}:1 slow",
                      f"127.0.0.1:{trio[2].port}:1 fast"], topology="replicated", workers=1)
    reset(trio)
    clients = [m.raw(timeout=20) for _ in range(4)]
    end = time.monotonic() + 1
    done = [0] * 4

    def work(i):
        while time.monotonic() < end:
            clients[i].ask("GET", "a")
            done[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert count(trio[2], "GET") > 4 * count(trio[1], "GET")


def test_dead_replicas_then_the_master(start, trio):
    m = pool(start, trio)
    strict = pool(start, trio, read_from="replica", read_fallback="none")
    known(m)
    with m.raw() as c, strict.raw() as d:
        assert c.ask("SET", "a", 1) == b"+OK"
        wait_for(lambda: c.ask("GET", "a") == b"1" and d.ask("GET", "a") == b"1")
        trio[1].kill()
        wait_for(lambda: [c.ask("GET", "a") for _ in range(6)] == [b"1"] * 6)
        trio[2].kill()
        wait_for(lambda: [c.ask("GET", "a") for _ in range(6)] == [b"1"] * 6)
        wait_for(lambda: d.ask("GET", "a") == b"-ERR Connection refused")
        assert d.ask("SET", "a", 2) == b"+OK" and c.ask("GET", "a") == b"2"
        wait_for(lambda: health(m, "replica0")["state"] == "down")
        back = start(Redis, "--replicaof", "127.0.0.1", trio[0].port, port=trio[1].port)
        reset([back])
        wait_for(lambda: c.ask("GET", "a") == b"2" and count(back, "GET") > 0, 15, "replica back")
        wait_for(lambda: d.ask("GET", "a") == b"2")
    assert "server_down pool=alpha server=replica0" in m.log_text()
    assert "server_up pool=alpha server=replica0" in m.log_text()


def test_a_dead_master_fails_writes_only(start, trio):
    m = pool(start, trio, auto_eject_hosts="true", server_failure_limit=1)
    known(m)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        wait_for(lambda: trio[1].ask("GET", "a") == trio[2].ask("GET", "a") == b"1")
        trio[0].kill()
        for _ in range(10):
            assert c.ask("SET", "a", 2).startswith(b"-ERR ")
            assert c.ask("GET", "a") == b"1"
    assert m.pool()["server_ejects"] == 0


def test_a_wrong_configuration_is_logged_and_visible(start, trio):
    swapped = [trio[1], trio[0], trio[2]]
    m = pool(start, swapped)
    known(m)
    wait_for(lambda: health(m, "master")["role"] == "replica")
    assert health(m, "replica0") | {"probe_us": 0} == {
        "state": "up", "configured_role": "replica", "role": "master", "up": 1, "probe_us": 0,
        "failures": 0, "ejected": 0, "master": 1, "lag_us": 0}
    log = m.log_text()
    assert "server_role_wrong pool=alpha server=master configured=master found=replica" in log
    assert "server_role_wrong pool=alpha server=replica0 configured=replica found=master" in log
    text = m.http("GET", "/metrics")[1]
    assert 'millrace_server_master{pool="alpha",server="replica0"} 1' in text
    assert 'millrace_server_up{pool="alpha",server="master"} 1' in text
    with m.raw() as c:
        assert c.ask("SET", "a", 1).startswith(b"-READONLY")


def test_a_read_that_finds_a_replica_dead_goes_elsewhere(start, trio):
    """No read fails, although nobody knew that the replica was gone."""
    m = start(Admin, lines(trio), topology="replicated", health_checks="off", workers=4)
    with trio_of_clients(m) as clients:
        for c in clients:
            assert c.ask("SET", "a", 1) == b"+OK"
        wait_for(lambda: trio[1].ask("GET", "a") == trio[2].ask("GET", "a") == b"1")
        trio[1].kill()
        for _ in range(50):  # no worker has a connection to it yet
            for c in clients:
                assert c.ask("GET", "a") == b"1"
        trio[2].kill()
        # requests on their way to it may fail, later ones must not
        wait_for(lambda: all(c.ask("GET", "a") == b"1" for c in clients))
        for _ in range(50):
            for c in clients:
                assert c.ask("GET", "a") == b"1"


@contextlib.contextmanager
def trio_of_clients(m):
    clients = [m.raw(timeout=20) for _ in range(12)]
    yield clients
    for c in clients:
        c.close()


@pytest.mark.alone
@pytest.mark.parametrize("named", [True, False])
def test_roles_are_followed_within_a_second(start, trio, named):
    servers = lines(trio) if named else [f"127.0.0.1:{s.port}:1 s{i}" for i, s in enumerate(trio)]
    m = start(Admin, servers, topology="replicated", follow_roles="true", workers=2)
    with m.raw() as c:
        wait_for(lambda: c.ask("SET", "a", 1) == b"+OK")
        wait_for(lambda: trio[1].ask("GET", "a") == b"1")
        promote(trio, 1)
        began = time.monotonic()
        wait_for(lambda: c.ask("SET", "a", 2) == b"+OK", 5, "write to the new master")
        took = time.monotonic() - began
        print(f"followed after {took * 1000:.0f} ms")
        assert trio[1].ask("GET", "a") == b"2"
    wait_for(lambda: m.log_text().count("master_changed") >= (2 if named else 4))  # in each worker
    # new workers know what the old ones knew
    for act in (lambda: os.kill(m.pid, signal.SIGHUP), lambda: os.kill(m.child_pids()[0], signal.SIGKILL)):
        settled, before = m.log_text().count(" reloaded "), m.child_pids()
        act()
        wait_for(lambda: m.log_text().count(" reloaded ") > settled or m.child_pids() != before, 10)
        for _ in range(20):
            with m.raw() as c:
                assert c.ask("SET", "b", 1) == b"+OK"
        wait_for(lambda: "generation_gone" in m.log_text() and len(m.child_pids()) == 2, 10)


def promote(trio, number):
    """Makes this server the master of the others, manually."""
    assert trio[number].ask("REPLICAOF", "NO", "ONE") == b"+OK"
    for s in trio:
        if s is not trio[number]:
            assert s.ask("REPLICAOF", "127.0.0.1", trio[number].port) == b"+OK"


def test_keys_of_a_promoted_replica_are_read_from_the_others(start, trio):
    m = pool(start, trio, meitu_compat="true", follow_roles="true", read_fallback="none")
    with m.raw() as c:
        assert c.ask("SET", "k0", 1) == b"+OK"
        wait_for(lambda: c.ask("GET", "k0") == b"1")
        promote(trio, 1)
        wait_for(lambda: c.ask("SET", "k0", 2) == b"+OK", 5, "write to the new master")
        wait_for(lambda: all(s.role()[3] == b"connected" for s in (trio[0], trio[2])), 20)
        reset(trio)
        wait_for(lambda: {c.ask("GET", f"k{i}") for i in range(40)} == {b"2", None}, 5)
        assert count(trio[1], "GET") == 0 and min(count(trio[0], "GET"), count(trio[2], "GET")) > 0


def test_no_master_is_known(start, trio):
    m = start(Admin, [f"127.0.0.1:{s.port}:1 s{i}" for i, s in enumerate(trio[1:])],
              topology="replicated", follow_roles="true", workers=1)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"-ERR no master is known"
        wait_for(lambda: c.ask("GET", "a") is None)


@pytest.mark.alone
def test_stickiness_gives_a_client_its_own_writes(start, trio):
    for r in trio[1:]:
        r.ask("REPLICAOF", "127.0.0.1", free_port())  # replication has stopped
    sticky = pool(start, trio, stickiness="1500ms")
    plain = pool(start, trio)
    with sticky.raw() as c, sticky.raw() as other, plain.raw() as d:
        assert c.ask("SET", "a", "mine") == b"+OK" and c.ask("GET", "a") == b"mine"
        assert other.ask("GET", "a") is None  # clients that have not written may read anywhere
        c.ask("DEL", "nothing")
        assert c.ask("MGET", "a", "b") == [b"mine", None]
        wait_for(lambda: c.ask("GET", "a") is None)  # the time is over
        assert d.ask("SET", "b", 1) == b"+OK" and d.ask("GET", "b") is None


def test_a_replica_that_lags_takes_no_reads(start, trio):
    m = pool(start, trio, max_replica_lag="500ms", read_from="replica")
    known(m)
    with m.raw(timeout=20) as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        wait_for(lambda: trio[1].ask("GET", "a") == trio[2].ask("GET", "a") == b"1")
        # replication to one stops, but probes succeed: through a relay that shows the old offset
        os.kill(trio[1].pid, signal.SIGSTOP)
        try:
            wait_for(lambda: health(m, "replica0")["state"] == "down", 10)
        finally:
            os.kill(trio[1].pid, signal.SIGCONT)
        wait_for(lambda: health(m, "replica0")["state"] == "up", 10)
        # both lose their master: without a link they are too far behind, so the master takes reads
        for r in trio[1:]:
            r.ask("REPLICAOF", "127.0.0.1", free_port())
        assert c.ask("SET", "a", 2) == b"+OK"
        wait_for(lambda: [c.ask("GET", "a") for _ in range(5)] == [b"2"] * 5, 10)


def role(kind, offset):
    """A server that answers ROLE with an offset set by the test, and GET with its name."""
    def serve(conn, server):
        data = b""
        while got := server.read(conn):
            data = got
            if b"ROLE" in data:
                conn.sendall(b"*3\r\n$6\r\nmaster\r\n:%d\r\n*0\r\n" % offset[kind] if kind == "master" else
                             b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:%d\r\n" %
                             offset[kind])
            elif b"GET" in data:
                conn.sendall(b"$%d\r\n%s\r\n" % (len(kind), kind.encode()))

    return serve


@pytest.mark.alone
def test_lag_is_measured_by_the_offsets(start):
    offset = {"master": 100, "near": 100, "late": 100}
    servers = {k: start(Scripted, role(k, offset)) for k in offset}
    m = start(Admin, [f"127.0.0.1:{s.port}:1 {k}" for k, s in servers.items()], workers=1,
              topology="replicated", max_replica_lag="400ms", health_check_interval="50ms")
    known(m)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            offset["master"] += 10
            offset["near"] = offset["master"]
            time.sleep(0.02)

    t = threading.Thread(target=write)
    t.start()
    try:
        with m.raw(timeout=20) as c:
            wait_for(lambda: health(m, "late")["lag_us"] > 400000, 10)
            wait_for(lambda: health(m, "near")["lag_us"] <= 200000 * SLOW)
            assert {c.ask("GET", "a") for _ in range(20)} <= {b"near", b"master"}
            offset["late"] = 10 ** 9
            wait_for(lambda: health(m, "late")["lag_us"] == 0)
            wait_for(lambda: c.ask("GET", "a") == b"late")
    finally:
        stop.set()
        t.join()


# ---- Meitu's rule ----

MEITU_TO_MASTER = ["HMGET h f", "ZREVRANGEBYSCORE z 5 0", "BITPOS a 1", "SORT l", "SCAN 0"]


def meitu(start, trio, **keys):
    lines_ = "\n".join(f"     - {x}" for x in lines(trio))
    more = "".join(f"    {k}: {v}\n" for k, v in keys.items())
    return start(Millrace, conf=f"""global:
  worker_processes: 1
  user: root
pools:
  alpha:
    listen: 127.0.0.1:@PORT@
    redis: true
    hash: murmur
{more}    servers:
{lines_}
""", workers=None)


def test_meitus_file_means_what_it_means_there(start, trio):
    m = meitu(start, trio)
    with m.raw() as c:
        for i in range(40):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
        wait_for(lambda: trio[2].ask("GET", "k39") == b"39" and trio[1].ask("GET", "k39") == b"39")
        reset(trio)
        first = None
        for _ in range(3):  # each key has its replica
            for i in range(40):
                assert c.ask("GET", f"k{i}") == b"%d" % i
            on = [count(s, "GET") for s in trio]
            first = first or on
        assert on[0] == 0 and on[1] == 3 * first[1] and on[2] == 3 * first[2] and min(on[1:]) > 0
        for line in MEITU_TO_MASTER:
            reset(trio)
            c.ask(*line.split())
            assert [count(s, line) for s in trio] == [1, 0, 0], line
        assert c.ask("RENAME", "k1", "k2") == b"+OK"
        assert c.ask("MSETNX", "k1", 1, "n1", 1) == 1
        assert c.ask("BITOP", "NOT", "k3", "k4") == 1
        assert sorted(c.ask("MGET", *[f"k{i}" for i in range(5, 30)])) == sorted(
            b"%d" % i for i in range(5, 30))
        trio[1].kill()
        trio[2].kill()
        wait_for(lambda: all(c.ask("GET", f"k{i}") == b"%d" % i for i in range(5, 30)))
    workers = m.stats()
    assert list(workers[0]["pools"]["alpha"]["servers"]) == ["replica0", "replica1", "master"]


def test_meitu_without_fallback(start, trio):
    m = meitu(start, trio, read_fallback="none", auto_eject_hosts="true", server_failure_limit=1)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        trio[1].kill()
        trio[2].kill()
        wait_for(lambda: c.ask("GET", "a") == b"-ERR Connection refused")
        assert c.ask("SET", "a", 2) == b"+OK"


def test_nothing_slips_past_authentication(start, trio):
    """Defect D15: with a master, five commands were executed without the password."""
    for s in trio:
        s.ask("CONFIG", "SET", "requirepass", "secret")
        s.ask("CONFIG", "SET", "masterauth", "secret")
    m = meitu(start, trio, redis_auth="secret")
    with m.raw() as c:
        for line in ("SCAN 0", "RENAME a b", "RENAMENX a b", "BITOP NOT a b", "MSETNX a 1", "GET a",
                     "SET a 1", "DBSIZE", "KEYS *", "EVAL return(1) 0", "COMMAND"):
            assert c.ask(*line.split()) == b"-NOAUTH Authentication required.", line
        assert c.ask("AUTH", "secret") == b"+OK"
        assert wait_for(lambda: c.ask("SET", "a", 1)) == b"+OK"
        assert c.ask("SCAN", 0) == [b"0", [b"a"]]


# ---- health checks of any pool ----


def memcached_at(start, port):
    return start(Memcached, port=port)


def redis_at(start, port):
    return start(Redis, port=port)


@pytest.mark.parametrize("kind", ["redis", "memcache"])
def test_an_ejected_server_returns_when_a_probe_succeeds(start, kind):
    """Without sacrificing requests: after the first ones none fails, although the time is over."""
    make = redis_at if kind == "redis" else memcached_at
    ask = (lambda c, k: c.ask("SET", k, 1)) if kind == "redis" else (
        lambda c, k: c.send(b"set %s 0 0 1\r\n1\r\n" % k.encode()).line())
    good = b"+OK" if kind == "redis" else b"STORED"
    alive, port = make(start, free_port()), free_port()
    m = start(Admin, [alive.port, port], redis="true" if kind == "redis" else None,
              auto_eject_hosts="true", server_failure_limit=1, server_retry_timeout=200,
              health_check_interval="100ms", workers=1)
    with m.raw() as c:
        wait_for(lambda: [ask(c, f"k{i}") for i in range(20)] == [good] * 20)
        end = time.monotonic() + 1.2
        while time.monotonic() < end:  # many times the retry time-out
            assert ask(c, "k1") == good
            assert [ask(c, f"k{i}") for i in range(20)] == [good] * 20
        assert m.pool()["server_ejects"] == 1
        name = f"127.0.0.1:{port}"
        assert health(m, name)["state"] == "down"
        make(start, port)
        wait_for(lambda: "server_restored" in m.log_text(), 10)
        assert [ask(c, f"k{i}") for i in range(20)] == [good] * 20
        wait_for(lambda: m.pool()[name]["responses"] > 0 or [ask(c, f"j{i}") for i in range(20)] is None)


def on_each_worker(m):
    """A client on each worker, as accept_balance spreads them."""
    clients = [m.raw(timeout=20) for _ in range(4 * len(m.child_pids()))]
    wait_for(lambda: all(w["clients"] > 0 for w in m.own()["workers"]))
    return clients


@pytest.mark.parametrize("checks", ["auto", "off"])
def test_what_one_worker_ejects_is_ejected_by_all(start, redis1, checks):
    """One failure is enough for all workers, including new ones and those after a reload."""
    port = free_port()
    m = start(Admin, [redis1.port, port], auto_eject_hosts="true", server_failure_limit=1,
              server_retry_timeout=60000, health_checks=checks, workers=4)
    name = f"127.0.0.1:{port}"
    keys = [f"k{i}" for i in range(20)]

    def failures(clients):
        return sum(c.ask("SET", k, 1) != b"+OK" for c in clients for k in keys)

    clients = on_each_worker(m)
    assert failures(clients) == 1
    assert m.pool()["server_ejects"] == 1 and health(m, name)["ejected"] == 1
    assert m.log_text().count("server_ejected") == 1
    for act in (lambda: os.kill(m.pid, signal.SIGHUP),
                lambda: [os.kill(pid, signal.SIGKILL) for pid in m.child_pids()]):
        before = set(m.child_pids())
        act()
        wait_for(lambda: len(m.child_pids()) == 4 and not before & set(m.child_pids()), 10)
        assert failures(on_each_worker(m)) == 0
    assert health(m, name)["ejected"] == 1
    # if the new configuration does not eject, nothing is ejected
    m.conf.write_text(m.conf.read_text().replace("auto_eject_hosts: true", "auto_eject_hosts: false"))
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: health(m, name)["ejected"] == 0)
    assert failures(on_each_worker(m)) > 0


def test_all_workers_take_an_ejected_server_back(start, redis1):
    server = start(Redis)
    m = start(Admin, [redis1.port, server.port], auto_eject_hosts="true", server_failure_limit=1,
              server_retry_timeout=100, health_check_interval="50ms", workers=4)
    clients = on_each_worker(m)
    keys = [f"k{i}" for i in range(20)]
    assert all(c.ask("SET", k, 1) == b"+OK" for c in clients for k in keys)
    server.kill()
    # each worker's connection is cut and retried: one event, and whoever sees it first ejects
    wait_for(lambda: all(c.ask("SET", k, 1) == b"+OK" for c in clients for k in keys))
    assert m.pool()["server_ejects"] == 1
    again = start(Redis, port=server.port)
    wait_for(lambda: "server_restored" in m.log_text(), 10)
    for c in clients:
        assert all(c.ask("SET", k, 2) == b"+OK" for k in keys)
        assert again.ask("DBSIZE") > 0  # through this client's worker
        again.ask("FLUSHALL")
    assert m.log_text().count("server_restored") == 1


def test_a_restart_of_a_server_is_one_failure(start):
    """All connections of all workers are cut at once: below the limit, nothing is ejected."""
    cut = threading.Event()

    def serve(conn, server):
        while data := server.read(conn):
            if not cut.is_set():
                conn.sendall(b"+OK\r\n" * data.count(b"*3"))

    server = start(Scripted, serve)
    m = start(Admin, [server.port], auto_eject_hosts="true", server_failure_limit=3,
              server_connections=2, workers=4, health_checks="off")
    clients = on_each_worker(m)
    assert all(c.ask("SET", "a", 1) == b"+OK" for c in clients)
    assert server.accepted > 4
    cut.set()
    for c in clients:
        c.send(command("SET", "a", 1))
    time.sleep(0.1)
    for conn in server.connections:
        with contextlib.suppress(OSError):
            conn.shutdown(socket.SHUT_RDWR)
    assert all(c.reply().startswith(b"-ERR") for c in clients)
    cut.clear()
    assert all(c.ask("SET", "a", 1) == b"+OK" for c in clients)
    assert m.pool()["server_ejects"] == 0


def test_without_health_checks_a_request_finds_out(start, redis1):
    m = start(Admin, [redis1.port, free_port()], auto_eject_hosts="true",
              server_failure_limit=1, server_retry_timeout=200, health_checks="off", workers=1)
    with m.raw() as c:
        end = time.monotonic() + 1.5
        failed = 0
        while time.monotonic() < end:
            failed += sum(c.ask("SET", f"k{i}", 1) != b"+OK" for i in range(20))
            time.sleep(0.02)
    assert failed > 1 and m.pool()["server_ejects"] == failed


def test_without_health_checks_an_ejected_replica_comes_back_too(start, trio):
    m = pool(start, trio, health_checks="off", auto_eject_hosts="true", server_failure_limit=1,
             server_retry_timeout=300, read_from="replica")
    port = trio[1].port
    with m.raw() as c:
        trio[1].kill()
        wait_for(lambda: c.ask("GET", "a") is not None or m.pool()["server_ejects"] > 0)
        again = start(Redis, port=port)
        wait_for(lambda: c.ask("GET", "a") is None and calls(again).get("get", 0) > 0)


@pytest.mark.alone
def test_probes_of_all_servers_come_from_one_worker(start):
    redis1 = start(Redis)
    m = start(Admin, [redis1.port], health_checks="always", health_check_interval="100ms", workers=4)
    wait_for(lambda: health(m, f"127.0.0.1:{redis1.port}")["state"] == "up")
    reset([redis1])
    began = time.monotonic()
    time.sleep(1)
    pings = calls(redis1).get("ping", 0)
    assert 2 <= pings <= (time.monotonic() - began) * 10 + 4  # four workers would make four times as many
    clients = redis1.ask("CLIENT", "LIST").decode().count("\n")
    assert clients <= 2  # the probe's, and ours
    # the worker that probes dies: another takes over
    before = redis1.ask("CLIENT", "LIST").decode()
    for pid in m.child_pids():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: redis1.ask("CLIENT", "LIST").decode() != before)
    reset([redis1])
    wait_for(lambda: calls(redis1).get("ping", 0) > 2, 10)


def test_healthy_shards_are_not_probed_by_default(start, redis1):
    m = start(Admin, [redis1.port], health_check_interval="50ms")
    reset([redis1])
    with m.raw() as c:
        c.ask("SET", "a", 1)
        time.sleep(0.4)
    assert "ping" not in calls(redis1)
    assert health(m, f"127.0.0.1:{redis1.port}")["state"] == "unknown"


def test_a_server_that_hangs_is_down_after_the_timeout(start):
    m = start(Admin, [start(Scripted, silent).port], health_checks="always", workers=1,
              health_check_interval="100ms", health_check_timeout="200ms")
    wait_for(lambda: "server_down" in m.log_text())
    assert m.own()["pools"][0]["servers"][0]["health"]["state"] == "down"


@pytest.mark.alone
def test_workers_back_off_together(start):
    """A dead server is tried by one worker at a time, at growing intervals."""
    dead = start(Scripted, lambda conn, server: conn.close())
    m = start(Admin, [dead.port], workers=4, health_checks="off")
    clients = [m.raw(timeout=20) for _ in range(16)]
    end = time.monotonic() + 1.5
    asked = 0
    while time.monotonic() < end:
        for c in clients:
            assert c.ask("SET", "a", 1).startswith(b"-ERR ")
            asked += 1
    # 10 + 20 + 40 ... + 640 ms: about eight tries, and those before the first failure
    print(f"{asked} requests, {dead.accepted} connections")
    assert dead.accepted <= 100 < asked


def test_connections_that_break_are_made_again_at_once(start, redis1):
    """All connections of all workers are cut while in use: every later request is served."""
    m = start(Admin, [redis1.port], workers=4, server_connections=4)
    clients = [m.raw(timeout=20) for _ in range(16)]
    for c in clients:
        assert c.ask("SET", "a", 1) == b"+OK"
    for _ in range(5):
        redis1.ask("CLIENT", "PAUSE", int(300 * SLOW), "ALL")
        for c in clients:
            c.send(command("GET", "a"))
        time.sleep(0.05)
        redis1.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for c in clients:
            assert c.reply().startswith(b"-ERR ")
        for c in clients:
            assert c.ask("GET", "a") == b"1"
        time.sleep(0.3)


def test_replicated_pools_live_on(start, trio):
    """Reloads while a client writes and reads back what it wrote."""
    for r in trio[1:]:
        r.ask("REPLICAOF", "127.0.0.1", free_port())  # replicas get nothing
    m = pool(start, trio, workers=2, stickiness="5s")
    known(m)
    with m.raw(timeout=20) as c:
        for i in range(300):
            assert c.ask("SET", "a", i) == b"+OK" and c.ask("GET", "a") == b"%d" % i
            if i % 50 == 25:
                reload(m)
                assert c.ask("GET", "a") == b"%d" % i  # it knows that this client has written
    text = m.conf.read_text()
    # the file makes another server the master: that moves every key, and is logged
    m.conf.write_text(text.replace(f":{trio[0].port}:1 master", f":{trio[1].port}:1 master", 1)
                      .replace(f":{trio[1].port}:1 replica0", f":{trio[0].port}:1 replica0", 1))
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: "100" in m.log_text().rsplit("reload_begins", 1)[1])
