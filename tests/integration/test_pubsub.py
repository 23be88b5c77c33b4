"""Publish and subscribe: channels, patterns, shard channels, across servers, reloads and failures."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest
from harness import (SLOW, Millrace, Observed, Raw, Redis, command, free_port, plain_build, rss_kb,
                     wait_for)
from test_cluster import proxy as cluster_proxy
from test_cluster import three  # noqa: F401
from test_reload import reload
from test_replicas import pool as replicated
from test_replicas import promote
from test_replicas import trio  # noqa: F401
from test_resp3 import MODULES, PYTHON
from test_upgrade import Upgradable, adopt_orphans  # noqa: F401


def ports(servers):
    return [s.port for s in servers]


KINDS = [("SUBSCRIBE", "UNSUBSCRIBE", "message"), ("SSUBSCRIBE", "SUNSUBSCRIBE", "smessage")]


def expect(c, *values):
    got = [c.reply() for _ in values]
    assert got == list(values), got


def subscribed(c, name, n, verb=b"subscribe"):
    expect(c, [verb, name, n])


def feeds_are_gone(redis):
    wait_for(lambda: all(r.ask("PUBSUB", "CHANNELS") == [] and r.ask("PUBSUB", "NUMPAT") == 0 and
                         r.ask("PUBSUB", "SHARDCHANNELS") == [] for r in redis), 10, "no subscription")


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("on, off, message", KINDS)
def test_messages_reach_their_subscribers(start, redis4, servers, on, off, message):
    redis = redis4[:servers]
    publish = "SPUBLISH" if on[:2] == "SS" else "PUBLISH"
    m = start(Observed, ports(redis))
    names = [f"channel{i}" for i in range(20)]
    with m.raw() as a, m.raw() as b, m.raw() as p:
        a.send(command(on, *names))
        for i, name in enumerate(names):
            subscribed(a, name.encode(), i + 1, on.lower().encode())
        b.send(command(on, names[0]))
        subscribed(b, names[0].encode(), 1, on.lower().encode())
        for name in names:
            assert p.ask(publish, name, f"to {name}") == 1
            expect(a, [message.encode(), name.encode(), f"to {name}".encode()])
        expect(b, [message.encode(), names[0].encode(), f"to {names[0]}".encode()])
        a.send(command(off, names[0]) + command(off))
        subscribed(a, names[0].encode(), len(names) - 1, off.lower().encode())
        left = {tuple(a.reply()[:2]) for _ in names[1:]}
        assert left == {(off.lower().encode(), n.encode()) for n in names[1:]}
        assert a.ask("GET", "x") is None  # it is an ordinary client again
        assert p.ask(publish, names[0], "again") == 1
        expect(b, [message.encode(), names[0].encode(), b"again"])
    feeds_are_gone(redis)
    assert m.metric("pool_subscriptions") == 0


@pytest.mark.parametrize("servers", [1, 4])
def test_patterns_hear_all_servers(start, redis4, servers):
    m = start(Millrace, ports(redis4)[:servers])
    with m.raw() as c, m.raw() as p:
        c.send(command("PSUBSCRIBE", "news.*", "weather.?"))
        subscribed(c, b"news.*", 1, b"psubscribe")
        subscribed(c, b"weather.?", 2, b"psubscribe")
        for i in range(20):
            p.ask("PUBLISH", f"news.{i}", i)
            expect(c, [b"pmessage", b"news.*", b"news.%d" % i, b"%d" % i])
        c.send(command("SUBSCRIBE", "news.1"))
        subscribed(c, b"news.1", 3)
        p.ask("PUBLISH", "news.1", "both")
        assert sorted(c.reply()[0] for _ in range(2)) == [b"message", b"pmessage"]
        c.send(command("PUNSUBSCRIBE"))
        assert {c.reply()[1] for _ in range(2)} == {b"news.*", b"weather.?"}
    feeds_are_gone(redis4)


def test_what_a_subscriber_may_send(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        assert c.ask("UNSUBSCRIBE") == [b"unsubscribe", None, 0]
        assert c.ask("UNSUBSCRIBE", "never") == [b"unsubscribe", b"never", 0]
        assert c.ask("SUBSCRIBE", "a") == [b"subscribe", b"a", 1]
        assert c.ask("SUBSCRIBE", "a") == [b"subscribe", b"a", 1]
        assert c.ask("GET", "x") == (
            b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / "
            b"RESET are allowed in this context")
        assert c.ask("PING") == [b"pong", b""]
        assert c.ask("PING", "hi") == [b"pong", b"hi"]
        assert c.ask("RESET") == b"+RESET"
        assert c.ask("GET", "x") is None
        assert c.ask("PING") == b"+PONG"
    feeds_are_gone([redis1])


def test_the_same_as_redis_byte_for_byte(start, redis1):
    """Both versions, everything that a client alone can see of it."""
    m = start(Millrace, [redis1.port])
    for version in ("2", "3"):
        got = []
        for port in (redis1.port, m.port):
            with Raw(port) as c:
                if version == "3":
                    c.ask("HELLO", "3")
                c.send(b"".join(command(*a) for a in [
                    ("SUBSCRIBE", "a", "b", "a"), ("PSUBSCRIBE", "p*"), ("SSUBSCRIBE", "s"),
                    ("PING",), ("UNSUBSCRIBE", "b", "zz"), ("PUNSUBSCRIBE",), ("SUNSUBSCRIBE", "s"),
                    ("UNSUBSCRIBE",), ("UNSUBSCRIBE",), ("SUNSUBSCRIBE",), ("SUBSCRIBE",),
                    ("ECHO", "end")]))
                data = c.buffer
                while not data.endswith(b"end\r\n") and not data.endswith(b"context\r\n"):
                    data += c.sock.recv(65536)
                got.append(data)
        assert got[0] == got[1], version


@pytest.mark.parametrize("version", ["2", "3"])
def test_confirmations_are_never_muted(start, redis1, version):
    m = start(Millrace, [redis1.port])
    for target in (redis1, m):
        with Raw(target.port) as c, Raw(target.port) as p:
            c.ask("HELLO", version)
            c.send(command("CLIENT", "REPLY", "OFF") + command("SUBSCRIBE", "a", "b") +
                   command("UNSUBSCRIBE", "b") + command("SUNSUBSCRIBE"))
            expect(c, [b"subscribe", b"a", 1], [b"subscribe", b"b", 2],
                   [b"unsubscribe", b"b", 1], [b"sunsubscribe", None, 0])
            p.ask("PUBLISH", "a", "x")
            expect(c, [b"message", b"a", b"x"])
            c.send(command("UNSUBSCRIBE") + command("CLIENT", "REPLY", "ON"))
            expect(c, [b"unsubscribe", b"a", 0], b"+OK")
            c.send(command("CLIENT", "REPLY", "SKIP") + command("SUBSCRIBE", "c") + command("RESET"))
            expect(c, [b"subscribe", b"c", 1], b"+RESET")
            c.send(command("CLIENT", "REPLY", "SKIP") + command("UNSUBSCRIBE", "c") + command("ECHO", "x"))
            expect(c, [b"unsubscribe", b"c", 0], b"x")


@pytest.mark.parametrize("servers", [1, 4])
def test_what_follows_waits_for_the_subscription(start, redis4, servers):
    """Pipelined in one write: the client hears all that it publishes itself, and is counted."""
    m = start(Millrace, ports(redis4)[:servers])
    for i in range(20):
        with m.raw() as c:
            c.ask("HELLO", "3")
            c.send(command("SUBSCRIBE", f"a{i}") + command("PSUBSCRIBE", f"?{i}") +
                   command("PUBLISH", f"a{i}", "x") + command("ECHO", "end"))
            expect(c, [b"subscribe", b"a%d" % i, 1], [b"psubscribe", b"?%d" % i, 2])
            got = [c.reply() for _ in range(4)]
            assert [g for g in got if not isinstance(g, list)] == [2, b"end"]
            assert sorted(g for g in got if isinstance(g, list)) == [
                [b"message", b"a%d" % i, b"x"], [b"pmessage", b"?%d" % i, b"a%d" % i, b"x"]]


@pytest.mark.parametrize("version, reply", [("2", b"+PONG"), ("3", b"+PONG")])
def test_a_refused_subscription_leaves_an_ordinary_client(start, version, reply):
    """Also for what was sent in the same write."""
    m = start(Millrace, [free_port()], timeout=500)
    with m.raw() as c:
        c.ask("HELLO", version)
        c.send(command("SUBSCRIBE", "a", "b") + command("ECHO", "x") + command("PING"))
        assert c.reply().startswith(b"-ERR")
        expect(c, b"x", reply)


def test_resp3_subscribers_may_send_everything(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c, m.raw() as p:
        c.ask("HELLO", "3")
        c.send(command("SUBSCRIBE", "a") + command("SET", "k", "x" * 300000) + command("GET", "k"))
        subscribed(c, b"a", 1)
        expect(c, b"+OK", b"x" * 300000)
        for i in range(50):
            c.send(command("GET", "k"))
            p.ask("PUBLISH", "a", i)
        got = [c.reply() for _ in range(100)]
        pushes = [g for g in got if isinstance(g, list)]
        assert pushes == [[b"message", b"a", b"%d" % i] for i in range(50)]
        assert [g for g in got if not isinstance(g, list)] == [b"x" * 300000] * 50


def test_a_server_that_comes_back(start):
    """Subscriptions are renewed by themselves."""
    redis = [start(Redis) for _ in range(3)]
    m = start(Millrace, ports(redis))
    names = [f"c{i}" for i in range(20)]
    with m.raw() as c, m.raw() as p:
        c.send(command("SUBSCRIBE", *names) + command("PSUBSCRIBE", "c*"))
        for _ in range(len(names) + 1):
            c.reply()
        theirs = len(redis[0].ask("PUBSUB", "CHANNELS"))
        assert 0 < theirs < len(names)
        redis[0].kill()
        redis[0] = start(Redis, port=redis[0].port)
        wait_for(lambda: len(redis[0].ask("PUBSUB", "CHANNELS")) == theirs and
                 redis[0].ask("PUBSUB", "NUMPAT") == 1, 20, "subscriptions again")
        for name in names:
            wait_for(lambda name=name: p.ask("PUBLISH", name, "v") == 2, 5, "a connection")
            assert sorted(c.reply()[0] for _ in range(2)) == [b"message", b"pmessage"]


def test_a_server_that_is_down(start):
    m = start(Observed, [free_port()], timeout=500)
    with m.raw() as c:
        assert c.ask("SUBSCRIBE", "a").startswith(b"-ERR")
        assert c.ask("SUBSCRIBE", "a", "b").startswith(b"-ERR")
        assert c.ask("UNSUBSCRIBE") == [b"unsubscribe", None, 0]
    assert m.metric("pool_subscriptions") == 0


def test_a_slow_subscriber_is_cut_alone(start, redis1):
    m = start(Observed, [redis1.port], client_output_limit=200000)
    with m.raw() as slow, m.raw() as fast, m.raw() as p:
        for c in (slow, fast):
            assert c.ask("SUBSCRIBE", "a") == [b"subscribe", b"a", 1]
        for i in range(300):
            assert p.ask("PUBLISH", "a", "v" * 50000) == 1
            expect(fast, [b"message", b"a", b"v" * 50000])
        wait_for(lambda: "reason=output_limit" in m.log_text(), 10)
        with contextlib.suppress(OSError, EOFError):
            while slow.reply():
                pass
        assert m.metric("pool_subscriptions") == 1


def test_a_client_that_leaves_while_it_waits(start, redis1):
    os.kill(redis1.pid, signal.SIGSTOP)
    try:
        m = start(Observed, [redis1.port], timeout=1000)
        with m.raw() as c:
            c.send(command("SUBSCRIBE", "a", "b") + command("PSUBSCRIBE", "x*"))
            wait_for(lambda: m.metric("pool_subscriptions") == 2, 5)
        wait_for(lambda: m.pool()["client_connections"] == 0, 10)
    finally:
        os.kill(redis1.pid, signal.SIGCONT)
    feeds_are_gone([redis1])
    with m.raw() as c:  # once the server is tried again
        wait_for(lambda: c.ask("SUBSCRIBE", "a") == [b"subscribe", b"a", 1], 10)


@pytest.mark.parametrize("servers", [1, 4])
def test_subscriptions_survive_reloads(start, redis4, servers):
    m = start(Millrace, ports(redis4)[:servers], workers=2)
    names = [f"c{i}" for i in range(10)]
    with m.raw() as c, m.raw() as p:
        c.send(command("SUBSCRIBE", *names) + command("PSUBSCRIBE", "p*"))
        for _ in range(len(names) + 1):
            c.reply()
        for turn in range(3):
            reload(m)
            wait_for(lambda: sum(len(r.ask("PUBSUB", "CHANNELS")) for r in redis4[:servers]) == 10,
                     10, "subscriptions of the new worker")
            wait_for(lambda: all(r.ask("PUBSUB", "NUMPAT") == 1 for r in redis4[:servers]), 10)
            for name in names:
                p.ask("PUBLISH", name, turn)
                expect(c, [b"message", name.encode(), b"%d" % turn])
            p.ask("PUBLISH", "p1", turn)
            expect(c, [b"pmessage", b"p*", b"p1", b"%d" % turn])
        c.send(command("UNSUBSCRIBE") + command("PUNSUBSCRIBE"))
        for _ in range(len(names) + 1):
            c.reply()
        assert c.ask("GET", "k") is None
    feeds_are_gone(redis4[:servers])


def test_pubsub_asks_all_servers(start, redis4):
    m = start(Millrace, ports(redis4))
    names = sorted(f"c{i}" for i in range(12))
    with m.raw() as c, m.raw() as p:
        c.send(command("SUBSCRIBE", *names) + command("PSUBSCRIBE", "x*"))
        for _ in range(len(names) + 1):
            c.reply()
        assert sorted(p.ask("PUBSUB", "CHANNELS")) == [n.encode() for n in names]
        assert sorted(p.ask("PUBSUB", "CHANNELS", "c1*")) == [b"c1", b"c10", b"c11"]
        assert p.ask("PUBSUB", "NUMSUB", "c1", "none", "c2") == [b"c1", 1, b"none", 0, b"c2", 1]
        assert p.ask("PUBSUB", "NUMPAT") == 1
        assert p.ask("PUBSUB", "SHARDNUMSUB") == []
        line = p.ask("CLIENT", "LIST", "TYPE", "pubsub")
        assert b" flags=P " in line and b" sub=12 psub=1 ssub=0 " in line and line.count(b"\n") == 1


def test_many_subscribers_of_many_topics(start, redis4):
    m = start(Observed, ports(redis4))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(m.raw()) for _ in range(50)]
        p = stack.enter_context(m.raw())
        for i, c in enumerate(clients):
            c.send(command("SUBSCRIBE", "all", *[f"c{k}" for k in range(i, 1000 + i)]))
        for c in clients:
            for _ in range(1001):
                c.reply()
        assert sum(len(r.ask("PUBSUB", "CHANNELS")) for r in redis4) == 1050
        assert p.ask("PUBLISH", "all", 1) == 1
        for c in clients:
            expect(c, [b"message", b"all", b"1"])
        assert m.metric("pool_subscriptions") == 50 * 1001
    feeds_are_gone(redis4)


def test_channels_in_a_cluster(start, three):
    m = cluster_proxy(start, three)
    with m.raw() as c, m.raw() as p:
        for i in range(10):
            assert c.ask("SUBSCRIBE", f"c{i}") == [b"subscribe", b"c%d" % i, i + 1]
        assert c.ask("PSUBSCRIBE", "c*") == [b"psubscribe", b"c*", 11]
        for i in range(10):
            p.ask("PUBLISH", f"c{i}", "x")
            assert sorted(c.reply()[0] for _ in range(2)) == [b"message", b"pmessage"]
        three.masters[0].ask("PUBLISH", "c3", "from elsewhere")
        assert sorted(c.reply()[-1] for _ in range(2)) == [b"from elsewhere"] * 2


def test_a_shard_channel_moves_with_its_slot(start, three):
    m = cluster_proxy(start, three)
    with m.raw() as c, m.raw() as p:
        assert c.ask("SSUBSCRIBE", "{s}1") == [b"ssubscribe", b"{s}1", 1]
        slot = three.slot_of("{s}1")
        for turn in range(3):
            target = next(n for n in three.masters if n is not three.owner(slot))
            three.move(slot, target)
            wait_for(lambda target=target: target.ask("PUBSUB", "SHARDNUMSUB", "{s}1") == [b"{s}1", 1],
                     10, "the subscription at the new node")
            assert p.ask("SPUBLISH", "{s}1", turn) == 1
            expect(c, [b"smessage", b"{s}1", b"%d" % turn])


class Publisher(threading.Thread):
    """Publishes 0, 1, 2 ... straight to a server until it is told to stop."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.sent, self.over = port, -1, False
        self.start()

    def run(self):
        with Raw(self.port) as c:
            for i in itertools.count():
                if self.over:
                    return
                c.ask("PUBLISH", "numbers", i)
                self.sent = i


def connections(server):
    """The ids of the connections that are subscribed at a server."""
    return set(re.findall(rb"^id=(\d+)", server.ask("CLIENT", "LIST", "TYPE", "pubsub"), re.M))


def hear(c, last):
    """Reads numbers up to `last`; returns those that are missing. None may come twice, or late."""
    missing, expected = [], None
    while expected is None or expected <= last:
        kind, channel, number = c.reply()
        assert (kind, channel) == (b"message", b"numbers")
        number = int(number)
        if expected is not None:
            assert number >= expected, (number, expected)
            missing += range(expected, number)
        expected = number + 1
    return missing


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("way", ["reload", "upgrade"])
def test_numbers_in_order_across_workers(start, redis1, way, version):
    """Nothing twice, nothing out of order, and nothing lost once the new worker has subscribed."""
    m = start(Upgradable, [redis1.port], workers=2)
    with m.raw() as c:
        c.ask("HELLO", version)
        assert c.ask("SUBSCRIBE", "numbers") == [b"subscribe", b"numbers", 1]
        publisher = Publisher(redis1.port)
        try:
            for _ in range(3):
                wait_for(lambda: publisher.sent > 0)
                [old] = connections(redis1)
                if way == "reload":
                    reload(m)
                else:
                    m.upgrade()
                wait_for(lambda old=old: len(connections(redis1) ^ {old}) == 2, 10)  # another one instead
                begin = publisher.sent + 2  # sent after that: to the new worker
                wait_for(lambda: publisher.sent > begin + 200)
                assert [n for n in hear(c, begin + 200) if n >= begin] == []
        finally:
            publisher.over = True
            publisher.join()
    feeds_are_gone([redis1])


def test_channels_follow_the_master(start, trio):
    m = replicated(start, trio, follow_roles="true")
    with m.raw() as c, m.raw() as p:
        c.send(command("SUBSCRIBE", "a") + command("PSUBSCRIBE", "a*"))
        expect(c, [b"subscribe", b"a", 1], [b"psubscribe", b"a*", 2])
        p.ask("PUBLISH", "a", "before")
        assert sorted(c.reply()[-1] for _ in range(2)) == [b"before"] * 2
        promote(trio, 2)
        wait_for(lambda: trio[2].ask("PUBSUB", "NUMSUB", "a") == [b"a", 1] and
                 trio[2].ask("PUBSUB", "NUMPAT") == 1, 10, "subscriptions at the new master")
        feeds_are_gone(trio[:2])
        wait_for(lambda: p.ask("PUBLISH", "a", "after") == 2, 5, "a publication at the new master")
        assert sorted(c.reply()[-1] for _ in range(2)) == [b"after"] * 2


@plain_build
@pytest.mark.alone
def test_what_a_subscriber_costs(start, redis1):
    m = start(Millrace, [redis1.port])
    pid, n = m.child_pids()[0], 800
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(m.raw()) for _ in range(n)]
        for c in clients:
            c.ask("PING")
        before = rss_kb(pid)
        for i, c in enumerate(clients):
            assert c.ask("SUBSCRIBE", f"own{i}") == [b"subscribe", b"own%d" % i, 1]
        assert rss_kb(pid) - before < n  # 1 KB each


REDIS_PY = """
import redis, sys
r = redis.Redis(port=PORT, socket_timeout=20, decode_responses=True, VERSION)
names = ["c%d" % i for i in range(8)]
def told(p, n):
    got = []
    while len(got) < n:
        m = p.get_message(timeout=20)
        assert m is not None, got
        got.append((m["type"], m["pattern"], m["channel"], m["data"]))
    return got
p = r.pubsub()
p.subscribe(*names)
p.psubscribe("c*")
assert told(p, 9)[-1] == ("psubscribe", None, "c*", 9)
for name in names:
    assert r.publish(name, "hi") == 2
    assert sorted(told(p, 2)) == [("message", None, name, "hi"), ("pmessage", "c*", name, "hi")]
assert sorted(r.pubsub_channels()) == names and r.pubsub_numsub("c1") == [("c1", 1)]
p.ping()
assert told(p, 1)[0][0] == "pong"
p.unsubscribe()
p.punsubscribe()
assert told(p, 9)[-1][3] == 0
assert r.publish("c1", "nobody") == 0
p.close()
print("fine")
"""
IOREDIS = """
const Redis = require('ioredis');
const c = new Redis(PORT), s = new Redis(PORT);
const subscribe = (name, f) => { s.on('message', (ch, m) => f(m, ch)); return s.subscribe(name); };
const psubscribe = (pattern, f) => {
  s.on('pmessage', (p, ch, m) => f(m, ch));
  return s.psubscribe(pattern);
};
const ready = Promise.resolve();
const end = () => s.unsubscribe('c0', 'c1').then(() => Promise.all([c.quit(), s.quit()]));
"""
NODE_REDIS = """
const { createClient } = require('redis');
const c = createClient({url: 'redis://127.0.0.1:PORT'}), s = c.duplicate();
const subscribe = (name, f) => s.subscribe(name, f);
const psubscribe = (pattern, f) => s.pSubscribe(pattern, f);
const ready = Promise.all([c.connect(), s.connect()]);
const end = () => s.unsubscribe().then(() => Promise.all([c.close(), s.close()]));
"""
SCRIPT = """
const got = [];
setTimeout(() => { console.error(got); process.exit(1); }, 20000);
(async () => {
  await ready;
  for (let i = 0; i < 8; i++)
    await subscribe('c' + i, (m, ch) => got.push(ch + m));
  await psubscribe('n*', (m, ch) => got.push('pattern ' + ch + m));
  await c.publish('c0', 'x');
  for (let i = 0; i < 8; i++) await c.publish('n' + i, i.toString());
  while (new Set(got).size < 9) await new Promise((go) => setTimeout(go, 5));
  await end();
  console.log('fine');
  process.exit(0);
})();
"""


def run_client(program, script, **env):
    done = subprocess.run([*program, script], capture_output=True, text=True, timeout=60 * SLOW,
                          env={**os.environ, **env}, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stdout + done.stderr


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("version", ["", "protocol=2", "protocol=3"])
def test_redis_py(start, redis4, version, servers):
    if version and not PYTHON.exists():
        pytest.skip("no redis-py that knows RESP3")
    m = start(Millrace, ports(redis4)[:servers])
    run_client(["/usr/bin/python3", "-c"],
               REDIS_PY.replace("VERSION", version).replace("PORT", str(m.port)),
               PYTHONPATH=str(PYTHON))
    feeds_are_gone(redis4)


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("module,head", [("ioredis", IOREDIS), ("redis", NODE_REDIS)],
                         ids=["ioredis", "node-redis"])
def test_node_clients(start, redis4, module, head, servers):
    if not (MODULES / module).exists() or not shutil.which("node"):
        pytest.skip(f"no {module}")
    m = start(Millrace, ports(redis4)[:servers])
    run_client(["node", "-e"], (head + SCRIPT).replace("PORT", str(m.port)),
               NODE_PATH=str(MODULES))
    feeds_are_gone(redis4)
