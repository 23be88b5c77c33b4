"""Pools whose servers are a Redis Cluster: discovery, moving slots, failing nodes."""

import contextlib
import signal
import subprocess
import threading
import time

import pytest
from cluster import SLOTS, Cluster
from harness import BINARY, SLOW, Millrace, Raw, Redis, command, free_port, pool_yaml, wait_for
from test_admin import Admin
from test_reload import reload


@pytest.fixture
def three(start):
    return Cluster(start, 3)


@pytest.fixture
def pairs(start):
    return Cluster(start, 3, 1)


def proxy(start, cluster, kind=Millrace, **keys):
    return start(kind, cluster.seeds(), topology="cluster", **keys)


def learned(admin):
    """Waits until the map is known."""
    return wait_for(lambda: shown(admin)["discovery"]["covered"] == SLOTS and shown(admin), 20,
                    "map of the cluster")


def shown(admin):
    return admin.own()["pools"][0]


class Load(threading.Thread):
    """Clients that increment keys in pipelines and check every reply."""

    def __init__(self, port, name, keys=40, depth=8):
        super().__init__(daemon=True)
        self.port, self.prefix, self.n_keys, self.depth = port, name, keys, depth
        self.stopping = threading.Event()
        self.done, self.wrong, self.errors = 0, [], []

    def run(self):
        try:
            with Raw(self.port, timeout=20 * SLOW) as c:
                self.count(c)
        except Exception as e:  # noqa: BLE001 - reported by the test, whatever it is
            self.wrong.append(repr(e))

    def count(self, c):
        counts = [0] * self.n_keys
        turn = 0
        while not self.stopping.is_set():
            asked = []
            for _ in range(self.depth):
                turn += 1
                asked.append(turn * 7 % self.n_keys)
            asked += asked[:2]  # the same key twice in a pipeline
            c.send(b"".join(command("INCR", f"{self.prefix}:{k}") for k in asked))
            for k in asked:
                reply = c.reply()
                if isinstance(reply, bytes) and reply.startswith(b"-"):
                    self.errors.append((k, reply))
                    counts[k] = None
                    continue
                if counts[k] is None:
                    counts[k] = reply
                elif reply != counts[k] + 1:
                    self.wrong.append((k, counts[k], reply))
                counts[k] = reply
                self.done += 1
            self.check_several(c, counts)

    def check_several(self, c, counts):
        keys = [k for k in range(4) if counts[k]]
        got = c.ask("MGET", *[f"{self.prefix}:{k}" for k in keys]) if keys else []
        if isinstance(got, bytes):
            self.errors.append(("MGET", got))
        elif got != [str(counts[k]).encode() for k in keys]:
            self.wrong.append(("MGET", got, counts[:4]))

    def end(self):
        self.stopping.set()
        self.join(30 * SLOW)
        assert not self.is_alive(), "a client hangs"
        return self


@contextlib.contextmanager
def load(port, clients=3, **kwargs):
    running = [Load(port, f"c{i}", **kwargs) for i in range(clients)]
    for l in running:
        l.start()
    wait_for(lambda: all(l.done > 20 for l in running) or any(l.wrong for l in running), 20, "load")
    try:
        yield running
    finally:
        for l in running:
            l.end()


def is_flawless(running):
    for l in running:
        assert l.wrong == [] and l.errors == [], (l.wrong[:5], l.errors[:5])


# ---- seen from outside ----


def test_one_address_for_a_whole_cluster(start, three):
    m = proxy(start, three)
    with m.raw() as c:
        for i in range(300):
            assert c.ask("SET", f"k{i}", f"v{i}") == b"+OK"
        assert c.ask("MGET", *[f"k{i}" for i in range(300)]) == [b"v%d" % i for i in range(300)]
        assert c.ask("MSET", *[x for i in range(50) for x in (f"m{i}", i)]) == b"+OK"
        assert c.ask("DEL", *[f"m{i}" for i in range(50)]) == 50
        assert c.ask("EXISTS", "k1", "k2", "k3", "nothing") == 3
        assert c.ask("SUNION", "{t}a", "{t}b") == []
        assert c.ask("SUNION", "a", "b") == \
            b"-CROSSSLOT Keys in request don't hash to the same slot"
        assert c.ask("DBSIZE") == 300
    for i in range(300):
        owner = three.owner(three.slot_of(f"k{i}"))
        assert owner.ask("GET", f"k{i}") == b"v%d" % i


def test_a_scan_goes_through_all_masters(start, pairs):
    m = proxy(start, pairs)
    with m.raw() as c:
        assert c.ask("MSET", *[x for i in range(500) for x in (f"k{i}", i)]) == b"+OK"
        found, cursor = [], b"0"
        while True:
            cursor, keys = c.ask("SCAN", cursor, "COUNT", 50)
            found += keys
            if cursor == b"0":
                break
    assert sorted(set(found)) == sorted(b"k%d" % i for i in range(500))


def test_transactions_and_blocking_go_by_slot(start, three):
    m = proxy(start, three)
    with m.raw() as c, m.raw() as other:
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("SET", "{a}x", 1) == b"+QUEUED"
        assert c.ask("INCR", "{a}x") == b"+QUEUED"
        assert c.ask("EXEC") == [b"+OK", 2]
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("SET", "{a}x", 1) == b"+QUEUED"
        assert c.ask("SET", "{b}x", 1).startswith(b"-CROSSSLOT")
        assert c.ask("EXEC").startswith(b"-EXECABORT")
        assert c.ask("WATCH", "{a}x") == b"+OK"
        assert other.ask("SET", "{a}x", 5) == b"+OK"
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("INCR", "{a}x") == b"+QUEUED"
        assert c.ask("EXEC") is None
        c.send(command("BLPOP", "list", 10))
        wait_for(lambda: other.ask("RPUSH", "list", "v") == 1)
        assert c.reply() == [b"list", b"v"]


def test_keys_of_two_slots_on_one_node_are_apart(start, three):
    m = proxy(start, three)
    same = [f"k{i}" for i in range(200) if three.slot_of(f"k{i}") < SLOTS // 3][:2]
    with m.raw() as c:
        assert c.ask("MSET", same[0], 1, same[1], 2) == b"+OK"  # refused if sent unsplit
        assert c.ask("RENAME", *same).startswith(b"-CROSSSLOT")
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("INCR", same[0]) == b"+QUEUED"
        assert c.ask("INCR", same[1]).startswith(b"-CROSSSLOT")


def test_what_was_learned_is_shown(start, pairs):
    m = proxy(start, pairs, Admin)
    pool = learned(m)
    assert pool["topology"] == "cluster"
    assert pool["discovery"]["nodes"] == 6 and pool["discovery"]["refreshes"] >= 1
    roles = {s["address"].split(" ")[0].removesuffix(":1"): s["health"]["role"] for s in pool["servers"]}
    assert roles == {f"127.0.0.1:{n.port}": "master" if n in pairs.masters else "replica"
                     for n in pairs.nodes}
    text = m.http("GET", "/metrics")[1]
    assert 'millrace_discovery_covered{pool="alpha"} 16384' in text
    assert text.count("millrace_server_connections{") == 6


# ---- moving slots ----


def test_slots_move_under_load(start, three):
    m = proxy(start, three, Admin, workers=2)
    with load(m.port) as running:
        slots = sorted({three.slot_of(f"c{i}:{k}") for i in range(3) for k in range(40)})
        for n, slot in enumerate(slots[::3]):
            three.move(slot, three.masters[n % 3])
    is_flawless(running)
    assert shown(m)["redirects_moved"] > 0


def test_a_slot_in_the_middle_of_its_move(start, three):
    m = proxy(start, three, Admin)
    learned(m)
    source = three.owner(three.slot_of("{s}"))
    target = next(n for n in three.masters if n is not source)
    slot = three.slot_of("{s}")
    with m.raw() as c, m.raw() as blocked:
        assert c.ask("MSET", "{s}1", 1, "{s}2", 2) == b"+OK"
        assert c.ask("RPUSH", "{s}l", "x") == 1
        three.begin_move(slot, source, target)
        three_keys = source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", "{s}1", "{s}l")
        assert three_keys == b"+OK"
        assert c.ask("GET", "{s}1") == b"1"  # ASK
        assert c.ask("GET", "{s}2") == b"2"  # still there
        assert c.ask("SET", "{s}new", 3) == b"+OK"
        assert target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 3
        assert c.ask("BLPOP", "{s}l", 1) == [b"{s}l", b"x"]
        c.send(command("MGET", "{s}1", "{s}2"))  # TRYAGAIN until the move has finished
        blocked.send(command("BLPOP", "{s}l", 20))
        c.send(command("MULTI") + command("INCR", "{s}1") + command("EXEC"))
        wait_for(lambda: shown(m)["redirects_later"] >= 1, 10, "TRYAGAIN")
        three.move_keys(slot, source, target)
        three.end_move(slot, target)
        assert c.reply() == [b"1", b"2"]
        assert [c.reply() for _ in range(3)] == [b"+OK", b"+QUEUED", [2]]
        assert c.ask("RPUSH", "{s}l", "y") == 1
        assert blocked.reply() == [b"{s}l", b"y"]
    assert shown(m)["redirects_asked"] >= 2


def test_watched_keys_that_move_are_as_good_as_changed(start, three):
    m = proxy(start, three)
    with m.raw() as c:
        slot = three.slot_of("{w}")
        source = three.owner(slot)
        assert c.ask("SET", "{w}", 1) == b"+OK"
        assert c.ask("WATCH", "{w}") == b"+OK"
        three.move(slot, next(n for n in three.masters if n is not source))
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("INCR", "{w}") == b"+QUEUED"
        assert c.ask("EXEC") is None
        assert c.ask("WATCH", "{w}") == b"+OK"
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("INCR", "{w}") == b"+QUEUED"
        assert c.ask("EXEC") == [2]


def test_the_server_that_watches_decides_wherever_the_map_has_the_slot(start, three):
    m = proxy(start, three, cluster_refresh="1h")
    slot = three.slot_of("{w}")
    with m.raw() as c, m.raw() as other:
        for target in (next(n for n in three.masters if n is not three.owner(slot)), None):
            assert c.ask("WATCH", "{w}") == b"+OK"
            if target:
                three.move(slot, target)
                assert other.ask("GET", "{w}") is None  # now the map has the new owner
            assert c.ask("MULTI") == b"+OK"
            assert c.ask("INCR", "{w}") == b"+QUEUED"
            assert c.ask("EXEC") == (None if target else [1])


def test_a_large_write_is_not_lost_silently(start, three):
    m = proxy(start, three, Admin, cluster_refresh="1h")
    learned(m)
    slot = three.slot_of("{big}")
    with m.raw() as c:
        assert c.ask("SET", "{big}", b"x" * 3000000) == b"+OK"
        three.move(slot, next(n for n in three.masters if n is not three.owner(slot)))
        assert c.ask("SET", "{big}", b"y" * 3000000).startswith(
            b"-ERR the key is on another server now, and the request is too large")
        assert c.ask("STRLEN", "{big}") == 3000000
        assert c.ask("GETRANGE", "{big}", 0, 0) == b"x"
        assert c.ask("SET", "{big}", b"y" * 3000000) == b"+OK"
        assert c.ask("GETRANGE", "{big}", 0, 0) == b"y"


def test_nodes_come_and_go_under_load(start, three):
    m = proxy(start, three, Admin, cluster_refresh="200ms")
    with load(m.port) as running:
        new = three.node()
        assert three.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", new.port, new.bus) == b"+OK"
        wait_for(lambda: all(three.knows_all(n) for n in three.nodes), 20, "a new node")
        three.settle()
        slots = sorted({three.slot_of(f"c{i}:{k}") for i in range(3) for k in range(40)})[:20]
        for slot in slots:
            three.move(slot, new)
        time.sleep(0.3)
        for slot in slots:
            three.move(slot, three.masters[0])
        for n in three.masters:
            assert n.ask("CLUSTER", "FORGET", three.ids[new].decode()) == b"+OK"
        time.sleep(0.3)
        new.kill()
        time.sleep(0.5)
    is_flawless(running)


# ---- changing masters ----


def test_a_failover_by_hand_under_load(start, pairs):
    m = proxy(start, pairs, Admin)
    with load(m.port) as running:
        for group in pairs.replicas[:2]:
            assert group[0].ask("CLUSTER", "FAILOVER") == b"+OK"
            wait_for(lambda g=group: g[0].role()[0] == b"master", 20, "failover")
            time.sleep(0.5)
    is_flawless(running)


def test_a_killed_master_costs_its_own_slots_only(start, pairs):
    m = proxy(start, pairs, Admin, cluster_refresh="1h")
    learned(m)
    dead = pairs.masters[1]
    lost = range(SLOTS // 3, 2 * SLOTS // 3)
    with load(m.port) as running:
        dead.kill()
        replica = pairs.replicas[1][0]
        wait_for(lambda: replica.role()[0] == b"master", 30, "promotion")
        promoted = time.monotonic()
        key = next(f"p{i}" for i in range(1000) if pairs.slot_of(f"p{i}") in lost)
        with m.raw() as c:
            wait_for(lambda: c.ask("SET", key, 1) == b"+OK", 10, "the new master")
        found = time.monotonic() - promoted
        time.sleep(0.5)
    for l in running:
        assert l.wrong == [], l.wrong[:5]
        for k, reply in l.errors:
            assert k == "MGET" or pairs.slot_of(f"{l.prefix}:{k}") in lost, (k, reply)
    assert found < 5 * SLOW, found
    with m.raw() as c:
        assert c.ask("GET", key) == b"1"
    print(f"found after {found * 1000:.0f} ms")


def test_reads_from_replicas(start, pairs):
    m = proxy(start, pairs, Admin, read_from="replica", read_fallback="master")
    learned(m)
    with m.raw() as c:
        assert c.ask("MSET", *[x for i in range(60) for x in (f"k{i}", i)]) == b"+OK"
        for group in pairs.masters:
            group.ask("WAIT", 1, 1000)
        for n in pairs.nodes:
            n.ask("CONFIG", "RESETSTAT")
        for i in range(60):
            wait_for(lambda i=i: c.ask("GET", f"k{i}") == b"%d" % i)
        for n in pairs.masters:
            assert b"cmdstat_get:" not in n.ask("INFO", "commandstats")
        for group in pairs.replicas:
            group[0].kill()
        for i in range(60):
            wait_for(lambda i=i: c.ask("GET", f"k{i}") == b"%d" % i, 5, "reads from masters")


# ---- reloads and upgrades of the proxy ----


def test_a_reload_keeps_what_was_learned(start, three):
    m = proxy(start, three, Admin, workers=2, cluster_refresh="1h")
    before = learned(m)["discovery"]
    with load(m.port) as running:
        reload(m)
    is_flawless(running)
    after = shown(m)["discovery"]
    assert after["covered"] == SLOTS and after["refreshes"] >= before["refreshes"]
    assert shown(m)["redirects_moved"] == 0


def test_a_seed_that_is_dead_or_no_cluster(start, three):
    plain = start(Redis)
    servers = [free_port(), plain.port, three.nodes[1].port]
    m = start(Admin, servers, topology="cluster")
    learned(m)
    with m.raw() as c:
        for i in range(50):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
    alone = start(Millrace, [plain.port], topology="cluster")
    wait_for(lambda: "slots_unknown" in alone.log_text(), 5, "message")
    assert "cluster support disabled" in alone.log_text()


def test_more_nodes_than_there_is_room_for(start, three):
    m = proxy(start, three, Admin, cluster_nodes=1)
    wait_for(lambda: "nodes_without_room" in m.log_text(), 10, "message")
    assert shown(m)["discovery"]["nodes_without_room"] == 1


@pytest.mark.parametrize("keys, text", [
    ({"auto_eject_hosts": "true"}, "the nodes of a cluster cannot be ejected"),
    ({"redis_db": "1"}, "a cluster has database 0 only"),
    ({"distribution": "random"}, "a cluster has its own distribution"),
    ({"redis": "false"}, "only a redis pool can be a cluster"),
])
def test_what_contradicts_a_cluster_is_refused(tmp_path, keys, text):
    conf = tmp_path / "conf.yml"
    conf.write_text(pool_yaml("alpha", "127.0.0.1:1", ["127.0.0.1:1:1"], topology="cluster", **keys))
    run = subprocess.run([BINARY, "-t", "-c", str(conf)], capture_output=True, text=True)
    assert run.returncode != 0 and text in run.stderr
