"""
A worker's whole life: clients, split requests, failures, then a stop. Under valgrind (see ./dev) a
leak or an invalid access makes the exit status 99.
"""

import signal

import pytest
from harness import Millrace, Raw, Redis, Scripted, command, free_port, silent, wait_for


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_left_behind(start, redis4, workers):
    dead = start(Scripted, silent)
    m = start(Millrace, [s.port for s in redis4] + [dead.port, free_port()], workers=workers,
              timeout=100, auto_eject_hosts="true", server_retry_timeout=200, hash="murmur")
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
