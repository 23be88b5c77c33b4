"""Defects of the predecessors, shown not to occur here. Numbers refer to docs/defects.md, which also lists
the tests that are elsewhere."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import (INSTRUMENTED, SLOW, Millrace, Raw, Redis, Scripted, always, command,
                     cpu_seconds, free_port, plain_build, pool_yaml, rss_kb, silent, wait_for)


def test_d3_odd_lengths_never_reach_a_server(start):
    server = start(Scripted, always(b"$1\r\nv\r\n"))
    m = start(Millrace, [server.port])
    with m.raw() as victim:
        for bad in (b"*2\r\n$3\r\nGET\r\n$01\r\nk\r\n", b"*2\r\n$3\r\nGET\r\n$4294967299\r\nkey\r\n",
                    b"*4294967298\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"*2\r\n$+3\r\nGET\r\n$1\r\nk\r\n",
                    b"*2\r\n$3\r\nGET\r\n$-5\r\n"):
            with m.raw() as attacker:
                attacker.send(bad)
                assert attacker.rest().startswith(b"-ERR Protocol error")
            assert victim.ask("GET", "mine") == b"v"
    assert server.received == command("GET", "mine") * 5


@pytest.mark.alone
@plain_build
def test_d4_an_endless_command_name_is_refused_at_once(start, redis1):
    m = start(Millrace, [redis1.port])
    pid = m.child_pids()[0]
    before = rss_kb(pid)
    with m.raw() as c:
        c.send(b"*1\r\n$500000000\r\n")
        assert c.rest() == b"-ERR Protocol error: command name is too long\r\n"
    with m.raw() as c:
        try:
            for _ in range(30):
                c.send(b"x" * 1000000)
        except OSError:
            pass
    assert rss_kb(pid) - before < 5000


@pytest.mark.alone
@plain_build
def test_d7_a_client_that_does_not_read_is_paused(start, redis1):
    """Replies it has not read are not fetched: 2000 x 100 KB cost only what was in flight."""
    m = start(Millrace, [redis1.port], max_pipeline=100)
    pid = m.child_pids()[0]
    with m.raw() as c:
        assert c.ask("SET", "big", b"x" * 100000) == b"+OK"
        threading.Thread(target=lambda: _quietly(c.sock.sendall, command("GET", "big") * 2000),
                         daemon=True).start()
        peak = 0
        for _ in range(50):
            time.sleep(0.02)
            peak = max(peak, rss_kb(pid))
        assert peak < 40000
        with m.raw() as other:
            assert other.ask("PING") == b"+PONG"
        for _ in range(2000):  # finally it gets everything
            assert len(c.reply()) == 100000


def _quietly(f, *args):
    try:
        f(*args)
    except OSError:
        pass


@pytest.mark.alone
@plain_build
def test_d7_beyond_the_limit_it_is_cut(start, redis1):
    m = start(Millrace, [redis1.port], client_output_limit="4mb")
    pid = m.child_pids()[0]
    with m.raw() as c:
        assert c.ask("SET", "big", b"x" * 2000000) == b"+OK"
        c.send(command("GET", "big") * 20)
        wait_for(lambda: "client_cut" in m.log_text(), what="cut")
        assert rss_kb(pid) < 40000
        with pytest.raises((EOFError, OSError)):
            for _ in range(20):
                c.reply()
    assert m.pool()["client_err"] == 1


def test_a_client_that_reads_is_not_cut(start, redis1):
    """A deep pipeline of large values, read more slowly than the server sends: nothing is lost."""
    m = start(Millrace, [redis1.port], client_output_limit="8mb")
    with m.raw(timeout=20) as c:
        assert c.ask("SET", "big", b"x" * 20000) == b"+OK"
        sender = threading.Thread(target=_quietly, args=(c.sock.sendall,
                                                         command("GET", "big") * 3000))
        sender.start()
        for i in range(3000):
            assert len(c.reply()) == 20000
            if i % 100 == 0:
                time.sleep(0.01)
        sender.join()
    assert "client_cut" not in m.log_text()


def test_d8_a_failed_part_of_an_mget_keeps_the_connection(start, redis4):
    dead = free_port()
    m = start(Millrace, [s.port for s in redis4[:3]] + [f"127.0.0.1:{dead}:1"])
    with m.raw() as c:
        keys = [f"key{i}" for i in range(300)]
        assert c.ask("MGET", *keys) == b"-ERR Connection refused"
        assert c.ask("MSET", *[x for k in keys for x in (k, 1)]) == b"-ERR Connection refused"
        assert c.ask("DEL", *keys) == b"-ERR Connection refused"
        assert c.ask("PING") == b"+PONG"
    assert m.pool()["forward_error"] == 3


def test_d16_an_idle_close_by_a_server_is_no_failure(start):
    server = start(Redis, "--timeout", "1", "--hz", "100")
    m = start(Millrace, [server.port], auto_eject_hosts="true", server_failure_limit=1)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        name = f"127.0.0.1:{server.port}"
        wait_for(lambda: m.pool()[name]["server_eof"] == 1, 10, "idle close")
        assert c.ask("GET", "a") == b"1"
    assert m.pool()["server_ejects"] == 0 and m.pool()["forward_error"] == 0


@pytest.mark.alone
@pytest.mark.parametrize("workers", [0, 1])
def test_d17_d18_out_of_descriptors(start, redis1, workers):
    """Clients beyond the process's limit get an error; the listener survives; nothing spins or hangs."""
    m = start(Millrace, [redis1.port], workers=workers, ulimit=60,
              conf="global: {max_openfiles: 64}\n" + pool_yaml(
                  "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]))
    pid = m.child_pids()[0] if workers else m.pid
    clients = [m.raw() for _ in range(100)]
    served = refused = 0
    for c in clients:
        try:
            reply = c.ask("PING")
        except (EOFError, OSError):
            reply = b"closed"
        served += reply == b"+PONG"
        refused += reply != b"+PONG"
    assert served >= 20 and refused >= 20 and served + refused == 100
    before = cpu_seconds(pid)
    time.sleep(0.5)
    assert cpu_seconds(pid) - before < 0.2
    for c in clients:
        c.close()
    wait_for(lambda: m.pool()["client_connections"] == 0)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"


@pytest.mark.alone
def test_d18_accept_fails_and_recovers(start, redis1):
    """The descriptors are really gone (taken away by prlimit): queued clients are served later."""
    m = start(Millrace, [redis1.port], workers=1)
    pid = m.child_pids()[0]
    with m.raw() as first:
        assert first.ask("SET", "a", 1) == b"+OK"
        subprocess.check_call(["prlimit", "--pid", str(pid), "--nofile=5:"])
        waiting = [m.raw() for _ in range(5)]
        for c in waiting:
            c.send(command("GET", "a"))
        if m.engine() != "io_uring":  # io_uring uses the limit from when it started to accept
            wait_for(lambda: "accept_failed" in m.log_text())
        before = cpu_seconds(pid)
        time.sleep(0.5)
        assert cpu_seconds(pid) - before < 0.2
        assert first.ask("GET", "a") == b"1"
        subprocess.check_call(["prlimit", "--pid", str(pid), "--nofile=1000:"])
        assert [c.reply() for c in waiting] == [b"1"] * 5


def test_d18_a_limit_that_cannot_work_is_refused(redis1, tmp_path):
    conf = tmp_path / "c.yml"
    conf.write_text("global: {max_openfiles: 64}\n" + pool_yaml(
        "alpha", f"127.0.0.1:{free_port()}", [f"127.0.0.1:{redis1.port}:1"],
        server_connections=100))
    from harness import BINARY
    out = subprocess.run(["prlimit", "--nofile=64:64", BINARY, "-c", conf, "-s", str(free_port())],
                         capture_output=True, text=True, timeout=20)
    assert out.returncode == 1 and "limit of open files (64) is too low" in out.stderr


@pytest.mark.alone
def test_d19_a_name_that_does_not_resolve_stalls_nobody(start, redis1):
    m = start(Millrace, conf="global: {resolve_interval: 100ms}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@",
        [f"no-such-host.invalid:1:1 bad", f"localhost:{redis1.port}:1 good"]))
    outcomes = {b"+OK": 0, b"-ERR Host is down": 0}
    slowest = 0
    with m.raw() as c:
        for i in range(300):
            began = time.monotonic()
            outcomes[c.ask("SET", f"k{i}", 1)] += 1
            slowest = max(slowest, time.monotonic() - began)
    assert all(outcomes.values()), outcomes
    assert slowest < 3 * SLOW


@pytest.mark.alone
@pytest.mark.parametrize("workers", [0, 2])
def test_d20_a_zero_interval_does_not_spin(start, redis1, workers):
    m = start(Millrace, [redis1.port], workers=workers, args=["-i", "0"])
    pids = [m.pid, *m.child_pids(), m.admin_pid()] if workers else [m.pid]
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"
        before = sum(map(cpu_seconds, pids))
        time.sleep(1)
        assert sum(map(cpu_seconds, pids)) - before < 0.1


@pytest.mark.alone
def test_d21_a_slow_request_does_not_take_its_neighbours_along(start):
    """The slow request times out alone; later ones on the connection get their own replies."""

    def serve(conn, server):
        while data := server.read(conn):
            for key in data.split(b"\r\n")[4::5]:
                if key == b"slow":
                    time.sleep(1.4)
                conn.sendall(b"$4\r\n%s\r\n" % key)

    server = start(Scripted, serve)
    m = start(Millrace, [server.port], timeout=1000, health_checks="off")
    with m.raw() as a, m.raw() as b:
        a.send(command("GET", "slow"))
        time.sleep(0.8)
        b.send(command("GET", "fast"))
        assert a.reply() == b"-ERR Connection timed out"
        assert b.reply() == b"fast"
        assert a.ask("GET", "next") == b"next"
    assert server.accepted == 1


def test_d24_client_connections_is_a_limit(start, redis1):
    m = start(Millrace, [redis1.port], workers=2, client_connections=10)
    clients = [m.raw() for _ in range(40)]
    replies = []
    for c in clients:
        try:
            replies.append(c.ask("PING"))
        except (EOFError, OSError):
            replies.append(b"closed")
    # two workers may both see room for the last place
    assert 10 <= replies.count(b"+PONG") <= 11
    assert all(r in (b"+PONG", b"closed", b"-ERR max number of clients reached") for r in replies)
    assert b"-ERR max number of clients reached" in replies
    for c in clients:
        c.close()
    wait_for(lambda: m.pool()["client_connections"] == 0)
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"


@pytest.mark.alone
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_d25_system_calls_per_request(start, redis1, tmp_path):
    """One at a time, a request costs two receives, two sends and two waits, and nothing else."""
    m = start(Millrace, [redis1.port], workers=1)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        trace = subprocess.Popen(["strace", "-c", "-p", str(m.child_pids()[0]), "-o",
                                  tmp_path / "calls"], stderr=subprocess.PIPE)
        line = trace.stderr.readline()
        if b"attached" not in line:
            trace.kill()
            trace.wait()
            pytest.skip("strace may not attach here")
        for _ in range(200):
            assert c.ask("GET", "a") == b"1"
        trace.send_signal(signal.SIGINT)
        trace.wait()
    calls = {}
    for row in (tmp_path / "calls").read_text().splitlines()[2:]:
        fields = row.split()
        if len(fields) >= 5 and fields[3].isdigit():
            calls[fields[-1]] = int(fields[3])
    calls.pop("total", None)
    # a new worker looks for connections announced to a dead one, and answers pings
    assert sum(calls.pop(name, 0) for name in ("accept4", "recvmsg", "sendmsg")) <= 20
    if INSTRUMENTED:  # the sanitizer's own
        for name in ("mmap", "munmap", "brk", "madvise"):
            calls.pop(name, None)
    if m.engine() == "io_uring":  # one per turn of the loop
        assert sum(calls.values()) <= 200 * 2 + 30, calls
        assert set(calls) <= {"io_uring_enter", "restart_syscall"}, calls
    else:
        assert sum(calls.values()) <= 200 * 6 + 30, calls
        assert set(calls) <= {"recvfrom", "sendto", "epoll_wait", "restart_syscall"}, calls


@pytest.mark.alone
@plain_build
def test_d26_d27_a_deep_pipeline_costs_little_and_goes_back(start, redis1):
    m = start(Millrace, [redis1.port])
    pid = m.child_pids()[0]
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        if m.engine() == "io_uring":  # every receive buffer of the ring was used once
            c.send(command("SET", "b", "x" * 20000000))
            assert c.reply() == b"+OK"
            time.sleep(3)
        before = rss_kb(pid)
        wire = command("GET", "a") * 5000
        c.send(wire)
        peak = 0
        for _ in range(5000):
            assert c.reply() == b"1"
        peak = rss_kb(pid)
        assert (peak - before) * 1024 < 12 * len(wire), (before, peak, len(wire))
        value = b"x" * 1000000
        for i in range(20):
            assert c.ask("SET", f"v{i}", value) == b"+OK"
        c.send(b"".join(command("GET", f"v{i}") for i in range(20)))
        for _ in range(20):
            assert c.reply() == value
    wait_for(lambda: rss_kb(pid) - before < 3000, 15, "memory given back")


@pytest.mark.alone
@plain_build
def test_idle_clients_hold_no_buffers(start, redis1):
    m = start(Millrace, [redis1.port])
    pid = m.child_pids()[0]

    def connect(n):
        got = [m.raw() for _ in range(n)]
        for c in got:
            assert c.ask("GET", "a") is None
        return got

    warm = connect(200)
    before = rss_kb(pid)
    clients = connect(4000)
    each = (rss_kb(pid) - before) * 1024 / 4000
    print("bytes per idle client", each)
    assert each < 400
    for c in warm + clients:
        c.close()


def test_d28_statistics(start, redis1):
    name = 'we"ird\\naïve'
    conf = pool_yaml("alpha", "127.0.0.1:@PORT@",
                     [f'"127.0.0.1:{redis1.port}:1 we\\"ird\\\\naïve"'])
    m = start(Millrace, conf=conf, workers=2)
    with m.raw() as c:
        for i in range(1, 6):
            assert c.ask("SET", "a", i) == b"+OK"
            assert m.pool()[name]["requests"] == i  # current, not from the last poll
    # readers that do not read block nobody
    idle = [socket.create_connection(("127.0.0.1", m.stats_port)) for _ in range(30)]
    assert m.stats()["service"] == "nutcracker"
    for s in idle:
        s.close()


def test_d29_d30_d31_d32_are_tested_elsewhere():
    """Start, stop, pid file and -t are in test_processes.py; numbers and addresses in tests/unit/config."""
    here = os.path.dirname(__file__)
    text = open(os.path.join(here, "test_processes.py")).read()
    for name in ("test_term_finishes_what_clients_have_sent", "test_command_line",
                 "test_daemonize", "test_pid_file_is_locked"):
        assert f"def {name}(" in text
