"""Pools of plain TCP: bytes both ways, half-close, balancing, failing servers, reload, upgrade and kill."""

import contextlib
import hashlib
import os
import signal
import socket
import threading

import pytest
from harness import Millrace, free_port, wait_for
from test_upgrade import Upgradable, adopt_orphans  # noqa: F401, a fixture


class Server:
    """Accepts connections and runs handle(conn, self) for each in a thread."""

    def __init__(self, handle, family=socket.AF_INET, address=None):
        self.handle = handle
        self.listener = socket.socket(family)
        self.listener.bind(address or ("127.0.0.1", free_port()))
        self.listener.listen(128)
        self.address = address or self.listener.getsockname()
        self.port = None if address else self.address[1]
        self.conns = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self.listener.accept()
                self.conns.append(conn)
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        with contextlib.suppress(OSError), conn:
            self.handle(conn, self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for c in self.conns:
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)


def echo(conn, _):
    while data := conn.recv(65536):
        conn.sendall(data)


def name_then_wait(conn, server):
    """Tells which server it is, and waits for the client to leave."""
    conn.sendall(b"%d\n" % server.port)
    conn.recv(1)


def config(port, servers, shutdown="30s", extra=""):
    lines = "".join(f"   - 127.0.0.1:{s}:1\n" if isinstance(s, int) else f"   - {s}\n" for s in servers)
    return (f"global:\n  worker_shutdown_timeout: {shutdown}\nalpha:\n  listen: 127.0.0.1:{port}\n"
            f"  protocol: tcp\n{extra}  servers:\n{lines}")


@contextlib.contextmanager
def proxy(*servers, workers=1, kind=Millrace, **options):
    m = kind(conf=config("@PORT@", servers, **options), workers=workers)
    try:
        yield m
    except BaseException:
        print(m.log_text()[-5000:])
        m.kill()
        raise
    m.stop()


def connect(m):
    return socket.create_connection(("127.0.0.1", m.port), timeout=20)


def read_all(c):
    parts = []
    while data := c.recv(65536):
        parts.append(data)
    return b"".join(parts)


def read_exactly(c, n):
    data = b""
    while len(data) < n:
        more = c.recv(n - len(data))
        assert more, "cut"
        data += more
    return data


def read_line(c):
    line = b""
    while not line.endswith(b"\n"):
        more = c.recv(1)
        assert more, "cut"
        line += more
    return int(line)


def totals(m):
    stats = m.pool()
    servers = [v for v in stats.values() if isinstance(v, dict) and "requests" in v]
    return stats, servers


BIG = os.urandom(1 << 20) * 16


def test_bytes_pass_as_they_are_and_are_counted():
    with Server(echo) as s, proxy(s.port) as m, connect(m) as c:
        for text in (b"x", b"\0\r\n*3\r\n", b"y" * 100000):
            c.sendall(text)
            assert read_exactly(c, len(text)) == text
        stats, servers = totals(m)
        assert stats["client_connections"] == 1
        assert servers[0]["requests"] == 1 and servers[0]["server_connections"] == 1
        assert servers[0]["request_bytes"] == servers[0]["response_bytes"] == 100008
        c.close()
        wait_for(lambda: totals(m)[0]["client_eof"] == 1, what="end of the session")
        stats, servers = totals(m)
        assert stats["client_connections"] == servers[0]["server_connections"] == 0


def test_large_flows_both_ways_at_once():
    with Server(echo) as s, proxy(s.port) as m, connect(m) as c:
        sender = threading.Thread(target=lambda: (c.sendall(BIG), c.shutdown(socket.SHUT_WR)))
        sender.start()
        assert hashlib.sha1(read_all(c)).digest() == hashlib.sha1(BIG).digest()
        sender.join()


def test_a_slow_reader_holds_the_sender_back():
    sent = []

    def flood(conn, _):
        with contextlib.suppress(OSError):
            while True:
                sent.append(conn.send(BIG[:65536]))

    with Server(flood) as s, proxy(s.port) as m:
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        c.settimeout(20)
        with c:
            c.connect(("127.0.0.1", m.port))
            before = -1

            def stalled():
                nonlocal before
                same, before = sum(sent) == before, sum(sent)
                return same and before > 0
            wait_for(lambda: stalled() and not threading.Event().wait(0.3) and stalled(), 20, "stall")
            pending = totals(m)[1][0]["response_bytes"]
            assert pending < 16 << 20  # socket buffers and ours, not memory without end
            read_exactly(c, pending + (1 << 20))  # and it goes on


def test_the_server_end_of_a_paused_session_is_not_cut(tmp_path):
    """The server sends all and closes while the client has read nothing; over TCP and a unix socket."""
    def give(conn, _):
        conn.recv(2)
        conn.sendall(BIG)

    def give_after_eof(conn, _):
        read_all(conn)
        conn.sendall(BIG)

    for handle in (give, give_after_eof):
        with Server(handle) as tcp, \
                Server(handle, socket.AF_UNIX, str(tmp_path / handle.__name__)) as unix:
            for server in (tcp.port, f"{unix.address}:1"):
                with proxy(server) as m, connect(m) as c:
                    c.sendall(b"go")
                    c.shutdown(socket.SHUT_WR)
                    wait_for(lambda: totals(m)[1][0]["response_bytes"] > 0, what="first bytes")
                    assert read_all(c) == BIG


def test_either_side_may_end_first():
    heard = []

    def answer_then_listen(conn, _):
        conn.sendall(b"hello")
        conn.shutdown(socket.SHUT_WR)
        heard.append(read_all(conn))

    with Server(answer_then_listen) as s, proxy(s.port) as m, connect(m) as c:
        assert read_all(c) == b"hello"  # the server's end arrives
        c.sendall(b"still here")        # and our direction goes on
        c.shutdown(socket.SHUT_WR)
        wait_for(lambda: heard == [b"still here"], what="the client's bytes")
        wait_for(lambda: totals(m)[0]["client_connections"] == 0, what="end of the session")


def test_a_reset_reaches_the_other_side():
    ended = []

    def wait_for_end(conn, _):
        conn.sendall(b"!")
        with contextlib.suppress(OSError):
            while conn.recv(100):
                pass
        ended.append(True)

    with Server(wait_for_end) as s, proxy(s.port) as m:
        c = connect(m)
        read_exactly(c, 1)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        c.close()
        wait_for(lambda: ended, what="the server hears of it")
        wait_for(lambda: totals(m)[0]["client_err"] == 1, what="it is counted")


def test_another_server_takes_over_when_one_refuses():
    with Server(name_then_wait) as s:
        dead = free_port()
        with proxy(dead, s.port, extra="  balance: round_robin\n") as m:
            for _ in range(6):
                with connect(m) as c:
                    assert read_line(c) == s.port
            assert m.log_text().count("server_failed") >= 1
            assert totals(m)[0]["forward_error"] == 0


def test_without_a_server_the_client_is_closed():
    with proxy(free_port()) as m, connect(m) as c:
        with contextlib.suppress(ConnectionError):
            assert c.recv(1) == b""
        wait_for(lambda: totals(m)[0]["forward_error"] == 1, what="the failure is counted")


def test_a_failed_server_is_probed_and_comes_back():
    port = free_port()
    with proxy(port, extra="  health_check_interval: 50ms\n") as m:
        with connect(m) as c, contextlib.suppress(ConnectionError):
            c.recv(1)
        wait_for(lambda: "server_down" in m.log_text(), what="probe that fails")
        with Server(echo, address=("127.0.0.1", port)):
            wait_for(lambda: "server_up" in m.log_text(), what="probe that succeeds")
            with connect(m) as c:
                c.sendall(b"x")
                assert c.recv(1) == b"x"


@pytest.mark.parametrize("workers", [1, 2])
def test_least_connections_counts_all_workers(workers):
    with Server(name_then_wait) as a, Server(name_then_wait) as b:
        with proxy(a.port, f"127.0.0.1:{b.port}:3", workers=workers) as m, contextlib.ExitStack() as stack:
            got = [read_line(stack.enter_context(connect(m))) for _ in range(40)]
            assert got.count(a.port) == 10 and got.count(b.port) == 30


def test_round_robin_and_source_hash():
    with Server(name_then_wait) as a, Server(name_then_wait) as b:
        def ask(m):
            with connect(m) as c:
                return read_line(c)
        with proxy(a.port, b.port, extra="  balance: round_robin\n") as m:
            got = [ask(m) for _ in range(6)]
            assert got[:2] * 3 == got and set(got) == {a.port, b.port}
        with proxy(a.port, b.port, extra="  balance: source_hash\n") as m:
            assert len({ask(m) for _ in range(6)}) == 1


def test_the_limit_of_clients_holds():
    with Server(echo) as s, proxy(s.port, extra="  client_connections: 1\n") as m, connect(m) as c:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
        with connect(m) as refused, contextlib.suppress(ConnectionError):
            assert refused.recv(1) == b""
        c.sendall(b"y")
        assert c.recv(1) == b"y"


def test_servers_hear_of_clients_only():
    """No connection is opened in advance: its server would wait for a client that does not exist."""
    with Server(echo) as s, proxy(s.port, extra="  preconnect: true\n") as m, connect(m) as c:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
        assert len(s.conns) == 1


def test_idle_sessions_end():
    with Server(echo) as s, proxy(s.port, extra="  client_idle_timeout: 100ms\n") as m, connect(m) as c:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
        assert c.recv(1) == b""


class Flow(threading.Thread):
    """A client that sends and checks echoes until told to stop."""

    def __init__(self, m):
        super().__init__(daemon=True)
        self.conn, self.stop, self.error, self.rounds = connect(m), False, None, 0
        self.start()

    def run(self):
        try:
            with self.conn:
                while not self.stop:
                    piece = BIG[self.rounds % 1000:][:50000]
                    self.conn.sendall(piece)
                    assert read_exactly(self.conn, len(piece)) == piece
                    self.rounds += 1
        except (OSError, AssertionError) as e:
            self.error = repr(e)


def flow_on(flows):
    for f in flows:
        before = f.rounds
        wait_for(lambda f=f, before=before: f.rounds > before or f.error, 10, "flow")


def test_sessions_outlive_a_reload():
    """They stay with their workers and their server; new ones follow the new configuration."""
    with Server(name_then_wait) as named, Server(echo) as s, proxy(s.port, workers=2) as m:
        flows = [Flow(m) for _ in range(4)]
        flow_on(flows)
        before = m.child_pids()
        m.conf.write_text(config(m.port, [named.port]))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: " reloaded " in m.log_text(), 10, "reload")
        flow_on(flows)
        with connect(m) as c:
            assert read_line(c) == named.port
        for f in flows:
            f.stop = True
            f.join(10)
        assert [f.error for f in flows] == [None] * len(flows)
        wait_for(lambda: len(m.child_pids()) == 2 and not set(before) & set(m.child_pids()), 10,
                 "end of the old workers")


def test_sessions_outlive_an_upgrade():
    with Server(echo) as s, proxy(s.port, kind=Upgradable) as m:
        flow = Flow(m)
        flow_on([flow])
        os.kill(m.pid, signal.SIGUSR2)
        wait_for(lambda: "handed_over to_pid=" in m.log_text(), 20, "upgrade")
        m.pid = int(m.log_text().rsplit("handed_over to_pid=", 1)[1].split()[0])
        later = Flow(m)
        flow_on([flow, later])
        assert m.popen.poll() is None  # the old instance serves the session that it has
        for f in (flow, later):
            f.stop = True
            f.join(10)
            assert f.error is None
        assert m.popen.wait(20) == 0


def test_a_graceful_stop_lets_sessions_end():
    with Server(echo) as s, proxy(s.port) as m, connect(m) as c:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
        os.kill(m.pid, signal.SIGTERM)
        wait_for(lambda: "worker_draining" in m.log_text(), what="drain")
        c.sendall(b"y")
        assert c.recv(1) == b"y"
        c.shutdown(socket.SHUT_WR)
        assert c.recv(1) == b""
        wait_for(lambda: not m.alive(), 10, "exit")


def test_a_stop_is_bounded():
    with Server(echo) as s, proxy(s.port, shutdown="1s") as m, connect(m) as c:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
        os.kill(m.pid, signal.SIGTERM)
        with contextlib.suppress(ConnectionError):
            assert c.recv(1) == b""
        wait_for(lambda: not m.alive(), 10, "exit")


def test_a_killed_worker_costs_its_own_sessions_only():
    with Server(echo) as s, proxy(s.port, workers=2) as m:
        flows = [Flow(m) for _ in range(12)]
        flow_on(flows)
        os.kill(m.child_pids()[0], signal.SIGKILL)
        wait_for(lambda: any(f.error for f in flows) and len(m.child_pids()) == 2, 10, "new worker")
        live = [f for f in flows if f.error is None]
        flow_on(live)
        flows.append(Flow(m))
        flow_on(flows[-1:])
        for f in flows:
            f.stop = True
            f.join(10)
        assert len(live) > 0 and flows[-1].error is None
