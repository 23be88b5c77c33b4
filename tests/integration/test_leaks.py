"""The whole life of a worker: clients, split requests, failures, then a stop. Under valgrind (see ./dev) a
leak or invalid access gives exit status 99."""

import signal

import pytest
from harness import Millrace, Scripted, command, free_port, silent, wait_for
from memcached import Memcached, packet, read_packet
from test_admin import Admin


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_left_behind(start, redis4, workers):
    dead = start(Scripted, silent)
    m = start(Millrace, [s.port for s in redis4] + [dead.port, free_port()], workers=workers,
              timeout=100, auto_eject_hosts="true", server_retry_timeout=200)
    for _ in range(2):
        with m.raw(timeout=20) as c:
            keys = [f"k{i}" for i in range(50)]
            for k in keys:
                c.ask("SET", k, b"v" * 100)
            c.ask("MGET", *keys)
            c.ask("DEL", *keys)
            c.ask("SET", "big", b"x" * 300000)
            c.ask("GET", "big")
            c.ask("CLIENT", "SETNAME", "leaky")
            c.send(b"set inline \"a b\"\r\n").reply()
            c.send(command("MGET", *keys) * 5 + command("GET", "big") * 5)  # left unread
    with m.raw(timeout=20) as c:
        c.send(b"*1\r\n$01\r\n").rest()
    m.stats()
    if workers:
        victim = m.child_pids()[0] if m.child_pids() else None
        with m.raw(timeout=20) as c:
            c.ask("PING")
        assert victim is None or victim in m.child_pids()
    status = m.kill(signal.SIGTERM)
    assert status == 0
    assert "status=99" not in m.log_text(), m.log_text()[-3000:]


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_left_behind_of_a_memcached_pool(start, workers):
    servers = [start(Memcached) for _ in range(2)]
    m = start(Admin, [s.port for s in servers] + [start(Scripted, silent).port, free_port()],
              workers=workers, redis=None, timeout=100, max_item_size="10kb",
              auto_eject_hosts="true", server_retry_timeout=200, health_check_interval="50ms")
    for _ in range(2):
        with m.raw(timeout=20) as c, m.raw(timeout=20) as b:
            keys = [b"k%d" % i for i in range(50)]
            for k in keys:
                c.send(b"set %s 0 0 3\r\nabc\r\nset %s 0 0 1 noreply\r\nx\r\n" % (k, k)).line()
            c.send(b"get " + b" ".join(keys) + b"\r\nmg k1 v q\r\nmn\r\nstats\r\nstats proxy\r\n"
                   b"set big 0 0 20000\r\n" + b"y" * 20002 + b"version\r\n")
            while not c.line().startswith(b"VERSION"):
                pass
            b.send(packet(0x11, b"k", b"v", bytes(8)) + packet(0x0D, b"k") + packet(0x10) +
                   packet(0x0A, opaque=9))
            while read_packet(b)[2] != 9:
                pass
            c.send((b"get " + b" ".join(keys) + b"\r\n") * 5)  # left unread
    for path in ("/metrics", "/stats.json", "/readyz"):
        m.http("GET", path)
    wait_for(lambda: m.own()["pools"][0]["server_ejects"] > 0, 20)
    assert m.kill(signal.SIGTERM) == 0
    assert "status=99" not in m.log_text(), m.log_text()[-3000:]


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_left_behind_of_a_replicated_pool(start, redis4, workers):
    m = start(Admin, [f"127.0.0.1:{redis4[0].port}:1 master", f"127.0.0.1:{redis4[1].port}:1 r1",
                      f"127.0.0.1:{free_port()}:1 r2"], workers=workers, topology="replicated",
              health_check_interval="50ms", stickiness="100ms", max_replica_lag="10s")
    with m.raw(timeout=20) as c:
        for i in range(50):
            c.ask("SET", f"k{i}", i)
            c.ask("GET", f"k{i}")
            c.ask("MGET", "a", "b")
        c.send(command("GET", "k1") * 50)  # left unread
    m.own()
    assert m.kill(signal.SIGTERM) == 0
    assert "status=99" not in m.log_text(), m.log_text()[-3000:]
