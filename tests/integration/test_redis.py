"""The Redis protocol through the proxy, on real servers."""

import random
import socket
import subprocess
import threading
import time

import pytest
import redis
from harness import Millrace, Nutcracker, Raw, Redis, Scripted, command, wait_for


def ports(servers):
    return [s.port for s in servers]


@pytest.mark.parametrize("workers", [0, 1, 2, 8])
def test_redis_py(start, redis4, workers):
    m = start(Millrace, ports(redis4), workers=workers)
    r = redis.Redis(port=m.port)
    keys = [f"key:{i}" for i in range(200)]
    for i, k in enumerate(keys):
        assert r.set(k, f"value {i}")
    assert r.mget(keys + ["none"]) == [f"value {i}".encode() for i in range(200)] + [None]
    assert r.incr("n") == 1 and r.lpush("l", 1, 2, 3) == 3 and r.lrange("l", 0, -1) == [b"3", b"2", b"1"]
    assert r.hset("h", mapping={"a": 1, "b": 2}) == 2 and r.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert r.zadd("z", {"x": 1.5}) == 1 and r.zscore("z", "x") == 1.5
    assert r.mset({f"m{i}": i for i in range(50)})
    assert r.exists(*[f"m{i}" for i in range(60)]) == 50
    assert r.touch(*[f"m{i}" for i in range(60)]) == 50
    assert r.unlink(*[f"m{i}" for i in range(10)]) == 10
    assert r.delete(*[f"m{i}" for i in range(60)]) == 40
    with r.pipeline(transaction=False) as p:
        for k in keys:
            p.get(k)
        assert p.execute() == [f"value {i}".encode() for i in range(200)]
    assert r.eval("return redis.call('get', KEYS[1])", 1, "key:7") == b"value 7"
    assert all(s.ask("DBSIZE") > 20 for s in redis4), "the keys are spread over all servers"


@pytest.mark.parametrize("hash_", ["fnv1a_64", "murmur", "md5"])
def test_every_key_is_where_nutcracker_put_it(start, redis4, hash_):
    """The same keys through nutcracker and millrace, with the same file."""
    m = start(Millrace, ports(redis4), workers=2, hash=hash_)
    nutcracker = start(Nutcracker, m)
    rng = random.Random(5)
    keys = [rng.randbytes(rng.randint(1, 60)) for _ in range(500)]
    with Raw(nutcracker.port) as old, m.raw() as new:
        for i, k in enumerate(keys):
            assert old.ask("SET", k, i) == b"+OK"
        assert [new.ask("GET", k) for k in keys] == [b"%d" % keys.index(k) if keys.count(k) == 1
                                                     else old.ask("GET", k) for k in keys]
        assert new.ask("MGET", *keys) == [old.ask("GET", k) for k in keys]


def test_redis_cli_and_benchmark(start, redis4):
    m = start(Millrace, ports(redis4), workers=2)
    cli = ["redis-cli", "-p", str(m.port)]
    assert subprocess.check_output([*cli, "set", "a", "1"]) == b"OK\n"
    assert subprocess.check_output([*cli, "get", "a"]) == b"1\n"
    for extra in ([], ["-P", "16"]):
        out = subprocess.check_output(
            ["redis-benchmark", "-p", str(m.port), "-n", "5000", "-r", "1000", "-q", "-t",
             "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,mset",
             *extra], stderr=subprocess.STDOUT).decode()
        assert "rror" not in out.replace("WARNING: Could not fetch server CONFIG", ""), out
        assert "MSET" in out


def test_replies_stay_in_order_behind_local_ones(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c:
        c.send(b"".join(command("SET", f"k{i}", i) + command("PING") + command("NOSUCH") +
                        command("GET", f"k{i}") + command("MGET", "k0", f"k{i}", "k1")
                        for i in range(100)))
        for i in range(100):
            assert c.reply() == b"+OK"
            assert c.reply() == b"+PONG"
            assert c.reply().startswith(b"-ERR unknown command 'NOSUCH'")
            assert c.reply() == b"%d" % i
            k1 = b"1" if i >= 1 else None
            assert c.reply() == [b"0", b"%d" % i, k1]


def test_deep_pipeline(start, redis4):
    """More than max_pipeline at once: read in portions, nothing is lost."""
    m = start(Millrace, ports(redis4), max_pipeline=100)
    with m.raw() as c:
        n = 20000
        t = threading.Thread(target=c.sock.sendall,
                             args=(b"".join(command("SET", f"k{i}", i) for i in range(n)),))
        t.start()
        assert all(c.reply() == b"+OK" for _ in range(n))
        t.join()
        c.send(b"".join(command("GET", f"k{i}") for i in range(3000)))
        assert [c.reply() for _ in range(3000)] == [b"%d" % i for i in range(3000)]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 16383, 16384, 65535, 65536, 200000, 5000000])
def test_values_of_any_size(start, redis4, size):
    m = start(Millrace, ports(redis4))
    value = random.Random(size).randbytes(size)
    with m.raw() as c, m.raw() as other:
        assert c.ask("SET", "big", value) == b"+OK"
        c.send(command("GET", "big") * 3 + command("PING"))
        other.send(command("MGET", "big", "none", "big", "x", "y", "z"))
        assert [c.reply() for _ in range(4)] == [value, value, value, b"+PONG"]
        assert other.reply() == [value, None, value, None, None, None]


def test_torn_writes(start, redis4):
    m = start(Millrace, ports(redis4))
    wire = (command("SET", "torn", b"x" * 300) + b"PING\r\n" + command("GET", "torn") +
            command("MGET", "torn", "none", "torn"))
    with m.raw() as c:
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(wire)):
            c.send(wire[i:i + 1])
        assert c.reply() == b"+OK"
        assert c.reply() == b"+PONG"
        assert c.reply() == b"x" * 300
        assert c.reply() == [b"x" * 300, None, b"x" * 300]


def test_torn_replies(start):
    """A server that sends replies byte by byte, to several clients at once."""

    def serve(conn, server):
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        n = 0
        while data := server.read(conn):
            for _ in range(data.count(b"*2\r\n")):
                n += 1
                for b in b"*2\r\n$5\r\nhello\r\n:%d\r\n" % n:
                    conn.sendall(bytes([b]))

    m = start(Millrace, [start(Scripted, serve).port])
    clients = [m.raw() for _ in range(5)]
    for c in clients:
        c.send(command("GET", "k") * 3)
    seen = [c.reply() for c in clients for _ in range(3)]
    assert all(r[0] == b"hello" for r in seen)
    assert sorted(r[1] for r in seen) == list(range(1, 16))
    for c in clients:
        c.close()


def test_cross_server_commands(start, redis4):
    m = start(Millrace, ports(redis4), hash_tag='"{}"')
    with m.raw() as c:
        assert c.ask("SADD", "{t}a", 1, 2) == 2
        assert c.ask("SADD", "{t}b", 2, 3) == 2
        assert c.ask("SINTER", "{t}a", "{t}b") == [b"2"]
        assert c.ask("SUNIONSTORE", "{t}c", "{t}a", "{t}b") == 3
        assert c.ask("RENAME", "{t}c", "{t}d") == b"+OK"
        assert c.ask("PFADD", "p1", 1) == 1
        apart = [k for k in (f"p{i}" for i in range(100))]
        assert c.ask("SINTER", *apart).startswith(b"-CROSSSLOT Keys in request don't")
        assert c.ask("MSETNX", *[x for k in apart for x in (k, 1)]).startswith(b"-CROSSSLOT")
        assert c.ask("EVAL", "return 1", 100, *apart).startswith(b"-CROSSSLOT")
        assert c.ask("EVAL", "return #KEYS", 2, "{t}a", "{t}b") == 2
        assert c.ask("PING") == b"+PONG"


def test_cross_server_by_first_key(start, redis4):
    m = start(Millrace, ports(redis4), cross_server="first_key")
    with m.raw() as c:
        assert c.ask("SADD", "a", 1, 2) == 2
        assert c.ask("SINTER", "a", *[f"x{i}" for i in range(50)]) == []


def test_one_server_takes_every_combination(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        assert c.ask("MSETNX", "a", 1, "b", 2) == 1
        assert c.ask("RENAME", "a", "c") == b"+OK"
        assert c.ask("MGET", "b", "c") == [b"2", b"1"]
        assert c.ask("XADD", "s", "1-1", "f", "v") == b"1-1"
        assert c.ask("XREAD", "COUNT", 1, "STREAMS", "s", 0) == [[b"s", [[b"1-1", [b"f", b"v"]]]]]
        assert c.ask("OBJECT", "ENCODING", "b") == b"int"
        assert c.ask("COMMAND", "COUNT") == redis1.ask("COMMAND", "COUNT")


def test_framing_errors_come_after_earlier_replies(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        c.send(command("SET", "a", 1) + command("GET", "a") + b"*1\r\n$01\r\nx\r\n" + command("PING"))
        assert c.rest() == b"+OK\r\n$1\r\n1\r\n-ERR Protocol error: invalid bulk length\r\n"


def test_unknown_and_malformed_commands_keep_the_connection(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c, Raw(redis1.port) as direct:
        for request in (("foo", "a", "b"), ("get",), ("get", "a", "b"), ("set", "a"),
                        ("mset", "a", 1, "b"), ("foo",), ("nosuch", "x" * 200, "y")):
            mine, real = c.ask(*request), direct.ask(*request)
            assert mine == real
        assert c.ask("PING") == b"+PONG"


def test_inline_commands(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        c.send(b"\r\nSET inline \"a b\\x21\"\r\nGET inline\r\n*0\r\n*-1\r\nPING\r\n")
        assert [c.reply() for _ in range(3)] == [b"+OK", b"a b!", b"+PONG"]


def test_half_closed_client_gets_all_replies(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c:
        c.send(b"".join(command("SET", f"h{i}", i) for i in range(500)))
        c.sock.shutdown(socket.SHUT_WR)
        assert c.rest() == b"+OK\r\n" * 500


def test_half_closed_slow_reader_gets_all_replies(start, redis1):
    """The last replies arrive seconds after the proxy has shut its side."""
    m = start(Millrace, [redis1.port])
    value = random.Random(1).randbytes(20_000_000)
    with m.raw() as c:
        assert c.ask("SET", "big", value) == b"+OK"
        c.send(command("GET", "big"))
        c.sock.shutdown(socket.SHUT_WR)
        got = b""
        for _ in range(4):
            time.sleep(0.8)
            got += c.sock.recv(2_000_000)
        assert got + c.rest() == b"$%d\r\n%s\r\n" % (len(value), value)


def test_quit(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        c.send(command("SET", "q", 1) + command("QUIT") + command("SET", "q", 2))
        assert c.rest() == b"+OK\r\n+OK\r\n"
    assert redis1.ask("GET", "q") == b"1"
    wait_for(lambda: m.pool()["client_eof"] == 1)


def test_password_of_clients_and_servers(start):
    server = start(Redis, "--requirepass", "pw")
    m = start(Millrace, [server.port], redis_auth="pw")
    with m.raw() as c:
        assert c.ask("GET", "a") == b"-NOAUTH Authentication required."
        for hidden in (("SCAN", 0), ("RENAME", "a", "b"), ("BITOP", "NOT", "a", "b"),
                       ("MSETNX", "a", 1), ("PING",), ("COMMAND",), ("MGET", "a", "b")):
            assert c.ask(*hidden) == b"-NOAUTH Authentication required."
        assert c.ask("AUTH", "nope") == b"-ERR invalid password"
        assert c.ask("AUTH", "pw") == b"+OK"
        assert c.ask("SET", "a", 1) == b"+OK"
        assert c.ask("AUTH", "nope") == b"-ERR invalid password"
        assert c.ask("GET", "a") == b"-NOAUTH Authentication required."
    assert redis.Redis(port=m.port, password="pw").get("a") == b"1"


@pytest.mark.parametrize("auth", [None, "pw"])
def test_database_is_selected_after_auth(start, auth):
    server = start(Redis, *(["--requirepass", auth] if auth else []))
    m = start(Millrace, [server.port], redis_db=5, redis_auth=auth)
    with m.raw() as c:
        if auth:
            assert c.ask("AUTH", auth) == b"+OK"
        assert c.ask("SET", "in5", 1) == b"+OK"
        assert c.ask("SELECT", 5) == b"+OK"
        assert c.ask("SELECT", 16) == b"-ERR DB index is out of range"
        assert c.ask("GET", "in5") == b"1"
        assert c.ask("SELECT", 0) == b"+OK"
        assert c.ask("GET", "in5") is None
    with Raw(server.port) as direct:
        if auth:
            direct.ask("AUTH", auth)
        assert direct.ask("GET", "in5") is None
        direct.ask("SELECT", 5)
        assert direct.ask("GET", "in5") == b"1"


def test_database_on_a_unix_socket_server(start, tmp_path):
    server = start(Redis, path=str(tmp_path / "r.sock"))
    m = start(Millrace, [f"{tmp_path}/r.sock:1"], redis_db=3)
    with m.raw() as c:
        assert c.ask("SET", "k", "v") == b"+OK"
    assert server.ask("GET", "k", db=3) == b"v"
    stats = m.pool()[f"{tmp_path}/r.sock:"]
    assert stats["server_connections"] == 1


def test_wrong_server_password_is_told_and_logged(start):
    server = start(Redis, "--requirepass", "right")
    m = start(Millrace, [server.port], redis_auth="wrong")
    with m.raw() as c:
        assert c.ask("AUTH", "wrong") == b"+OK"
        assert c.ask("SET", "a", 1) == b"-ERR server refused the password of the proxy"
        assert c.ask("PING") == b"+PONG"
    assert "server_refused" in m.log_text() and "refused the password" in m.log_text()
    # a database that does not exist must not lead to database 0
    m2 = start(Millrace, [start(Redis).port], redis_db=99)
    with m2.raw() as c:
        assert c.ask("SET", "a", 1) == b"-ERR server refused the database of the pool"


def test_server_errors_pass_through_to_their_own_request(start):
    """-LOADING, -OOM, -BUSY: the text arrives, other requests succeed, the connection stays."""

    def serve(conn, server):
        while data := server.read(conn):
            for key in data.split(b"\r\n")[4::5]:
                conn.sendall(b"-LOADING Redis is loading the dataset in memory\r\n" if key == b"bad"
                             else b"$4\r\nfine\r\n")

    server = start(Scripted, serve)
    m = start(Millrace, [server.port])
    with m.raw() as a, m.raw() as b:
        for _ in range(3):
            a.send(command("GET", "bad"))
            b.send(command("GET", "good"))
            assert a.reply() == b"-LOADING Redis is loading the dataset in memory"
            assert b.reply() == b"fine"
    assert server.accepted == 1


def test_script_larger_than_a_chunk(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        for size in (16300, 16305, 16306, 16307, 16320, 70000):
            script = b"return KEYS[1] --" + b"x" * (size - 17)
            assert c.ask("EVAL", script, 1, "k") == b"k"


def test_hello_2_and_client_commands(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        hello = c.ask("HELLO", 2, "SETNAME", "me")
        assert hello[:2] == [b"server", b"redis"] and hello[5] == 2
        assert c.ask("CLIENT", "GETNAME") == b"me"
        assert c.ask("HELLO", 4) == b"-NOPROTO unsupported protocol version"
        before = time.time()
        seconds, micros = c.ask("TIME")
        assert abs(int(seconds) + int(micros) / 1e6 - before) < 5
        assert c.ask("ECHO", "x") == b"x"


def test_large_mget(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c:
        n = 10000
        assert c.ask("MSET", *[x for i in range(n) for x in (f"k{i}", f"v{i}")]) == b"+OK"
        assert c.ask("MGET", *[f"k{i}" for i in range(n)]) == [b"v%d" % i for i in range(n)]
        assert c.ask("DEL", *[f"k{i}" for i in range(n)]) == n
    assert m.pool()["fragments"] == 12


def test_client_sticks_to_a_server_connection(start):
    """With several connections, a client's requests keep their order."""

    def serve(conn, server):
        while data := server.read(conn):
            n = data.count(b"*3\r\n")
            conn.sendall(b":%d\r\n" % conn.fileno() * n)

    server = start(Scripted, serve)
    m = start(Millrace, [server.port], server_connections=3)
    seen = set()
    for _ in range(9):
        with m.raw() as c:
            c.send(command("SET", "k", 1) * 20)
            mine = {c.reply() for _ in range(20)}
            assert len(mine) == 1
            seen |= mine
    assert len(seen) == 3
