"""Host names: several addresses, changes, slow and wrong name servers, services, names that servers announce."""

import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest
from cluster import Cluster
from harness import BINARY, Millrace, Raw, Redis, Scripted, command, free_port, pool_yaml, wait_for
from test_sentinel import Watched
from test_reload import reload
from test_upgrade import Upgradable, adopt_orphans  # noqa: F401


def proxy(start, names, servers, interval="100ms", workers=1, kind=Millrace, **keys):
    return start(kind, workers=workers, conf=f"global: {{resolve_interval: {interval}, {names.conf}}}\n" +
                 pool_yaml("alpha", "127.0.0.1:@PORT@", servers, **keys))


def works(m, key="a", seconds=10):
    with m.raw(timeout=20) as c:
        wait_for(lambda: c.ask("SET", key, 1) == b"+OK", seconds, "a server that answers")


def told(m, what):
    return m.log_text().count(what)


@pytest.fixture
def two(start):
    """Servers at two addresses with the same port."""
    port = free_port()
    return port, {ip: start(Redis, port=port, host=ip) for ip in ("127.0.0.2", "127.0.0.3")}


def test_a_name_that_does_not_resolve_stops_no_other(start, names, redis1):
    names.hosts = {"good.test": ["127.0.0.1"]}
    names.faults = {"bad.test": "never"}
    began = time.monotonic()
    m = proxy(start, names, [f"bad.test:{redis1.port}:1 bad", f"good.test:{redis1.port}:1 good"], interval="60s")
    with m.raw() as c:
        answers = [c.ask("SET", f"k{i}", 1) for i in range(50)]
        assert b"+OK" in answers and any(a.startswith(b"-") for a in answers)
        names.hosts["bad.test"], names.faults = ["127.0.0.1"], {}
        wait_for(lambda: all(c.ask("SET", f"k{i}", 1) == b"+OK" for i in range(50)), 20, "both names")
    assert time.monotonic() - began < 50  # long before the interval is over
    assert "resolve_failed host=bad.test" in m.log_text()


def test_the_order_of_addresses_does_not_matter(start, names, two):
    port, servers = two
    names.hosts = {"cache.test": list(servers)}
    m = proxy(start, names, [f"cache.test:{port}:1"])
    works(m)
    asked = names.count("cache.test")
    wait_for(lambda: names.count("cache.test") > asked + 12, what="answers in another order")
    works(m)
    assert told(m, "server_address") <= 1  # the first
    assert m.pool()[f"cache.test:{port}"]["server_connections"] == 1


def test_an_address_that_fails_is_left(start, names, two):
    port, servers = two
    names.hosts = {"cache.test": list(servers)}
    m = proxy(start, names, [f"cache.test:{port}:1"], interval="60s", workers=2)
    works(m)
    at = next(ip for ip in servers if servers[ip].ask("EXISTS", "a") == 1)
    servers[at].kill()
    other = next(ip for ip in servers if ip != at)
    works(m)
    assert servers[other].ask("EXISTS", "a") == 1
    servers[other].kill()
    again = start(Redis, port=port, host=at)
    works(m)
    assert again.ask("EXISTS", "a") == 1


def test_a_change_is_found_at_once_if_the_server_fails(start, names, two):
    port, servers = two
    names.hosts = {"cache.test": ["127.0.0.2"]}
    m = proxy(start, names, [f"cache.test:{port}:1"], interval="60s")
    works(m)
    names.hosts = {"cache.test": ["127.0.0.3"]}
    servers["127.0.0.2"].kill()
    works(m)
    assert servers["127.0.0.3"].ask("EXISTS", "a") == 1


def test_a_short_ttl_is_respected(start, names, two):
    port, servers = two
    names.ttl, names.hosts = 1, {"cache.test": ["127.0.0.2"]}
    m = proxy(start, names, [f"cache.test:{port}:1"], interval="10m")
    works(m)
    names.hosts = {"cache.test": ["127.0.0.3"]}
    wait_for(lambda: "new=127.0.0.3:" in m.log_text(), 20, "the new address")
    works(m)
    assert servers["127.0.0.3"].ask("EXISTS", "a") == 1
    assert names.count("cache.test") < 60  # A and AAAA, about once in a second


@pytest.mark.parametrize("fault", ["late", "twice", "forged", "truncated"])
def test_odd_name_servers(start, names, redis1, fault):
    names.hosts, names.faults = {"cache.test": ["127.0.0.1"]}, {"cache.test": fault}
    m = proxy(start, names, [f"cache.test:{redis1.port}:1"])
    works(m)
    asked = names.count("cache.test")
    wait_for(lambda: names.count("cache.test") > asked + 4, 20, "more questions")
    assert told(m, "server_address") == told(m, "old=none new=127.0.0.1:")
    assert names.over_tcp > 0 or fault != "truncated"


@pytest.mark.parametrize("fault", ["never", "garbage", "servfail", "gone"])
def test_the_last_address_stays(start, names, redis1, fault):
    names.hosts = {"cache.test": ["127.0.0.1"]}
    m = proxy(start, names, [f"cache.test:{redis1.port}:1"])
    works(m)
    names.hosts = {} if fault == "gone" else names.hosts
    names.faults = {"cache.test": fault}
    wait_for(lambda: "resolve_failed host=cache.test" in m.log_text(), 20, "a failure")
    works(m)
    assert told(m, "server_address") == told(m, "old=none new=127.0.0.1:")
    reload(m)
    works(m)


def test_ipv6(start, names):
    server = start(Redis, host="::1")
    names.hosts = {"cache.test": ["::1"]}
    m = proxy(start, names, [f"cache.test:{server.port}:1"])
    works(m)
    assert server.ask("EXISTS", "a") == 1


# ---- names that servers announce ----

def announce(cluster, names, but=()):
    """All nodes give names instead of addresses."""
    for i, n in enumerate(cluster.nodes):
        assert n.ask("CONFIG", "SET", "cluster-announce-hostname", f"node{i}.test") == b"+OK"
        assert n.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname") == b"+OK"
        if n not in but:
            names.hosts[f"node{i}.test"] = ["127.0.0.1"]

    def knows_names(n):
        return all(p[0].endswith(b".test") for r in n.ask("CLUSTER", "SLOTS") for p in r[2:])
    wait_for(lambda: all(map(knows_names, cluster.nodes)), 20, "names of all nodes")


def seeded(start, names, cluster, **keys):
    keys = {"interval": "1s", "workers": 2, **keys}
    return proxy(start, names, [f"127.0.0.1:{cluster.nodes[0].port}:1"], topology="cluster", hash=None,
                 distribution=None, **keys)


def write(m, n=300, timeout=20):
    with m.raw(timeout=timeout) as c:
        return [c.ask("SET", f"k{i}", i) for i in range(n)]


def all_written(m, seconds=20):
    wait_for(lambda: set(write(m)) == {b"+OK"}, seconds, "all slots")


ASK_SLOTS = command("CLUSTER", "SLOTS")


def bulk(*parts):
    return b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in map(str.encode, parts))


class Nodes:
    """A cluster of servers that say where slots are by names alone, and are real otherwise."""

    def __init__(self, start, n):
        self.real = [start(Redis) for _ in range(n)]
        self.nodes = [start(Scripted, self.relay_to(r)) for r in self.real]
        self.names = [f"node{i}.test" for i in range(n)]
        self.looks = 0

    def slots(self):
        n = len(self.nodes)
        return b"*%d\r\n" % n + b"".join(
            b"*3\r\n:%d\r\n:%d\r\n*3\r\n%s:%d\r\n%s" % (
                i * 16384 // n, (i + 1) * 16384 // n - 1, bulk(self.names[i]), node.port, bulk(f"id{i}"))
            for i, node in enumerate(self.nodes))

    def relay_to(self, real):
        def serve(conn, server):
            with Raw(real.port) as to:
                threading.Thread(target=lambda: pump(to.sock, conn), daemon=True).start()
                while data := server.read(conn):
                    if ASK_SLOTS in data:
                        self.looks += 1
                        conn.sendall(self.slots())
                        data = data.replace(ASK_SLOTS, b"")
                    if data:
                        to.send(data)
        return serve


def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.mark.parametrize("fault", [None, "late", "twice"])
def test_slots_of_host_names(start, names, fault):
    cluster = Nodes(start, 3)
    names.hosts = {f"node{i}.test": ["127.0.0.1"] for i in range(3)}
    names.faults = {f"node{i}.test": fault for i in range(3) if fault}
    m = seeded(start, names, cluster, cluster_refresh="1s")
    wait_for(lambda: "map_changed" in m.log_text(), 20, "the slots")
    all_written(m)
    for r in cluster.real:
        assert r.ask("FLUSHALL") == b"+OK"
    all_written(m)
    assert "node_unreachable" not in m.log_text() and "slots_unknown" not in m.log_text()
    assert all(0 < r.ask("DBSIZE") < 300 for r in cluster.real)
    looks = cluster.looks
    names.faults = {f"node{i}.test": "never" for i in range(3)}
    wait_for(lambda: cluster.looks > looks + 3, 20, "more looks")
    assert set(write(m)) == {b"+OK"}  # with the last addresses


def test_an_incomplete_map_replaces_no_other(start, names):
    """A master has a new name, whose lookup takes its time."""
    cluster = Nodes(start, 3)
    names.hosts = {f"node{i}.test": ["127.0.0.1"] for i in range(3)}
    m = seeded(start, names, cluster, cluster_refresh="100ms")
    wait_for(lambda: "map_changed" in m.log_text(), 20, "the slots")
    for r in cluster.real:
        assert r.ask("FLUSHALL") == b"+OK"
    names.hosts["new.test"], names.faults = ["127.0.0.1"], {"new.test": "never"}
    cluster.names[1] = "new.test"
    wait_for(lambda: names.count("new.test") > 0, 20, "a lookup of the new name")
    assert set(write(m)) == {b"+OK"}
    assert sum(r.ask("DBSIZE") for r in cluster.real) == 300  # none was written anywhere else
    names.faults = {}
    looks = cluster.looks
    wait_for(lambda: cluster.looks > looks + 10, 20, "looks")
    assert set(write(m)) == {b"+OK"} and sum(r.ask("DBSIZE") for r in cluster.real) == 300


def test_a_node_whose_name_does_not_resolve(start, names):
    cluster = Nodes(start, 3)
    names.hosts = {f"node{i}.test": ["127.0.0.1"] for i in range(2)}
    m = seeded(start, names, cluster, cluster_refresh="1s")
    wait_for(lambda: "node_unreachable pool=alpha host=\"node2.test\"" in m.log_text(), 20, "a warning")
    wait_for(lambda: cluster.real[1].ask("DBSIZE") > 0 or write(m).count(b"+OK") >= 150, 30, "the slots of the others")
    names.hosts["node2.test"] = ["127.0.0.1"]
    wait_for(lambda: cluster.real[2].ask("DBSIZE") > 0 if write(m) else False, 20, "slots of the third")
    all_written(m)


def test_a_cluster_that_announces_names(start, names):
    cluster = Cluster(start, 3)
    announce(cluster, names)
    m = seeded(start, names, cluster)
    all_written(m)
    assert sum(n.ask("DBSIZE") for n in cluster.nodes) == 300


@pytest.mark.parametrize("by_name", [False, True])
def test_redirects_to_a_node_without_slots(start, names, by_name):
    """The proxy's map does not have it, and the first lookups of its name are slow."""
    cluster = Cluster(start, 2)
    if by_name:
        announce(cluster, names)
    m = seeded(start, names, cluster, cluster_refresh="1h", workers=1)
    all_written(m)
    new = cluster.node()
    if by_name:
        names.hosts["new.test"], names.faults = ["127.0.0.1"], {"new.test": "late"}
        for key, value in ("cluster-announce-hostname", "new.test"), ("cluster-preferred-endpoint-type", "hostname"):
            assert new.ask("CONFIG", "SET", key, value) == b"+OK"
    cluster.meet()
    if by_name:
        wait_for(lambda: all(b"new.test" in n.ask("CLUSTER", "NODES") for n in cluster.masters), 20, "its name")
    wait_for(lambda: b"cluster_state:ok" in new.ask("CLUSTER", "INFO"), 20, "a node that is ready")
    slot = cluster.slot_of("{x}")
    owner = cluster.owner(slot)
    cluster.begin_move(slot, owner, new)
    with m.raw(timeout=20) as c:
        assert c.ask("SET", "{x}new", 1) == b"+OK"  # ASK
        cluster.move_keys(slot, owner, new)
        cluster.end_move(slot, new)
        assert c.ask("SET", "{x}other", 2) == b"+OK"  # MOVED
        assert c.ask("GET", "{x}new") == b"1"
    assert new.ask("EXISTS", "{x}new") == 1


def test_a_failover_to_a_host_name(start, names):
    cluster = Cluster(start, 3, 1)
    announce(cluster, names)
    m = seeded(start, names, cluster)
    all_written(m)
    cluster.masters[1].kill()
    all_written(m, 60)


def test_known_hosts_survive_a_reload_and_an_upgrade(start, names):
    cluster = Nodes(start, 3)
    names.hosts = {f"node{i}.test": ["127.0.0.1"] for i in range(3)}
    m = seeded(start, names, cluster, kind=Upgradable, cluster_refresh="200ms")
    wait_for(lambda: "map_changed" in m.log_text(), 20, "the slots")
    all_written(m)
    names.faults = {f"node{i}.test": "never" for i in range(3)}
    reload(m)
    assert set(write(m)) == {b"+OK"}
    wait_for(lambda: "resolve_failed host=node0.test" in m.log_text(), 20, "a failure")
    looks = cluster.looks
    wait_for(lambda: cluster.looks > looks + 3, 20, "looks")
    assert "node_unreachable" not in m.log_text()
    names.faults = {f"node{i}.test": "late" for i in range(3)}
    m.upgrade()
    assert set(write(m)) == {b"+OK"}


def test_a_resolver_that_dies_is_replaced(start, names):
    cluster = Nodes(start, 2)
    names.hosts = {f"node{i}.test": ["127.0.0.1"] for i in range(2)}
    names.faults = {"node1.test": "never"}
    m = seeded(start, names, cluster)
    wait_for(lambda: names.count("node1.test") > 0, 20, "an open question")
    resolver, = m.child_pids("resolver")
    os.kill(resolver, signal.SIGKILL)
    names.faults = {}
    wait_for(lambda: m.child_pids("resolver") not in ([], [resolver]), what="another resolver")
    all_written(m)


def sentinel_with_names(host, port):
    """Says that the master is at this host."""
    fields = [b"name", b"main", b"ip", host.encode(), b"port", b"%d" % port, b"flags", b"master", b"config-epoch",
              b"1"]
    master = b"*%d\r\n" % len(fields) + b"".join(b"$%d\r\n%s\r\n" % (len(f), f) for f in fields)

    def answer(conn, server):
        data = b""
        while got := conn.recv(65536):
            data += got
            while (at := data.find(b"main\r\n")) >= 0:
                conn.sendall(master if b"MASTER" in data[:at] else b"*0\r\n")
                data = data[at + 6:]
    return answer


def watching(start, names, sentinels, interval="100ms", workers=1):
    lines = "".join(f"   - {s}\n" for s in sentinels)
    return start(Millrace, workers=workers, conf=f"global: {{resolve_interval: {interval}, {names.conf}}}\n"
                 "alpha:\n  listen: 127.0.0.1:@PORT@\n  redis: true\n  hash: murmur\n  distribution: ketama\n"
                 f"  master_name: main\n  sentinels:\n{lines}")


@pytest.mark.parametrize("fault", [None, "late", "twice"])
def test_sentinels_that_give_host_names(start, names, redis1, fault):
    names.hosts, names.faults = {"master.test": ["127.0.0.1"]}, {"master.test": fault}
    s = start(Scripted, sentinel_with_names("master.test", redis1.port))
    m = watching(start, names, [f"127.0.0.1:{s.port}"])
    works(m)
    assert redis1.ask("EXISTS", "a") == 1


# ---- services ----

def service(names, ports, name="_redis._tcp.test", host="node.test"):
    names.hosts.setdefault(host, ["127.0.0.1"])
    names.services[name] = [(i, p, host) for i, p in enumerate(ports)]


def test_seeds_from_a_service(start, names):
    cluster = Cluster(start, 3)
    service(names, [free_port(), *[n.port for n in cluster.masters]])
    m = proxy(start, names, ["_redis._tcp.test"], topology="cluster", hash=None, distribution=None, workers=2)
    all_written(m)


def test_sentinels_from_a_service(start, names):
    watched = Watched(start)
    service(names, [s.port for s in watched.sentinels[:2]], "_sentinel._tcp.test")
    m = watching(start, names, ["_sentinel._tcp.test watch"])
    works(m)
    service(names, [watched.sentinels[2].port], "_sentinel._tcp.test")
    wait_for(lambda: told(m, "new=none") == 1 and f"new=127.0.0.1:{watched.sentinels[2].port}" in m.log_text(), 20,
             "other sentinels")
    watched.sentinels[0].kill()
    watched.sentinels[1].kill()
    works(m)
    reload(m)
    works(m)


def test_a_service_that_comes_later(start, names):
    cluster = Cluster(start, 1)
    m = proxy(start, names, ["_redis._tcp.test"], topology="cluster", hash=None, distribution=None)
    wait_for(lambda: "resolve_failed host=_redis._tcp.test" in m.log_text(), 20, "a failure")
    service(names, [cluster.masters[0].port])
    works(m, seconds=20)


def test_a_service_with_a_host_that_does_not_resolve(start, names):
    """What is known stays while a part of the answer is missing."""
    cluster = Cluster(start, 1)
    service(names, [cluster.masters[0].port])
    names.services["_redis._tcp.test"].append((9, free_port(), "gone.test"))
    names.hosts["gone.test"] = ["127.0.0.9"]
    m = proxy(start, names, ["_redis._tcp.test"], topology="cluster", hash=None, distribution=None)
    works(m)
    del names.hosts["gone.test"]
    asked = names.count("gone.test")
    wait_for(lambda: names.count("gone.test") > asked + 6, 20, "more questions")
    assert "new=none" not in m.log_text()


@pytest.mark.parametrize("text, words", [
    ("global: {nameservers: nowhere}\n" + pool_yaml("alpha", 1001, ["127.0.0.1:1:1"]), "is not a list of addresses"),
    (pool_yaml("alpha", 1001, ["_redis._tcp.test"]), "is a service; only \"sentinels\" and"),
])
def test_configuration(tmp_path, text, words):
    conf = tmp_path / "conf.yml"
    conf.write_text(text)
    run = subprocess.run([BINARY, "-t", "-c", conf], capture_output=True, text=True)
    assert words in run.stderr and run.returncode != 0, run.stderr
