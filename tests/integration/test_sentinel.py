"""Pools whose masters are watched by Redis Sentinel: finding them, failovers, sentinels that lie."""

import pathlib
import subprocess
import tempfile
import time

import pytest
from harness import BINARY, SLOW, Millrace, Process, Redis, Scripted, can_connect, free_port, wait_for
from test_admin import Admin
from test_cluster import load
from test_reload import reload


class Sentinel(Process):
    """A real sentinel that watches `masters`, a dictionary of names."""

    def __init__(self, masters, quorum=2, password=None):
        self.port = free_port()
        self.dir = tempfile.TemporaryDirectory(prefix="millrace-sentinel-")
        conf = pathlib.Path(self.dir.name) / "sentinel.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.dir.name}", 'logfile ""']
        for name, master in masters.items():
            lines += [f"sentinel monitor {name} 127.0.0.1 {master.port} {quorum}",
                      f"sentinel down-after-milliseconds {name} {int(600 * SLOW)}",
                      f"sentinel failover-timeout {name} 4000"]
        if password:
            lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        conf.write_text("\n".join(lines) + "\n")
        super().__init__(["redis-server", str(conf), "--sentinel"], lambda: can_connect(self.port),
                         stdout=subprocess.DEVNULL)

    ask = Redis.ask
    host = "127.0.0.1"
    path = None

    def master(self, name="main"):
        return int(self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)[1])

    def knows(self, others, replicas, name="main"):
        got = self.ask("SENTINEL", "MASTER", name)
        fields = dict(zip(got[::2], got[1::2]))
        return fields[b"num-other-sentinels"] == b"%d" % others and \
            fields[b"num-slaves"] == b"%d" % replicas


class Watched:
    """A master with replicas, and sentinels that know all of each other."""

    def __init__(self, start, sentinels=3, replicas=2, password=None):
        self.start = start
        self.servers = [start(Redis, "--repl-diskless-sync-delay", 0, "--repl-ping-replica-period", 1)]
        for _ in range(replicas):
            self.servers.append(start(Redis, "--replicaof", "127.0.0.1", self.servers[0].port,
                                      "--repl-diskless-sync-delay", 0))
        for r in self.servers[1:]:
            wait_for(lambda r=r: r.role()[3] == b"connected", 20, "replica in step")
        self.sentinels = [start(Sentinel, {"main": self.servers[0]}, min(2, sentinels), password)
                          for _ in range(sentinels)]
        if password is None:
            for s in self.sentinels:
                wait_for(lambda s=s: s.knows(sentinels - 1, replicas), 30, "sentinels that know all")

    def proxy(self, kind=Admin, sentinels=None, **keys):
        ports = [s.port for s in self.sentinels] if sentinels is None else sentinels
        return self.start(Watching, kind, ports, **keys)


def Watching(kind, ports, **keys):
    keys = {"master_name": "main", **keys}
    lines = "\n".join(f"   - 127.0.0.1:{p}" for p in ports)
    admin = free_port()
    conf = (f"global:\n  admin: '127.0.0.1:{admin}'\nalpha:\n  listen: 127.0.0.1:@PORT@\n"
            "  redis: true\n  hash: murmur\n  distribution: ketama\n" +
            "".join(f"  {k}: {v}\n" for k, v in keys.items() if k != "workers") +
            f"  sentinels:\n{lines}\n")
    m = Millrace(conf=conf, workers=keys.get("workers", 1))
    m.admin_port = admin
    return m


def shown(m):
    return Admin.own(m)["pools"][0]


def roles(m):
    return {int(s["name"].split(":")[1]): s["health"]["role"] for s in shown(m)["servers"]
            if s["health"]["role"] != "unknown"}


def covered(m):
    return wait_for(lambda: shown(m)["discovery"]["covered"] > 0, 20, "a master")


@pytest.fixture
def watched(start):
    return Watched(start)


def promoted(watched, but):
    return wait_for(lambda: next((s for s in watched.servers if s is not but and s.alive() and
                                  s.role()[0] == b"master"), None), 30, "a new master")


def test_the_master_is_found(watched):
    m = watched.proxy()
    covered(m)
    with m.raw() as c:
        assert c.ask("SET", "k", "v") == b"+OK"
        assert c.ask("MGET", "k", "nothing") == [b"v", None]
        assert c.ask("DBSIZE") == 1
        assert c.ask("SCAN", 0) == [b"0", [b"k"]]
    assert watched.servers[0].ask("GET", "k") == b"v"
    pool = shown(m)
    assert pool["topology"] == "sentinel" and pool["discovery"]["nodes"] == 3
    assert roles(m) == {s.port: "replica" if i else "master"
                        for i, s in enumerate(watched.servers)}


def test_a_killed_master_is_replaced(watched):
    m = watched.proxy(workers=2)
    covered(m)
    old = watched.servers[0]
    with m.raw() as c:
        assert c.ask("SET", "k", 1) == b"+OK"
        assert old.ask("WAIT", 2, 2000) == 2
        old.kill()
        new = promoted(watched, old)
        announced = wait_for(lambda: any(s.master() == new.port for s in watched.sentinels) and
                             time.monotonic(), 20, "announcement")
        wait_for(lambda: c.ask("SET", "k", 2) == b"+OK", 10, "the new master")
        print(f"served {1000 * (time.monotonic() - announced):.0f} ms after the announcement")
    assert new.ask("GET", "k") == b"2"
    back = watched.start(Redis, port=old.port)  # with the old port, and believing it is the master
    with m.raw() as c:
        for i in range(200):
            assert c.ask("SET", f"n{i}", i) == b"+OK"
            time.sleep(0.002)
    assert new.ask("EXISTS", *[f"n{i}" for i in range(200)]) == 200
    wait_for(lambda: back.role()[0] == b"slave", 30, "the old master as a replica")


def test_a_failover_by_hand_under_load(watched):
    m = watched.proxy(workers=2)
    covered(m)
    with load(m.port, clients=2) as running:
        assert watched.sentinels[0].ask("SENTINEL", "FAILOVER", "main") == b"+OK"
        new = promoted(watched, watched.servers[0])
        announced = wait_for(lambda: any(s.master() == new.port for s in watched.sentinels) and
                             time.monotonic(), 20, "announcement")
        wait_for(lambda: roles(m).get(new.port) == "master", 10, "the new master")
        print(f"known {1000 * (time.monotonic() - announced):.0f} ms after the announcement")
    for l in running:
        assert l.wrong == [] or all(w[0] != "client" for w in l.wrong)
        assert all(b"READONLY" not in e[1] for e in l.errors), l.errors[:5]
    with m.raw() as c:
        assert c.ask("SET", "after", 1) == b"+OK"
    assert new.ask("GET", "after") == b"1"


def test_dead_sentinels_do_not_matter(watched):
    watched.sentinels[0].kill()
    m = watched.proxy()
    covered(m)
    watched.sentinels[1].kill()
    with m.raw() as c:
        for i in range(20):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
            time.sleep(0.02)
    looks = shown(m)["discovery"]["refreshes"]
    wait_for(lambda: shown(m)["discovery"]["refreshes"] > looks, 5, "more refreshes")


def lie(port):
    """A sentinel that says another server is the master, with a high epoch."""
    fields = [b"name", b"main", b"ip", b"127.0.0.1", b"port", b"%d" % port, b"flags", b"master",
              b"config-epoch", b"1000000"]
    master = b"*%d\r\n" % len(fields) + b"".join(b"$%d\r\n%s\r\n" % (len(f), f) for f in fields)

    def answer(conn, server):
        data = b""
        while True:
            got = conn.recv(65536)
            if not got:
                return
            data += got
            while (at := data.find(b"main\r\n")) >= 0:
                conn.sendall(master if b"MASTER" in data[:at] else b"*0\r\n")
                data = data[at + 6:]
    return answer


@pytest.mark.parametrize("to", ["replica", "stranger", "nobody"])
def test_a_sentinel_that_lies_is_not_believed(start, watched, to):
    port = {"replica": watched.servers[1].port, "stranger": start(Redis).port,
            "nobody": free_port()}[to]
    liar = start(Scripted, lie(port))
    m = watched.proxy(sentinels=[s.port for s in watched.sentinels] + [liar.port])
    with m.raw() as c:
        wait_for(lambda: c.ask("SET", "first", 1) == b"+OK", 10, "a master")
        if to != "stranger":  # at the start nobody can tell two masters apart
            assert watched.servers[0].ask("GET", "first") == b"1"
    if to == "stranger":
        return
    time.sleep(0.5)
    with m.raw() as c:
        for i in range(50):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
    assert watched.servers[0].ask("EXISTS", *[f"k{i}" for i in range(50)]) == 50
    assert "master_doubtful" in m.log_text()


def test_reads_from_replicas(watched):
    m = watched.proxy(read_from="replica")
    covered(m)
    wait_for(lambda: shown(m)["discovery"]["nodes"] == 3, 10, "replicas")
    with m.raw() as c:
        assert c.ask("SET", "k", "v") == b"+OK"
        watched.servers[0].ask("WAIT", 2, 2000)
        watched.servers[0].ask("CONFIG", "RESETSTAT")
        for _ in range(20):
            assert c.ask("GET", "k") == b"v"
    assert b"cmdstat_get:" not in watched.servers[0].ask("INFO", "commandstats")


def test_several_masters_share_the_keys_by_their_names(start):
    masters = {f"m{i}": start(Redis) for i in range(3)}
    sentinel = start(Sentinel, masters, 1)
    m = start(Watching, Admin, [sentinel.port], master_name="[m0, m1, m2]")
    wait_for(lambda: shown(m)["discovery"]["covered"] == 3, 20, "masters")
    with m.raw() as c:
        for i in range(90):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
        assert c.ask("DBSIZE") == 90
        assert c.ask("MGET", *[f"k{i}" for i in range(90)]) == [b"%d" % i for i in range(90)]
    sizes = {n: s.ask("DBSIZE") for n, s in masters.items()}
    assert sum(sizes.values()) == 90 and min(sizes.values()) > 5
    # the same keys go to the same names, whatever the addresses are: names are on the ring
    shards = start(Millrace, [f"127.0.0.1:{s.port}:1 {n}" for n, s in masters.items()])
    with shards.raw() as c:
        assert [c.ask("GET", f"k{i}") for i in range(90)] == [b"%d" % i for i in range(90)]


def test_sentinels_with_a_password(start):
    w = Watched(start, sentinels=1, replicas=0, password="secret")
    m = w.proxy(sentinel_auth="secret")
    covered(m)
    with m.raw() as c:
        assert c.ask("SET", "k", 1) == b"+OK"
    wrong = w.proxy(sentinel_auth="wrong")
    with wrong.raw() as c:
        assert c.ask("SET", "k", 1) == b"-ERR no master is known"


def test_a_reload_keeps_the_masters(watched):
    m = watched.proxy(workers=2)
    covered(m)
    with load(m.port, clients=2) as running:
        reload(m)
    for l in running:
        assert l.wrong == [] and l.errors == []


@pytest.mark.parametrize("text, error", [
    ("  sentinels: ['127.0.0.1:1']\n", 'directive "master_name:" is missing'),
    ("  sentinels: ['127.0.0.1']\n  master_name: a\n", "hostname:port"),
    ("  sentinels: ['127.0.0.1:1']\n  master_name: [a, a]\n", "twice"),
    ("  sentinels: ['127.0.0.1:1']\n  master_name: a\n  servers: ['127.0.0.1:1:1']\n",
     "contradict each other"),
    ("  sentinels: ['127.0.0.1:1']\n  master_name: a\n  distribution: random\n", "random"),
])
def test_what_a_configuration_gets_wrong(tmp_path, text, error):
    conf = tmp_path / "conf.yml"
    conf.write_text("alpha:\n  listen: 127.0.0.1:1\n  redis: true\n" + text)
    run = subprocess.run([BINARY, "-t", "-c", str(conf)], capture_output=True, text=True)
    assert run.returncode != 0 and error in run.stderr, run.stderr
