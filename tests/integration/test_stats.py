"""The statistics port: names, nesting, types and values, in both formats."""

import time

import pytest
from harness import Millrace, Raw, command, free_port, pool_yaml, wait_for

TOP = ["service", "source", "version", "uptime", "timestamp", "total_connections",
       "curr_connections"]
POOL = ["client_eof", "client_err", "client_connections", "server_ejects", "forward_error",
        "fragments"]
SERVER = ["server_eof", "server_err", "server_timedout", "server_connections",
          "server_ejected_at", "requests", "request_bytes", "responses", "response_bytes",
          "in_queue", "in_queue_bytes", "out_queue", "out_queue_bytes"]


def two_pools(redis4, **extra):
    return (pool_yaml("beta", "127.0.0.1:@PORT@",
                      [f"127.0.0.1:{redis4[0].port}:1 s2", f"127.0.0.1:{redis4[1].port}:1 s1"],
                      **extra) +
            pool_yaml("a", f"127.0.0.1:{free_port()}", [f"127.0.0.1:{redis4[2].port}:1"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_twemproxys_shape(start, redis4, workers):
    m = start(Millrace, conf=two_pools(redis4), workers=workers)
    with Raw(m.stats_port) as c:
        text = c.rest()
    assert text.startswith(b'{"service":"nutcracker","source":"') and text.endswith(b"}\n")
    s = m.stats()
    assert list(s) == TOP + ["a", "beta"]  # sorted by length, then by name
    assert list(s["beta"]) == POOL + ["s1", "s2"]
    assert list(s["beta"]["s1"]) == SERVER
    assert all(isinstance(s["beta"]["s1"][k], int) for k in SERVER)
    assert isinstance(s["uptime"], int) and abs(s["timestamp"] - time.time()) < 5


def test_values_summed_over_workers(start, redis4):
    m = start(Millrace, conf=two_pools(redis4), workers=4)
    clients = [m.raw() for _ in range(40)]
    sent = 0
    for i, c in enumerate(clients):
        wire = command("SET", f"k{i}", "v")
        sent += len(wire)
        assert c.send(wire).reply() == b"+OK"
        assert c.ask("PING") == b"+PONG"  # answered locally: not counted
    p = m.pool("beta")
    assert p["client_connections"] == 40
    servers = [p["s1"], p["s2"]]
    assert sum(s["requests"] for s in servers) == 40
    assert sum(s["responses"] for s in servers) == 40
    assert sum(s["request_bytes"] for s in servers) == sent
    assert sum(s["response_bytes"] for s in servers) == 40 * len("+OK\r\n")
    assert all(s["in_queue"] == s["out_queue"] == 0 for s in servers)
    clients[0].send(command("QUIT")).rest()
    for c in clients[1:20]:
        c.close()
    wait_for(lambda: m.pool("beta")["client_eof"] == 20)
    clients[20].send(b"*x\r\n").rest()
    wait_for(lambda: m.pool("beta")["client_err"] == 1)
    assert m.stats()["total_connections"] >= 40
    wait_for(lambda: m.pool("beta")["client_connections"] == 19)
    for c in clients[21:]:
        c.close()
    wait_for(lambda: m.pool("beta")["client_connections"] == 0)


def meitu(redis4, workers):
    pools = two_pools(redis4)
    return ("global:\n  worker_processes: %s\n  user: root\npools:\n" % workers +
            "".join("  " + line + "\n" for line in pools.splitlines()))


def check_meitu_object(s):
    assert list(s) == TOP[:5] + ["pid"] + TOP[5:] + ["pools"]
    assert list(s["pools"]) == ["a", "beta"]
    beta = s["pools"]["beta"]
    assert list(beta) == POOL + ["request_latency", "servers"]
    assert list(beta["servers"]) == ["s1", "s2"]
    assert list(beta["servers"]["s1"]) == SERVER + ["server_latency"]
    assert len(beta["request_latency"]) == len(beta["servers"]["s1"]["server_latency"]) == 11


def test_meitus_shape(start, redis4):
    m = start(Millrace, conf=meitu(redis4, 2), workers=None)
    with m.raw() as c:
        for i in range(10):
            assert c.ask("SET", f"k{i}", 1) == b"+OK"
    with Raw(m.stats_port) as c:
        text = c.rest()
    assert text.startswith(b"[{") and text.endswith(b"}]")
    workers = m.stats()
    assert len(workers) == 2
    for w in workers:
        check_meitu_object(w)
    assert sorted(w["pid"] for w in workers) == m.child_pids()
    assert sum(sum(w["pools"]["beta"]["request_latency"]) for w in workers) == 10
    assert sum(sum(s["server_latency"]) for w in workers
               for s in w["pools"]["beta"]["servers"].values()) == 10


def test_meitus_single_process_shape(start, redis4):
    m = start(Millrace, conf=meitu(redis4, 0), workers=0)
    check_meitu_object(m.stats())


def test_names_that_hide_fields(start, redis4):
    conf = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis4[0].port}:1 client_eof"])
    m = start(Millrace, conf=conf)
    p = m.pool()
    assert p["client_eof"] == 0 and "requests" in p["server:client_eof"]


def test_a_crash_loses_no_counters(start, redis4):
    import os
    import signal
    m = start(Millrace, [redis4[0].port], workers=1)
    with m.raw() as c:
        for _ in range(25):
            assert c.ask("GET", "a") is None
        pid = m.child_pids()[0]
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: m.child_pids() and m.child_pids() != [pid])
    s = wait_for(lambda: m.pool().get(f"127.0.0.1:{redis4[0].port}"))
    assert s["requests"] == 25 and s["server_connections"] == 0
    assert m.pool()["client_connections"] == 0
