"""CLIENT REPLY: replies on, off and skipped."""

import os
import re
import signal

from harness import Millrace, Observed, command, wait_for
from test_reload import reload


def ports(servers):
    return [s.port for s in servers]


def test_replies_off_and_skipped(start, redis4):
    m = start(Millrace, ports(redis4), hash_tag='"{}"')
    with m.raw() as c:
        c.send(command("CLIENT", "REPLY", "SKIP") + command("SET", "a", 1) + command("GET", "a"))
        assert c.reply() == b"1"
        c.send(command("CLIENT", "REPLY", "OFF") + command("GET", "a") + command("PING") +
               command("NONSENSE") + command("MGET", "a", "b", "c", "d") + command("RENAME", "a", "b") +
               command("CLIENT", "REPLY", "SKIP") + command("GET", "a") + command("SET", "c", 3) +
               command("MULTI") + command("INCR", "c") + command("EXEC") +
               command("BLPOP", "list", "0.01") + command("CLIENT", "REPLY", "nonsense") +
               command("CLIENT", "REPLY", "ON") + command("GET", "c"))
        assert c.reply() == b"+OK"
        assert c.reply() == b"4"
        c.send(command("CLIENT", "REPLY", "SKIP") + command("NONSENSE") + command("PING"))
        assert c.reply() == b"+PONG"
        c.send(command("CLIENT", "REPLY", "SKIP") + command("CLIENT", "REPLY", "ON") + command("PING"))
        assert [c.reply(), c.reply()] == [b"+OK", b"+PONG"]
        assert c.ask("CLIENT", "REPLY", "x") == b"-ERR syntax error"


def test_replies_stay_off_in_a_new_process(start, redis4):
    m = start(Millrace, ports(redis4))
    with m.raw() as c, m.raw() as skip:
        c.send(command("CLIENT", "REPLY", "OFF") + command("SET", "there", 1))
        skip.send(command("CLIENT", "REPLY", "SKIP") + command("SET", "here", 1) +
                  command("CLIENT", "REPLY", "SKIP"))
        wait_for(lambda: sum(s.ask("EXISTS", "there", "here") for s in redis4) == 2)
        before = m.child_pids()
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: not set(before) & set(m.child_pids()) and m.child_pids(), 20, "new workers")
        c.send(command("GET", "there") + command("CLIENT", "REPLY", "ON") + command("GET", "there"))
        assert [c.reply(), c.reply()] == [b"+OK", b"1"]
        skip.send(command("GET", "here") + command("PING"))
        assert skip.reply() == b"+PONG"


def fields(line):
    return dict(f.split(b"=", 1) for f in line.split())


def test_clients_see_each_other(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as a, m.raw() as b, m.raw() as c:
        assert a.ask("CLIENT", "SETNAME", "alice") == b"+OK"
        assert b.ask("SELECT", 3) == b"+OK"
        ids = {x: x.ask("CLIENT", "ID") for x in (a, b, c)}
        c.send(command("BLPOP", "q", 0))
        wait_for(lambda: b"cmd=blpop" in redis1.ask("CLIENT", "LIST"))
        assert b.send(command("MULTI") + command("GET", "x")).reply() == b"+OK"
        assert b.reply() == b"+QUEUED"
        lines = {int(f[b"id"]): f for f in map(fields, a.ask("CLIENT", "LIST").splitlines())}
        assert set(lines) == set(ids.values())
        mine = lines[ids[a]]
        info = fields(a.ask("CLIENT", "INFO"))
        assert all(mine[f] == info[f] for f in mine if f not in (b"age", b"idle", b"cmd"))
        assert (mine[b"cmd"], info[b"cmd"]) == (b"client|list", b"client|info")
        assert int(mine[b"qbuf"]) == len(command("CLIENT", "LIST"))
        assert mine[b"name"] == b"alice" and mine[b"db"] == b"0" and mine[b"flags"] == b"N"
        assert mine[b"addr"] == b"127.0.0.1:%d" % a.sock.getsockname()[1]
        assert mine[b"laddr"] == b"127.0.0.1:%d" % m.port
        assert lines[ids[b]][b"db"] == b"3" and lines[ids[b]][b"multi"] == b"1"
        assert lines[ids[c]][b"flags"] == b"b"
        assert fields(a.ask("CLIENT", "LIST", "ID", ids[b], 12345))[b"id"] == b"%d" % ids[b]
        some = a.ask("CLIENT", "LIST", "ID", ids[c], 7, ids[a], -1, ids[c]).splitlines()
        assert {int(fields(line)[b"id"]) for line in some} == {ids[a], ids[c]} and len(some) == 2
        assert a.ask("CLIENT", "LIST", "ID", ids[c], "x") == b"-ERR Invalid client ID"
        assert len(a.ask("CLIENT", "LIST", "TYPE", "normal").splitlines()) == 3
        assert a.ask("CLIENT", "LIST", "TYPE", "pubsub") == b""
        redis1.ask("RPUSH", "q", "x")
        assert c.reply() == [b"q", b"x"]


def test_client_names_of_the_greatest_length_are_shown(start, redis1):
    m = start(Millrace, [redis1.port])
    name = "n" * 255
    with m.raw() as c:
        assert c.ask("CLIENT", "SETNAME", name) == b"+OK"
        assert c.ask("CLIENT", "SETINFO", "LIB-NAME", name) == b"+OK"
        assert c.ask("CLIENT", "SETINFO", "LIB-VER", name) == b"+OK"
        shown = fields(c.ask("CLIENT", "INFO"))
        assert {shown[f] for f in (b"name", b"lib-name", b"lib-ver")} == {name.encode()}
        assert fields(c.ask("CLIENT", "LIST"))[b"lib-ver"] == name.encode()


def test_clients_end_each_other(start, redis1):
    m = start(Millrace, [redis1.port])

    def count():
        return m.pool()["client_connections"]

    with m.raw() as a, m.raw() as b, m.raw() as c, m.raw() as d:
        others = [b.ask("CLIENT", "ID"), c.ask("CLIENT", "ID")]
        d.send(command("BLPOP", "q", 0))
        wait_for(lambda: b"cmd=blpop" in redis1.ask("CLIENT", "LIST"))
        assert a.ask("CLIENT", "KILL", "ID", others[0], "TYPE", "master") == 0
        assert a.ask("CLIENT", "KILL", "ID", others[0], "USER", "default") == 1
        assert b.rest() == b""
        assert a.ask("CLIENT", "KILL", "ADDR", "127.0.0.1:%d" % c.sock.getsockname()[1]) == 1
        assert c.rest() == b""
        assert a.ask("CLIENT", "KILL", "LADDR", "127.0.0.1:%d" % m.port) == 1
        assert d.rest() == b""  # with what blocked
        wait_for(lambda: count() == 1)
        wait_for(lambda: b"cmd=blpop" not in redis1.ask("CLIENT", "LIST"))
        assert a.ask("CLIENT", "KILL", "TYPE", "normal") == 0
        a.send(command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") + command("PING"))
        assert a.rest() == b":1\r\n"
    with m.raw() as a:
        a.send(command("CLIENT", "KILL", "127.0.0.1:%d" % a.sock.getsockname()[1]))
        assert a.rest() == b"+OK\r\n"


def test_another_client_ends_what_blocks(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as a, m.raw() as b:
        number = b.ask("CLIENT", "ID")
        assert a.ask("CLIENT", "UNBLOCK", number) == 0
        for how, reply in (((), None), (("TIMEOUT",), None),
                           (("ERROR",), b"-UNBLOCKED client unblocked via CLIENT UNBLOCK")):
            b.send(command("BLPOP", "q", 0) + command("PING"))
            wait_for(lambda: re.search(rb" flags=b .* cmd=blpop", redis1.ask("CLIENT", "LIST")))
            assert a.ask("CLIENT", "UNBLOCK", number, *how) == 1
            assert b.reply() == reply
            assert b.reply() == b"+PONG"
        assert a.ask("CLIENT", "UNBLOCK", number) == 0


def info(c, *sections):
    """INFO's fields."""
    lines = c.ask("INFO", *sections).decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


def test_info_counts_clients_of_all_workers(start, redis1):
    m = start(Observed, [redis1.port], workers=2)
    with m.raw() as c, m.raw() as gone, m.raw() as served, m.raw() as late, m.raw() as p:
        for blocked in (gone, served, late):
            blocked.send(command("BLPOP", "info list", 0.3 if blocked is late else 0))
        wait_for(lambda: info(c, "clients")["blocked_clients"] == "3")
        assert info(c, "clients")["connected_clients"] == "5"
        assert m.metric("pool_blocked_clients") == 3
        assert late.reply() is None
        wait_for(lambda: info(c, "clients")["blocked_clients"] == "2")
        gone.close()
        wait_for(lambda: info(c, "clients")["blocked_clients"] == "1")
        p.ask("RPUSH", "info list", "x")
        assert served.reply() == [b"info list", b"x"]
        wait_for(lambda: info(c, "clients") == {"connected_clients": "4", "blocked_clients": "0"})
        reload(m)
        wait_for(lambda: info(c, "clients") == {"connected_clients": "4", "blocked_clients": "0"})


def test_info_has_what_dashboards_read(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        default = info(c)
        for field in ("redis_version", "uptime_in_seconds", "uptime_in_days", "connected_clients", "used_memory",
                      "used_memory_human", "used_memory_peak_human", "used_cpu_user", "role", "loading"):
            assert default[field], field
        assert 100_000 < int(default["used_memory"]) <= int(default["used_memory_peak"])
        assert list(info(c, "memory", "REPLICATION"))[0] == "used_memory" and "role" in info(c, "memory", "REPLICATION")
        assert info(c, "nonsense") == {}


def spread(m, workers, n=24):
    """Connections, and the numbers of those by worker; each worker has some."""
    for _ in range(20):
        conns = [m.raw() for _ in range(n)]
        ids = [c.ask("CLIENT", "ID") for c in conns]
        if len({i >> 40 for i in ids}) == workers:
            return conns, ids
        for c in conns:
            c.close()
    raise AssertionError("the connections of some workers only")


def closing(conns):
    for c in conns:
        c.close()


def listed(c, *options):
    return [int(fields(line)[b"id"]) for line in c.ask("CLIENT", "LIST", *options).splitlines()]


def test_clients_are_listed_over_all_workers(start, redis1):
    m = start(Millrace, [redis1.port], workers=3)
    conns, ids = spread(m, 3)
    for c in conns[:6]:
        assert listed(c) == sorted(ids)  # in order, as in Redis
    assert listed(conns[0], "ID", *ids[3:9], 12345) == sorted(ids[3:9])
    assert listed(conns[0], "TYPE", "pubsub") == []
    with m.raw() as three:
        three.send(command("HELLO", 3))
        three.reply()
        text = three.ask("CLIENT", "LIST")
        number = three.ask("CLIENT", "ID")
        assert text.startswith(b"txt:") or text.startswith(b"id=")
        assert text.count(b"\n") == len(ids) + 1 and b"id=%d " % number in text
    c = conns[0]  # replies stay in order
    c.send(command("PING") + command("CLIENT", "LIST") + command("SET", "k", 1) + command("CLIENT", "LIST") +
           command("GET", "k"))
    assert c.reply() == b"+PONG"
    assert c.reply().count(b"\n") >= len(ids)
    assert c.reply() == b"+OK"
    assert c.reply().count(b"\n") >= len(ids)
    assert c.reply() == b"1"
    closing(conns)


def test_clients_of_other_workers_are_ended(start, redis1):
    m = start(Millrace, [redis1.port], workers=3)
    conns, ids = spread(m, 3)
    a, others = conns[0], list(range(1, len(conns)))
    for i in others[:6]:
        assert a.ask("CLIENT", "KILL", "ID", ids[i]) == 1
        assert conns[i].rest() == b""
        assert a.ask("CLIENT", "KILL", "ID", ids[i]) == 0
    for i in others[6:12]:
        addr = "127.0.0.1:%d" % conns[i].sock.getsockname()[1]
        assert a.ask("CLIENT", "KILL", addr) == b"+OK"
        assert conns[i].rest() == b""
        assert a.ask("CLIENT", "KILL", addr) == b"-ERR No such client"
    assert a.ask("CLIENT", "KILL", "ID", "x") == b"-ERR client-id should be greater than 0"
    assert a.ask("CLIENT", "KILL", "TYPE", "normal") == len(others) - 12
    assert listed(a) == [ids[0]]
    conns, ids = spread(m, 3)
    conns[0].send(command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") + command("PING"))
    assert conns[0].rest() == b":%d\r\n" % (len(ids) + 1)  # and the one above
    closing(conns)


def test_blocked_clients_of_other_workers_are_unblocked(start, redis1):
    m = start(Millrace, [redis1.port], workers=3)
    conns, ids = spread(m, 3, 12)
    a = conns[0]
    for i, c in enumerate(conns[1:]):
        c.send(command("BLPOP", f"never{i}", 0))
    wait_for(lambda: redis1.ask("CLIENT", "LIST").count(b"cmd=blpop") == len(conns) - 1)
    for c, number in list(zip(conns, ids))[1:]:
        assert a.ask("CLIENT", "UNBLOCK", number, "ERROR") == 1
        assert c.reply() == b"-UNBLOCKED client unblocked via CLIENT UNBLOCK"
        assert a.ask("CLIENT", "UNBLOCK", number) == 0
    closing(conns)


def test_a_worker_that_stands_still_is_not_taken_for_empty(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    conns, ids = spread(m, 2)
    stopped = m.child_pids()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        slot = 0
        a = next(c for c, i in zip(conns, ids) if i >> 40 != slot)
        a.send(command("CLIENT", "LIST") + command("PING"))
        assert b"did not answer in time" in a.reply()
        assert a.reply() == b"+PONG"
        gone = [c for c, i in zip(conns, ids) if i >> 40 != slot][1]
        gone.send(command("CLIENT", "LIST"))
        gone.close()  # before the answer
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: len(a.ask("CLIENT", "LIST").splitlines()) == len(ids) - 1)
    closing(conns)


def test_clients_are_listed_during_reloads(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    conns, ids = spread(m, 2)
    for _ in range(5):
        os.kill(m.pid, signal.SIGHUP)
        for c in conns * 3:
            # of a client on its way between two workers nobody knows; nobody is listed twice
            some = listed(c)
            assert some == sorted(set(some)) and set(some) <= set(ids), (some, ids)
        reload(m)
        assert wait_for(lambda: listed(conns[0]) == sorted(ids), 10, "all clients")
    closing(conns)


def test_clients_of_a_killed_worker_are_missing_only_for_a_moment(start, redis1):
    m = start(Millrace, [redis1.port], workers=3)
    conns, ids = spread(m, 3)
    victim = m.child_pids()[1]
    left = [(c, i) for c, i in zip(conns, ids) if i >> 40 != 1]
    a = left[0][0]
    a.send(command("CLIENT", "LIST") * 20)
    os.kill(victim, signal.SIGKILL)
    for _ in range(20):
        reply = a.reply()
        assert reply.startswith(b"id=") or b"did not answer in time" in reply, reply
    wait_for(lambda: listed(a) == sorted(i for _, i in left), 10, "those that are left")
    closing(conns)
