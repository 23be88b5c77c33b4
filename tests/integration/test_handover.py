"""Clients moving between workers while a worker stalls, dies, or has no room."""

import contextlib
import os
import signal
import threading

import pytest
from harness import Millrace, Scripted, command, pool_yaml, process_state, wait_for

BIG = 30 << 20  # more than a socket buffers


def workers_but(m, old):
    return [p for p in m.child_pids() if p not in old]


def begin_reload(m, old):
    """HUP while the old workers are stopped. Returns the new ones, which are up and stopped, too."""
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    n = len(old)
    os.kill(m.pid, signal.SIGHUP)
    new = wait_for(lambda: len(workers_but(m, old)) == n and workers_but(m, old), 15)
    for pid in new:
        wait_for(lambda pid=pid: process_state(pid) == "S")
        os.kill(pid, signal.SIGSTOP)
    return new


def send_half(c, key):
    """Sends most of a large request."""
    wire = command("ECHO", key * (BIG // len(key)))
    c.send(wire[:-1000])
    return wire[-1000:]


def test_a_new_worker_that_stands_still(start):
    """A large client gets stuck midway; the old worker keeps serving, then the rest follows."""
    answer = threading.Event()

    def serve(conn, server):
        while server.read(conn):
            answer.wait(20)
            conn.sendall(b"$1\r\nA\r\n")

    server = start(Scripted, serve)
    m = start(Millrace, [server.port], workers=1)
    old = m.child_pids()
    with m.raw(timeout=20) as big, m.raw(timeout=20) as slow, m.raw(timeout=20) as idle:
        assert idle.ask("PING") == b"+PONG"
        rest = send_half(big, b"v")
        slow.send(command("GET", "x"))
        wait_for(lambda: server.received)
        new = begin_reload(m, old)
        os.kill(old[0], signal.SIGCONT)
        wait_for(lambda: "handover_delayed" in m.log_text(), 10)
        answer.set()
        slow.sock.settimeout(0.9)
        assert slow.reply() == b"A"  # by the old worker, although it cannot send `big` yet
        os.kill(new[0], signal.SIGCONT)
        assert big.send(rest).reply() == b"v" * BIG
        assert idle.ask("PING") == b"+PONG"
        wait_for(lambda: " reloaded " in m.log_text())
        assert "client_lost" not in m.log_text() and m.pool()["client_err"] == 0


def test_a_new_worker_that_dies_before_it_has_taken_anything(start, redis1):
    """Its successor takes what waits in its socket."""
    m = start(Millrace, [redis1.port], workers=1)
    old = m.child_pids()
    with m.raw(timeout=20) as big, m.raw(timeout=20) as idle:
        rest = send_half(big, b"v")
        wait_for(lambda: m.pool()["client_connections"] == 2)
        new = begin_reload(m, old)
        os.kill(old[0], signal.SIGCONT)
        wait_for(lambda: "handover_delayed" in m.log_text(), 10)
        os.kill(new[0], signal.SIGKILL)
        assert big.send(rest).reply() == b"v" * BIG
        assert idle.ask("PING") == b"+PONG"
        assert "client_lost" not in m.log_text()


def test_an_old_worker_that_dies_half_way(start, redis1):
    m = start(Millrace, [redis1.port], workers=1)
    old = m.child_pids()
    with m.raw(timeout=20) as big:
        send_half(big, b"v")
        wait_for(lambda: m.pool()["client_connections"] == 1)
        new = begin_reload(m, old)
        os.kill(old[0], signal.SIGCONT)
        wait_for(lambda: "handover_delayed" in m.log_text(), 10)
        os.kill(old[0], signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionResetError)):
            big.reply()
        os.kill(new[0], signal.SIGCONT)
        with m.raw(timeout=20) as c:
            assert c.ask("PING") == b"+PONG"


def test_more_clients_than_fewer_workers_can_have(start, redis1):
    """As many as descriptors allow are kept; the others get the limit's error."""
    conf = "global: {worker_processes: %d, max_openfiles: 150}\n"
    pool = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Millrace, workers=None, ulimit=150, conf=conf % 4 + pool)
    clients = [m.raw(timeout=20) for _ in range(250)]
    for c in clients:
        assert c.ask("PING") == b"+PONG"
    m.conf.write_text((conf % 1 + pool).replace("@PORT@", str(m.port)))
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: " reloaded " in m.log_text(), 15)
    served, told = [], 0
    for c in clients:
        with contextlib.suppress(OSError):
            c.send(command("PING"))
        reply = c.reply()
        if reply == b"+PONG":
            served.append(c)
        else:
            assert reply == b"-ERR max number of clients reached"
            told += 1
    assert told > 50 and len(served) > 80
    assert m.pool()["client_err"] == told
    assert "reason=descriptors" in m.log_text()
    assert "client_lost" not in m.log_text() and "accept_failed" not in m.log_text()
    for c in served:
        assert c.ask("SET", "a", 1) == b"+OK"
    for c in clients:
        c.sock.close()
