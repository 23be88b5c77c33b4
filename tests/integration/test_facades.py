"""Pools that present themselves as a cluster or as a sentinel, to clients that insist on one."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from harness import BINARY, Millrace, Raw, command, free_port, wait_for
from test_cluster import proxy as cluster_proxy
from test_cluster import three  # noqa: F401
from test_reload import reload
from test_resp3 import MODULES

HALF = 8192


def ports(servers):
    return [s.port for s in servers]


def address(m):
    return "127.0.0.1:%d" % m.port


def tree(reply):
    """Flat arrays of names and values as dictionaries, as RESP2 has maps."""
    return dict(zip(reply[::2], reply[1::2]))


def test_a_cluster_of_one_node(start, redis4):
    m = start(Millrace, ports(redis4), workers=2, present_as="cluster")
    with m.raw() as c:
        number = c.ask("CLUSTER", "MYID")
        assert len(number) == 40 and int(number, 16)
        assert c.ask("CLUSTER", "SLOTS") == [[0, 16383, [b"127.0.0.1", m.port, number, []]]]
        (shard,) = c.ask("CLUSTER", "SHARDS")
        shard = tree(shard)
        assert shard[b"slots"] == [0, 16383]
        (node,) = map(tree, shard[b"nodes"])
        assert node == {b"id": number, b"port": m.port, b"ip": b"127.0.0.1", b"endpoint": b"127.0.0.1",
                        b"role": b"master", b"replication-offset": 0, b"health": b"online"}
        line = c.ask("CLUSTER", "NODES").decode()
        assert line == f"{number.decode()} {address(m)}@{m.port + 10000} myself,master - 0 0 1 connected 0-16383\n"
        info = dict(f.split(":") for f in c.ask("CLUSTER", "INFO").decode().split())
        assert info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == "16384"
        assert c.ask("CLUSTER", "KEYSLOT", "foo") == 12182
        assert c.ask("CLUSTER", "KEYSLOT", "{foo}.bar") == 12182
        for allowed in ("READONLY", "READWRITE", "ASKING"):
            assert c.ask(allowed) == b"+OK"
        assert c.ask("ROLE") == [b"master", 0, []]
        assert b"cluster_enabled:1" in c.ask("INFO", "cluster") and b"redis_mode:cluster" in c.ask("INFO")
        assert c.ask("CLUSTER", "MEET", "1.2.3.4", 1).startswith(b"-ERR 'MEET' is not supported")
        assert c.ask("CLUSTER", "SLOTS", "x") == b"-ERR wrong number of arguments for 'cluster|slots' command"
        assert c.ask("SENTINEL", "MASTERS").startswith(b"-ERR unknown command")
        assert c.ask("MGET", *"abcdefgh") == [None] * 8  # over all four servers


def test_maps_and_errors_are_those_of_redis(start, three):  # noqa: F811
    m = start(Millrace, [three.nodes[0].port], present_as="cluster")
    for hello in (2, 3):
        with m.raw() as ours, Raw(three.nodes[0].port) as theirs:
            for c in (ours, theirs):
                c.send(command("HELLO", hello))
                c.reply()
            for words in (("CLUSTER", "KEYSLOT", "a{b}c"), ("CLUSTER", "KEYSLOT"), ("CLUSTER", "INFO", "x"),
                          ("CLUSTER",), ("ASKING", "x"), ("READONLY",)):
                assert ours.ask(*words) == theirs.ask(*words), words

            def shape(reply):
                return [shape(r) for r in reply] if isinstance(reply, list) else \
                    {k: shape(v) for k, v in reply.items()} if isinstance(reply, dict) else type(reply)

            for words in (("CLUSTER", "SLOTS"), ("CLUSTER", "SHARDS")):
                mine, real = ours.ask(*words), theirs.ask(*words)
                assert shape(mine[0]) == shape(real[0]), words


def test_instances_share_the_slots_that_they_announce(start, redis4):
    free = [free_port(), free_port()]
    both = "[" + ", ".join(f"'127.0.0.1:{p}'" for p in free) + "]"
    for p in free:
        start(Millrace, ports(redis4), listen=f"127.0.0.1:{p}", present_as="cluster", announce=both)
    seen = []
    for p in free:
        with Raw(p) as c:
            slots = c.ask("CLUSTER", "SLOTS")
            assert [(a, b, node[1]) for a, b, node in slots] == [(0, HALF - 1, free[0]), (HALF, 16383, free[1])]
            own = c.ask("CLUSTER", "MYID")
            assert own == next(node[2] for _, _, node in slots if node[1] == p)
            assert c.ask("CLUSTER", "NODES").count(b"myself") == 1
            seen.append(own)
    assert seen[0] != seen[1]


def test_sentinels_answer_with_the_proxy(start, redis4):
    m = start(Millrace, ports(redis4), present_as="sentinel", announce_name="mymaster")
    with m.raw() as c:
        assert c.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster") == [b"127.0.0.1", b"%d" % m.port]
        assert c.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "other") is None
        (master,) = map(tree, c.ask("SENTINEL", "MASTERS"))
        assert master == tree(c.ask("SENTINEL", "MASTER", "mymaster"))
        assert master[b"name"] == b"mymaster" and master[b"flags"] == b"master"
        assert (master[b"ip"], master[b"port"]) == (b"127.0.0.1", b"%d" % m.port)
        (replica,) = map(tree, c.ask("SENTINEL", "REPLICAS", "mymaster"))
        assert replica[b"flags"] == b"slave" and replica[b"master-link-status"] == b"ok"
        assert c.ask("SENTINEL", "SENTINELS", "mymaster") == []
        for words in ("MASTER", "REPLICAS", "SLAVES", "SENTINELS", "CKQUORUM"):
            assert c.ask("SENTINEL", words, "x") == b"-ERR No such master with that name"
        assert c.ask("SENTINEL", "CKQUORUM", "mymaster").startswith(b"+OK 1 usable Sentinels")
        assert c.ask("SENTINEL", "FAILOVER", "mymaster").startswith(b"-ERR 'FAILOVER' is not supported")
        assert c.ask("ROLE") == [b"master", 0, []]
        assert c.ask("CLUSTER", "SLOTS").startswith(b"-ERR")
        assert c.ask("SUBSCRIBE", "+switch-master") == [b"subscribe", b"+switch-master", 1]


def test_addresses_of_other_kinds(start, redis1, tmp_path):
    path = tmp_path / "s"
    conf = f"""a:
  listen: ['[::]:@PORT@', '{path}']
  redis: true
  hash: murmur
  distribution: ketama
  present_as: cluster
  servers: ['127.0.0.1:{redis1.port}:1']
"""
    m = start(Millrace, conf=conf)
    with Raw(m.port) as c:  # an IPv4 client of an IPv6 listener
        assert c.ask("CLUSTER", "SLOTS")[0][2][:2] == [b"127.0.0.1", m.port]
    with Raw(("::1", m.port)) as c:
        assert c.ask("CLUSTER", "SLOTS")[0][2][:2] == [b"::1", m.port]
    with Raw(str(path)) as c:
        for words in ("SLOTS", "SHARDS", "NODES", "MYID"):
            assert c.ask("CLUSTER", words) == b"-ERR clients of unix sockets need `announce`"
        assert c.ask("PING") == b"+PONG"
    m.conf.write_text(m.conf.read_text().replace("present_as: cluster",
                                                 "present_as: cluster\n  announce: cache.example.com:7000"))
    reload(m)
    with Raw(str(path)) as c:
        assert c.ask("CLUSTER", "SLOTS")[0][2][:2] == [b"cache.example.com", 7000]


@pytest.mark.parametrize("lines, error", [
    ("announce: 1.2.3.4:5", "has no effect without"),
    ("announce_name: x", "has no effect without"),
    ("present_as: cluster\n  announce: 1.2.3.4", 'is not "host:port"'),
    ("present_as: cluster\n  announce: ['1.2.3.4:5', ':6']", 'is not "host:port"'),
    ("present_as: sentinel\n  announce: '1.2.3.4:70000'", 'is not "host:port"'),
    ("present_as: something", "present_as"),
])
def test_errors_in_the_configuration(tmp_path, lines, error):
    conf = tmp_path / "c.yml"
    conf.write_text("a:\n  listen: 127.0.0.1:1\n  redis: true\n  hash: murmur\n  distribution: ketama\n"
                    f"  {lines}\n  servers: ['127.0.0.1:2:1']\n")
    done = subprocess.run([BINARY, "-t", "-c", str(conf)], capture_output=True, text=True)
    assert done.returncode != 0 and error in done.stderr, done.stderr


def run(*args, **env):
    done = subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=60, env={**os.environ, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CLUSTER_PY = """
import redis, sys
r = redis.RedisCluster(host="127.0.0.1", port=int(sys.argv[1]))
for i in range(300):
    assert r.set(f"key{i}", i)
assert [r.get(f"key{i}") for i in range(300)] == [b"%d" % i for i in range(300)]
p = r.pipeline()
for i in range(50):
    p.incr(f"key{i}")
assert p.execute() == list(range(1, 51))
assert r.mget_nonatomic("key1", "key2") == [b"2", b"3"]
print(len(r.get_nodes()))
"""

SENTINEL_PY = """
import redis.sentinel, sys
s = redis.sentinel.Sentinel([("127.0.0.1", int(p)) for p in sys.argv[1:]])
assert s.discover_master("mymaster") == ("127.0.0.1", int(sys.argv[-1]))
m, r = s.master_for("mymaster"), s.slave_for("mymaster")
assert m.set("k", "v") and r.get("k") == b"v"
"""


def test_redis_py_takes_it_for_a_cluster(start, redis4, three):  # noqa: F811
    shards = start(Millrace, ports(redis4), workers=2, present_as="cluster")
    assert run(sys.executable, "-c", CLUSTER_PY, shards.port).strip() == "1"
    cluster = cluster_proxy(start, three, present_as="cluster")
    assert run(sys.executable, "-c", CLUSTER_PY, cluster.port).strip() == "1"
    assert run("redis-cli", "-c", "-p", shards.port, "get", "key7").strip() == "8"
    free = [free_port(), free_port()]
    both = "[" + ", ".join(f"'127.0.0.1:{p}'" for p in free) + "]"
    for p in free:
        start(Millrace, ports(redis4), listen=f"127.0.0.1:{p}", present_as="cluster", announce=both)
    assert run(sys.executable, "-c", CLUSTER_PY, free[1]).strip() == "2"


def test_redis_py_takes_it_for_a_sentinel(start, redis4):
    m = start(Millrace, ports(redis4), present_as="sentinel", announce_name="mymaster")
    dead = free_port()
    run(sys.executable, "-c", SENTINEL_PY, dead, m.port)


IOREDIS = """
const Redis = require("ioredis");
const port = Number(process.argv[1]);
const end = setTimeout(() => process.exit(3), 30000);
(async () => {
  const c = new Redis.Cluster([{host: "127.0.0.1", port}]);
  for (let i = 0; i < 200; i++) await c.set("n" + i, i);
  for (let i = 0; i < 200; i++) if (await c.get("n" + i) !== String(i)) throw new Error("get " + i);
  c.disconnect();
})().then(() => clearTimeout(end), (e) => { console.error(e); process.exit(2); });
"""

IOREDIS_SENTINEL = """
const Redis = require("ioredis");
const port = Number(process.argv[1]);
const end = setTimeout(() => process.exit(3), 30000);
(async () => {
  const c = new Redis({sentinels: [{host: "127.0.0.1", port}], name: "mymaster"});
  await c.set("i", "1");
  if (await c.get("i") !== "1") throw new Error("get");
  c.disconnect();
})().then(() => clearTimeout(end), (e) => { console.error(e); process.exit(2); });
"""

NODE_REDIS = """
const {createCluster} = require("redis");
const port = Number(process.argv[1]);
const end = setTimeout(() => process.exit(3), 30000);
(async () => {
  const c = createCluster({rootNodes: [{url: "redis://127.0.0.1:" + port}]});
  await c.connect();
  for (let i = 0; i < 200; i++) await c.set("m" + i, String(i));
  for (let i = 0; i < 200; i++) if (await c.get("m" + i) !== String(i)) throw new Error("get " + i);
  await (c.close ? c.close() : c.quit());
})().then(() => clearTimeout(end), (e) => { console.error(e); process.exit(2); });
"""


@pytest.mark.parametrize("module, script, kind", [("ioredis", IOREDIS, "cluster"),
                                                  ("ioredis", IOREDIS_SENTINEL, "sentinel"),
                                                  ("redis", NODE_REDIS, "cluster")])
def test_node_clients_take_it_for_a_cluster_or_sentinel(start, redis4, module, script, kind):
    if not (MODULES / module).exists() or not shutil.which("node"):
        pytest.skip(f"no {module}")
    name = {"announce_name": "mymaster"} if kind == "sentinel" else {}
    m = start(Millrace, ports(redis4), workers=2, present_as=kind, **name)
    run("node", "-e", script, m.port, NODE_PATH=str(MODULES))


def test_a_reload_changes_the_facade(start, redis4):
    m = start(Millrace, ports(redis4), workers=2, present_as="cluster")
    with m.raw() as c:
        number = c.ask("CLUSTER", "MYID")
        reload(m)
        assert c.ask("CLUSTER", "MYID") == number
        m.conf.write_text(m.conf.read_text().replace("present_as: cluster", "present_as: none"))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: c.ask("CLUSTER", "MYID").startswith(b"-ERR"), 10, "the new configuration")
        assert c.ask("SET", "k", 1) == b"+OK"
