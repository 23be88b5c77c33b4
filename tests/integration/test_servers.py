"""Servers that fail, come back, are slow, or move."""

import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import (INSTRUMENTED, SLOW, Millrace, Raw, Redis, Scripted, always, command,
                     free_port, pool_yaml, silent, wait_for)


def test_server_goes_away_and_comes_back(start):
    server = start(Redis)
    m = start(Millrace, [server.port])
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        server.kill()
        assert c.ask("GET", "a") in (b"-ERR Connection refused", b"-ERR unknown",
                                     b"-ERR Connection reset by peer")
        assert c.ask("GET", "a") == b"-ERR Connection refused"
        again = start(Redis, port=server.port)
        wait_for(lambda: c.ask("SET", "a", 2) == b"+OK", what="server back")
        assert again.ask("GET", "a") == b"2"


def test_ejection_and_return(start, redis4):
    """After the limit a dead server's keys go to the others, and return when its time is over."""
    server = start(Redis)
    m = start(Millrace, [s.port for s in redis4[:2]] + [server.port], auto_eject_hosts="true",
              server_failure_limit=2, server_retry_timeout=1000)
    with m.raw() as c:
        keys = [f"key{i}" for i in range(100)]
        assert all(c.ask("SET", k, 1) == b"+OK" for k in keys)
        mine = [k for k in keys if server.ask("GET", k)]
        assert mine
        server.kill()
        replies = [c.ask("SET", mine[0], 2) for _ in range(4)]
        assert 1 <= len([r for r in replies if r != b"+OK"]) <= 3 and replies[-1] == b"+OK"
        assert all(c.ask("SET", k, 3) == b"+OK" for k in keys)
        assert m.pool()["server_ejects"] == 1
        assert m.pool()[f"127.0.0.1:{server.port}"]["server_ejected_at"] > 1e15
        again = start(Redis, port=server.port)
        wait_for(lambda: "server_restored" in m.log_text(), 10)
        assert all(c.ask("SET", k, 4) == b"+OK" for k in keys)
        assert again.ask("DBSIZE") == len(mine)


def test_all_ejected(start):
    m = start(Millrace, [free_port()], auto_eject_hosts="true", server_failure_limit=1,
              server_retry_timeout=60000)
    with m.raw() as c:
        for _ in range(5):
            assert c.ask("GET", "a") == b"-ERR Connection refused"
            assert c.ask("MGET", "a", "b") == b"-ERR Connection refused"
        assert c.ask("PING") == b"+PONG"
    assert m.pool()["server_ejects"] == 1


def test_timeout_covers_connect_and_reply(start):
    server = start(Scripted, silent)
    m = start(Millrace, [server.port], timeout=200)
    with m.raw() as c:
        began = time.monotonic()
        assert c.ask("GET", "a") == b"-ERR Connection timed out"
        assert 0.15 < time.monotonic() - began < 10 * SLOW
        assert c.ask("MGET", "a", "b") == b"-ERR Connection timed out"
    stats = m.pool()[f"127.0.0.1:{server.port}"]
    assert stats["server_timedout"] >= 1 and stats["out_queue"] == 0
    full = socket.socket()  # a listener with a full queue does not answer connects
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    port = full.getsockname()[1]
    fill = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", port))
        fill.append(s)
    m = start(Millrace, [port], timeout=200)
    with m.raw() as c:
        assert c.ask("GET", "a") == b"-ERR Connection timed out"
    for s in [full, *fill]:
        s.close()


def test_late_replies_never_reach_another_request(start):
    def serve(conn, server):
        while data := server.read(conn):
            for key in data.split(b"\r\n")[4::5]:
                if key.startswith(b"slow"):
                    time.sleep(0.15)
                conn.sendall(b"$%d\r\n%s\r\n" % (len(key), key))

    server = start(Scripted, serve)
    m = start(Millrace, [server.port], timeout=100)
    with m.raw() as c:
        for i in range(20):
            key = b"%s%d" % (b"slow" if i % 3 == 0 else b"fast", i)
            assert c.ask("GET", key) in (key, b"-ERR Connection timed out")
        while (got := c.ask("GET", "mine")) != b"mine":
            assert got == b"-ERR Connection timed out"


def test_server_dies_inside_a_large_reply(start):
    """Half a reply cannot be completed: the client is closed, others get an error."""

    def serve(conn, server):
        server.read(conn)
        conn.sendall(b"$1000000\r\n" + b"x" * 200000)
        time.sleep(0.3 * SLOW)
        conn.close()

    server = start(Scripted, serve)
    m = start(Millrace, [server.port])
    with m.raw() as a, m.raw() as b:
        a.send(command("GET", "big"))
        wait_for(lambda: server.received)
        b.send(command("GET", "other"))
        assert b.reply().startswith(b"-ERR ")
        assert len(a.rest()) <= 200010
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"


def test_garbage_from_a_server(start):
    server = start(Scripted, always(b"HTTP/1.1 400 Bad Request\r\n"))
    m = start(Millrace, [server.port])
    with m.raw() as c:
        assert c.ask("GET", "a") == b"-ERR Invalid argument"
        assert c.ask("PING") == b"+PONG"
    assert "server_reply_bad" in m.log_text()


def test_clients_that_leave_do_not_disturb_the_order(start):
    """Replies to clients that are gone are discarded, and later ones reach the right client."""

    def serve(conn, server):
        while data := server.read(conn):
            time.sleep(0.02)
            for key in data.split(b"\r\n")[4::5]:
                conn.sendall(b"$%d\r\n%s\r\n" % (len(key), key))

    m = start(Millrace, [start(Scripted, serve).port])
    for i in range(10):
        gone = m.raw()
        gone.send(command("GET", f"gone{i}") * 5)
        gone.close()
        with m.raw() as c:
            key = b"stay%d" % i
            assert c.ask("GET", key) == key


def test_preconnect(start):
    server = start(Scripted, always(b"+x\r\n"))
    start(Millrace, [server.port], preconnect="true", server_connections=3, workers=2)
    wait_for(lambda: server.accepted == 6)


def test_retries_connect_without_hammering(start):
    """A dead server is retried, but not with every request."""
    port = free_port()
    m = start(Millrace, [port])
    with m.raw() as c:
        for _ in range(2000):
            assert c.ask("GET", "a") == b"-ERR Connection refused"
    assert m.pool()[f"127.0.0.1:{port}"]["server_err"] < 200


def test_names_are_resolved_again(start, names):
    """A name's address changes while running: clients continue on the new server."""
    port = free_port()
    servers = [subprocess.Popen(["redis-server", "--bind", ip, "--port", str(port), "--save", ""],
                                stdout=subprocess.DEVNULL) for ip in ("127.0.0.2", "127.0.0.3")]
    try:
        names.are("127.0.0.2")
        m = start(Millrace, workers=2, conf=f"global: {{resolve_interval: 100ms, {names.conf}}}\n" + pool_yaml(
                      "alpha", "127.0.0.1:@PORT@", [f"cache.test:{port}:1"]))
        with m.raw() as c:
            wait_for(lambda: c.ask("SET", "a", "old") == b"+OK", what="first address")
            names.are("127.0.0.3")
            wait_for(lambda: "new=127.0.0.3" in m.log_text(), what="new address")
            assert c.ask("GET", "a") is None
            assert c.ask("SET", "a", "new") == b"+OK"
            names.are("")  # the name is gone: the last address stays
            time.sleep(0.3)
            assert c.ask("GET", "a") == b"new"
        with Raw(("127.0.0.2", port)) as old:
            assert old.ask("GET", "a") == b"old"
    finally:
        for s in servers:
            s.kill()
            s.wait()


def test_stopped_server_then_continued(start):
    server = start(Redis)
    m = start(Millrace, [server.port], timeout=200)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        os.kill(server.pid, signal.SIGSTOP)
        assert c.ask("GET", "a") == b"-ERR Connection timed out"
        os.kill(server.pid, signal.SIGCONT)
        wait_for(lambda: c.ask("GET", "a") == b"1", what="server goes on")


@pytest.mark.alone
def test_backpressure_from_a_server_that_does_not_read(start):
    """Requests to a stuck server are limited per client."""

    def serve(conn, server):
        time.sleep(3 * SLOW)

    m = start(Millrace, [start(Scripted, serve).port], timeout=2000)
    from harness import rss_kb
    pid = m.child_pids()[0]
    before = rss_kb(pid)
    import threading
    clients = [m.raw() for _ in range(4)]
    blob = command("SET", "k", b"x" * 100000) * 300

    def push(c):
        try:
            c.sock.sendall(blob)
        except OSError:
            pass

    threads = [threading.Thread(target=push, args=(c,), daemon=True) for c in clients]
    for t in threads:
        t.start()
    time.sleep(0.7)
    if not INSTRUMENTED:
        assert rss_kb(pid) - before < 40000
    with m.raw() as other:
        assert other.ask("PING") == b"+PONG"
    for c in clients:
        c.close()


@pytest.mark.alone
def test_client_idle_timeout(start, redis1):
    m = start(Millrace, [redis1.port], client_idle_timeout="1s")
    with m.raw() as idle, m.raw() as busy:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert busy.ask("PING") == b"+PONG"
            time.sleep(0.05)
        assert idle.rest() == b""
        assert busy.ask("PING") == b"+PONG"


def test_quickack_and_keepalive_serve(start, redis1):
    m = start(Millrace, [redis1.port], tcp_quickack="true", tcpkeepalive="true")
    with m.raw() as c:
        for i in range(100):
            assert c.ask("SET", "a", i) == b"+OK"
    import subprocess
    out = subprocess.run(["ss", "-tno", "state", "established", f"sport = :{m.port}"],
                         capture_output=True, text=True)
    with m.raw() as c:
        c.ask("PING")
        out = subprocess.run(["ss", "-tno", "state", "established", f"sport = :{m.port}"],
                             capture_output=True, text=True)
        if out.returncode == 0:
            assert "keepalive" in out.stdout


@pytest.mark.parametrize("coalesce, waits", [("auto", True), ("off", False), ("2ms", False)])
def test_requests_behind_an_unanswered_batch_leave_together(start, coalesce, waits):
    """`auto` holds them until a reply comes, a time until it is over, `off` not at all."""
    arrived, answer = [], threading.Event()

    def serve(conn, server):
        while data := server.read(conn):
            arrived.append(data)
            if len(arrived) == 1:
                answer.wait(10 * SLOW)
            conn.sendall(b"+OK\r\n" * data.count(b"*2\r\n"))

    server = start(Scripted, serve)
    m = start(Millrace, [server.port], coalesce=coalesce)
    clients = [m.raw() for _ in range(4)]
    clients[0].send(command("GET", "a"))
    wait_for(lambda: len(arrived) == 1)
    for c in clients[1:]:
        c.send(command("GET", "a"))
    if waits:
        wait_for(lambda: m.pool()[f"127.0.0.1:{server.port}"]["requests"] == 4)
        assert unread(server.port) == 0
    else:
        wait_for(lambda: unread(server.port) == 3 * len(command("GET", "a")))
    answer.set()
    assert [c.reply() for c in clients] == [b"+OK"] * 4
    assert not waits or arrived == [command("GET", "a"), command("GET", "a") * 3]


def unread(port):
    """Bytes in the receive queues of established connections to a local port."""
    total = 0
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(":%04X" % port) and fields[3] == "01":
            total += int(fields[4].split(":")[1], 16)
    return total
