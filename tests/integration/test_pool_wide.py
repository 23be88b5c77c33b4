"""Commands about all keys or all servers of a pool."""

import pytest
import redis
from harness import Millrace, Redis, pool_yaml
from test_reload import reload


def ports(servers):
    return [s.port for s in servers]


def scan(c, *options, between=lambda: None):
    """All keys that SCAN returns, and the number of calls."""
    cursor, seen, calls = b"0", [], 0
    while True:
        cursor, keys = c.ask("SCAN", cursor, *options)
        seen += keys
        calls += 1
        if cursor == b"0":
            return seen, calls
        assert int(cursor) < 1 << 64
        between()


@pytest.mark.parametrize("n", [1, 4])
def test_keys_of_all_servers(start, redis4, n):
    m = start(Millrace, ports(redis4[:n]), allow_flush_all="true")
    with m.raw() as c:
        assert c.ask("RANDOMKEY") is None and c.ask("KEYS", "*") == [] and c.ask("DBSIZE") == 0
        names = {b"key:%d" % i for i in range(200)}
        for name in names:
            assert c.ask("SET", name, 1) == b"+OK"
        assert c.ask("DBSIZE") == 200
        keys = c.ask("KEYS", "key:*")
        assert len(keys) == 200 and set(keys) == names
        assert {c.ask("RANDOMKEY") for _ in range(40)} <= names
        assert len({c.ask("RANDOMKEY") for _ in range(40)}) > 5
        assert c.ask("FLUSHDB") == b"+OK"
        assert c.ask("DBSIZE") == 0 and all(s.ask("DBSIZE") == 0 for s in redis4)
        assert c.ask("SET", "a", 1) == b"+OK" and c.ask("FLUSHALL", "ASYNC") == b"+OK"
        assert c.ask("FLUSHALL", "SOON") == b"-ERR syntax error"
        assert c.ask("DBSIZE") == 0


def test_flushing_has_to_be_allowed(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        for name in (b"flushall", b"flushdb"):
            assert c.ask(name) == b"-ERR '%s' is not allowed by this proxy (allow_flush_all)" % name
        assert c.ask("GET", "a") == b"1"


def test_redis_py_scans(start, redis4):
    m = start(Millrace, ports(redis4))
    r = redis.Redis(port=m.port)
    names = {b"k%d" % i for i in range(500)}
    r.mset(dict.fromkeys(names, "x"))
    r.hset("h", "f", "v")
    assert set(r.scan_iter()) == names | {b"h"}
    assert set(r.scan_iter(count=3)) == names | {b"h"}
    assert set(r.scan_iter(match="k1*")) == {n for n in names if n.startswith(b"k1")}
    assert list(r.scan_iter(_type="hash")) == [b"h"]


def test_resp3(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c:
        assert c.ask("RANDOMKEY") is None
        c.send(b"HELLO 3\r\n")
        c.send(b"RANDOMKEY\r\nSCAN 0\r\nKEYS *\r\nDBSIZE\r\nFUNCTION STATS\r\nQUIT\r\n")
        rest = c.rest()
    assert rest.startswith(b"%7\r\n") and b"\r\n_\r\n*2\r\n$" in rest and b"\r\n*0\r\n*0\r\n:0\r\n%2\r\n" in rest, rest


def test_scan(start, redis4):
    m = start(Millrace, ports(redis4), workers=2)
    with m.raw() as c:
        assert scan(c) == ([], 4)
        names = [b"key:%d" % i for i in range(1000)]
        for name in names:
            c.ask("SET", name, 1)
        seen, calls = scan(c, "COUNT", 20)
        assert set(seen) == set(names) and calls >= 40
        for bad in ("x", "-1", "18446744073709551616", "1.0"):
            assert c.ask("SCAN", bad) == b"-ERR invalid cursor"
        assert c.ask("SCAN", 0, "COUNT", "x").startswith(b"-ERR value is not an integer")
        assert c.ask("SCAN", 0, "WHAT") == b"-ERR syntax error"
        for cursor in (1, 5 << 20, (1 << 64) - 1):  # cursors that were never returned
            assert isinstance(c.ask("SCAN", cursor), list)
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("SCAN", 0) == b"-ERR Command not allowed inside a transaction"
        assert c.ask("EXEC").startswith(b"-EXECABORT")


@pytest.mark.parametrize("n", [1, 3])
def test_scan_goes_on_while_servers_come_and_go(start, redis4, n):
    """Every key that exists throughout is returned, whichever worker is asked, and whichever servers are
    added and removed meanwhile."""
    guests = [start(Redis) for _ in range(2)]
    stay = [f"127.0.0.1:{s.port}:1 z{i}" for i, s in enumerate(redis4[:n])]
    a, b = (f"127.0.0.1:{s.port}:1 {name}" for s, name in zip(guests, "ab"))
    m = start(Millrace, stay, workers=2)
    names = {b"key:%d" % i for i in range(400)}
    with m.raw() as c:
        for name in names:
            assert c.ask("SET", name, 1) == b"+OK"
    for s in guests:
        for i in range(40):
            s.ask("SET", f"guest:{i}", 1)
    files = [pool_yaml("alpha", f"127.0.0.1:{m.port}", servers)
             for servers in ([*stay, a], [*stay, a, b], [*stay, b], stay, [*stay, a])]
    count = 0

    def another():
        nonlocal count
        count += 1
        if count % 5 == 0 and files:
            m.conf.write_text(files.pop(0))
            reload(m)

    with m.raw() as c:
        seen, calls = scan(c, "COUNT", 15, between=another)
    assert names <= set(seen) and not files, (len(names - set(seen)), calls)


def test_scan_of_a_server_that_is_down(start, redis4):
    lone = start(Redis)
    m = start(Millrace, [redis4[0].port, lone.port])
    with m.raw() as c:
        for i in range(200):
            assert c.ask("SET", f"key:{i}", 1) == b"+OK"
        lone.kill()
        assert c.ask("DBSIZE").startswith(b"-ERR ")
        assert c.ask("KEYS", "*").startswith(b"-ERR ")
        cursor, replies = b"0", []
        for _ in range(1000):
            reply = c.ask("SCAN", cursor)
            replies.append(reply)
            if not isinstance(reply, list) or reply[0] == b"0":
                break
            cursor = reply[0]
        assert replies[-1] == b"-ERR Connection refused"


def test_scripts_on_all_servers(start, redis4):
    m = start(Millrace, ports(redis4), workers=2)
    for s in redis4:
        s.ask("SCRIPT", "FLUSH")
    keys = [f"k{i}" for i in range(40)]
    with m.raw() as c:
        sha = c.ask("SCRIPT", "LOAD", "return KEYS[1]")
        assert all(c.ask("EVALSHA", sha, 1, k) == k.encode() for k in keys)
        redis4[2].ask("SCRIPT", "FLUSH")
        other = c.ask("SCRIPT", "LOAD", "return 1")
        assert c.ask("SCRIPT", "EXISTS", sha, other, "f" * 40) == [0, 1, 0]
        assert c.ask("SCRIPT", "LOAD", "return (").startswith(b"-ERR Error compiling")
        assert c.ask("SCRIPT", "KILL").startswith(b"-NOTBUSY")
        assert c.ask("SCRIPT", "FLUSH", "SYNC") == b"+OK"
        assert c.ask("SCRIPT", "EXISTS", other) == [0]
        assert c.ask("SCRIPT", "HELP")[0].startswith(b"+SCRIPT") or c.ask("SCRIPT", "HELP")
        assert c.ask("SCRIPT", "LOAD") == b"-ERR wrong number of arguments for 'script|load' command"
        assert c.ask("SCRIPT", "X") == b"-ERR unknown subcommand 'X'. Try SCRIPT HELP."


LIBRARY = "#!lua name=lib\nredis.register_function('f', function(keys, args) return keys[1] end)"


def test_functions_on_all_servers(start, redis4):
    m = start(Millrace, ports(redis4), workers=2)
    for s in redis4:
        s.ask("FUNCTION", "FLUSH")
    keys = [f"k{i}" for i in range(40)]
    with m.raw() as c:
        assert c.ask("FUNCTION", "LIST") == []
        assert c.ask("FUNCTION", "LOAD", LIBRARY) == b"lib"
        assert all(c.ask("FCALL", "f", 1, k) == k.encode() for k in keys)
        assert c.ask("FUNCTION", "LOAD", LIBRARY) == b"-ERR Library 'lib' already exists"
        assert c.ask("FUNCTION", "LOAD", "REPLACE", LIBRARY) == b"lib"
        assert c.ask("FUNCTION", "LIST")[0][1] == b"lib"
        dump = c.ask("FUNCTION", "DUMP")
        assert c.ask("FUNCTION", "STATS")[1] is None
        assert c.ask("FUNCTION", "DELETE", "lib") == b"+OK"
        assert all(s.ask("FUNCTION", "LIST") == [] for s in redis4)
        assert c.ask("FUNCTION", "RESTORE", dump) == b"+OK"
        assert all(s.ask("FUNCTION", "LIST") != [] for s in redis4)
        redis4[1].ask("FUNCTION", "DELETE", "lib")
        assert c.ask("FUNCTION", "DELETE", "lib") == b"-ERR Library not found"
        assert c.ask("FUNCTION", "FLUSH") == b"+OK"
        assert all(s.ask("FUNCTION", "LIST") == [] for s in redis4)


def test_one_server_takes_them_in_transactions(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        assert c.ask("MULTI") == b"+OK"
        for line in ("SET a 1", "DBSIZE", "KEYS *", "RANDOMKEY"):
            assert c.ask(*line.split()) == b"+QUEUED"
        assert c.ask("EXEC") == [b"+OK", 1, [b"a"], b"a"]


def test_order_with_what_stands_before_and_behind(start, redis4):
    m = start(Millrace, ports(redis4), allow_flush_all="true")
    r = redis.Redis(port=m.port)
    p = r.pipeline(transaction=False)
    for i in range(50):
        p.set(f"k{i}", i)
    p.dbsize().flushall().dbsize().set("a", 1).dbsize()
    assert p.execute()[50:] == [50, True, 0, True, 1]


def test_a_replicated_pool_asks_its_master(start):
    master = start(Redis)
    replica = start(Redis, "--replicaof", "127.0.0.1", str(master.port))
    m = start(Millrace, [f"127.0.0.1:{master.port}:1 master", f"127.0.0.1:{replica.port}:1"],
              topology="replicated", allow_flush_all="true")
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        assert c.ask("DBSIZE") == 1 and c.ask("KEYS", "*") == [b"a"]
        assert c.ask("SCAN", 0) == [b"0", [b"a"]]
        sha = c.ask("SCRIPT", "LOAD", "return 1")
        assert [s.ask("SCRIPT", "EXISTS", sha) for s in (master, replica)] == [[1], [1]]
        assert c.ask("FUNCTION", "LOAD", LIBRARY) == b"lib"
        assert c.ask("FUNCTION", "DELETE", "lib") == b"+OK"
        assert c.ask("FLUSHALL") == b"+OK" and master.ask("DBSIZE") == 0


@pytest.mark.parametrize("line", ["PFMERGE {0} {1}", "PFCOUNT {0} {1}", "SUNION {0} {1}",
                                  "SINTERSTORE {0} {1}", "MSETNX {0} 1 {1} 2", "RENAME {0} {1}",
                                  "RENAMENX {0} {1}", "COPY {0} {1}", "LMOVE {0} {1} LEFT LEFT"])
def test_keys_that_live_apart(start, redis4, line):
    m = start(Millrace, ports(redis4), hash_tag='"{}"')
    with m.raw() as c:
        apart = [c.ask(*line.format("a", f"b{i}").split()) for i in range(8)]
        assert b"-CROSSSLOT Keys in request don't live on the same server" in apart
        together = c.ask(*line.format("{t}a", "{t}b").split())
        assert not (isinstance(together, bytes) and together.startswith(b"-CROSSSLOT"))


def test_waiting_is_refused(start, redis4):
    """On a shared connection it would block all other clients."""
    m = start(Millrace, ports(redis4))
    with m.raw() as c:
        assert c.ask("WAIT", 0, 0).startswith(b"-ERR command 'wait' is not supported")
        assert c.ask("WAITAOF", 0, 0, 0).startswith(b"-ERR command 'waitaof' is not supported")


def test_one_key_at_a_time(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c:
        for i in range(20):
            assert c.ask("SET", f"k{i}", i) == b"+OK"
            assert c.ask("OBJECT", "ENCODING", f"k{i}") == b"int"
            assert c.ask("MEMORY", "USAGE", f"k{i}") > 0
