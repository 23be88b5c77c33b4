"""HELLO 3: clients of both versions on one port, which sees them as a server would."""

import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from harness import SLOW, Millrace, Raw, Redis, Scripted, command, free_port, wait_for

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build"
MODULES = BUILD / "npm" / "node_modules"
PYTHON = BUILD / "pip"

PIECES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}  # elements per counted item


class Wire(Raw):
    """A client that keeps the raw bytes of replies."""

    def whole(self):
        line = self.line()
        kind, rest = line[:1], line[1:]
        data = line + b"\r\n"
        if kind in b"$=!" and rest != b"-1":
            data += self.exactly(int(rest) + 2)
        elif kind in PIECES and rest != b"-1":
            for _ in range(int(rest) * PIECES[kind] + (kind == b"|")):
                data += self.whole()
        return data

    def tell(self, *args):
        return self.send(command(*args)).whole()


def ports(servers):
    return [s.port for s in servers]


LINES = """
SET s hello|GET s|GET none|MSET a 1 b 2|MGET a none b|DEL a none|EXISTS s b
HSET h f v|HGETALL h|HGETALL none|HRANDFIELD h 1 WITHVALUES|CONFIG GET save
SADD set x|SMEMBERS set|SPOP none|SISMEMBER set x|SMISMEMBER set x y
ZADD z 1.5 m|ZSCORE z m|ZSCORE z none|ZRANGE z 0 -1 WITHSCORES|ZADD z INCR 1 m|ZRANDMEMBER z 1 WITHSCORES
LPUSH l 1|LPOP none|LPOP none 2|LMPOP 1 none LEFT|BLPOP none 0.01|BLPOP l 1
XADD x 1-1 f v|XREAD STREAMS x 0|XREAD STREAMS x $|XRANGE x - +|GEOADD g 1 2 m|GEOPOS g m none
INCR s|LPUSH s x|GET|NOSUCH a b|CLIENT GETNAME|CLIENT SETNAME me|CLIENT GETNAME|CLIENT TRACKINGINFO
CLIENT GETREDIR|CLIENT NOSUCH|CLIENT SETNAME|CLIENT NO-EVICT on|OBJECT ENCODING s
EVAL "return {1,false,{map={a=1}}}" 0|EVAL "redis.setresp(3);return redis.call('hgetall',KEYS[1])" 1 h
MULTI|GET none|HGETALL h|ZSCORE z m|EXEC|MULTI|DISCARD|WATCH s|MULTI|GET s|EXEC|MULTI|GET|EXEC
HELLO 1|HELLO x|HELLO 3 SETNAME "a b"|HELLO 3 NOSUCH|HELLO 3 AUTH|HELLO 3 AUTH bob x|PING|PING x|ECHO x
"""


def words(line):
    """A line of the list, with double quotes around words that contain blanks."""
    parts = line.split('"')
    return [w for i, p in enumerate(parts) for w in ([p] if i % 2 else p.split())]


@pytest.mark.parametrize("version", [2, 3])
def test_replies_are_those_of_the_server(start, redis1, version):
    m = start(Millrace, [redis1.port])
    seen = []
    for port in (redis1.port, m.port):
        redis1.ask("FLUSHALL")
        with Wire(port) as c:
            assert c.tell("HELLO", version).startswith(b"%7" if version == 3 else b"*14")
            seen.append([(line, c.tell(*words(line)))
                         for line in LINES.replace("\n", "|").split("|") if line])
    assert seen[1] == seen[0]


def test_a_broken_watch_is_null(start, redis1):
    m = start(Millrace, [redis1.port])
    with Wire(m.port) as c:
        c.tell("HELLO", 3)
        c.tell("WATCH", "k")
        redis1.ask("SET", "k", "other")
        c.tell("MULTI")
        c.tell("GET", "k")
        assert c.tell("EXEC") == b"_\r\n"


def test_versions_side_by_side(start, redis4):
    m = start(Millrace, ports(redis4))
    keys = [f"k{i}" for i in range(100)]
    with Wire(m.port) as two, Wire(m.port) as three:
        three.tell("HELLO", 3)
        two.tell("MSET", *[x for k in keys for x in (k, k)])
        two.tell("HSET", "h", "f", "v")
        for _ in range(3):
            assert two.tell("HGETALL", "h").startswith(b"*2")
            assert three.tell("HGETALL", "h").startswith(b"%1")
            many = three.tell("MGET", *keys, "none")
            assert many.startswith(b"*101\r\n") and many.endswith(b"_\r\n")
            assert two.tell("MGET", *keys, "none").endswith(b"$-1\r\n")
            assert three.tell("EXISTS", *keys) == b":100\r\n"
        assert three.tell("RESET") == b"+RESET\r\n"
        assert three.tell("HGETALL", "h").startswith(b"*2")


def test_a_change_of_version_keeps_the_order(start, redis1):
    """Requests after HELLO use another connection, and still find what was written."""
    m = start(Millrace, [redis1.port])
    with Wire(m.port) as c:
        for i in range(50):
            version = 3 - i % 2
            c.send(command("SET", "k", i) + command("HELLO", version) + command("GET", "k") +
                   command("GET", "none"))
            assert c.whole() == b"+OK\r\n"
            c.whole()
            assert c.whole() == b"$%d\r\n%d\r\n" % (len(str(i)), i)
            assert c.whole() == (b"_\r\n" if version == 3 else b"$-1\r\n")


@pytest.mark.parametrize("changed", [False, True])
def test_what_is_watched_stays_watched_in_another_version(start, redis1, changed):
    m = start(Millrace, [redis1.port])
    with Wire(m.port) as c:
        c.send(command("WATCH", "k") + command("HELLO", 3))
        assert c.whole() == b"+OK\r\n" and c.whole().startswith(b"%7")
        if changed:
            redis1.ask("HSET", "k", "f", "v")
        c.send(command("MULTI") + command("HGETALL", "k") + command("EXEC"))
        assert [c.whole() for _ in range(2)] == [b"+OK\r\n", b"+QUEUED\r\n"]
        assert c.whole() == (b"_\r\n" if changed else b"*1\r\n%0\r\n")
        assert c.tell("HGETALL", "none") == b"%0\r\n"


def test_the_version_travels(start, redis1):
    m = start(Millrace, [redis1.port])
    with Wire(m.port) as c:
        c.tell("HELLO", 3, "SETNAME", "me")
        c.tell("MULTI")
        c.tell("HGETALL", "none")
        before = m.child_pids()
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: not set(before) & set(m.child_pids()) and m.child_pids(),
                 what="new workers")
        assert c.tell("EXEC") == b"*1\r\n%0\r\n"
        assert c.tell("CLIENT", "GETNAME") == b"$2\r\nme\r\n"
        assert c.tell("GET", "none") == b"_\r\n"


class Fake:
    """A server that answers HELLO with `hello`, and everything else with PONG."""

    def __init__(self, hello, before=b""):
        self.hello, self.before = hello, before

    def __call__(self, conn, server):
        data = b""
        while got := server.read(conn):
            data += got
            while data and data.count(b"\r\n") >= (n := 1 + 2 * int(data[1:data.index(b"\r")])):
                request = data.split(b"\r\n", n)
                data = request[n]
                conn.sendall(self.hello if request[2] == b"HELLO"
                             else self.before + b"$4\r\nfine\r\n")


@pytest.mark.parametrize("hello", [b"-NOPROTO unsupported protocol version\r\n",
                                   b"-ERR unknown command `HELLO`, with args beginning with:\r\n"])
def test_a_server_without_resp3(start, hello):
    server = start(Scripted, Fake(hello))
    m = start(Millrace, [server.port], auto_eject_hosts="true", server_failure_limit=1)
    for _ in range(3):
        with Wire(m.port) as c:
            assert c.tell("HELLO", 3) == b"-NOPROTO unsupported protocol version\r\n"
            assert c.tell("GET", "k") == b"$4\r\nfine\r\n"
            assert c.tell("HELLO", 2).startswith(b"*14")
    assert m.pool()["server_ejects"] == 0
    server.serve = Fake(b"%0\r\n")  # it was replaced by another one

    def spoken():
        with Wire(m.port) as c:
            return c.tell("HELLO", 3).startswith(b"%7") and c.tell("GET", "k") == b"$4\r\nfine\r\n"

    wait_for(spoken, what="a server that speaks RESP3")


def test_a_server_that_is_gone_refuses_nobody(start, redis1):
    m = start(Millrace, [redis1.port, free_port()])
    with Wire(m.port) as c:
        assert c.tell("HELLO", 3).startswith(b"%7")


def test_pushes_are_no_replies(start):
    push = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n" + b">1\r\n$40000\r\n" + b"x" * 40000 + b"\r\n"
    server = start(Scripted, Fake(b"%0\r\n", push))
    m = start(Millrace, [server.port])
    with Wire(m.port) as a, Wire(m.port) as b:
        for c in (a, b):
            c.tell("HELLO", 3)
        for _ in range(10):
            a.send(command("GET", "k") * 3)
            b.send(command("GET", "k") * 3)
            for c in (a, b):
                assert [c.whole() for _ in range(3)] == [b"$4\r\nfine\r\n"] * 3


def test_password_and_database(start):
    server = start(Redis, "--requirepass", "pw")
    m = start(Millrace, [server.port], redis_auth="pw", redis_db=3)
    with Wire(m.port) as c:
        assert c.tell("HELLO", 3).startswith(b"-NOAUTH")
        assert c.tell("HELLO", 3, "AUTH", "default", "no").startswith(b"-WRONGPASS")
        assert c.tell("HELLO", 3, "AUTH", "default", "pw").startswith(b"%7")
        assert c.tell("SET", "k", "v") == b"+OK\r\n"
        assert c.tell("BLPOP", "none", "0.01") == b"_\r\n"
    with Raw(server.port) as direct:
        direct.ask("AUTH", "pw")
        direct.ask("SELECT", 3)
        assert direct.ask("GET", "k") == b"v"


# ---- client libraries ----


@pytest.mark.parametrize("version", [2, 3])
def test_redis_cli(start, redis1, version):
    m = start(Millrace, [redis1.port])
    run = subprocess.run(["redis-cli", f"-{version}", "-p", str(m.port)], text=True,
                         input="HSET h f v\nHGETALL h\nGET none\nINFO server\n",
                         capture_output=True, timeout=20 * SLOW)
    assert run.stderr == "" and "redis_version" in run.stdout and "v\n" in run.stdout
    assert "ERR" not in run.stdout and "NOPROTO" not in run.stdout


IOREDIS = """
const Redis = require('ioredis');
const c = new Redis(PORT, {maxRetriesPerRequest: 3});
const ready = new Promise((go, no) => { c.on('ready', go); c.on('error', no); });
const end = () => c.quit();
const hset = () => c.hset('{h}1', 'f', 'v'), hgetall = () => c.hgetall('{h}1');
const multi = () => c.multi().set('{h}2', '1').hgetall('{h}1').exec().then((r) => r[1][1]);
"""
NODE_REDIS = """
const { createClient } = require('redis');
const c = createClient({url: 'redis://127.0.0.1:PORT'});
c.on('error', (e) => { console.error(e); process.exit(1); });
const ready = c.connect();
const end = () => c.close();
const hset = () => c.hSet('{h}1', 'f', 'v'), hgetall = () => c.hGetAll('{h}1');
const multi = () => c.multi().set('{h}2', '1').hGetAll('{h}1').exec().then((r) => r[1]);
"""
SCRIPT = """
const assert = require('assert');
const readline = require('readline').createInterface({input: process.stdin});
let over = false;
readline.on('line', () => { over = true; });
(async () => {
  await ready;
  let n = 0;
  do {
    await c.set('k', 'v' + n); assert.equal(await c.get('k'), 'v' + n);
    assert.equal(await c.get('none'), null);
    await hset(); assert.equal((await hgetall()).f, 'v'); assert.equal((await multi()).f, 'v');
    if (++n == 20) console.log('working');
  } while (!over || n < 20);
  await end();
  readline.close();
  console.log('fine');
})().catch((e) => { console.error(e); process.exit(1); });
"""


REDIS_PY = """
import sys, threading
import redis
r = redis.Redis(port=PORT, decode_responses=True, VERSION)
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
n = 0
while not over.is_set() or n < 20:
    assert r.set("s", f"v{n}") and r.get("s") == f"v{n}" and r.get("none") is None
    assert r.mset({f"k{i}": i for i in range(20)})
    assert r.mget([f"k{i}" for i in range(20)]) == [str(i) for i in range(20)]
    r.delete("{h}1", "{h}2")
    p = r.pipeline()
    p.hset("{h}1", "f", "v").sadd("{h}2", "x").hgetall("{h}1").smembers("{h}2")
    assert p.execute()[2:] == [{"f": "v"}, {"x"}]
    assert r.zadd("z", {"m": 1.5}) >= 0 and r.zscore("z", "m") == 1.5
    assert r.blpop("nothing", timeout=0.01) is None
    n += 1
    if n == 20:
        print("working", flush=True)
assert r.info()["loading"] == 0 and r.info("replication")["role"] == "master"
assert r.client_setname("me") and r.client_info()["name"] == "me"
assert r.config_get("databases") == {"databases": "16"} and len(r.client_list()) == 1
print("fine")
"""


def run_with_a_reload(start, servers, program, script, env):
    """The script says when it is running; then workers are replaced, then it is told to end."""
    m = start(Millrace, ports(servers), hash_tag='"{}"')
    client = subprocess.Popen([*program, script.replace("PORT", str(m.port))],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env={**os.environ, **env})
    try:
        first = client.stdout.readline()
        assert first == "working\n", first + client.communicate("\n", timeout=30 * SLOW)[0]
        before = set(m.child_pids())
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.child_pids() and not before & set(m.child_pids()), what="new workers")
        out = client.communicate("over\n", timeout=60 * SLOW)[0]
        assert client.returncode == 0 and out == "fine\n", out
    finally:
        client.kill()
        client.wait()


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("version", ["", "protocol=2", "protocol=3"])
def test_redis_py(start, redis4, version, servers):
    """The newest version, if installed: at its defaults, too."""
    if version and not PYTHON.exists():
        pytest.skip("no redis-py that knows RESP3")
    run_with_a_reload(start, redis4[:servers], ["/usr/bin/python3", "-c"],
                      REDIS_PY.replace("VERSION", version), {"PYTHONPATH": str(PYTHON)})


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("module,head", [("ioredis", IOREDIS), ("redis", NODE_REDIS)])
def test_node_clients(start, redis4, module, head, servers):
    if not (MODULES / module).exists() or not shutil.which("node"):
        pytest.skip(f"no {module}")
    run_with_a_reload(start, redis4[:servers], ["node", "-e"], head + SCRIPT,
                      {"NODE_PATH": str(MODULES)})


def version_of(info):
    return info.split(b"redis_version:")[1].split()[0]


@pytest.mark.parametrize("n", [1, 4])
def test_info_tells_the_version_of_the_servers(start, redis4, n):
    """The first client of a worker may wait for it; no server is asked but one."""
    m = start(Millrace, ports(redis4)[:n])
    with m.raw() as c:
        assert version_of(c.ask("INFO")) == version_of(redis4[0].ask("INFO"))
        assert sum(s["server_connections"] for s in m.pool().values() if isinstance(s, dict)
                   and "server_connections" in s) == 1


def test_info_without_a_version(start):
    for port in (start(Scripted, Fake(b"-ERR unknown command 'HELLO'\r\n")).port, free_port()):
        m = start(Millrace, [port])
        with m.raw() as c:
            for _ in range(3):
                assert version_of(c.ask("INFO", "server")) == b"7.0.0"
