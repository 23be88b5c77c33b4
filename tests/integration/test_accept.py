"""How workers share new connections."""

import os
import signal
import socket
import time

import pytest
from harness import Millrace, Raw, command, pool_yaml, process_state, wait_for


def connections_by_worker(m):
    """Counts the established sockets on the listening port per worker."""
    inodes = {}
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(":%04X" % m.port) and fields[3] == "01":
            inodes[fields[9]] = True
    for line in open("/proc/net/unix").read().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 8 and fields[7].endswith("s.sock") and fields[5] == "03":
            inodes[fields[6]] = True
    counts = []
    for pid in m.child_pids():
        n = 0
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            n += target.startswith("socket:[") and target[8:-1] in inodes
        counts.append(n)
    return counts


def spread(counts):
    return (max(counts) - min(counts)) / (sum(counts) / len(counts))


@pytest.mark.parametrize("mode", ["auto", "exclusive", "mutex"])
@pytest.mark.parametrize("target", ["tcp", "unix"])
@pytest.mark.parametrize("pace", ["burst", "trickle"])
@pytest.mark.parametrize("balance", ["true", "false"])
def test_connections_are_spread_evenly(start, redis1, mode, target, pace, balance):
    """The fullest and emptiest worker differ by at most 5 %; without balance, anything goes."""
    conf = f"global: {{accept: {mode}, accept_balance: {balance}}}\n" + pool_yaml(
        "alpha", "['127.0.0.1:@PORT@', '@DIR@/s.sock']", [f"127.0.0.1:{redis1.port}:1"],
        backlog=1024)
    m = start(Millrace, conf=conf, workers=4)
    n = 1000 if pace == "burst" else 200
    clients = []
    try:
        for i in range(n):
            if target == "tcp":
                clients.append(socket.create_connection(("127.0.0.1", m.port)))
            else:
                s = socket.socket(socket.AF_UNIX)
                s.connect(str(m.dir / "s.sock"))
                clients.append(s)
            if pace == "trickle":
                time.sleep(0.001)
        wait_for(lambda: m.pool()["client_connections"] == n, 20)
        counts = connections_by_worker(m)
        print(f"accept={mode} {target} {pace} balance={balance}: {counts} "
              f"(max - min) / mean = {spread(counts):.3f}")
        assert sum(counts) == n
        assert balance == "false" or spread(counts) <= 0.05
        for c in clients:
            c.sendall(b"PING\r\n")
        for c in clients:
            c.settimeout(20)
            assert c.recv(100) == b"+PONG\r\n"
        assert m.pool()["client_err"] == 0
    finally:
        for c in clients:
            c.close()


def test_a_connection_on_its_way_survives_its_worker(start, redis1):
    """Passed to a worker that is stopped and then killed: its successor takes it."""
    m = start(Millrace, [redis1.port], workers=2)
    first, second = m.child_pids()
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"
    os.kill(second, signal.SIGSTOP)
    wait_for(lambda: process_state(second) == "T")
    waiting = [m.raw(timeout=20) for _ in range(40)]
    for c in waiting:
        c.send(command("PING"))
    time.sleep(0.3)
    os.kill(second, signal.SIGKILL)
    assert [c.reply() for c in waiting] == [b"+PONG"] * 40


def test_the_way_of_accepting_is_not_changed_by_a_reload(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    m.conf.write_text("global: {accept: exclusive}\n" + m.conf.read_text())
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: "a reload cannot change `accept`" in m.log_text())


def test_exclusive_sockets_survive_reloads_and_resizes(start, redis1):
    m = start(Millrace, conf="global: {accept: exclusive, worker_processes: 2}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]), workers=None)
    with m.raw() as c:
        for n in (4, 1, 3):
            m.conf.write_text("global: {accept: exclusive, worker_processes: %d}\n" % n +
                              m.conf.read_text().split("\n", 1)[1])
            os.kill(m.pid, signal.SIGHUP)
            wait_for(lambda n=n: len(m.child_pids()) == n, 15)
            with Raw(m.port) as fresh:
                assert fresh.ask("SET", "a", n) == b"+OK"
            assert c.ask("GET", "a") == str(n).encode()


def test_the_mutex_survives_its_holder(start, redis1):
    """The worker that accepts is killed repeatedly; another one, or its successor, continues."""
    m = start(Millrace, conf="global: {accept: mutex}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]), workers=3)
    for _ in range(10):
        for pid in m.child_pids()[:2]:
            os.kill(pid, signal.SIGKILL)
        with m.raw(timeout=20) as c:
            try:
                assert c.ask("PING") == b"+PONG"
            except (EOFError, ConnectionError):
                pass  # it belonged to a killed worker
        wait_for(lambda: len(m.child_pids()) == 3, 15)
    with m.raw(timeout=20) as c:
        assert c.ask("PING") == b"+PONG"


def test_a_worker_over_the_threshold_leaves_accepting_to_others(start, redis1):
    m = start(Millrace, conf="global: {accept: mutex, accept_threshold: 10, accept_balance: false}\n" +
              pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]), workers=3)
    clients = []
    try:
        for i in range(24):
            clients.append(m.raw(timeout=20))
            assert clients[-1].ask("PING") == b"+PONG"
        assert max(connections_by_worker(m)) <= 10
    finally:
        for c in clients:
            c.close()


def test_workers_that_are_added_again_get_connections_of_their_own(start, redis1):
    """After 4 -> 1 -> 4 the kernel uses all four again, even without balancing."""
    text = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"])
    m = start(Millrace, workers=None,
              conf="global: {worker_processes: 4, accept_balance: false}\n" + text)
    for n in (1, 4):
        m.conf.write_text(m.conf.read_text().replace(f"worker_processes: {5 - n}",
                                                     f"worker_processes: {n}"))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda n=n: len(m.child_pids()) == n and
                 m.log_text().count("generation_gone") == (1 if n == 1 else 2), 15)
    clients = [m.raw() for _ in range(100)]
    for c in clients:
        assert c.ask("PING") == b"+PONG"
    assert min(connections_by_worker(m)) > 5
    for c in clients:
        c.close()
