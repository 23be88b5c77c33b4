"""SELECT: each client can use its own database, on any pool."""

import os
import signal

import pytest

from harness import Millrace, Redis, command, wait_for


def ports(servers):
    return [s.port for s in servers]


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("version", [2, 3])
def test_databases_side_by_side(start, redis4, n, version):
    m = start(Millrace, ports(redis4)[:n], redis_db=2)
    with m.raw() as a, m.raw() as b:
        a.ask("HELLO", version)
        b.ask("HELLO", version)
        assert a.ask("SET", "k", "two") == b"+OK"
        assert b.ask("SELECT", 7) == b"+OK"
        assert b.ask("GET", "k") is None
        assert b.ask("MSET", "k", "seven", "l", "seven") == b"+OK"
        assert b.ask("MGET", "k", "l", "m") == [b"seven", b"seven", None]
        assert a.ask("MGET", "k", "l") == [b"two", None]
        assert b.ask("SELECT", 16) == b"-ERR DB index is out of range"
        assert b.ask("SELECT", -1) == b"-ERR DB index is out of range"
        assert b.ask("SELECT", "x") == b"-ERR value is not an integer or out of range"
        assert b.ask("GET", "k") == b"seven"
        assert b" db=7 " in b.ask("CLIENT", "INFO")
        assert b.ask("SELECT", 2) == b"+OK"
        assert b.ask("GET", "k") == b"two"
        assert b.ask("SELECT", 7) == b"+OK"
        assert b.ask("RESET") == b"+RESET"
        assert b.ask("GET", "k") == b"two"
    assert sum(s.ask("EXISTS", "k", db=7) for s in redis4) == 1


def test_versions_and_databases(start, redis1):
    """HELLO keeps the database, SELECT keeps the protocol version, and nothing overtakes."""
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        c.send(command("HSET", "h", "a", 1) + command("HGETALL", "h") + command("SELECT", 5) +
               command("HSET", "h", "a", 5) + command("HELLO", 3) + command("HGETALL", "h") +
               command("SELECT", 0) + command("HGETALL", "h") + command("SELECT", 5) +
               command("SET", "k", 5) + command("SELECT", 0) + command("GET", "k") +
               command("HELLO", 2) + command("SELECT", 5) + command("HGETALL", "h"))
        got = [c.reply() for _ in range(15)]
    assert got[:4] == [1, [b"a", b"1"], b"+OK", 1]
    assert got[5:12] == [{b"a": b"5"}, b"+OK", {b"a": b"1"}, b"+OK", b"+OK", b"+OK", None]
    assert got[13:] == [b"+OK", [b"a", b"5"]]


def test_leases_and_transactions(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c, m.raw() as other:
        assert c.ask("SELECT", 3) == b"+OK"
        assert other.ask("SELECT", 3) == b"+OK"
        for x in (c, other):
            assert x.ask("MULTI") == b"+OK"
            assert x.ask("RPUSH", "in3", "x") == b"+QUEUED"
            assert isinstance(x.ask("EXEC"), list)
        assert redis1.ask("LLEN", "in3", db=3) == 2
        # a blocking command waits in its database; pushes to another one do not end it
        c.send(command("BLPOP", "list", 0))
        wait_for(lambda: b"cmd=blpop" in redis1.ask("CLIENT", "LIST"))
        assert redis1.ask("RPUSH", "list", "in 0") == 1
        assert other.ask("RPUSH", "list", "in 3") == 1
        assert c.reply() == [b"list", b"in 3"]
        # so does a watch
        assert c.ask("WATCH", "w") == b"+OK"
        assert redis1.ask("SET", "w", "in 0") == b"+OK"
        c.send(command("MULTI") + command("PING") + command("EXEC"))
        assert [c.reply() for _ in range(3)] == [b"+OK", b"+QUEUED", [b"+PONG"]]
        assert c.ask("WATCH", "w") == b"+OK"
        assert other.ask("SET", "w", "in 3") == b"+OK"
        c.send(command("MULTI") + command("PING") + command("EXEC"))
        assert [c.reply() for _ in range(3)] == [b"+OK", b"+QUEUED", None]


@pytest.mark.parametrize("changed", ["", "0", "1"])
def test_a_watch_outlives_select(start, redis1, changed):
    """The key is watched in the database that the client had selected."""
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        for version in (2, 3):
            c.ask("HELLO", version)
            assert c.ask("WATCH", "w") == b"+OK"
            assert c.ask("SELECT", 1) == b"+OK"
            if changed:
                assert redis1.ask("SET", "w", "changed", db=int(changed)) == b"+OK"
            c.send(command("MULTI") + command("SET", "v", version) + command("EXEC"))
            assert [c.reply() for _ in range(3)] == [b"+OK", b"+QUEUED", None if changed == "0" else [b"+OK"]]
            assert c.ask("GET", "v") == (None if changed == "0" else b"%d" % version)
            assert c.ask("SELECT", 0) == b"+OK"
            assert c.ask("GET", "v") is None
    assert redis1.ask("EXISTS", "v", db=1) == (changed != "0")


def test_no_database_but_the_pools_own(start, redis1):
    m = start(Millrace, [redis1.port], redis_db=2, databases=0)
    with m.raw() as c:
        assert c.ask("SELECT", 0) == b"-ERR DB index is out of range"
        assert c.ask("SELECT", 2) == b"+OK"


def test_servers_with_fewer_databases(start):
    m = start(Millrace, [start(Redis, "--databases", 4).port for _ in range(2)])
    with m.raw() as c:
        assert c.ask("SELECT", 3) == b"+OK"
        assert c.ask("SET", "k", 3) == b"+OK"
        for _ in range(3):
            assert c.ask("SELECT", 4) == b"-ERR DB index is out of range"
            assert c.ask("HELLO", 3)[b"proto"] == 3
            assert c.ask("SELECT", 4) == b"-ERR DB index is out of range"
            assert c.ask("HELLO", 2)[5] == 2
        assert c.ask("GET", "k") == b"3"
    assert m.pool()["server_ejects"] == 0


def test_select_while_a_server_is_down(start):
    server = start(Redis)
    m = start(Millrace, [server.port])
    server.kill()
    with m.raw() as c:
        assert c.ask("SELECT", 3) == b"+OK"
        assert c.ask("GET", "k").startswith(b"-ERR")
        again = start(Redis, port=server.port)
        assert again.ask("SET", "k", "3", db=3) == b"+OK"
        assert wait_for(lambda: c.ask("GET", "k") == b"3", 10)


def kept(info):
    """The fields of CLIENT INFO that another process knows, too."""
    fields = dict(f.split(b"=", 1) for f in info.split())
    return {f: fields[f] for f in (b"id", b"addr", b"laddr", b"name", b"db", b"user", b"resp", b"lib-name",
                                   b"lib-ver")}


@pytest.mark.parametrize("fewer", [False, True])
def test_the_database_travels(start, redis1, fewer):
    """If a reload removes the database, the client is closed: its commands must not go elsewhere."""
    m = start(Millrace, [redis1.port], databases=16)
    with m.raw() as c, m.raw() as other:
        assert c.ask("HELLO", 3, "SETNAME", "me")[b"proto"] == 3
        assert c.ask("CLIENT", "SETINFO", "lib-name", "lib") == b"+OK"
        assert c.ask("CLIENT", "SETINFO", "lib-ver", "1.2") == b"+OK"
        assert c.ask("SELECT", 9) == b"+OK"
        assert c.ask("HSET", "h", "a", 1) == 1
        assert other.ask("SET", "o", 1) == b"+OK"
        before = c.ask("CLIENT", "INFO")
        assert b" db=9 " in before and b" lib-name=lib lib-ver=1.2" in before
        if fewer:
            m.conf.write_text(m.conf.read_text().replace("databases: 16", "databases: 8"))
        old = m.child_pids()
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: not set(old) & set(m.child_pids()) and m.child_pids(), 20, "new workers")
        if fewer:
            assert c.rest() == b""
        else:
            assert c.ask("HGETALL", "h") == {b"a": b"1"}
            assert kept(c.ask("CLIENT", "INFO")) == kept(before)
        assert other.ask("GET", "o") == b"1"


def test_many_databases(start):
    server = start(Redis, "--databases", 100)
    m = start(Millrace, [server.port], databases=100)
    with m.raw() as c:
        for db in list(range(100)) * 2:
            assert c.ask("SELECT", db) == b"+OK"
            assert c.ask("SET", "k", db) == b"+OK"
        assert c.ask("SELECT", 100) == b"-ERR DB index is out of range"
        assert m.pool()[f"127.0.0.1:{server.port}"]["server_connections"] == 100
