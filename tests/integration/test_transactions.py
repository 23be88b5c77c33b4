"""MULTI, WATCH and blocking commands: as on a server, with one or several servers."""

import contextlib
import os
import signal
import threading
import time

import pytest

from harness import Millrace, Observed, Raw, Redis, Scripted, command, wait_for

TAGS = {"hash_tag": '"{}"'}


@pytest.fixture
def both(start, redis1):
    """The same conversation, with a server directly and through the proxy, must look the same."""
    m = start(Millrace, [redis1.port])

    def ask(*lines):
        answers = []
        for port in (redis1.port, m.port):
            redis1.ask("FLUSHALL")
            with Raw(port) as c:
                answers.append([c.ask(*line.split()) for line in lines])
        assert answers[0] == answers[1]
        return answers[1]

    return ask


def test_conversations(both):
    assert both("MULTI", "SET a 1", "INCR a", "GET a", "EXEC")[-1] == [b"+OK", 2, b"2"]
    both("MULTI", "EXEC")
    both("MULTI", "DISCARD", "GET a")
    both("EXEC")
    both("DISCARD")
    both("MULTI", "MULTI", "SET a 1", "EXEC", "GET a")
    both("MULTI", "WATCH a", "SET a 1", "EXEC", "GET a")
    both("MULTI", "SET a", "SET a 1", "EXEC", "GET a")
    both("MULTI", "SET a 1", "LPUSH a x", "GET a", "EXEC", "GET a")
    both("MULTI", "PING", "ECHO hi", "EXEC")
    both("MULTI", "BLPOP a 1", "EXEC")
    both("WATCH a", "SET a 1", "MULTI", "SET a 2", "EXEC", "GET a")
    both("WATCH a", "SET a 1", "UNWATCH", "MULTI", "SET a 2", "EXEC", "GET a")
    both("WATCH a", "SET a 1", "MULTI", "DISCARD", "MULTI", "SET a 2", "EXEC", "GET a")
    both("WATCH a", "MULTI", "SET a 2", "EXEC", "GET a", "MULTI", "SET a 3", "EXEC")
    both("UNWATCH")
    both("WATCH a b", "GET a", "SET c 1", "MULTI", "GET c", "EXEC")
    both("MULTI", "UNWATCH", "SET a 1", "EXEC")


def test_a_pipelined_transaction_is_one_run(start, redis1):
    m = start(Observed, [redis1.port])
    with m.raw() as c:
        c.send(b"".join(command(*x.split()) for x in
                        ("SET a 1", "MULTI", "INCR a", "INCR a", "EXEC", "GET a")))
        assert [c.reply() for _ in range(6)] == [
            b"+OK", b"+OK", b"+QUEUED", b"+QUEUED", [2, 3], b"3"]
        # no other commands get in between, and no dedicated connection is needed
        assert m.metric("pool_lease_waits_total") == 0
        assert m.metric("server_connections") == 1


def test_nobody_comes_in_between(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    stop = threading.Event()
    redis1.ask("SET", "a", 0)

    def disturb():
        with m.raw() as c:
            while not stop.is_set():
                c.ask("SET", "a", "x")
                c.ask("SET", "a", 0)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with m.raw() as c:
            for _ in range(300):
                for line in ("MULTI", "SET a 10", "INCR a", "INCR a"):
                    c.send(command(*line.split()))
                c.send(command("EXEC"))
                assert [c.reply() for _ in range(5)][-1] == [b"+OK", 11, 12]
    finally:
        stop.set()
        thread.join()


def test_watch_sees_what_others_write(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c, m.raw() as other:
        redis1.ask("SET", "a", 1)
        assert c.ask("WATCH", "a") == b"+OK"
        assert c.ask("GET", "a") == b"1"
        assert other.ask("SET", "a", 5) == b"+OK"
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("SET", "a", 2) == b"+QUEUED"
        assert c.ask("EXEC") is None
        assert other.ask("GET", "a") == b"5"
        # now nobody writes
        c.send(command("WATCH", "a") + command("GET", "a") + command("MULTI") +
               command("SET", "a", 6) + command("EXEC") + command("GET", "a"))
        assert [c.reply() for _ in range(6)] == [
            b"+OK", b"5", b"+OK", b"+QUEUED", [b"+OK"], b"6"]


def test_a_thousand_of_them_open_no_new_connection(start, redis1):
    m = start(Millrace, [redis1.port])
    def made():
        info = redis1.ask("INFO", "stats")
        return int(info.split(b"total_connections_received:")[1].split(b"\r\n")[0])

    with m.raw() as c:
        for i in range(1050):
            if i == 50:
                before = made()
            c.send(command("WATCH", "a") + command("MULTI") + command("SET", "a", i) +
                   command("EXEC"))
            assert [c.reply() for _ in range(4)][-1] == [b"+OK"]
            if i % 10 == 0:
                c.send(command("WATCH", "a") + command("MULTI") + command("DISCARD"))
                assert [c.reply() for _ in range(3)] == [b"+OK"] * 3
    assert made() - before <= 2  # the request's, and one while another was being returned


def test_keys_of_one_transaction_live_together(start, redis4):
    m = start(Millrace, [r.port for r in redis4], **TAGS)
    with m.raw() as c:
        apart = [f"k{i}" for i in range(50)]
        assert c.ask("MULTI") == b"+OK"
        answers = {c.ask("SET", k, 1) for k in apart}
        assert answers == {b"+QUEUED",
                           b"-CROSSSLOT Keys in request don't live on the same server"}
        assert c.ask("EXEC").startswith(b"-EXECABORT")
        assert all(c.ask("GET", k) is None for k in apart)
        assert c.ask("WATCH", "{t}1") == b"+OK"
        assert c.ask("WATCH", *apart).startswith(b"-CROSSSLOT")
        for k in apart:  # meanwhile keys of all servers are served
            assert c.ask("SET", k, k) == b"+OK"
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("SET", "{t}1", 1) == b"+QUEUED"
        assert c.ask("SET", "{t}2", 2) == b"+QUEUED"
        assert c.ask("MGET", "{t}1", "{t}2") == b"+QUEUED"
        assert c.ask("EXEC") == [b"+OK", b"+OK", [b"1", b"2"]]
        assert [c.ask("GET", k) for k in apart] == [k.encode() for k in apart]


def test_with_servers_at_random_one_transaction_has_one_server(start, redis4):
    m = start(Millrace, [s.port for s in redis4], distribution="random")
    with m.raw() as c:
        for _ in range(30):
            assert c.ask("WATCH", "a", "b") == b"+OK"
            c.ask("GET", "a")
            assert c.ask("MULTI") == b"+OK"
            assert c.ask("SET", "a", 1) == b"+QUEUED"
            assert c.ask("MSET", "b", 2, "c", 3) == b"+QUEUED"
            assert c.ask("EXEC") == [b"+OK", b"+OK"]
            assert c.ask("MULTI") == b"+OK"
            assert [c.ask("SET", k, 1) for k in "abc"] == [b"+QUEUED"] * 3
            assert c.ask("EXEC") == [b"+OK"] * 3


def test_a_client_that_leaves_leaves_nothing_behind(start, redis1):
    m = start(Observed, [redis1.port], server_leases=1, lease_timeout="10s")
    for _ in range(5):
        c = m.raw()
        assert c.ask("WATCH", "a") == b"+OK"
        c.close()
    with m.raw() as c, m.raw() as d:
        assert c.ask("WATCH", "a") == b"+OK"
        d.send(command("WATCH", "a"))  # waits until the only connection is returned
        wait_for(lambda: m.metric("pool_lease_waits_total") >= 1)
        assert c.ask("UNWATCH") == b"+OK"
        assert d.reply() == b"+OK"


def test_who_gets_no_connection_is_told(start, redis1):
    m = start(Observed, [redis1.port], server_leases=1, lease_timeout="100ms")
    with m.raw() as c, m.raw() as d:
        assert c.ask("WATCH", "a") == b"+OK"
        assert d.ask("WATCH", "a").startswith(b"-ERR no dedicated server connection is free")
        assert d.ask("SET", "a", 1) == b"+OK"
        assert m.metric("pool_lease_timeouts_total") == 1
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("GET", "a") == b"+QUEUED"
        assert c.ask("EXEC") is None
        assert d.ask("WATCH", "a") == b"+OK"


def test_a_lost_connection_breaks_the_watch(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        assert c.ask("WATCH", "a") == b"+OK"
        redis1.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("SET", "a", "lost") == b"+QUEUED"
        assert c.ask("EXEC") is None
        assert wait_for(lambda: c.ask("GET", "a") != b"lost")


def test_a_reload_in_the_middle(start, redis1, redis4):
    m = start(Millrace, [redis1.port], workers=2)
    clients = [m.raw() for _ in range(20)]
    for i, c in enumerate(clients):
        if i % 2:
            assert c.ask("WATCH", f"w{i}") == b"+OK"
        assert c.ask("MULTI") == b"+OK"
        assert c.ask("SET", f"t{i}", i) == b"+QUEUED"
        if i % 5 == 0:
            assert c.ask("SET", "nonsense").startswith(b"-ERR wrong number")
    for n in range(2):
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.log_text().count("generation_gone") == n + 1)
    for i, c in enumerate(clients):
        assert c.ask("GET", f"t{i}") == b"+QUEUED"
        done = c.ask("EXEC")
        if i % 5 == 0:
            assert done.startswith(b"-EXECABORT")
        elif i % 2:
            assert done is None  # watched keys cannot move
        else:
            assert done == [b"+OK", str(i).encode()]
        assert c.ask("PING") == b"+PONG"


def test_errors_of_the_run_are_the_servers(start, redis1):
    redis1.ask("CONFIG", "SET", "maxmemory", 1)
    m = start(Millrace, [redis1.port])
    try:
        with m.raw() as c:
            c.ask("MULTI")
            c.ask("SET", "a", 1)
            assert c.ask("EXEC").startswith(b"-EXECABORT")
            assert c.ask("PING") == b"+PONG"
    finally:
        redis1.ask("CONFIG", "SET", "maxmemory", 0)


def test_a_server_that_dies_in_the_run(start):
    def serve(conn, server):
        while data := server.read(conn):
            if b"EXEC" in data:
                conn.sendall(b"+OK\r\n+QUEUED\r\n")
                conn.close()
                return
            conn.sendall(b"$1\r\nA\r\n" * data.count(b"GET"))

    server = Scripted(serve)
    m = start(Millrace, [server.port])
    with m.raw() as c:
        c.ask("MULTI")
        assert c.ask("GET", "a") == b"+QUEUED"
        assert c.ask("EXEC").startswith(b"-ERR")
        assert wait_for(lambda: c.ask("GET", "a") == b"A")
    server.close()


# ---- blocking ----

def test_blocking_commands_block(start, redis1):
    m = start(Millrace, [redis1.port], timeout=300)
    with m.raw() as c, m.raw() as other:
        began = time.monotonic()
        assert c.ask("BLPOP", "q", "0.7") is None
        assert time.monotonic() - began > 0.6
        c.send(command("BLPOP", "q", 0) + command("GET", "after"))
        time.sleep(0.5)  # longer than `timeout`
        assert other.ask("SET", "after", "x") == b"+OK"
        assert other.ask("RPUSH", "q", "v") == 1
        assert c.reply() == [b"q", b"v"]
        assert c.reply() == b"x"
        for ask, push, want in [
                (("BRPOP", "q", "r", 0), ("RPUSH", "r", 1), [b"r", b"1"]),
                (("BLMOVE", "q", "r", "LEFT", "RIGHT", 0), ("RPUSH", "q", 2), b"2"),
                (("BRPOPLPUSH", "q", "r", 0), ("RPUSH", "q", 3), b"3"),
                (("BLMPOP", 0, 2, "q", "p", "LEFT"), ("RPUSH", "p", 4), [b"p", [b"4"]]),
                (("BZPOPMIN", "z", 0), ("ZADD", "z", 1, "m"), [b"z", b"m", b"1"]),
                (("BZPOPMAX", "z", 0), ("ZADD", "z", 1, "m"), [b"z", b"m", b"1"]),
                (("BZMPOP", 0, 1, "z", "MIN"), ("ZADD", "z", 1, "m"), [b"z", [[b"m", b"1"]]]),
                (("XREAD", "BLOCK", 0, "STREAMS", "s", "$"), ("XADD", "s", "1-1", "f", "v"),
                 [[b"s", [[b"1-1", [b"f", b"v"]]]]])]:
            c.send(command(*ask))
            wait_for(lambda: b"blocked_clients:1" in redis1.ask("INFO", "clients"))
            other.ask(*push)
            assert c.reply() == want
        assert redis1.ask("LLEN", "r") == 2


def test_blocking_on_keys_of_several_servers_is_refused(start, redis4):
    m = start(Millrace, [r.port for r in redis4])
    with m.raw() as c:
        assert c.ask("BLPOP", *[f"k{i}" for i in range(20)], 0).startswith(b"-CROSSSLOT")
        assert c.ask("PING") == b"+PONG"


def test_a_blocked_client_that_leaves_takes_nothing(start, redis1):
    m = start(Millrace, [redis1.port])
    for end in ("close", "pipelined"):
        c = m.raw()
        c.send(command("BLPOP", "q", 0))
        wait_for(lambda: b"blocked_clients:1" in redis1.ask("INFO", "clients"))
        if end == "pipelined":
            c.send(command("GET", "a"))
            time.sleep(0.05)
        c.close()
        wait_for(lambda: b"blocked_clients:0" in redis1.ask("INFO", "clients"))
    with m.raw() as c:
        assert c.ask("RPUSH", "q", 1) == 1
        assert c.ask("LRANGE", "q", 0, -1) == [b"1"]


def test_many_blocked_clients(start, redis1):
    m = start(Millrace, [redis1.port], server_leases=500)
    clients = [m.raw() for _ in range(400)]
    for i, c in enumerate(clients):
        c.send(command("BLPOP", f"q{i}", 0))
    wait_for(lambda: b"blocked_clients:400" in redis1.ask("INFO", "clients"), 20)
    with m.raw() as other:
        for i in range(400):
            other.ask("RPUSH", f"q{i}", i)
    for i, c in enumerate(clients):
        assert c.reply() == [b"q%d" % i, b"%d" % i]
        c.close()


def test_a_reload_while_blocked(start, redis1):
    m = start(Millrace, [redis1.port], workers=2)
    clients = [m.raw() for _ in range(10)]
    for i, c in enumerate(clients):
        c.send(command("BLPOP", f"q{i}", 0) + command("GET", "a"))
    last = m.raw()
    last.send(command("XREAD", "BLOCK", 0, "STREAMS", "s", "$"))
    wait_for(lambda: b"blocked_clients:11" in redis1.ask("INFO", "clients"))
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: "generation_gone" in m.log_text(), 10)
    wait_for(lambda: b"blocked_clients:10" in redis1.ask("INFO", "clients"))
    assert last.reply().startswith(b"-UNBLOCKED")
    with m.raw() as other:
        for i in range(10):
            other.ask("RPUSH", f"q{i}", i)
    for i, c in enumerate(clients):
        assert c.reply() == [b"q%d" % i, b"%d" % i]
        assert c.reply() is None


def test_a_reload_that_moves_the_key(start, redis1, redis4):
    m = start(Millrace, [redis4[0].port])
    with m.raw() as c:
        c.send(command("BLPOP", "q", 0))
        wait_for(lambda: b"blocked_clients:1" in redis4[0].ask("INFO", "clients"))
        m.conf.write_text(m.conf.read_text().replace(str(redis4[0].port), str(redis4[1].port)))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: b"blocked_clients:1" in redis4[1].ask("INFO", "clients"), 10)
        assert b"blocked_clients:0" in redis4[0].ask("INFO", "clients")
        redis4[1].ask("RPUSH", "q", 1)
        assert c.reply() == [b"q", b"1"]


def test_a_graceful_stop_while_blocked(start, redis1):
    m = start(Millrace, [redis1.port])
    with m.raw() as c:
        c.send(command("BLPOP", "q", 0))
        wait_for(lambda: b"blocked_clients:1" in redis1.ask("INFO", "clients"))
        began = time.monotonic()
        os.kill(m.pid, signal.SIGTERM)
        assert c.rest().startswith(b"-UNBLOCKED")
        m.popen.wait(20)
        assert time.monotonic() - began < 15


def test_a_blocked_client_that_leaves_much_unread_is_noticed(start, redis1):
    m = start(Millrace, [redis1.port], server_leases=2)
    leaving = [m.raw() for _ in range(2)]
    for c in leaving:
        c.send(command("BLPOP", "q", 0) + b"PING\r\n" * 30000)
    wait_for(lambda: b"blocked_clients:2" in redis1.ask("INFO", "clients"))
    for c in leaving:
        c.close()
    with m.raw() as stays:
        stays.send(command("BLPOP", "other", 0))
        wait_for(lambda: b"blocked_clients:1" in redis1.ask("INFO", "clients"), 10)
        redis1.ask("RPUSH", "q", "v")
        redis1.ask("RPUSH", "other", "w")
        assert stays.reply() == [b"other", b"w"]
    assert redis1.ask("LLEN", "q") == 1, "nothing is taken for clients that are gone"


def test_what_a_blocked_client_sends_has_a_limit(start, redis1):
    m = start(Millrace, [redis1.port], max_request_size="100kb")
    with m.raw() as c:
        c.send(command("BLPOP", "q", 0) + b"PING\r\n" * 15000)
        wait_for(lambda: b"blocked_clients:1" in redis1.ask("INFO", "clients"))
        redis1.ask("RPUSH", "q", "v")
        assert c.reply() == [b"q", b"v"]
        for _ in range(15000):
            assert c.reply() == b"+PONG"
        with contextlib.suppress(ConnectionError):
            c.send(command("BLPOP", "q", 0) + b"PING\r\n" * 150000)
        wait_for(lambda: m.pool()["client_connections"] == 0)
    assert "client_cut pool=alpha reason=input_limit" in m.log_text()


@pytest.mark.parametrize("behind", ["PING", "NOSUCH", "MULTI", "WATCH q", "UNWATCH", "GET a", None])
def test_nothing_behind_a_blocked_command_is_in_its_way(start, redis1, behind):
    m = start(Millrace, [redis1.port])
    with m.raw() as c, Raw(redis1.port) as direct:
        tail = command(*behind.split()) if behind else b"*1\r\nx\r\n"
        for each in (direct, c):
            each.send(command("BLPOP", "q", 0) + tail)
        wait_for(lambda: b"blocked_clients:2" in redis1.ask("INFO", "clients"))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: "generation_gone" in m.log_text(), 10)
        wait_for(lambda: b"blocked_clients:2" in redis1.ask("INFO", "clients"))
        redis1.ask("RPUSH", "q", 1, 2)
        assert {c.reply()[1], direct.reply()[1]} == {b"1", b"2"}
        assert c.reply() == direct.reply()
    assert "child_died" not in m.log_text()


def test_a_refused_blocking_command_is_only_refused(start, redis4):
    m = start(Millrace, [s.port for s in redis4])
    worker = m.child_pids()
    for request in (b"XREAD BLOCK 0 STREAMS a", b"XREAD BLOCK 0 COUNT", b"BLMPOP 0 0 LEFT COUNT",
                    b"BZMPOP 0 0 MIN COUNT", b"XREADGROUP GROUP g c BLOCK 0 STREAMS a"):
        with m.raw() as c:  # the first message of a connection: no other message's key is left over
            assert c.send(request + b"\r\n").line().startswith(b"-ERR"), request
            assert c.ask("PING") == b"+PONG"
    assert m.child_pids() == worker


def test_reset_and_quit_end_it_all(both, start, redis1):
    assert both("MULTI", "SET a 1", "RESET", "GET a", "EXEC") == [
        b"+OK", b"+QUEUED", b"+RESET", None, b"-ERR EXEC without MULTI"]
    assert both("MULTI", "NOSUCH", "QUIT")[-1] == b"+OK"
    m = start(Millrace, [redis1.port])
    for port in (redis1.port, m.port):
        with Raw(port) as c, Raw(redis1.port) as other:
            assert [c.ask("WATCH", "w"), c.ask("RESET"), other.ask("SET", "w", 1), c.ask("MULTI"),
                    c.ask("SET", "w", 2), c.ask("EXEC")] == [
                        b"+OK", b"+RESET", b"+OK", b"+OK", b"+QUEUED", [b"+OK"]]


# ---- WAIT ----

def test_wait_is_about_what_the_client_has_written(start):
    """Over another connection, and before: a replica that stands still shows it."""
    server = start(Redis, "--repl-diskless-sync-delay", 0)
    replica = start(Redis, "--replicaof", "127.0.0.1", server.port)
    wait_for(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), 20)
    m = start(Millrace, [server.port])
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        assert c.ask("WAIT", 1, 5000) == 1
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            assert c.ask("SET", "a", 2) == b"+OK"
            assert c.ask("WAIT", 1, 100) == 0  # over the connection that had waited before
            assert c.send(command("SET", "a", 3) + command("WAIT", 1, 100)).reply() == b"+OK"
            assert c.reply() == 0
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        assert c.ask("WAIT", 1, 10000) == 1
        assert replica.ask("GET", "a") == b"3"
        c.send(command("MULTI") + command("SET", "a", 4) + command("WAIT", 0, 0) + command("EXEC"))
        assert [c.reply() for _ in range(3)] == [b"+OK", b"+QUEUED", b"+QUEUED"]
        assert c.reply() in ([b"+OK", 0], [b"+OK", 1])  # it does not wait there
        assert c.ask("WAIT", "x", 1) == server.ask("WAIT", "x", 1)
        c.send(command("WAIT", 2, 0))
        wait_for(lambda: b"blocked_clients:1" in server.ask("INFO", "clients"))
        with m.raw() as other:
            assert other.ask("GET", "a") == b"4"
    wait_for(lambda: b"blocked_clients:0" in server.ask("INFO", "clients"))


def test_wait_where_nothing_can_be_promised(start, redis4):
    m = start(Millrace, [s.port for s in redis4])
    with m.raw() as c:
        assert b"this proxy" in c.ask("WAIT", 0, 1)
    forbidden = start(Redis, "--rename-command", "SWAPDB", "")
    m = start(Millrace, [forbidden.port])
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        assert b"refuses" in c.ask("WAIT", 0, 100)
        assert c.ask("GET", "a") == b"1"
    assert m.pool()["server_ejects"] == 0
