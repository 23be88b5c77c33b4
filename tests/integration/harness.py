"""Programs for the integration tests: millrace, real servers, scripted servers, raw clients."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import pytest

BINARY = os.environ.get("MILLRACE", str(pathlib.Path(__file__).parents[2] / "build" / "millrace"))
WRAPPER = os.environ.get("MILLRACE_WRAPPER", "").split()  # e.g. valgrind
ENGINE = os.environ.get("MILLRACE_ENGINE")  # for the proxies; `auto` if unset
SLOW = float(os.environ.get("MILLRACE_SLOW", "1"))  # multiplies all waits
# Under a sanitizer or valgrind, memory and CPU are not comparable, and the tool reports crashes.
INSTRUMENTED = bool(WRAPPER) or b"__asan_init" in pathlib.Path(BINARY).read_bytes()
plain_build = pytest.mark.skipif(INSTRUMENTED, reason="memory use is not comparable under a sanitizer")


PORTS = 1000  # per pytest process, below the kernel's ephemeral ports


def _ports():
    """Cycles through the ports of this process. An abstract socket reserves the range."""
    lock = socket.socket(socket.AF_UNIX)
    for first in range(10000, 32000, PORTS):
        with contextlib.suppress(OSError):
            lock.bind(f"\0millrace-test-ports-{first}")
            break
    else:
        raise AssertionError("too many of these tests run at once")
    while lock:
        yield from range(first, first + PORTS)


_run = _ports()


def free_port():
    """A loopback port that is free now and will not be used again soon."""
    for port in _run:
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port


def wait_for(condition, seconds=5.0, what="condition"):
    """Polls until condition() is true, and returns its value."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {seconds * SLOW:.1f} s")
        time.sleep(0.005)


def can_connect(port, host="127.0.0.1"):
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), timeout=1).close()
        return True
    return False


def command(*args):
    """A request in the wire format."""
    parts = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


class Raw:
    """A client that sends bytes and reads bytes."""

    def __init__(self, target, timeout=5.0):
        if isinstance(target, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(target)
        else:
            address = target if isinstance(target, tuple) else ("127.0.0.1", target)
            self.sock = socket.create_connection(address)
        self.sock.settimeout(timeout * SLOW)
        self.buffer = b""

    def send(self, data):
        self.sock.sendall(data)
        return self

    def _more(self):
        got = self.sock.recv(1 << 20)
        if not got:
            raise EOFError(f"closed with {self.buffer[:100]!r} unread")
        self.buffer += got

    def line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def exactly(self, n):
        chunks, have = [self.buffer], len(self.buffer)
        while have < n:
            got = self.sock.recv(1 << 20)
            if not got:
                raise EOFError("closed inside a reply")
            chunks.append(got)
            have += len(got)
        data = b"".join(chunks)
        self.buffer = data[n:]
        return data[:n]

    def reply(self):
        """Reads one reply: bytes, int, None, list; errors and statuses with their first byte."""
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind in b"+-":
            return line
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.exactly(int(rest) + 2)[:-2]
        if kind in b"*~>":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        if kind == b"%":
            return {key: self.reply() for key in (self.reply() for _ in range(int(rest)))}
        if kind == b"_":
            return None
        if kind == b"=":
            return self.exactly(int(rest) + 2)[4:-2]
        if kind in b",(":
            return float(rest) if kind == b"," else int(rest)
        if kind == b"#":
            return rest == b"t"
        raise AssertionError(f"not a reply: {line!r}")

    def ask(self, *args):
        return self.send(command(*args)).reply()

    def rest(self):
        """Reads until the other side closes."""
        data = self.buffer
        self.buffer = b""
        with contextlib.suppress(ConnectionResetError):
            while got := self.sock.recv(1 << 20):
                data += got
        return data

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Process:
    """A child process, stopped by pid."""

    def __init__(self, args, ready, **kwargs):
        self.popen = subprocess.Popen(args, stdin=subprocess.DEVNULL, **kwargs)
        self.pid = self.popen.pid
        try:
            wait_for(lambda: self._up(ready), 10, f"start of {args[0]}")
        except BaseException:
            self.kill()
            raise

    def _up(self, ready):
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.popen.args} ended with {self.popen.returncode}")
        return ready()

    def kill(self, signo=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signo)
        return self.popen.wait(30 * SLOW)

    def alive(self):
        return self.popen.poll() is None


class Redis(Process):
    """A real redis-server without persistence."""

    def __init__(self, *args, port=None, path=None, host="127.0.0.1"):
        self.port = port or free_port()
        self.host = host
        self.path = path
        self.dir = tempfile.TemporaryDirectory(prefix="millrace-redis-")  # for dumps during replication
        listen = ["--port", "0", "--unixsocket", path] if path else ["--port", str(self.port)]
        ready = (lambda: os.path.exists(path)) if path else (lambda: can_connect(self.port, host))
        super().__init__(
            ["redis-server", "--bind", host, "--save", "", "--appendonly", "no",
             "--dir", self.dir.name, "--loglevel", "warning", *listen, *map(str, args)],
            ready, stdout=subprocess.DEVNULL)

    def ask(self, *args, db=0):
        with Raw(self.path or (self.host, self.port)) as c:
            if db:
                assert c.ask("SELECT", db) == b"+OK"
            return c.ask(*args)

    def role(self):
        """What ROLE says; nothing while the server ends its connections, as a promoted one does."""
        try:
            return self.ask("ROLE")
        except (OSError, EOFError):
            return [None] * 5


class Scripted:
    """A server that handles each connection with a function of (connection, server)."""

    def __init__(self, serve, port=None):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port or 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.serve = serve
        self.received = b""
        self.accepted = 0
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(conn)
            threading.Thread(target=self._one, args=(conn,), daemon=True).start()

    def _one(self, conn):
        with contextlib.suppress(OSError):
            self.serve(conn, self)

    def read(self, conn):
        data = conn.recv(1 << 20)
        self.received += data
        return data

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for c in self.connections:
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)
            c.close()


class Gated(Scripted):
    """Delays its reply to a GET of `slow` until the gate is opened; answers everything else at once."""

    def __init__(self, reply=b"$4\r\nslow\r\n"):
        self.gate, self.waiting, self.reply = threading.Event(), 0, reply
        super().__init__(Gated.answer)

    @staticmethod
    def answer(conn, server):
        while data := server.read(conn):
            for request in data.split(b"*2\r\n")[1:]:
                if b"slow" in request:
                    server.waiting += 1
                    server.gate.wait(60)
                    conn.sendall(server.reply)
                else:
                    conn.sendall(b"$1\r\nA\r\n")


def silent(conn, server):
    """Reads and never answers."""
    while server.read(conn):
        pass


def always(reply):
    """Answers every request (counting `*`) with the same bytes."""

    def serve(conn, server):
        while data := server.read(conn):
            conn.sendall(reply * data.count(b"\r\n$") if not data.startswith(b"*") else
                         reply * sum(1 for x in data.split(b"\r\n") if x.startswith(b"*")))

    return serve


def pool_yaml(name, listen, servers, **keys):
    # murmur spreads k1, k2, k3 over all servers; fnv1a_64 may put a hundred of them on one
    keys = {"redis": "true", "hash": "murmur", "distribution": "ketama", **keys}
    lines = [f"{name}:", f"  listen: {listen}"]
    lines += [f"  {k}: {v}" for k, v in keys.items() if v is not None]
    lines += ["  servers:"] + [f"   - {s}" for s in servers]
    return "\n".join(lines) + "\n"


class Millrace(Process):
    """The proxy under test, on ports of its own."""

    def __init__(self, servers=(), *, conf=None, workers=1, listen=None, args=(), ulimit=None,
                 env=None, log_args=None, **keys):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="millrace-test-"))
        self.port = free_port()
        self.stats_port = free_port()
        self.log = self.dir / "log"
        self.conf = self.dir / "conf.yml"
        servers = [s if isinstance(s, str) else f"127.0.0.1:{s}:1" for s in servers]
        self.conf.write_text(
            conf.replace("@PORT@", str(self.port)).replace("@DIR@", str(self.dir)) if conf else
            pool_yaml("alpha", (listen or "127.0.0.1:@PORT@").replace("@PORT@", str(self.port))
                      .replace("@DIR@", str(self.dir)), servers, **keys))
        workers_args = [] if workers is None else ["--workers", str(workers)]
        workers_args += ["--engine", ENGINE] if ENGINE else []
        log_args = ["-o", str(self.log), "-v", "7"] if log_args is None else log_args
        command_line = [*WRAPPER, BINARY, "-c", str(self.conf), *log_args, "-s",
                        str(self.stats_port), "-a", "127.0.0.1", *workers_args, *map(str, args)]
        preexec = None
        if ulimit:
            import resource
            preexec = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (ulimit, ulimit))
        super().__init__(command_line, self._serving, stderr=open(self.dir / "stderr", "wb"),
                         preexec_fn=preexec, env={**os.environ, **(env or {})})

    def _serving(self):
        return " started workers=" in self.log_text()

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def engine(self):
        return self.log_text().split(" engine=", 1)[1].split()[0]

    def raw(self, **kwargs):
        return Raw(self.port, **kwargs)

    def stats(self):
        with Raw(self.stats_port) as c:
            return json.loads(c.rest())

    def pool(self, name="alpha"):
        return self.stats()[name]

    def child_pids(self, kind="worker"):
        found = []
        for task in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                stat = (task / "stat").read_text()
                name = stat[stat.index("(") + 1:stat.rindex(")")]
                parent = int(stat[stat.rindex(")") + 2:].split()[1])
                if parent == self.pid and name.startswith(kind) or (
                        WRAPPER and parent == self.pid and kind == "worker"):
                    found.append(int(task.name))
        return sorted(found)

    def admin_pid(self):
        return wait_for(lambda: self.child_pids("admin"), what="admin process")[0]

    def stop(self, signo=signal.SIGTERM):
        """Stops everything in order. Fails the test if a sanitizer or an invariant reported anything."""
        if not self.dir.exists():
            return self.popen.returncode
        status = self.kill(signo) if self.alive() else self.popen.returncode
        stderr = (self.dir / "stderr").read_text(errors="replace")
        log = self.log_text()
        shutil.rmtree(self.dir, ignore_errors=True)
        assert "Sanitizer" not in stderr and "runtime error" not in stderr, stderr[:5000]
        assert "definitely lost: " not in stderr or "definitely lost: 0" in stderr, stderr[-5000:]
        assert "bug at=" not in log and "crash signal" not in log, log[-5000:]
        return status


def process_state(pid):
    """R, S, T (stopped), Z, ..."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def rss_kb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Nutcracker(Process):
    """The predecessor, with the configuration of a millrace on a separate port."""

    def __init__(self, m):
        self.port = free_port()
        conf = m.dir / "nutcracker.yml"
        conf.write_text(m.conf.read_text().replace(str(m.port), str(self.port)))
        super().__init__(["nutcracker", "-c", conf, "-s", str(free_port()), "-a", "127.0.0.1",
                          "-o", m.dir / "nutcracker.log"], lambda: can_connect(self.port))


class Observed(Millrace):
    """The proxy with an administration address, for its metrics."""

    def __init__(self, servers, workers=1, **keys):
        self.admin_port = free_port()
        conf = f"global:\n  admin: '127.0.0.1:{self.admin_port}'\n" + pool_yaml(
            "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{s}:1" for s in servers], **keys)
        super().__init__(conf=conf, workers=workers)

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as page:
            found = re.findall(rf"^millrace_{name}{{.*}} (\d+)$", page.read().decode(), re.M)
        return sum(map(int, found))
