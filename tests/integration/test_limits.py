"""The limit of open files: what is reserved for servers, and what clients beyond it are told."""

import contextlib
import os
import re
import signal
import socket
import time

import pytest
from harness import (Millrace, Raw, Redis, command, free_port, pool_yaml, process_state, wait_for)
from memcached import Memcached, packet, read_packet

FULL = b"-ERR max number of clients reached"


def client_sockets(ports):
    """Inodes of established client connections to these ports, as the proxy sees them."""
    found = set()
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rsplit(":", 1)[1], 16) in ports and fields[3] != "0A":
            found.add(fields[9])
    return found


def own_descriptors(pid, ports):
    """Number of a worker's descriptors that are not clients."""
    links = []
    with contextlib.suppress(FileNotFoundError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    clients = client_sockets(ports)
    return sum(not (x.startswith("socket:[") and x[8:-1] in clients) for x in links)


def clients_max(m):
    return int(re.findall(r" clients_max=(\d+)", m.log_text())[0])


def open_all(targets, n):
    """Opens connections at once; the proxy may not have accepted them yet."""
    clients = []
    for i in range(n):
        s = socket.socket()
        s.connect(("127.0.0.1", targets[i % len(targets)]))
        s.settimeout(20)
        clients.append(s)
    return clients


def text_of(s):
    """Everything received until the end, or until a moment of silence."""
    try:
        return s.recv(1000)
    except (ConnectionResetError, BrokenPipeError):
        return b"reset"


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_no_worker_has_more_than_is_kept_for_it(start, redis4, workers):
    """All kinds of server connections, probes and reloads: the clients' share is not touched."""
    limit = 900
    cache, ports = start(Memcached), [free_port() for _ in range(3)]
    servers = [f"127.0.0.1:{r.port}:1" for r in redis4]
    text = (pool_yaml("shards", f"127.0.0.1:{ports[0]}", servers[:2], server_connections=3,
                      health_checks="always", preconnect="true") +
            pool_yaml("cache", f"127.0.0.1:{ports[1]}", [f"127.0.0.1:{cache.port}:1"],
                      redis=None, protocol="memcache", server_connections=2) +
            pool_yaml("copies", f"127.0.0.1:{ports[2]}", [servers[2] + " master", servers[3]],
                      topology="replicated", health_check_interval="100ms"))
    m = start(Millrace, conf="global: {max_openfiles: %d}\n" % limit + text, workers=workers,
              ulimit=limit)
    kept = limit - clients_max(m) // workers
    most = 0

    def look():
        nonlocal most
        for pid in m.child_pids():
            most = max(most, own_descriptors(pid, ports))

    def use(clients):
        for c in clients["redis"]:
            assert c.ask("MSET", *[x for i in range(8) for x in (f"k{i}", i)]) == b"+OK"
        for c in clients["text"]:
            assert c.send(b"get a\r\n").line() == b"END"
        for c in clients["binary"]:
            assert read_packet(c.send(packet(0x0A)))[0] == 0x0A

    with contextlib.ExitStack() as stack:
        def connect(port):
            return stack.enter_context(Raw(port, timeout=20))

        clients = {"redis": [connect(ports[0]) for _ in range(4 * workers)] +
                            [connect(ports[2]) for _ in range(4 * workers)],
                   "text": [connect(ports[1]) for _ in range(8 * workers)],
                   "binary": [connect(ports[1]) for _ in range(8 * workers)]}
        use(clients)
        look()
        for _ in range(3):
            before = m.log_text().count(" reloaded ")
            os.kill(m.pid, signal.SIGHUP)
            while m.log_text().count(" reloaded ") == before:
                look()
            use(clients)
            look()
    print(f"{workers} workers: {most} of {kept}")
    assert 10 < most <= kept


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_all_clients_that_are_let_in_reach_their_servers(start, redis4, workers):
    """A burst far beyond the limit, then servers that cut their connections: no client sees an error."""
    limit = 300
    servers = [start(Redis) for _ in range(8)]
    m = start(Millrace, ulimit=limit, workers=workers,
              conf="global: {max_openfiles: %d}\n" % limit + pool_yaml(
                  "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{s.port}:1" for s in servers],
                  server_connections=2))
    room = clients_max(m)
    pids = m.child_pids() if workers else [m.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        wait_for(lambda pid=pid: process_state(pid) == "T")
    clients = open_all([m.port], room + 200)
    mset = command("MSET", *[x for i in range(40) for x in (f"k{i}", i)])
    for c in clients:
        c.sendall(mset)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    heard = [text_of(c) for c in clients]
    served = [c for c, x in zip(clients, heard) if x == b"+OK\r\n"]
    told = sum(x in (FULL + b"\r\n", b"reset", b"") for x in heard)
    print(f"workers={workers} room={room} served={len(served)} told={told}")
    assert len(served) + told == len(clients), set(heard)
    assert len(served) <= room and len(served) >= room * 0.9
    for _ in range(3):
        for s in servers:
            s.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for c in served:
            c.sendall(mset)
        heard = {text_of(c) for c in served}
        assert not any(b"open files" in x for x in heard), heard
    log = m.log_text()
    assert "client_refused" in log and "accept_failed" not in log and "open files" not in log
    for c in clients:
        c.close()
    wait_for(lambda: m.pool()["client_connections"] == 0)
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"


def test_readers_of_statistics_leave_the_servers_theirs(start, redis1):
    """In a single process they share its descriptors."""
    m = start(Millrace, [redis1.port], workers=0, ulimit=100,
              conf="global: {max_openfiles: 100}\n" + pool_yaml(
                  "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]))
    readers = open_all([m.stats_port], 80)
    clients = open_all([m.port], clients_max(m))
    for c in clients:
        c.sendall(command("SET", "a", 1))
    assert [text_of(c) for c in clients] == [b"+OK\r\n"] * len(clients)
    for c in clients + readers:
        c.close()


@pytest.mark.parametrize("balance", ["true", "false"])
def test_the_mutex_with_every_worker_at_its_threshold(start, redis1, balance):
    """Workers still accept, up to the limit, and then refuse."""
    m = start(Millrace, workers=2, ulimit=120,
              conf="global: {accept: mutex, max_openfiles: 120, accept_threshold: 20, "
                   "accept_balance: %s}\n" % balance + pool_yaml(
                       "alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]))
    room = clients_max(m)
    assert room > 100
    clients = [m.raw(timeout=10) for _ in range(room + 20)]
    replies = []
    for c in clients:
        with contextlib.suppress(OSError):
            c.send(command("PING"))
        try:
            replies.append(c.reply())
        except (EOFError, ConnectionResetError):
            replies.append(FULL)
    # each worker refuses the last that it has taken from the queue, not the last that came
    assert sorted(replies) == sorted([b"+PONG"] * room + [FULL] * 20)
    for c in clients:
        c.sock.close()
