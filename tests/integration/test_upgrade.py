"""USR2: a new binary takes over the sockets, counters and clients of the old one. A short version runs
with the other tests; MILLRACE_UPGRADES and MILLRACE_CLIENTS set the full one."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import threading
import time

import pytest
from harness import (BINARY, SLOW, Gated, Millrace, Raw, Redis, command, free_port, pool_yaml,
                     process_state, wait_for)
from test_reload import Writer, finish, refuses_removed_addresses

UPGRADES = int(os.environ.get("MILLRACE_UPGRADES", "5"))
CLIENTS = int(os.environ.get("MILLRACE_CLIENTS", "20"))
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def adopt_orphans():
    """The new master's parent is the old one; when that ends, the new one becomes our child."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Upgradable(Millrace):
    def __init__(self, *args, **kwargs):
        self.first = None
        extra = list(kwargs.pop("args", ()))
        self.pid_path = None
        super().__init__(*args, args=extra, **kwargs)
        self.first = self.popen

    def upgrade(self, seconds=20):
        old = self.pid
        before = self.log_text().count(" upgraded ")
        os.kill(old, signal.SIGUSR2)
        wait_for(lambda: self.log_text().count(" upgraded ") > before, seconds, "upgrade")
        self.pid = int(self.log_text().rsplit("handed_over to_pid=", 1)[1].split()[0])
        assert self.pid != old
        if old == self.popen.pid:
            assert self.popen.wait(20 * SLOW) == 0
        else:
            assert os.waitpid(old, 0)[1] == 0

    def kill(self, signo=signal.SIGKILL):
        if self.pid == self.popen.pid:
            return super().kill(signo)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signo)
        with contextlib.suppress(ChildProcessError):
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return 0

    def alive(self):
        if self.pid == self.popen.pid:
            return super().alive()
        return os.path.exists(f"/proc/{self.pid}")


def test_upgrades_under_load(start, redis4):
    m = start(Upgradable, [s.port for s in redis4[:3]], workers=2)
    writers = [Writer(m.port, i) for i in range(CLIENTS)]
    for w in writers:
        w.start()
    for _ in range(UPGRADES):
        m.upgrade()
        time.sleep(0.05)
    finish(writers, "upgrades", UPGRADES)
    assert [w.dropped for w in writers if w.dropped] == []
    with m.raw() as c:
        for w in writers:
            for k, v in w.acked.items():
                assert c.ask("GET", k) == v


def test_everything_goes_along(start, redis1, tmp_path):
    """Counters, pid file, unix socket, session, half a request, a changed configuration."""
    pid_file = tmp_path / "pid"
    unix, other = tmp_path / "s.sock", free_port()
    text = pool_yaml("alpha", f"['127.0.0.1:@PORT@', '{unix}']", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Upgradable, conf=text, workers=2, args=["-p", pid_file])
    first = m.pid
    name = f"127.0.0.1:{redis1.port}"
    with m.raw() as c, Raw(str(unix)) as local:
        ident = c.ask("CLIENT", "ID")
        for i in range(100):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
        wire = command("SET", "half", "x" * 100)
        local.send(wire[:50])
        time.sleep(0.1)
        before = m.pool()[name]["requests"]
        m.conf.write_text(m.conf.read_text() + pool_yaml(
            "beta", f"127.0.0.1:{other}", [f"127.0.0.1:{redis1.port}:1"]))
        m.upgrade()
        assert pid_file.read_text() == str(m.pid) != str(first)
        assert c.ask("CLIENT", "ID") == ident
        local.send(wire[50:])
        assert local.reply() == b"+OK"
        assert m.pool()[name]["requests"] == before + 1
        assert m.pool()["client_connections"] == 2
        with Raw(other) as beta, Raw(str(unix)) as again:
            assert beta.ask("GET", "k7") == b"7" and again.ask("GET", "half") == b"x" * 100
        m.upgrade()
        assert c.ask("GET", "k9") == b"9"
        os.kill(m.pid, signal.SIGHUP)  # the new one reloads like any other
        wait_for(lambda: " reloaded " in m.log_text())
        assert c.ask("GET", "k9") == b"9"
    assert m.stop() == 0
    assert not unix.exists() and not pid_file.exists()


def test_pid_file_follows_the_configuration(start, redis1, tmp_path):
    one, two = tmp_path / "one.pid", tmp_path / "two.pid"
    pool = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Upgradable, conf=f"global: {{pid_file: '{one}'}}\n" + pool)
    m.conf.write_text(m.conf.read_text().replace("one.pid", "two.pid"))
    m.upgrade()
    wait_for(lambda: not one.exists())
    assert two.read_text() == str(m.pid)
    m.upgrade()
    assert two.read_text() == str(m.pid)
    assert m.stop() == 0
    assert not one.exists() and not two.exists()


def test_what_is_known_of_servers_goes_along(start, redis1):
    """An ejected server stays ejected; its state need not be found out again."""
    m = start(Upgradable, [redis1.port, free_port()], workers=2, auto_eject_hosts="true",
              server_failure_limit=1, server_retry_timeout=60000)

    def failures():
        with m.raw() as c:
            return sum(c.ask("SET", f"k{i}", 1) != b"+OK" for i in range(30))

    assert failures() == 1 and m.pool()["server_ejects"] == 1
    for _ in range(2):
        m.upgrade()
        assert failures() == failures() == 0
    assert m.pool()["server_ejects"] == 1


def test_fewer_workers_after_an_upgrade(start, redis1):
    m = start(Upgradable, conf="global: {worker_processes: 3}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]), workers=None)
    failures, stop, done = [], threading.Event(), [0]

    def storm():
        while not stop.is_set():
            try:
                with Raw(m.port, timeout=10) as c:
                    assert c.ask("PING") == b"+PONG"
                done[0] += 1
            except (OSError, EOFError, AssertionError) as e:
                failures.append(repr(e))

    threads = [threading.Thread(target=storm, daemon=True) for _ in range(4)]
    for t in threads:
        t.start()
    for n in (1, 4, 2):
        m.conf.write_text(m.conf.read_text().replace(
            m.conf.read_text().split("}")[0], "global: {worker_processes: %d" % n))
        m.upgrade()
        wait_for(lambda n=n: len(m.child_pids()) == n)
    stop.set()
    for t in threads:
        t.join(20)
    assert failures == [] and done[0] > 50


def refused(m, seconds=20):
    before = m.log_text().count("upgrade_failed")
    os.kill(m.pid, signal.SIGUSR2)
    wait_for(lambda: m.log_text().count("upgrade_failed") > before, seconds, "refusal")


def test_a_new_binary_that_fails_changes_nothing(start, redis1, tmp_path):
    """A bad configuration, a program that exits, a file that is no program, no file: the old one serves."""
    binary = tmp_path / "millrace"
    shutil.copy(BINARY, binary)
    import harness
    keep, harness.BINARY = harness.BINARY, str(binary)
    pid_file = tmp_path / "pid"
    try:
        m = start(Upgradable, [redis1.port], workers=2, args=["-p", pid_file],
                  listen="['127.0.0.1:@PORT@', '@DIR@/s.sock']")
    finally:
        harness.BINARY = keep
    good = m.conf.read_text()
    children, fds = m.child_pids(), len(os.listdir(f"/proc/{m.pid}/fd"))
    with m.raw() as c, Raw(str(m.dir / "s.sock")) as local:
        assert c.ask("SET", "a", 1) == b"+OK"
        m.conf.write_text(good.replace("ketama", "kettle"))
        refused(m)
        m.conf.write_text(good)
        binary.unlink()
        for script in ("#!/bin/false\n", "#!/bin/sh\nexit 0\n", "not a program", None):
            if script is not None:
                binary.write_text(script)
                binary.chmod(0o755)
            refused(m)
            assert c.ask("GET", "a") == b"1" and local.ask("GET", "a") == b"1"
            with m.raw() as fresh:
                assert fresh.ask("GET", "a") == b"1"
            with contextlib.suppress(FileNotFoundError):
                binary.unlink()
        assert m.child_pids() == children
        wait_for(lambda: len(os.listdir(f"/proc/{m.pid}/fd")) == fds)
        assert pid_file.read_text() == str(m.pid)
        shutil.copy(BINARY, binary)
        m.upgrade()
        assert c.ask("GET", "a") == b"1" and local.ask("GET", "a") == b"1"


def test_the_new_master_dies_before_it_serves(start):
    server = start(Redis)
    m = start(Upgradable, [server.port], workers=2)
    with m.raw(timeout=20) as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        os.kill(server.pid, signal.SIGSTOP)  # delays DRAINED
        c.send(command("GET", "a"))
        wait_for(lambda: m.pool()[f"127.0.0.1:{server.port}"]["out_queue"] == 1)
        m.conf.write_text(m.conf.read_text().replace("murmur", "crc32"))
        os.kill(m.pid, signal.SIGUSR2)
        wait_for(lambda: m.log_text().count("spawned child=worker/1") >= 2)
        time.sleep(0.1)
        new = [int(p) for p in os.listdir("/proc") if p.isdigit() and parent(p) == m.pid and
               comm(p) == "millrace"]
        assert len(new) == 1
        os.kill(new[0], signal.SIGKILL)
        wait_for(lambda: "upgrade_failed" in m.log_text())
    os.kill(server.pid, signal.SIGCONT)
    wait_for(lambda: len(m.child_pids()) == 2)
    with m.raw(timeout=20) as again:
        assert again.ask("GET", "a") == b"1"
    m.upgrade()
    with m.raw() as again:
        assert again.ask("GET", "a") == b"1"


def new_master(m):
    """The process started by USR2, once it runs."""
    def found():
        return [int(p) for p in os.listdir("/proc") if p.isdigit() and parent(p) == m.pid and
                comm(p) == "millrace"]
    wait_for(found)
    return found()[0]


def drains(m, server, *busy):
    """USR2 that moves keys while these clients' requests are in flight. Returns the new master."""
    for c in busy:
        c.send(command("GET", "slow"))
    wait_for(lambda: server.waiting)
    m.conf.write_text(m.conf.read_text().replace("murmur", "crc32"))
    before = m.log_text().count("handover_begins")
    os.kill(m.pid, signal.SIGUSR2)
    wait_for(lambda: m.log_text().count("handover_begins") == before + 2)
    return new_master(m)


def test_a_reload_of_the_new_master_waits_for_the_clients_of_the_old_one(start):
    server = start(Gated)
    m = start(Upgradable, [server.port], workers=1, timeout=20000)
    with m.raw(timeout=20) as c:
        assert c.ask("GET", "x") == b"A"
        c.send(command("GET", "slow"))
        wait_for(lambda: server.waiting)
        os.kill(m.pid, signal.SIGUSR2)
        wait_for(lambda: "handed_over" in m.log_text())
        new = new_master(m)
        wait_for(lambda: m.log_text().count(" started ") == 2)
        os.kill(new, signal.SIGHUP)
        wait_for(lambda: "log_reopened" in m.log_text())
        server.gate.set()
        assert c.reply() == b"slow"
        assert c.ask("GET", "x") == b"A"
        wait_for(lambda: " reloaded " in m.log_text())
        assert c.ask("GET", "x") == b"A"
    assert m.popen.wait(20 * SLOW) == 0
    m.pid = new
    assert m.stop() == 0


def test_a_reload_asked_of_the_old_master_reaches_the_new_one(start):
    server = start(Gated)
    m = start(Upgradable, [server.port], workers=2, timeout=20000, hash="murmur")
    with m.raw(timeout=20) as c:
        new = drains(m, server, c)
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: "log_reopened" in m.log_text())
        server.gate.set()
        assert c.reply() == b"slow"
        wait_for(lambda: " reloaded " in m.log_text())
        assert c.ask("GET", "x") == b"A"
    assert m.popen.wait(20 * SLOW) == 0
    m.pid = new
    assert m.stop() == 0


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGKILL])
def test_the_old_master_is_stopped_while_keys_move(start, tmp_path, signo):
    """TERM: requests in flight are answered. KILL: they are lost. Then the new master serves."""
    server = start(Gated)
    unix, pid_file = tmp_path / "s.sock", tmp_path / "pid"
    m = start(Upgradable, [server.port], workers=2, timeout=20000, hash="murmur",
              args=["-p", pid_file], listen=f"['127.0.0.1:@PORT@', '{unix}']")
    with m.raw(timeout=20) as busy, m.raw(timeout=20) as idle:
        assert idle.ask("GET", "x") == b"A"
        new = drains(m, server, busy)
        idle.send(command("GET", "x"))
        assert pid_file.read_text() == str(new)  # the pid file names this one now
        os.kill(m.pid, signo)
        if signo == signal.SIGTERM:
            wait_for(lambda: "stopping" in m.log_text())
            server.gate.set()
            assert busy.reply() == b"slow"
            assert busy.ask("GET", "x") == b"A"
        else:
            assert busy.rest() == b""
            server.gate.set()
        assert m.popen.wait(20 * SLOW) == (0 if signo == signal.SIGTERM else -signo)
        assert idle.reply() == b"A"
    m.pid = new
    wait_for(lambda: " upgraded " in m.log_text())
    assert pid_file.read_text() == str(new)
    with m.raw() as c, Raw(str(unix)) as local:
        assert c.ask("GET", "x") == local.ask("GET", "x") == b"A"
    assert m.stop() == 0
    assert not unix.exists() and not pid_file.exists()


def stopped_at_its_start(start, tmp_path, servers, **kwargs):
    """USR2. Returns the new master, stopped before it has done anything."""
    binary = tmp_path / "millrace"
    shutil.copy(BINARY, binary)
    import harness
    keep, harness.BINARY = harness.BINARY, str(binary)
    try:
        m = start(Upgradable, servers, **kwargs)
    finally:
        harness.BINARY = keep
    binary.unlink()
    binary.write_text(f'#!/bin/sh\nkill -STOP $$\nexec {BINARY} "$@"\n')
    binary.chmod(0o755)
    os.kill(m.pid, signal.SIGUSR2)
    new = new_master(m)
    wait_for(lambda: process_state(new) == "T")
    return m, new


def test_an_upgrade_that_is_called_off_late_loses_nobody(start, tmp_path):
    """The old master is stopped while the new one starts, and then has to stop."""
    server = start(Gated)
    m, new = stopped_at_its_start(start, tmp_path, [server.port], workers=1, timeout=20000)
    worker = m.child_pids()[0]
    os.kill(m.pid, signal.SIGSTOP)
    os.kill(worker, signal.SIGSTOP)
    os.kill(new, signal.SIGCONT)
    wait_for(lambda: f"master[{new}] upgrade_step from=starting" in m.log_text())
    clients = [m.raw(timeout=20) for _ in range(8)]
    for c in clients:
        c.send(command("GET", "slow"))
    time.sleep(0.3)  # so that the new worker can take them, if it may
    os.kill(worker, signal.SIGCONT)
    wait_for(lambda: server.waiting)
    os.kill(m.pid, signal.SIGTERM)
    os.kill(m.pid, signal.SIGCONT)
    wait_for(lambda: f"master[{new}] stopped" in m.log_text())
    server.gate.set()
    for c in clients:
        assert c.reply() == b"slow"
        c.close()
    assert m.popen.wait(20 * SLOW) == 0


def test_the_old_master_is_killed_before_the_new_one_is_up(start, redis1, tmp_path):
    """Nobody else is left to serve, so the new master does."""
    m, new = stopped_at_its_start(start, tmp_path, [redis1.port], workers=2)
    os.kill(m.pid, signal.SIGKILL)
    m.popen.wait(20 * SLOW)
    os.kill(new, signal.SIGCONT)
    m.pid = new
    wait_for(lambda: " upgraded " in m.log_text())
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
    assert m.stop() == 0


def test_the_new_master_is_stopped_while_keys_move(start):
    """It has the clients: both sides answer what was sent, then everything ends."""
    server = start(Gated)
    m = start(Upgradable, [server.port], workers=2, timeout=20000, hash="murmur")
    with m.raw(timeout=20) as busy, m.raw(timeout=20) as idle:
        assert idle.ask("GET", "x") == b"A"
        new = drains(m, server, busy)
        idle.send(command("GET", "x"))
        os.kill(new, signal.SIGTERM)
        wait_for(lambda: "stopping" in m.log_text())
        busy.send(command("GET", "x"))
        server.gate.set()
        assert busy.reply() == b"slow" and busy.reply() == idle.reply() == b"A"
        assert busy.rest() == idle.rest() == b""
    assert m.popen.wait(20 * SLOW) == 0
    m.pid = new
    wait_for(lambda: m.log_text().count(" stopped status=0") == 2)


def test_an_upgrade_that_fails_while_keys_move_leaves_the_old_service_whole(start):
    """The same workers continue with their requests in flight; the next reload waits for these."""
    server = start(Gated)
    m = start(Upgradable, [server.port], workers=2, timeout=20000, hash="murmur")
    workers = m.child_pids()
    with m.raw(timeout=20) as busy:
        assert busy.ask("GET", "x") == b"A"
        os.kill(drains(m, server, busy), signal.SIGKILL)
        wait_for(lambda: m.log_text().count("to=serving") == 2)
        server.gate.set()
        assert busy.reply() == b"slow"
        assert busy.ask("GET", "x") == b"A"
        for _ in range(10):
            with m.raw() as fresh:
                assert fresh.ask("GET", "x") == b"A"
        assert m.child_pids() == workers
        server.gate.clear()
        server.waiting = 0
        busy.send(command("GET", "slow"))
        wait_for(lambda: server.waiting)
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.log_text().count("handover_begins") == 4)
        with m.raw(timeout=20) as other:
            other.send(command("GET", "moved"))
            time.sleep(0.2)
            assert b"moved" not in server.received and " reloaded " not in m.log_text()
            server.gate.set()
            assert busy.reply() == b"slow" and other.reply() == b"A"
        wait_for(lambda: " reloaded " in m.log_text())


def test_a_reload_that_was_asked_for_survives_an_upgrade_that_fails(start, redis1, tmp_path):
    """HUP and USR2 at once: the upgrade would read the configuration too, but it does not start."""
    m, new = stopped_at_its_start(start, tmp_path, [redis1.port], workers=1)
    os.kill(new, signal.SIGKILL)
    wait_for(lambda: "upgrade_failed" in m.log_text() and "to=rest" in m.log_text())
    (tmp_path / "millrace").unlink()
    for before in (1, 2):
        os.kill(m.pid, signal.SIGSTOP)
        os.kill(m.pid, signal.SIGHUP)
        os.kill(m.pid, signal.SIGUSR2)
        os.kill(m.pid, signal.SIGCONT)
        wait_for(lambda: m.log_text().count("upgrade_failed") > before)
        wait_for(lambda: m.log_text().count(" reloaded ") == before)


@contextlib.contextmanager
def supervisor(tmp_path):
    """The path of a socket as systemd has it, and what comes there: (process id, text)."""
    path, said = str(tmp_path / "notify"), []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        s.bind(path)

        def listen():
            with contextlib.suppress(OSError):
                while True:
                    text, ancillary, *_ = s.recvmsg(4096, 100)
                    if not ancillary:
                        return
                    said.append((int.from_bytes(ancillary[0][2][:4], "little"), text.decode()))
        threading.Thread(target=listen, daemon=True).start()
        yield path, said
        s.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("ends", ["new", "old"])
def test_a_master_that_does_not_serve_does_not_end_the_service(start, tmp_path, ends):
    """STOPPING from either would make systemd end all of them; so one speaks at a time."""
    with supervisor(tmp_path) as (path, said):
        server = start(Gated)
        m = start(Upgradable, [server.port], workers=2, timeout=20000, hash="murmur",
                  env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"})
        old = m.pid
        with m.raw(timeout=20) as busy:
            new = drains(m, server, busy)
            os.kill(new if ends == "new" else old, signal.SIGINT)
            if ends == "new":
                wait_for(lambda: m.log_text().count("to=serving") == 2)
                server.gate.set()
                assert busy.reply() == b"slow"
            else:
                assert m.popen.wait(20 * SLOW) == 1
                m.pid = new
                wait_for(lambda: " upgraded " in m.log_text())
                server.gate.set()
        serves = old if ends == "new" else new
        wait_for(lambda: said and said[-1] == (serves, "WATCHDOG=1"))
        assert [t for _, t in said if "STOPPING" in t] == []
        last = [(p, t) for p, t in said if "READY=1" in t][-1]
        assert last[0] == serves and f"MAINPID={serves}" in last[1]
        assert m.stop() == 0
        wait_for(lambda: any("STOPPING" in t for p, t in said if p == serves))


def test_addresses_that_an_upgrade_removes_refuse_connections_at_once(start, tmp_path):
    m = refuses_removed_addresses(start(Gated), tmp_path, start, Upgradable, signal.SIGUSR2,
                                  " started ", 2)
    assert m.popen.wait(20 * SLOW) == 0
    m.pid = int(m.log_text().rsplit("handed_over to_pid=", 1)[1].split()[0])
    assert m.stop() == 0


def test_the_path_of_the_configuration_need_not_be_utf8(start, redis1, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.yml"
    with open(path, "w") as f:
        f.write(pool_yaml("alpha", f"127.0.0.1:{free_port()}", [f"127.0.0.1:{redis1.port}:1"]))
    m = start(Upgradable, [redis1.port], args=["-c", os.fsdecode(path)])
    m.upgrade()
    assert m.stop() == 0


def parent(pid):
    with contextlib.suppress(OSError):
        return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
    return 0


def comm(pid):
    with contextlib.suppress(OSError):
        return open(f"/proc/{pid}/comm").read().strip()
    return ""


def test_a_stray_environment_is_refused(redis1, tmp_path):
    conf = tmp_path / "c.yml"
    conf.write_text(pool_yaml("alpha", f"127.0.0.1:{free_port()}", [f"127.0.0.1:{redis1.port}:1"]))
    import subprocess
    for value in ("x", "99"):
        out = subprocess.run([BINARY, "-c", conf, "-s", str(free_port())], capture_output=True,
                             text=True, timeout=20 * SLOW,
                             env={**os.environ, "MILLRACE_UPGRADE": value})
        assert out.returncode == 1 and out.stderr.startswith("millrace: ")
