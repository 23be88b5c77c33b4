"""Master, workers, signals, start and stop."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest
from harness import (BINARY, INSTRUMENTED, SLOW, WRAPPER, Millrace, Process, Raw, Redis, Scripted,
                     always, can_connect, command, free_port, pool_yaml, process_state, rss_kb,
                     silent, wait_for)


def run(*args, timeout=30):
    return subprocess.run([*WRAPPER, BINARY, *map(str, args)], capture_output=True, text=True,
                          timeout=timeout * SLOW)


def running(pid):
    """False for zombies too: there may be nobody to reap them."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listening_pids(port):
    """Processes that have a listening socket on the port."""
    inodes = set()
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        f = line.split()
        if int(f[1].split(":")[1], 16) == port and f[3] == "0A":
            inodes.add(f"socket:[{f[9]}]")
    found = set()
    for fd in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(fd) in inodes:
                found.add(int(fd.parts[2]))
    return found


def test_all_workers_serve(start, redis1):
    m = start(Millrace, [redis1.port], workers=4)
    clients = [m.raw() for _ in range(200)]
    ids = {c.ask("CLIENT", "ID") >> 40 for c in clients}
    assert ids == {0, 1, 2, 3}
    assert m.pool()["client_connections"] == 200
    for c in clients:
        c.close()


@pytest.mark.parametrize("listen", ["@DIR@/s.sock", "'@DIR@/s.sock 0600'"])
def test_unix_listener_is_served_by_all_workers(start, redis1, listen):
    m = start(Millrace, [redis1.port], workers=3, listen=listen)
    path = str(m.dir / "s.sock")
    if "0600" in listen:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    ids, clients = set(), []
    end = time.monotonic() + 10 * SLOW
    while len(ids) < 3 and time.monotonic() < end:
        burst = [Raw(path) for _ in range(60)]
        for c in burst:
            c.send(command("CLIENT", "ID"))
        ids |= {c.reply() >> 40 for c in burst}
        clients += burst
    assert ids == {0, 1, 2}
    with Raw(path) as c:
        assert c.ask("SET", "u", 1) == b"+OK"
    for c in clients:
        c.close()
    m.kill(signal.SIGTERM)
    assert not os.path.exists(path)


def test_ipv6_and_several_listeners(start, redis1):
    other = free_port()
    m = start(Millrace, [redis1.port], workers=2,
              listen=f"[127.0.0.1:@PORT@, '[::1]:{other}', '@DIR@/x.sock']")
    for target in (m.port, ("::1", other), str(m.dir / "x.sock")):
        with Raw(target) as c:
            assert c.ask("PING") == b"+PONG"


def test_ipv6_server(start):
    server = subprocess.Popen(["redis-server", "--port", str(port := free_port()), "--bind", "::1",
                               "--save", ""], stdout=subprocess.DEVNULL)
    try:
        for line in (f"'[::1]:{port}:1'", f"::1:{port}:1"):
            m = start(Millrace, [line])
            with m.raw() as c:
                wait_for(lambda: c.ask("SET", "v6", 1) == b"+OK", what="IPv6 server")
    finally:
        server.kill()
        server.wait()


@pytest.mark.alone
def test_killed_worker_is_replaced(start, redis1):
    """Only its own clients are cut; the slot serves again within 100 ms; counters continue."""
    m = start(Millrace, [redis1.port], workers=2)
    clients = [m.raw() for _ in range(40)]
    ids = {c.ask("CLIENT", "ID") for c in clients}
    for c in clients:
        c.slot = c.ask("CLIENT", "ID") >> 40
        assert c.ask("SET", "k", 1) == b"+OK"
    victims = m.child_pids()
    before = m.pool()["127.0.0.1:%d" % redis1.port]["requests"]
    took = []
    for round_ in range(3):
        victim = m.child_pids()[0]
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(m.child_pids()) == 2 and victim not in m.child_pids())
        took.append(time.monotonic() - killed)
        if round_ == 0:
            cut = alive = 0
            for c in clients:
                try:
                    assert c.ask("GET", "k") == b"1"
                    alive += 1
                except (EOFError, ConnectionError):
                    cut += 1
            by_slot = [sum(c.slot == s for c in clients) for s in (0, 1)]
            assert sorted([cut, alive]) == sorted(by_slot)
            more = [m.raw() for _ in range(20)]
            assert not ids & {c.ask("CLIENT", "ID") for c in more}  # an id is never given twice
            for c in more:
                c.close()
    print("respawn seconds", took)  # a few milliseconds; bench/respawn measures it under load
    for _ in range(50):
        with m.raw() as c:
            assert c.ask("GET", "k") == b"1"
    after = m.pool()["127.0.0.1:%d" % redis1.port]["requests"]
    assert after >= before + 50
    assert victims != m.child_pids()
    for c in clients:
        c.close()


@pytest.mark.alone
def test_the_master_leaks_nothing_over_many_deaths(start, redis1):
    """The master's descriptors and memory are unchanged after many workers have died."""
    m = start(Millrace, [redis1.port], workers=4)

    def descriptors():
        return len(os.listdir(f"/proc/{m.pid}/fd"))

    def kill_one(n):
        pid = m.child_pids()[n % 4]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pid not in m.child_pids() and len(m.child_pids()) == 4, 15)

    for n in range(4):
        kill_one(n)
    before, memory = descriptors(), rss_kb(m.pid)
    for n in range(16):
        kill_one(n)
    assert descriptors() == before
    assert rss_kb(m.pid) - memory < 1000 * SLOW
    for _ in range(20):
        with m.raw() as c:
            assert c.ask("PING") == b"+PONG"


def test_a_crash_leaves_a_trace_and_is_replaced(start, redis1):
    if INSTRUMENTED:
        pytest.skip("the sanitizer reports crashes itself")
    m = start(Millrace, [redis1.port], workers=1)
    pid = m.child_pids()[0]
    os.kill(pid, signal.SIGSEGV)
    wait_for(lambda: m.child_pids() and m.child_pids() != [pid])
    assert "crash signal=11" in m.log_text() and f"pid={pid} signal=11" in m.log_text()
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"
    m.log.write_text("")  # expected, so stop() must not complain


def test_connections_in_the_queue_are_served_by_the_successor(start, redis1):
    m = start(Millrace, [redis1.port], workers=1)
    pid = m.child_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: process_state(pid) == "T")
    waiting = [m.raw(timeout=10) for _ in range(20)]
    for c in waiting:
        c.send(command("PING"))
    os.kill(pid, signal.SIGKILL)
    assert [c.reply() for c in waiting] == [b"+PONG"] * 20
    for c in waiting:
        c.close()


def test_a_worker_that_exits_in_peace_is_replaced_too(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    pid = m.child_pids()[0]
    os.kill(pid, signal.SIGTERM)  # drains and exits with status 0
    wait_for(lambda: pid not in m.child_pids() and len(m.child_pids()) == 2)
    assert f"pid={pid} status=0" in m.log_text()
    for _ in range(20):
        with m.raw() as c:
            assert c.ask("PING") == b"+PONG"


def test_a_worker_that_keeps_dying_is_slowed_down(start, redis1):
    m = start(Millrace, [redis1.port], workers=1)
    end = time.monotonic() + 15 * SLOW
    while "child_keeps_dying" not in m.log_text():
        assert time.monotonic() < end
        for pid in m.child_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    wait_for(lambda: m.child_pids(), what="restart after back-off")
    with m.raw(timeout=10) as c:
        assert c.ask("PING") == b"+PONG"


def test_the_admin_process_is_replaced(start, redis1):
    m = start(Millrace, [redis1.port])
    pid = m.admin_pid()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: m.child_pids("admin") and m.child_pids("admin") != [pid])
    assert m.stats()["service"] == "nutcracker"


def test_workers_die_with_their_master(start, redis1):
    m = start(Millrace, [redis1.port], workers=3)
    children = [*m.child_pids(), m.admin_pid()]
    assert len(children) == 4
    os.kill(m.pid, signal.SIGKILL)
    m.popen.wait()
    wait_for(lambda: not any(map(running, children)), 5, "end of workers")
    wait_for(lambda: not can_connect(m.port))  # the kernel closes an io_uring a moment later


def test_a_new_start_right_after_a_kill(start, redis1):
    """io_uring releases a killed process's sockets a moment after its end."""
    m = start(Millrace, [redis1.port], workers=2)
    for _ in range(3):
        os.kill(m.pid, signal.SIGKILL)
        m.popen.wait()
        again = start(Millrace, conf=m.conf.read_text())
        m = again
        with Raw(int(m.conf.read_text().split("127.0.0.1:")[1].split()[0])) as c:
            assert c.ask("PING") == b"+PONG"


def test_a_child_holds_only_its_own_listeners(start, redis1):
    m = start(Millrace, [redis1.port], workers=3)
    for pid in m.child_pids():
        sockets = [os.readlink(f) for f in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        # channel, a listener, a socket from the other workers, and those to all three
        assert sum(s.startswith("socket:") for s in sockets) == 1 + 1 + 1 + 3, sockets
    assert m.admin_pid() not in listening_pids(m.port)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_term_finishes_what_clients_have_sent(start, redis4, workers):
    m = start(Millrace, [s.port for s in redis4], workers=workers)
    idle = [m.raw() for _ in range(10)]
    for c in idle:
        assert c.ask("PING") == b"+PONG"
    busy = [m.raw() for _ in range(10)]
    for i, c in enumerate(busy):
        c.send(b"".join(command("SET", f"{i}:{j}", f"{i}:{j}") for j in range(100)) +
               b"".join(command("GET", f"{i}:{j}") for j in range(100)))
    began = time.monotonic()
    os.kill(m.pid, signal.SIGTERM)
    for i, c in enumerate(busy):
        assert [c.reply() for _ in range(100)] == [b"+OK"] * 100
        assert [c.reply() for _ in range(100)] == [b"%d:%d" % (i, j) for j in range(100)]
        assert c.rest() == b""
    for c in idle:
        assert c.rest() == b""
    assert m.popen.wait(10 * SLOW) == 0
    assert time.monotonic() - began < 20 * SLOW, "it ends as soon as it is empty"


def test_term_waits_for_slow_servers_but_not_for_ever(start):
    def slow(conn, server):
        while data := server.read(conn):
            time.sleep(0.5)
            conn.sendall(b"+late\r\n" * data.count(b"*2\r\n"))

    server = start(Scripted, slow)
    m = start(Millrace, [server.port])
    with m.raw() as c:
        c.send(command("GET", "a"))
        wait_for(lambda: server.received)
        os.kill(m.pid, signal.SIGTERM)
        wait_for(lambda: "worker_draining" in m.log_text())
        assert c.reply() == b"+late"
    assert m.popen.wait(10 * SLOW) == 0
    dead = start(Scripted, silent)
    conf = ("global:\n  worker_shutdown_timeout: 1\n" +
            pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{dead.port}:1"]))
    m = start(Millrace, conf=conf)
    with m.raw() as c:
        c.send(command("GET", "a"))
        wait_for(lambda: dead.received)
        began = time.monotonic()
        os.kill(m.pid, signal.SIGTERM)
        assert m.popen.wait(10 * SLOW) == 0
        assert 0.8 < time.monotonic() - began < 10 * SLOW


def test_term_to_the_whole_group(start, redis1):
    """As systemd does by default: no child is replaced, everything that was sent is answered."""
    m = start(Millrace, [redis1.port], workers=2)
    with m.raw() as c:
        c.send(command("SET", "g", 1) * 100)
        for pid in [m.pid, *m.child_pids(), m.admin_pid()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert c.rest() == b"+OK\r\n" * 100
    assert m.popen.wait(10 * SLOW) == 0
    assert m.log_text().count("spawned child=worker") == 2


def test_children_are_watched_however_it_was_started(start, redis1, monkeypatch):
    """For example with SIGCHLD ignored: the kernel does not report ended children then."""
    import harness
    monkeypatch.setattr(harness, "WRAPPER", ["env", "--ignore-signal=CHLD", *WRAPPER])
    m = start(Millrace, [redis1.port], workers=2)
    monkeypatch.undo()
    killed = m.child_pids()[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: "child_died child=worker" in m.log_text() and len(m.child_pids()) == 2)
    assert killed not in m.child_pids()
    os.kill(m.pid, signal.SIGTERM)
    assert m.popen.wait(10 * SLOW) == 0


def test_interrupt_stops_at_once(start):
    server = start(Scripted, silent)
    for workers in (0, 2):
        m = start(Millrace, [server.port], workers=workers)
        with m.raw() as c:
            c.send(command("GET", "a"))
            wait_for(lambda: server.received)
            began = time.monotonic()
            os.kill(m.pid, signal.SIGINT)
            assert m.popen.wait(10 * SLOW) == 1  # as nutcracker
            assert time.monotonic() - began < 10 * SLOW
        server.received = b""


def test_log_signals(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    moved = m.dir / "log.1"
    for signo, word in ((signal.SIGUSR1, "log_reopened"), (signal.SIGHUP, "generation_gone")):
        m.log.rename(moved)
        os.kill(m.pid, signo)
        wait_for(m.log.exists)
        wait_for(lambda: word in m.log_text() + moved.read_text(), what=word)
        moved.unlink()
        # the workers write to the new file, too
        m.stats()
        pid = m.child_pids()[0]
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: f"[{pid}]" in m.log_text() and pid not in m.child_pids())
    wait_for(lambda: len(m.child_pids()) == 2)
    os.kill(m.pid, signal.SIGTTOU)
    wait_for(lambda: "log_level level=6" in m.log_text())
    os.kill(m.pid, signal.SIGTTIN)
    wait_for(lambda: "log_level level=7" in m.log_text())
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sink", ["fifo", "pipe", "socket", "closed"])
def test_a_log_that_nobody_reads_stops_nobody(start, redis1, tmp_path, sink, workers):
    """The reader of a named pipe, or of standard error, stalls and then goes away."""
    port, stats, pid_file = free_port(), free_port(), tmp_path / "pid"
    conf, fifo = tmp_path / "conf.yml", tmp_path / "fifo"
    conf.write_text(pool_yaml("alpha", f"127.0.0.1:{port}", [f"127.0.0.1:{redis1.port}:1"]))
    args = ["-c", conf, "-p", pid_file, "-s", stats, "-a", "127.0.0.1", "--workers", workers]
    os.mkfifo(fifo)
    ends = [end.detach() for end in socket.socketpair()] if sink == "socket" else os.pipe()
    if sink == "pipe":
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    if sink == "fifo":
        args += ["-o", fifo]
        assert "No such device" in run(*args).stderr  # it needs a reader, and does not wait
        os.close(ends[0])
        ends = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), ends[1]
    proxy = start(Process, [BINARY, *map(str, args)], lambda: pid_file.exists() and can_connect(port),
                  stderr=ends[1], preexec_fn=(lambda: os.close(2)) if sink == "closed" else None)
    os.close(ends[1])
    with contextlib.ExitStack() as clients:
        c = clients.enter_context(Raw(port))
        for n in range(2):  # with a reader that does not read, and without one
            for _ in range(1500):
                os.kill(proxy.pid, signal.SIGUSR1)
                assert c.ask("PING") == b"+PONG"
            children = set(children_of(proxy.pid))
            for victim in children:  # the master replaces them
                os.kill(victim, signal.SIGKILL)
            wait_for(lambda: len(set(children_of(proxy.pid)) - children) == len(children))
            if n == 0:
                os.close(ends[0])
            if workers > 0:
                c.close()
                wait_for(lambda: can_connect(port))
                c = clients.enter_context(Raw(port))
        assert c.ask("SET", "a", 1) == b"+OK"
        with Raw(stats) as s:
            assert json.loads(s.rest())["alpha"]["client_connections"] == 1
    assert pid_file.read_text() == str(proxy.pid)
    assert proxy.kill(signal.SIGTERM) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_at_the_start_is_waited_for(start, redis1, tmp_path, workers):
    """Once the pid file names the process, a signal never kills it outright."""
    conf = tmp_path / "conf.yml"
    for n in range(20):
        port, pid_file = free_port(), tmp_path / f"pid{n}"
        conf.write_text(pool_yaml("alpha", f"127.0.0.1:{port}", [f"127.0.0.1:{redis1.port}:1"]))
        args = ["-c", conf, "-p", pid_file, "-s", free_port(), "-a", "127.0.0.1", "--workers",
                workers, "-o", tmp_path / "log"]
        proxy = start(Process, [BINARY, *map(str, args)],
                      lambda: pid_file.exists() and pid_file.read_text())
        os.kill(proxy.pid, signal.SIGUSR1)
        wait_for(lambda: can_connect(port))
        with Raw(port) as c:
            assert c.ask("PING") == b"+PONG"
        assert proxy.kill(signal.SIGTERM) == 0


def test_pid_file_is_locked(start, redis1, tmp_path):
    pid_file = tmp_path / "m.pid"
    m = start(Millrace, [redis1.port], args=["-p", pid_file])
    assert pid_file.read_bytes() == b"%d" % m.pid  # no newline
    conf = tmp_path / "second.yml"
    conf.write_text(pool_yaml("beta", f"127.0.0.1:{free_port()}", [f"127.0.0.1:{redis1.port}:1"]))
    second = run("-c", conf, "-p", pid_file, "-s", free_port(), "-a", "127.0.0.1")
    assert second.returncode == 1
    assert f"held by process {m.pid}" in second.stderr
    assert pid_file.read_bytes() == b"%d" % m.pid
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"
    # -k reads it
    assert run("-k", "nonsense", "-p", pid_file).returncode == 1
    assert run("-k", "reopen", "-p", pid_file).returncode == 0
    assert run("-k", "stop", "-p", pid_file).returncode == 0
    assert m.popen.wait(10) == 0
    assert not pid_file.exists()
    assert run("-k", "stop", "-p", pid_file).returncode == 1


def test_pid_file_of_a_killed_instance_is_taken_over(start, redis1, tmp_path):
    pid_file = tmp_path / "m.pid"
    m = start(Millrace, [redis1.port], args=["-p", pid_file])
    m.kill()
    again = start(Millrace, [redis1.port], args=["-p", pid_file])
    assert pid_file.read_bytes() == b"%d" % again.pid


@pytest.mark.parametrize("workers", [0, 2])
def test_pid_file_of_the_configuration_is_removed(start, redis1, workers):
    conf = "global: {pid_file: '@DIR@/with-a-rather-long-name.pid'}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Millrace, conf=conf, workers=workers)
    pid_file = m.dir / "with-a-rather-long-name.pid"
    assert pid_file.read_text() == str(m.pid)
    os.kill(m.pid, signal.SIGTERM)
    assert m.popen.wait(10 * SLOW) == 0
    assert not pid_file.exists()


def test_pid_file_of_somebody_else_is_left_alone(start, redis1, tmp_path):
    pid_file = tmp_path / "m.pid"
    m = start(Millrace, [redis1.port], args=["-p", pid_file])
    pid_file.unlink()
    pid_file.write_text("1")
    os.kill(m.pid, signal.SIGTERM)
    assert m.popen.wait(10 * SLOW) == 0
    assert pid_file.read_text() == "1"
    null = run("-c", m.conf, "-p", "/dev/null", "-s", free_port(), "-a", "127.0.0.1")
    assert null.returncode == 1 and "not a regular file" in null.stderr
    assert pathlib.Path("/dev/null").exists()


def test_a_unix_socket_of_somebody_else_is_left_alone(start, redis1, tmp_path):
    """Its path was freed by hand and is another instance's now."""
    path, admin = tmp_path / "s.sock", tmp_path / "admin.sock"
    conf = f"global: {{admin: '{admin}'}}\n" + pool_yaml("alpha", str(path),
                                                       [f"127.0.0.1:{redis1.port}:1"])
    first = start(Millrace, conf=conf)
    path.unlink()
    admin.unlink()
    second = start(Millrace, conf=conf)
    assert first.stop() == 0
    with Raw(str(path)) as c:
        assert c.ask("PING") == b"+PONG"
    Raw(str(admin)).close()
    assert second.stop() == 0
    assert not path.exists() and not admin.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_second_instance_on_the_same_port_harms_nothing(start, redis1, workers):
    m = start(Millrace, [redis1.port], workers=workers)
    second = run("-c", m.conf, "-s", free_port(), "-a", "127.0.0.1", "--workers", workers)
    assert second.returncode == 1
    assert f"pool 'alpha': bind to 127.0.0.1:{m.port}: Address already in use" in second.stderr
    for _ in range(20):
        with m.raw() as c:
            assert c.ask("PING") == b"+PONG"


@pytest.mark.parametrize("workers", [0, 2])
def test_daemonize(redis1, tmp_path, workers):
    port, stats, pid_file = free_port(), free_port(), tmp_path / "d.pid"
    conf = tmp_path / "d.yml"
    conf.write_text(pool_yaml("alpha", f"127.0.0.1:{port}", [f"127.0.0.1:{redis1.port}:1"]))
    args = ["-d", "-c", conf, "-p", pid_file, "-o", tmp_path / "log", "-s", stats, "-a",
            "127.0.0.1", "--workers", workers]
    first = run(*args)
    assert first.returncode == 0, first.stderr
    pid = int(pid_file.read_text())
    try:
        with Raw(port) as c:  # it serves once the command returns
            assert c.ask("PING") == b"+PONG"
        assert os.getsid(pid) != os.getsid(0)
        # errors appear on the terminal, with status 1
        again = run(*args)
        assert again.returncode == 1 and "is held by process" in again.stderr
        taken = run("-d", "-c", conf, "-o", tmp_path / "log2", "-s", free_port(), "-a", "127.0.0.1")
        assert taken.returncode == 1 and "Address already in use" in taken.stderr
        conf.write_text("alpha: nonsense\n")
        bad = run("-d", "-c", conf, "-s", free_port(), "-a", "127.0.0.1")
        assert bad.returncode == 1 and f"{conf}:1:8:" in bad.stderr
        used = run("-d", "-c", tmp_path / "ok.yml", "-s", stats)
        assert used.returncode == 1 and "ok.yml" in used.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not running(pid))
    assert not pid_file.exists()


def test_version():
    text = run("-V").stderr
    assert re.search(r"^  epoll +available$", text, re.M)
    assert re.search(r"^  io_uring +(available|not available: .+)$", text, re.M)
    assert re.search(r"^compiled with (gcc|clang) \d+\.", text, re.M)
    for library in ("libyaml", "jansson", "libmicrohttpd", "nettle"):
        assert re.search(rf"^  {library} +\d+\.\d+", text, re.M), text


def test_command_line(tmp_path, redis1):
    for flag in ("-h", "--help", "-V", "-D"):
        out = run(flag)
        assert out.returncode == 0 and out.stderr.startswith("This is millrace-")
    usage = run("-h").stderr
    assert "  -c, --conf-file=FILE    configuration file" in usage
    assert "      --engine=NAME       auto, epoll or io_uring" in usage
    assert all(len(line) <= 80 for line in usage.splitlines())
    assert [usage.count(f"\n{group}:\n") for group in ("Run", "Log", "Statistics", "Other")] == [1] * 4
    described = run("-D").stderr
    assert "pool stats:" in described and '  client_eof          "' in described
    bad = run("-x")
    assert bad.returncode == 1 and "invalid option -- 'x'" in bad.stderr and "Usage" in bad.stderr
    conf = tmp_path / "c.yml"
    conf.write_text(pool_yaml("alpha", "127.0.0.1:1", ["127.0.0.1:1:1"]))
    ok = run("-t", "-c", conf)
    assert ok.returncode == 0
    assert ok.stderr == f"millrace: configuration file '{conf}' syntax is ok\n"
    conf.write_text(conf.read_text().replace("hash:", "hsah:"))
    bad = run("-t", "-c", conf)
    assert bad.returncode == 1
    assert f'{conf}:4:3: directive "hsah" is unknown; did you mean "hash"?' in bad.stderr
    assert bad.stderr.endswith(f"millrace: configuration file '{conf}' syntax is invalid\n")
    conf.write_text(conf.read_text() + "beta: {listen: 127.0.0.1:2}\n")
    for args in (["-t"], []):  # all errors, each with its place
        bad = run(*args, "-c", conf)
        assert bad.returncode == 1
        lines = [line.removeprefix(f"millrace: {conf}:") for line in bad.stderr.splitlines()]
        assert lines[0].startswith('4:3: directive "hsah"'), lines
        assert lines[1].endswith("pool 'beta': directive \"servers:\" is missing"), lines
    missing = run("-t", "-c", tmp_path / "none.yml")
    assert missing.returncode == 1 and "No such file" in missing.stderr
    assert run("-c", tmp_path / "none.yml").returncode == 1
    full = run("-c", conf, "-o", "/nonexistent/log")
    assert full.returncode == 1
    conf.write_text(pool_yaml("alpha", f"127.0.0.1:{free_port()}", ["127.0.0.1:1:1"]))
    full = run("-c", conf, "-o", "/nonexistent/log", "-s", free_port())
    assert full.returncode == 1 and "log file '/nonexistent/log'" in full.stderr
    used = run("-c", conf, "-s", redis1.port, "-a", "127.0.0.1")
    assert used.returncode == 1 and "statistics port: bind to" in used.stderr


@pytest.mark.alone
def test_dev_run_cleans_up():
    """The README's first command: it serves, and leaves nothing behind when stopped."""
    if INSTRUMENTED:
        pytest.skip("it builds and runs the release build")
    root = pathlib.Path(__file__).parents[2]
    run_ = subprocess.Popen([root / "dev", "run", "--workers", "1"], stderr=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, text=True, start_new_session=True)
    text = ""
    for line in run_.stderr:
        text += line
        if "Ctrl-C" in line:
            break
    assert "serves 127.0.0.1:" in text, text
    port = int(text.split("serves 127.0.0.1:")[1].split()[0])
    redis_port = int(text.split("redis-server on 127.0.0.1:")[1].split(".")[0])
    with Raw(port) as c:
        assert c.ask("SET", "hello", "world") == b"+OK"
    os.kill(run_.pid, signal.SIGTERM)
    run_.stderr.read()
    assert run_.wait(20) == 0
    assert not can_connect(port)
    wait_for(lambda: not can_connect(redis_port))


def test_warnings_are_shown(tmp_path):
    conf = tmp_path / "c.yml"
    conf.write_text(pool_yaml("alpha", "127.0.0.1:1", ["127.0.0.1:1:1", "127.0.0.1:2:1"],
                              hash="crc32"))
    out = run("-t", "-c", conf)
    assert out.returncode == 0 and f"warning: {conf}:4:9: pool 'alpha': hash crc32" in out.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")
def test_workers_run_as_another_user(start, redis1):
    conf = ("global:\n  worker_processes: 2\n  user: nobody\npools:\n" + "\n".join(
        "  " + line for line in pool_yaml("alpha", "127.0.0.1:@PORT@",
                                          [f"127.0.0.1:{redis1.port}:1"]).splitlines()) + "\n")
    m = start(Millrace, conf=conf, workers=None)
    import pwd
    for pid in m.child_pids():
        assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam("nobody").pw_uid
    moved = m.dir / "log.1"  # the master reopens root's log for them
    m.log.rename(moved)
    os.kill(m.pid, signal.SIGUSR1)
    wait_for(m.log.exists)
    pid = m.child_pids()[0]
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: f"[{pid}]" in m.log_text())


def test_single_process_resolves_and_serves_statistics(start, redis1):
    m = start(Millrace, [f"localhost:{redis1.port}:1"], workers=0)
    assert m.child_pids() == []
    with m.raw() as c:
        wait_for(lambda: c.ask("SET", "a", 1) == b"+OK", what="resolved name")
    assert m.pool()["client_connections"] >= 0
    assert m.stop() == 0


def test_the_resolver_of_a_single_process_is_replaced(start, names, redis1):
    names.are("127.0.0.9")
    m = start(Millrace, conf=f"global: {{worker_processes: 0, resolve_interval: 100ms, {names.conf}}}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"name.test:{redis1.port}:1"]), workers=None)
    wait_for(lambda: "new=127.0.0.9:" in m.log_text())
    resolver = m.child_pids("millrace")[0]
    os.kill(resolver, signal.SIGKILL)
    names.are("127.0.0.1")
    wait_for(lambda: "new=127.0.0.1:" in m.log_text())
    assert resolver not in m.child_pids("millrace")  # nor is it left unreaped
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"
        wait_for(lambda: c.ask("SET", "a", 1) == b"+OK")
    m.log.rename(m.dir / "old")
    os.kill(m.pid, signal.SIGUSR1)
    log = str(m.log.resolve())
    wait_for(lambda: all(log in [os.readlink(f) for f in pathlib.Path(f"/proc/{p}/fd").iterdir()]
                         for p in [m.pid, *m.child_pids("millrace")]))


def test_hot_restart_keeps_the_port_free(start, redis1):
    """Stopped and restarted at once on the same port, like an init script does."""
    m = start(Millrace, [redis1.port], workers=2)
    c = m.raw()
    assert c.ask("PING") == b"+PONG"
    conf = m.conf.read_text()
    port = m.port
    assert m.stop() == 0
    again = start(Millrace, conf=conf, workers=2)
    with Raw(port) as d:
        assert d.ask("PING") == b"+PONG"
    assert again.alive()
    c.close()


@pytest.mark.alone
def test_load_through_worker_kills(start, redis4):
    """Clients that reconnect see only their own values while workers are killed."""
    m = start(Millrace, [s.port for s in redis4], workers=3)
    stop = threading.Event()
    wrong, done = [], [0]

    def client(i):
        n = 0
        while not stop.is_set():
            try:
                with m.raw(timeout=10) as c:
                    while not stop.is_set():
                        n += 1
                        tag = b"%d:%d" % (i, n)
                        c.send(command("SET", f"c{i}", tag) + command("GET", f"c{i}"))
                        if c.reply() != b"+OK" or c.reply() != tag:
                            wrong.append(tag)
                        done[0] += 1
            except (EOFError, OSError):
                pass

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for i in range(10):
        time.sleep(0.1)
        pids = m.child_pids()
        if pids:
            os.kill(pids[i % len(pids)], signal.SIGKILL)
    time.sleep(0.2)
    stop.set()
    for t in threads:
        t.join()
    assert not wrong
    assert done[0] > 100
    wait_for(lambda: len(m.child_pids()) == 3)


@pytest.mark.alone
def test_a_worker_that_hangs_is_replaced(start, redis1):
    """Stopped, it answers no pings; the others keep serving, and its successor gets its queue."""
    conf = ("global: {worker_hang_timeout: %dms}\n" % int(400 * SLOW)) + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Millrace, conf=conf, workers=2)
    before = m.child_pids()
    os.kill(before[0], signal.SIGSTOP)
    wait_for(lambda: process_state(before[0]) == "T")
    waiting = [m.raw(timeout=20) for _ in range(20)]
    for c in waiting:
        c.send(command("SET", "a", 1))
    wait_for(lambda: "child_hangs" in m.log_text(), 10)
    assert [c.reply() for c in waiting] == [b"+OK"] * 20
    wait_for(lambda: len(m.child_pids()) == 2 and before[0] not in m.child_pids())
    assert before[1] in m.child_pids()
    admin = m.admin_pid()
    os.kill(admin, signal.SIGSTOP)
    wait_for(lambda: m.child_pids("admin") not in ([], [admin]), 10)
    assert m.pool()["client_connections"] == 20


def test_a_worker_that_has_died_is_not_taken_for_one_that_does_not_listen(start, redis1):
    """The master was busy or stopped when the worker died: it is reaped, not killed for silence."""
    m = start(Millrace, workers=2, conf=f"""
global: {{worker_hang_timeout: 400ms}}
{pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])}""")
    victim = m.child_pids()[0]
    os.kill(m.pid, signal.SIGSTOP)
    wait_for(lambda: process_state(m.pid) == "T", what="a master that stands still")
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: process_state(victim) == "Z", what="a dead worker")
    time.sleep(0.15 * SLOW)  # the next ping is due
    os.kill(m.pid, signal.SIGCONT)
    wait_for(lambda: f"child_died child=worker/0 pid={victim} signal=9" in m.log_text())
    assert "channel_send_failed" not in m.log_text() and "takes_no_message" not in m.log_text()


def test_a_worker_that_stood_still_learns_every_address(start, names):
    """There are more addresses than its channel holds."""
    n = 400
    names.are("127.0.0.2")
    servers = "".join(f"   - s{i}.test:1:1 s{i}\n" for i in range(n))
    m = start(Millrace, conf=f"""
global: {{resolve_interval: 100ms, worker_hang_timeout: 0s, {names.conf}}}
alpha:
  listen: 127.0.0.1:@PORT@
  redis: true
  servers:
""" + servers)
    worker, = m.child_pids()
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: process_state(worker) == "T", what="a worker that stands still")
    names.are("127.0.0.3")
    wait_for(lambda: "child_behind child=worker/0" in m.log_text(), what="a full channel")
    os.kill(worker, signal.SIGCONT)

    def learnt():
        return set(re.findall(r"server=(s\d+) old=127.0.0.2:1 new=127.0.0.3:1", m.log_text()))

    wait_for(lambda: len(learnt()) == n, what="all addresses in the worker")
    assert m.child_pids() == [worker]


def test_a_worker_that_stood_still_writes_to_the_last_log(start, redis1):
    """The log was rotated more often than its channel holds messages."""
    m = start(Millrace, [redis1.port], workers=2, conf=f"""
global: {{worker_hang_timeout: 0s}}
{pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])}""")
    workers = m.child_pids()
    os.kill(workers[0], signal.SIGSTOP)
    wait_for(lambda: process_state(workers[0]) == "T", what="a worker that stands still")
    for _ in range(150):
        m.log.rename(m.dir / "rotated")
        os.kill(m.pid, signal.SIGUSR1)
        wait_for(lambda: "log_reopened" in m.log_text(), what="the new log")
    os.kill(workers[0], signal.SIGCONT)

    def logs_of(pid):
        links = []
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # may be closed already
                links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        return [link for link in links if link.startswith((str(m.log), str(m.dir / "rotated")))]

    for pid in workers:
        wait_for(lambda: logs_of(pid) == [str(m.log)], what="the last log in a worker")
    assert m.child_pids() == workers


def test_workers_keep_to_their_cpus(start, redis1):
    allowed = sorted(os.sched_getaffinity(0))
    text = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Millrace, conf="global: {worker_cpu_affinity: auto}\n" + text, workers=3)
    masks = sorted(tuple(os.sched_getaffinity(p)) for p in m.child_pids())
    assert masks == sorted((allowed[i % len(allowed)],) for i in range(3))
    assert os.sched_getaffinity(m.pid) == set(allowed)
    m.conf.write_text(m.conf.read_text().replace("auto", f"'{allowed[-1]}'"))
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: "generation_gone" in m.log_text(), 10)
    assert {tuple(os.sched_getaffinity(p)) for p in m.child_pids()} == {(allowed[-1],)}


def test_the_cpu_is_in_meitus_statistics(start, redis1):
    allowed = sorted(os.sched_getaffinity(0))
    pool = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Millrace, workers=2, conf="global: {worker_cpu_affinity: auto, user: root}\npools:\n" +
              "".join("  " + line + "\n" for line in pool.splitlines()))
    assert sorted(w["cpu"] for w in m.stats()) == sorted(allowed[i % len(allowed)] for i in (0, 1))


@pytest.mark.parametrize("value", ["1023", "x", "1-", "3-1", "'0,,1'"])
def test_a_bad_affinity_is_refused(redis1, tmp_path, value):
    conf = tmp_path / "c.yml"
    conf.write_text(f"global: {{worker_cpu_affinity: {value}}}\n" + pool_yaml(
        "alpha", "127.0.0.1:1", [f"127.0.0.1:{redis1.port}:1"]))
    out = run("-t", "-c", conf)
    assert out.returncode == 1 and "worker_cpu_affinity" in out.stderr


def test_the_supervisor_is_told(start, redis1, tmp_path):
    """As systemd sees it with Type=notify: readiness, reload, watchdog, stop."""
    import socket
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(10 * SLOW)
        m = start(Millrace, [redis1.port], workers=2,
                  env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"})
        told = []

        def until(word):
            while not any(word in t for t in told):
                told.append(s.recv(4096).decode())

        until("READY=1")
        assert any(f"MAINPID={m.pid}" in t for t in told)
        until("WATCHDOG=1")
        told.clear()
        os.kill(m.pid, signal.SIGHUP)
        until("RELOADING=1")
        until("READY=1")
        m.conf.write_text("nonsense")
        told.clear()
        os.kill(m.pid, signal.SIGHUP)
        until("the last reload failed")
        assert any("RELOADING=1" in t for t in told)
        os.kill(m.pid, signal.SIGTERM)
        until("STOPPING=1")
        environment = pathlib.Path(f"/proc/{m.pid}/environ")
        assert environment.exists() or not m.alive()


def test_the_difference_of_two_files_is_told(redis1, tmp_path):
    a, b = tmp_path / "a.yml", tmp_path / "b.yml"
    servers = [f"10.0.0.{i}:6379:1" for i in range(1, 5)]
    a.write_text(pool_yaml("one", "127.0.0.1:1", servers) + pool_yaml("old", "127.0.0.1:2", servers))
    b.write_text(pool_yaml("one", "127.0.0.1:1", servers[:3]) +
                 pool_yaml("new", "127.0.0.1:3", servers))
    out = run("-t", "-c", b, "--diff", a)
    assert out.returncode == 0
    share = float(re.search(r"pool one: ([\d.]+) % of the keys move", out.stdout)[1])
    assert 10 < share < 45  # ketama moves about a quarter of the ring
    for line in ("pool one: server removed: 10.0.0.4:6379:1", "pool added: new",
                 "pool removed: old", "listener added: 127.0.0.1:3", "listener removed: 127.0.0.1:2"):
        assert line in out.stdout
    same = run("-t", "-c", a, "--diff", a)
    assert same.stdout == "no changes to keys, pools or listeners\n"
    assert run("-t", "-c", a, "--diff", tmp_path / "none").returncode == 1


def without_io_uring():
    """In a child: a seccomp filter like that of containers; io_uring_setup fails with EPERM."""
    import ctypes
    import struct
    libc = ctypes.CDLL(None, use_errno=True)
    refuse_setup = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001),
                    (0x06, 0, 0, 0x7fff0000)]  # load the number; 425 (everywhere): EPERM; else allow
    code = b"".join(struct.pack("HBBI", *line) for line in refuse_setup)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(refuse_setup), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0


def test_auto_falls_back_to_epoll_where_io_uring_is_forbidden(redis1, tmp_path):
    """One log line says why; if requested by name, it is an error."""
    port, log, conf = free_port(), tmp_path / "log", tmp_path / "c.yml"
    conf.write_text(pool_yaml("alpha", f"127.0.0.1:{port}", [f"127.0.0.1:{redis1.port}:1"]))
    arguments = [BINARY, "-c", conf, "-o", log, "--workers", "2", "-a", "127.0.0.1"]
    child = subprocess.Popen([*arguments, "-s", str(free_port()), "--engine", "auto"],
                             preexec_fn=without_io_uring)
    try:
        wait_for(lambda: log.exists() and " started " in log.read_text())
        with Raw(port) as c:
            assert c.ask("SET", "a", 1) == b"+OK"
        assert log.read_text().count("engine_fallback engine=epoll reason=") == 1
        assert " engine=epoll" in log.read_text()
    finally:
        child.terminate()
        assert child.wait(20 * SLOW) == 0
    out = subprocess.run([*arguments, "-s", str(free_port()), "--engine", "io_uring"],
                         capture_output=True, text=True, timeout=20 * SLOW,
                         preexec_fn=without_io_uring)
    assert out.returncode == 1 and "engine: io_uring_setup" in out.stderr, out.stderr
    out = subprocess.run([BINARY, "-V"], capture_output=True, text=True, timeout=20 * SLOW,
                         preexec_fn=without_io_uring)
    assert "async event backend: epoll\n" in out.stderr
    assert "  io_uring       not available: " in out.stderr and "io_uring_setup" in out.stderr
