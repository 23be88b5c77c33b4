"""Zones, slow start, reads that are tried again, and shards that fail fast."""

import os
import signal
import subprocess
import time

import pytest
from cluster import Cluster
from harness import BINARY, Millrace, Redis, Scripted, command, pool_yaml, silent, wait_for
from test_admin import Admin
from test_replicas import count, known, pool, replica_of, reset, trio  # noqa: F401


def read(m, n=40):
    with m.raw(timeout=20) as c:
        for _ in range(n):
            assert c.ask("GET", "a") == b"1"


def zoned(start, trio, here, zones, **keys):  # noqa: F811
    text = f"global:\n  zone: {here}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{trio[0].port}:1 master"] + [
            f"127.0.0.1:{s.port}:1 replica{i}" for i, s in enumerate(trio[1:])], topology="replicated",
        read_from="nearest", health_check_interval="100ms", zones="[" + ", ".join(map(repr, zones)) + "]", **keys)
    return start(Millrace, conf=text, env={"HERE": "eu-1b"})


def wait_until_probed():
    time.sleep(.5)  # several times the interval


def test_reads_stay_in_the_zone(start, trio):  # noqa: F811
    zones = ["eu-1a=127.", "eu-1b=replica", "eu-1c=replica1"]
    m = zoned(start, trio, "$HERE", zones)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
    wait_for(lambda: trio[1].ask("GET", "a") == trio[2].ask("GET", "a") == b"1")
    wait_until_probed()
    reset(trio)
    read(m)
    assert [count(s, "GET") for s in trio] == [0, 40, 0]


def test_several_servers_of_a_zone_share_the_reads(start, trio):  # noqa: F811
    m = zoned(start, trio, "eu-1a", ["eu-1a=replica", "eu-1b=127"])
    with m.raw() as c:
        c.ask("SET", "a", 1)
    wait_for(lambda: trio[1].ask("GET", "a") == trio[2].ask("GET", "a") == b"1")
    wait_until_probed()
    reset(trio)
    read(m)
    assert [count(s, "GET") for s in trio] == [0, 20, 20]


def test_a_zone_that_is_lost_is_left_at_once(start, trio):  # noqa: F811
    m = zoned(start, trio, "eu-1a", ["eu-1a=replica0", "eu-1b=127"], retry_reads="true", timeout=300)
    with m.raw(timeout=20) as c:
        c.ask("SET", "a", 1)
        wait_for(lambda: trio[1].ask("GET", "a") == trio[2].ask("GET", "a") == b"1")
        wait_until_probed()
        port = trio[1].port
        trio[1].kill()
        for _ in range(200):
            assert c.ask("GET", "a") == b"1"
        back = start(Redis, "--replicaof", "127.0.0.1", trio[0].port, "--repl-diskless-sync-delay", 0, port=port)
        wait_for(lambda: back.role()[3] == b"connected", 20)
        wait_for(lambda: c.ask("GET", "a") == b"1" and count(back, "GET") > 0, 20, "reads in the zone again")


def test_zones_of_a_cluster(start):
    cluster = Cluster(start, 1, 2)
    far, near = cluster.replicas[0]
    m = start(Millrace, conf="global: {zone: here}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{cluster.masters[0].port}:1"], topology="cluster", hash=None,
        distribution=None, read_from="nearest", zones=f"['here=127.0.0.1:{near.port}', 'there=127.0.0.1:']"))
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        wait_for(lambda: [c.ask("GET", "a") for _ in range(5)] == [b"1"] * 5, 10)
        time.sleep(1)
        for s in (far, near):
            s.ask("CONFIG", "RESETSTAT")
        for _ in range(20):
            assert c.ask("GET", "a") == b"1"
    assert (count(far, "GET"), count(near, "GET")) == (0, 20)


def closes(conn, server):
    """Answers probes, and closes the connection at each read."""
    while data := server.read(conn):
        if b"GET" in data:
            conn.close()
            return
        conn.sendall(b"+PONG\r\n")


@pytest.mark.parametrize("server", [closes, silent])
@pytest.mark.parametrize("retry", ["true", "false"])
def test_reads_are_tried_at_another_server(start, redis1, retry, server):
    bad = start(Scripted, server)
    redis1.ask("SET", "a", 1)
    m = start(Millrace, [f"127.0.0.1:{redis1.port}:1 master", f"127.0.0.1:{bad.port}:1 bad"], topology="replicated",
              retry_reads=retry, health_checks="off", timeout=200)
    with m.raw() as c:
        c.send(command("GET", "a") * 5)
        answers = [c.reply() for _ in range(5)]
        assert answers == [b"1"] * 5 if retry == "true" else answers[0].startswith(b"-")


def test_writes_are_not_tried_again(start, redis1):
    seen = []

    def cut(conn, server):
        while data := server.read(conn):
            if b"INCR" in data:
                seen.append(1)
                conn.close()
                return
            conn.sendall(b"+PONG\r\n")

    master = start(Scripted, cut)
    m = start(Millrace, [f"127.0.0.1:{master.port}:1 master", f"127.0.0.1:{redis1.port}:1 other"],
              topology="replicated", retry_reads="true", health_checks="off")
    with m.raw() as c:
        assert c.ask("INCR", "n").startswith(b"-")
    assert seen == [1] and redis1.ask("GET", "n") is None


def test_shards_fail_fast_without_moving_keys(start):
    servers = [start(Redis) for _ in range(3)]
    m = start(Millrace, [s.port for s in servers], auto_eject_hosts="true", fail_fast_without_remap="true",
              server_failure_limit=2, server_retry_timeout=500, timeout=300)
    with m.raw(timeout=20) as c:
        for i in range(60):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
        homes = [set(s.ask("KEYS", "*")) for s in servers]
        os.kill(servers[1].pid, signal.SIGSTOP)
        lost = next(iter(homes[1]))
        for _ in range(4):
            c.ask("GET", lost)
        wait_for(lambda: "server_ejected" in m.log_text())
        before = time.monotonic()
        answers = {k: c.ask("SET", k, "new") for h in homes for k in h}
        assert time.monotonic() - before < 2
        assert all((answers[k] == b"+OK") == (k not in homes[1]) for k in answers)
        mget = c.ask("MGET", lost, next(iter(homes[0])))
        assert isinstance(mget, bytes) and mget.startswith(b"-")
        os.kill(servers[1].pid, signal.SIGCONT)
        wait_for(lambda: c.ask("SET", lost, "back") == b"+OK", 20, "the server back")
    assert [set(s.ask("KEYS", "*")) for s in servers] == homes


def test_a_server_that_is_back_starts_slowly(start):
    master = start(Redis, "--repl-diskless-sync-delay", 0)
    replicas = [replica_of(start, master), replica_of(start, master)]
    m = pool(start, [master, *replicas], slow_start="4s")
    known(m)
    master.ask("SET", "a", 1)
    wait_for(lambda: all(r.ask("GET", "a") == b"1" for r in replicas))
    port = replicas[0].port
    replicas[0].kill()
    wait_for(lambda: "server_down" in m.log_text())
    back = start(Redis, "--replicaof", "127.0.0.1", master.port, "--repl-diskless-sync-delay", 0, port=port)
    wait_for(lambda: "server_up" in m.log_text(), 20)
    reset([back, replicas[1]])
    read(m, 200)
    early = count(back, "GET")
    time.sleep(4.5)
    reset([back, replicas[1]])
    read(m, 200)
    assert early < 60 and count(back, "GET") == 100


@pytest.mark.parametrize("text, words", [
    ("zones: [a]", "which is not \"ZONE=PREFIX\""),
    ("zones: ['a=b']", "has no effect without"),
    ("fail_fast_without_remap: true", "has no effect without \"auto_eject_hosts\""),
])
def test_configuration(tmp_path, text, words):
    conf = tmp_path / "conf.yml"
    conf.write_text(pool_yaml("alpha", 1001, ["127.0.0.1:1:1"]).replace("alpha:\n", f"alpha:\n  {text}\n"))
    run = subprocess.run([BINARY, "-t", "-c", conf], capture_output=True, text=True)
    assert words in run.stderr, run.stderr
