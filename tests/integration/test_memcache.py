"""Memcached pools on real servers: splitting, failures, limits, statistics, client libraries."""

import os
import pathlib
import random
import shutil
import subprocess

import pytest
from harness import SLOW, Millrace, Nutcracker, Raw, Scripted, free_port, silent, wait_for
from memcached import HEADER, Memcached, packet, read_packet, stored

S = stored()


@pytest.fixture(scope="module")
def servers():
    four = [Memcached() for _ in range(4)]
    yield four
    for s in four:
        s.kill()


@pytest.fixture
def mc4(servers):
    for s in servers:
        with Raw(s.port) as c:
            assert c.send(b"flush_all\r\n").line() == b"OK"
    return servers


def pool(start, servers, **keys):
    return start(Millrace, [s.port for s in servers], **{"redis": None, **keys})


def set_text(c, key, value, flags=0):
    c.send(b"set %s %d 0 %d\r\n%s\r\n" % (key, flags, len(value), value))
    return c.line()


def values(c):
    """[(key, flags, value)] of one reply to a retrieval, or its error line."""
    got = []
    while (line := c.line()) != b"END":
        if not line.startswith(b"VALUE "):
            return line
        _, key, flags, size, *cas = line.split()
        got.append((key, int(flags), c.exactly(int(size) + 2)[:-2], *map(int, cas)))
    return got


# ---- splitting and joining ----


def test_values_come_in_the_order_of_the_keys_with_one_end(start, mc4):
    m = pool(start, mc4)
    rng = random.Random(5)
    have = {}
    with m.raw(timeout=20) as c:
        for i in range(300):
            key, size = b"key:%d" % i, rng.choice([0, 1, 7, 100, 5000, 40000])
            value = rng.randbytes(size)
            if i % 3:
                assert set_text(c, key, value, i) == b"STORED"
                have[key] = (key, i, value)
        assert all(s_count(s) > 0 for s in mc4)
        for n in [1, 2, 3, 10, 100, 300, 5, 100]:
            keys = [b"key:%d" % rng.randrange(330) for _ in range(n)]
            c.send(b"get " + b" ".join(keys) + b"\r\n")
            assert values(c) == [have[k] for k in keys if k in have]
        # repeated keys, many blanks, unique numbers, and another command after it
        c.send(b"  get  key:1  key:1   nope key:2 \r\nversion\r\n")
        assert values(c) == [have[b"key:1"]] * 2 + [have[b"key:2"]]
        assert c.line().startswith(b"VERSION 1.6")
        c.send(b"gets key:1 key:2 key:4\r\n")
        got = values(c)
        assert [g[:3] for g in got] == [have[b"key:%d" % i] for i in (1, 2, 4)]
        unique = got[0][3]
        assert c.send(b"cas key:1 0 0 3 %d\r\nnew\r\n" % unique).line() == b"STORED"
        assert c.send(b"cas key:1 0 0 3 %d\r\nnew\r\n" % unique).line() == b"EXISTS"
        c.send(b"gat 100 key:1 key:2 key:4 nope\r\n")
        assert [g[0] for g in values(c)] == [b"key:1", b"key:2", b"key:4"]
    assert m.pool()["fragments"] > 10  # how many depends on the ports, which are names on the ring


def s_count(server):
    with Raw(server.port) as c:
        c.send(b"stats\r\n")
        while (line := c.line()) != b"END":
            if line.startswith(b"STAT curr_items "):
                return int(line.split()[2])


def test_a_pipeline_of_all_dialects_on_their_own_connections(start, mc4):
    m = pool(start, mc4)
    with m.raw() as text, m.raw() as binary:
        for i in range(50):
            assert set_text(text, b"k%d" % i, b"v%d" % i) == b"STORED"
        binary.send(b"".join(packet(0x0D, b"k%d" % i, opaque=i) for i in range(0, 100, 2)) +
                    packet(0x0A, opaque=77))
        for i in range(0, 50, 2):
            opcode, status, opaque, _, extras, key, value = read_packet(binary)
            assert (opcode, status, opaque, key, value) == (0x0D, 0, i, b"k%d" % i, b"v%d" % i)
        assert read_packet(binary)[:3] == (0x0A, 0, 77)
        text.send(b"".join(b"mg k%d v q k O%d\r\n" % (i, i) for i in range(0, 100, 2)) + b"mn\r\n")
        for i in range(0, 50, 2):
            assert text.line() == b"VA %d kk%d O%d" % (len(str(i)) + 1, i, i)
            assert text.line() == b"v%d" % i
        assert text.line() == b"MN"
    # each dialect has separate server connections
    assert sum(s["server_connections"] for s in m.pool().values() if isinstance(s, dict)) <= 8


def test_a_base64_key_lives_where_the_plain_one_does(start, mc4):
    import base64
    m = pool(start, mc4)
    with m.raw() as c:
        for i in range(40):
            plain = b"some key %d" % i if i % 2 else b"plain-%d" % i
            coded = base64.b64encode(plain)
            assert c.send(b"ms %s 2 b\r\nhi\r\n" % coded).line() == b"HD"
            if i % 2 == 0:
                c.send(b"get %s\r\n" % plain)
                assert values(c) == [(plain, 0, b"hi")]
            assert c.send(b"mg %s b v\r\n" % coded).line().startswith(b"VA 2")
            assert c.line() == b"hi"


# ---- strictness: defects D2 and D5 ----


@pytest.mark.parametrize("bad", [b"foo\tflush_all", b"a\x00b", b"a\x7fb", b"a\rb", b"a\x0bb"])
def test_no_control_byte_in_a_key(start, mc4, bad):
    m = pool(start, mc4, allow_flush_all="true")
    with m.raw() as c, m.raw() as other:
        assert set_text(other, b"mine", b"1") == b"STORED"
        for line in (b"get %s\r\n", b"get ok %s\r\n", b"delete %s\r\n", b"incr %s 1\r\n",
                     b"touch %s 0\r\n", b"mg %s v\r\n", b"md %s\r\n"):
            assert c.send(line % bad).line() == b"CLIENT_ERROR bad command line format"
        other.send(b"get mine\r\n")
        assert values(other) == [(b"mine", 0, b"1")]


def test_a_line_feed_ends_the_line_and_smuggles_nothing(start, mc4):
    m = pool(start, mc4)
    with m.raw() as a, m.raw() as b:
        assert set_text(b, b"mine", b"1") == b"STORED"
        assert set_text(b, b"victim", b"2") == b"STORED"
        a.send(b"get foo\nget victim\r\n")
        b.send(b"get mine\r\n")
        assert values(b) == [(b"mine", 0, b"1")]
        assert values(a) == [] and values(a) == [(b"victim", 0, b"2")]
        assert a.send(b"get foo\nflush_all\r\n").line() == b"END"
        assert a.line() == b"CLIENT_ERROR flush_all not allowed"


def test_a_long_key_is_refused_however_it_comes(start, mc4):
    m = pool(start, mc4)
    with m.raw() as c:
        for size in (251, 1000, 32676):
            for part in (1 << 20, 1000):
                line = b"get " + b"k" * size + b"\r\n"
                for at in range(0, len(line), part):
                    c.send(line[at:at + part])
                assert c.line() == b"CLIENT_ERROR bad command line format"
        assert set_text(c, b"k" * 250, b"x") == b"STORED"
    with m.raw() as c:
        assert c.send(b"x" * 20000).rest() == b"CLIENT_ERROR line too long\r\n"


def test_a_server_that_loses_its_place_loses_its_connection(start):
    """Whatever a server does with a value it rejected, no other client gets to see it."""

    def serve(conn, server):
        while data := server.read(conn):
            # rejects the line of a storage command, and executes its value
            conn.sendall(b"CLIENT_ERROR bad command line format\r\nERROR\r\n"
                         if data.startswith(b"set") else b"END\r\n")

    bad = start(Scripted, serve)
    m = start(Millrace, [bad.port], redis=None)
    with m.raw() as a, m.raw() as b:
        for _ in range(5):
            assert set_text(a, b"k", b"get b") == \
                b"SERVER_ERROR server gave a reply that does not belong to the request"
            assert b.send(b"get b\r\n").line() == b"END"
    wait_for(lambda: bad.accepted >= 5)


# ---- limits ----


def test_max_item_size(start, mc4):
    m = pool(start, mc4, max_item_size="100kb")
    with m.raw(timeout=20) as c:
        assert set_text(c, b"fits", b"x" * 102400) == b"STORED"
        big = b"y" * 102401
        for part in (1 << 20, 999, 1):
            data = b"set big 0 0 %d\r\n%s\r\nget big\r\n" % (len(big), big)
            end = len(data) if part > 1 else 300  # the beginning in tiny pieces
            for at in range(0, end, part):
                c.send(data[at:at + part])
            c.send(data[end:])
            assert c.line() == b"SERVER_ERROR object too large for cache"
            assert c.line() == b"END"
        assert c.send(b"ms big %d\r\n%s\r\n" % (len(big), big)).line() == \
            b"SERVER_ERROR object too large for cache"
        c.send(b"set big 0 0 %d noreply\r\n%s\r\nget big fits\r\n" % (len(big), big))
        assert [v[0] for v in values(c)] == [b"fits"]
    with m.raw(timeout=20) as c:
        c.send(packet(0x01, b"big", big, S, opaque=1) + packet(0x00, b"big", opaque=2))
        assert read_packet(c)[:3] == (0x01, 3, 1)
        assert read_packet(c)[:3] == (0x00, 1, 2)


@pytest.mark.alone
def test_a_refused_value_is_passed_over_however_far_it_reaches(start, mc4):
    """The rest of the value is not held in memory, and never executed."""
    m = pool(start, mc4, max_item_size="1kb")
    size = 200 << 20
    with m.raw(timeout=60) as c:
        c.send(b"set big 0 0 %d\r\n" % size)
        assert c.line() == b"SERVER_ERROR object too large for cache"
        chunk = b"flush_all\r\n" * 100000
        left = size + 2
        while left > 0:
            c.send(chunk[:left])
            left -= len(chunk)
        assert c.send(b"get big\r\n").line() == b"END"
    rss = int(next(line.split()[1] for line in open(f"/proc/{m.child_pids()[0]}/status")
                   if line.startswith("VmHWM")))
    assert rss < 100 * 1024 * SLOW


# ---- failures ----


def dead_and_alive(m, c, n=40):
    """Keys of a live server and of the dead one."""
    alive, dead = [], []
    for i in range(n):
        key = b"key:%d" % i
        (alive if set_text(c, key, b"v") == b"STORED" else dead).append(key)
    assert alive and dead
    return alive, dead


def test_a_failed_part_is_an_error(start, mc4):
    m = start(Millrace, [mc4[0].port, free_port()], redis=None)
    with m.raw() as c, m.raw() as b:
        alive, dead = dead_and_alive(m, c)
        error = b"SERVER_ERROR Connection refused"
        c.send(b"get " + b" ".join(alive + dead) + b"\r\nget " + b" ".join(alive) + b"\r\n")
        assert values(c) == error
        assert [v[0] for v in values(c)] == alive
        assert c.send(b"get " + dead[0] + b"\r\n").line() == error
        assert c.send(b"mg " + dead[0] + b" v q\r\nmn\r\n").line() == error
        assert c.line() == b"MN"
        # noreply: silence, and the connection stays open
        c.send(b"set %s 0 0 1 noreply\r\nx\r\ndelete %s noreply\r\nget %s\r\n" %
               (dead[0], dead[0], alive[0]))
        assert values(c) == [(alive[0], 0, b"v")]
        b.send(packet(0x0D, dead[0], opaque=5) + packet(0x0D, alive[0], opaque=6) + packet(0x0A))
        opcode, status, opaque, _, _, _, text = read_packet(b)
        assert (opcode, status, opaque, text) == (0x0D, 0x86, 5, b"Connection refused")
        assert read_packet(b)[:3] == (0x0D, 0, 6) and read_packet(b)[0] == 0x0A


def test_a_failed_part_is_a_miss_where_configured(start, mc4):
    m = start(Millrace, [mc4[0].port, free_port()], redis=None,
              on_server_failure="miss")
    with m.raw() as c, m.raw() as b:
        alive, dead = dead_and_alive(m, c)
        c.send(b"get " + b" ".join(dead + alive) + b"\r\nget " + dead[0] + b"\r\n")
        assert [v[0] for v in values(c)] == alive
        assert values(c) == []
        assert c.send(b"mg " + dead[0] + b" v\r\n").line() == b"EN"
        assert c.send(b"mg " + dead[0] + b" v q\r\nmn\r\n").line() == b"MN"
        assert set_text(c, dead[0], b"v") == b"SERVER_ERROR Connection refused"
        assert c.send(b"delete " + dead[0] + b"\r\n").line() == b"SERVER_ERROR Connection refused"
        b.send(packet(0x0D, dead[0], opaque=5) + packet(0x00, dead[0], opaque=6) + packet(0x0A))
        assert read_packet(b)[:3] == (0x00, 1, 6) and read_packet(b)[0] == 0x0A
    assert m.pool()["forward_error"] > 0


def test_a_server_that_answers_with_an_error_stands_for_the_whole(start, mc4):
    def serve(conn, server):
        while data := server.read(conn):
            conn.sendall(b"SERVER_ERROR out of memory\r\n" * data.count(b"\r\n"))

    m = start(Millrace, [mc4[0].port, start(Scripted, serve).port], redis=None)
    with m.raw() as c:
        alive, dead = dead_and_alive(m, c)
        c.send(b"get " + b" ".join(alive + dead) + b"\r\n")
        assert values(c) == b"SERVER_ERROR out of memory"
        c.send(b"get " + alive[0] + b"\r\n")
        assert values(c) == [(alive[0], 0, b"v")]


@pytest.mark.parametrize("garbage", [b"VALUE k 0 x\r\n", b"hello\r\n", b"VALUE k 0 3\r\nabcdefgh",
                                     b"\x81\x00", b"\r\n", b"VALUE a 0 99999999999\r\n"])
def test_garbage_costs_the_connection_not_the_neighbours_reply(start, garbage):
    def serve(conn, server):
        while server.read(conn):
            conn.sendall(garbage)

    bad = start(Scripted, serve)
    m = start(Millrace, [bad.port], redis=None, timeout=2000)
    with m.raw() as c:
        for _ in range(3):
            assert c.send(b"get k\r\n").line().startswith(b"SERVER_ERROR ")


def test_a_silent_server_times_out(start):
    m = start(Millrace, [start(Scripted, silent).port], redis=None, timeout=100)
    with m.raw() as c, m.raw() as b:
        assert c.send(b"get k\r\n").line() == b"SERVER_ERROR Connection timed out"
        b.send(packet(0x00, b"k", opaque=9))
        assert read_packet(b)[1:3] == (0x86, 9)


def test_probes_keep_to_the_dialect_of_their_connection(start):
    probes, mixed = [], []

    def serve(conn, server):
        binary = None
        while data := server.read(conn):
            if binary is None:
                binary = data[0] == 0x80
            if (data[0] == 0x80) != binary:
                mixed.append(data)
            if binary:
                conn.sendall(b"\x81\x0a" + bytes(22))
            else:
                probes.append(data)
                conn.sendall(b"VERSION 1.6.18\r\n")

    m = start(Millrace, [start(Scripted, serve).port], redis=None, health_checks="always",
              health_check_interval="50ms")
    wait_for(lambda: len(probes) >= 2)  # the prober has a text connection
    with m.raw() as b:
        b.send(packet(0x0b, opaque=0))
        assert b.exactly(24)[0] == 0x81
        seen = len(probes)
        wait_for(lambda: mixed or len(probes) >= seen + 3)
    assert not mixed


def test_a_dialect_that_a_server_does_not_speak(start):
    text_only, binary_only = start(Memcached, "-B", "ascii"), start(Memcached, "-B", "binary")
    one = start(Millrace, [text_only.port], redis=None)  # without a timeout: nothing may hang
    other = start(Millrace, [binary_only.port], redis=None)
    with one.raw() as b, one.raw() as c:
        b.send(packet(0x00, b"k", opaque=9))
        got = read_packet(b)
        assert got[1:3] == (0x86, 9)
        assert got[6] == b"server does not speak the protocol of the request"
        for _ in range(20):  # clients of its dialect are not disturbed
            assert c.send(b"get k\r\n").line() == b"END"
            b.send(packet(0x00, b"k", opaque=9))
            assert read_packet(b)[6] == b"server does not speak the protocol of the request"
    with other.raw() as b, other.raw() as c:
        b.send(packet(0x00, b"k", opaque=9))
        assert read_packet(b)[1:3] == (1, 9)
        for _ in range(5):
            assert c.send(b"get k\r\n").line() == b"SERVER_ERROR server closes new connections"
        b.send(packet(0x00, b"k", opaque=9))
        assert read_packet(b)[1:3] == (1, 9)


def test_a_server_older_than_meta_commands(start):
    def serve(conn, server):
        while data := server.read(conn):
            conn.sendall(b"VERSION 1.4.39\r\n" if data.startswith(b"version") else b"ERROR\r\n")

    m = start(Millrace, [start(Scripted, serve).port], redis=None)
    with m.raw() as c:
        for line in (b"mg k v\r\n", b"mg k v q\r\n", b"md k q\r\n"):
            assert c.send(line).line() == b"SERVER_ERROR server does not know meta commands"
        assert c.send(b"ms k 1\r\nx\r\n").line() == \
            b"SERVER_ERROR ms needs a server of memcached 1.6.10 or later"
        assert c.send(b"mn\r\n").line() == b"MN"


def test_a_dead_server_is_ejected_and_its_keys_move(start, mc4):
    gone = Memcached()
    m = start(Millrace, [mc4[0].port, gone.port], redis=None, auto_eject_hosts="true",
              server_failure_limit=1, server_retry_timeout=60000)
    gone.kill()
    with m.raw() as c:
        results = [set_text(c, b"key:%d" % i, b"v") for i in range(60)]
        assert results.count(b"STORED") >= 58
        c.send(b"get " + b" ".join(b"key:%d" % i for i in range(60)) + b"\r\n")
        assert len(values(c)) >= 58
    assert m.pool()["server_ejects"] == 1


# ---- quiet commands and order ----


def test_an_end_mark_waits_for_the_quiet_commands_before_it(start):
    """The server is slow: MN and NOOP come last, and nothing is missing or duplicated."""
    import time

    def slow(conn, server):
        data = b""
        while got := server.read(conn):
            data += got
            while b"\r\n" in data:
                line, data = data.split(b"\r\n", 1)
                time.sleep(0.02)
                conn.sendall(b"VERSION 1\r\n" if b"version" in line else
                             b"EN\r\n" if b"miss" in line else b"VA 1 k%s\r\nx\r\n" % line.split()[1])

    m = start(Millrace, [start(Scripted, slow).port], redis=None)
    with m.raw() as c:
        c.send(b"mg a v q k\r\nmg miss v q k\r\nmg b v q k\r\nmn\r\nmg c v k\r\n")
        got = [c.line() for _ in range(7)]
        assert got == [b"VA 1 ka", b"x", b"VA 1 kb", b"x", b"MN", b"VA 1 kc", b"x"]


def test_replies_that_are_not_wanted_never_show(start, mc4):
    m = pool(start, mc4)
    with m.raw(timeout=20) as c:
        c.send(b"".join(b"set n%d 0 0 3 noreply\r\nabc\r\n" % i for i in range(1000)) +
               b"".join(b"incr n%d 1 noreply\r\ntouch n%d 0 noreply\r\n" % (i, i) for i in range(500)) +
               b"get n1 n999\r\n")
        assert values(c) == [(b"n1", 0, b"abc"), (b"n999", 0, b"abc")]
        assert c.send(b"version\r\n").line().startswith(b"VERSION")


# ---- commands for all servers ----


def test_flush_all_is_for_those_who_may(start, mc4):
    m, may = pool(start, mc4), pool(start, mc4, allow_flush_all="true")
    with m.raw() as c, may.raw() as d, m.raw() as b, may.raw() as e:
        for i in range(40):
            assert set_text(c, b"k%d" % i, b"v") == b"STORED"
        assert c.send(b"flush_all\r\n").line() == b"CLIENT_ERROR flush_all not allowed"
        c.send(b"flush_all noreply\r\nflush_all 10 noreply\r\nget k1\r\n")
        assert len(values(c)) == 1
        b.send(packet(0x08, opaque=4))
        assert read_packet(b)[:3] == (0x08, 0x20, 4)
        assert d.send(b"flush_all\r\n").line() == b"OK"
        assert sum(s_count(s) for s in mc4) == 0 or d.send(b"get k1 k2 k3 k4\r\n").line() == b"END"
        e.send(packet(0x08, opaque=5) + packet(0x18, opaque=6) + packet(0x0A, opaque=7))
        assert read_packet(e)[:3] == (0x08, 0, 5)
        assert read_packet(e)[:3] == (0x0A, 0, 7)


def read_stats(c):
    got = {}
    while (line := c.line()) != b"END":
        _, name, *value = line.split(b" ", 2)
        assert name not in got
        got[name.decode()] = value[0] if value else b""
    return got


def test_statistics_of_all_servers(start):
    mc4 = [start(Memcached) for _ in range(4)]
    m = pool(start, mc4)
    with m.raw() as c, m.raw() as b:
        for i in range(40):
            assert set_text(c, b"k%d" % i, b"v") == b"STORED"
        c.send(b"stats\r\nstats servers\r\nstats proxy\r\nstats settings\r\nstats items\r\n"
               b"stats slabs\r\n")
        merged, each, proxy, settings, items, slabs = (read_stats(c) for _ in range(6))
        assert int(merged["curr_items"]) == 40
        assert int(merged["limit_maxbytes"]) == 4 * 64 << 20
        assert merged["version"].startswith(b"1.6") and b"," not in merged["version"]
        assert float(merged["rusage_user"]) >= 0 and merged["pid"].isdigit()
        assert sum(int(v) for k, v in each.items() if k.endswith(":curr_items")) == 40
        assert {k.split(":")[1] for k in each} == {str(s.port) for s in mc4}
        assert int(proxy["client_connections"]) == 2 and proxy["millrace_version"]
        assert len(settings["tcpport"].split(b",")) == 4 and settings["maxbytes"] == b"67108864"
        assert int(items["items:1:number"]) == 40 and int(slabs["active_slabs"]) >= 4
        assert c.send(b"stats nonsense\r\n").line() == b"ERROR"
        b.send(packet(0x10, opaque=3) + packet(0x10, b"proxy", opaque=4) +
               packet(0x10, b"servers", opaque=5))
        found = []
        for opaque in (3, 4, 5):
            got = {}
            while (p := read_packet(b))[5]:
                assert p[:3] == (0x10, 0, opaque)
                got[p[5].decode()] = p[6]
            found.append(got)
        assert found[0]["curr_items"] == b"40" and "millrace_version" in found[1]
        assert {k.split(":")[1] for k in found[2]} == {str(s.port) for s in mc4}


def test_statistics_go_on_without_a_dead_server(start, mc4):
    m = start(Millrace, [mc4[0].port, free_port()], redis=None)
    dead = start(Millrace, [free_port()], redis=None)
    with m.raw() as c, dead.raw() as d:
        got = read_stats(c.send(b"stats\r\n"))
        assert got["millrace_servers_failed"] == b"1" and "curr_items" in got
        assert d.send(b"stats\r\n").line() == b"SERVER_ERROR Connection refused"


# ---- client libraries ----


def test_unix_sockets_and_ipv6(start):
    path = f"/tmp/millrace-test-memcached-{os.getpid()}"
    server = subprocess.Popen(["memcached", "-u", "nobody", "-s", path, "-a", "777"])
    try:
        wait_for(lambda: os.path.exists(path))
        m = start(Millrace, [f"{path}:1 local"], redis=None, listen="'[::1]:@PORT@'")
        with Raw(("::1", m.port)) as c:
            assert set_text(c, b"k", b"v") == b"STORED"
            c.send(b"get k\r\n")
            assert values(c) == [(b"k", 0, b"v")]
    finally:
        server.kill()
        server.wait()
        os.unlink(path)


@pytest.mark.parametrize("keys", [{}, {"distribution": "modula", "hash": "hsieh"},
                                  {"hash": "md5", "hash_tag": '"{}"'}, {"hash": "fnv1a_64"}])
def test_every_key_is_where_nutcracker_put_it(start, mc4, keys):
    """All three dialects find what was stored through nutcracker with the same file."""
    m = pool(start, mc4, **keys)
    nutcracker = start(Nutcracker, m)
    rng = random.Random(7)
    names = [b"".join(rng.choice([b"a", b"{", b"}", b"k", b"-", b"%d" % rng.randrange(999)])
                      for _ in range(rng.randint(1, 30))) for _ in range(300)]
    names = list(dict.fromkeys(names))
    with Raw(nutcracker.port) as old, m.raw() as new, m.raw() as binary:
        for i, k in enumerate(names):
            assert set_text(old, k, b"%d" % i) == b"STORED"
        new.send(b"get " + b" ".join(names) + b"\r\n")
        assert values(new) == [(k, 0, b"%d" % i) for i, k in enumerate(names)]
        for i, k in enumerate(names):
            new.send(b"mg %s v\r\n" % k)
            assert new.line().startswith(b"VA ") and new.line() == b"%d" % i
            binary.send(packet(0x00, k))
            assert read_packet(binary)[6] == b"%d" % i


def test_memccapable_passes_whole(start, mc4):
    if not shutil.which("memccapable"):
        pytest.skip("no memccapable")
    m = pool(start, mc4[:1], allow_flush_all="true")
    run = subprocess.run(["memccapable", "-h", "127.0.0.1", "-p", str(m.port)], capture_output=True,
                         text=True, timeout=60 * SLOW)
    lines = [x for x in run.stdout.splitlines() if x]
    assert run.returncode == 0 and "All tests passed" in lines[-1], run.stdout + run.stderr
    assert sum(x.startswith("ascii ") and "[pass]" in x for x in lines) == 27
    assert sum(x.startswith("binary ") and "[pass]" in x for x in lines) == 27


def test_pymemcache(start, mc4):
    pymemcache = pytest.importorskip("pymemcache.client.base")
    m = pool(start, mc4)
    c = pymemcache.Client(("127.0.0.1", m.port), default_noreply=True)
    many = {f"key-{i}": f"value {i}".encode() for i in range(200)}
    c.set_many(many)
    assert c.get_many(list(many) + ["nope"]) == many
    assert c.incr("nope", 1, noreply=False) is None
    assert c.set("n", "5", noreply=False) and c.incr("n", 3, noreply=False) == 8
    value, unique = c.gets("n")
    assert value == b"8" and c.cas("n", "9", unique) and not c.cas("n", "9", unique)
    assert c.add("n", 1, noreply=False) is False and c.append("n", "0", noreply=False)
    assert c.get("n") == b"90" and c.touch("n", 100, noreply=False)
    assert c.delete("n", noreply=False) and c.get("n") is None
    assert c.version().startswith(b"1.6") and int(c.stats()[b"curr_items"]) >= 200
    c.quit()


def test_memjs(start, mc4):
    modules = pathlib.Path(__file__).resolve().parents[2] / "build" / "npm" / "node_modules"
    if not (modules / "memjs").exists() or not shutil.which("node"):
        pytest.skip("no memjs")
    m = pool(start, mc4)
    script = """
const memjs = require('memjs');
const assert = require('assert');
(async () => {
  const c = memjs.Client.create('127.0.0.1:PORT', {timeout: 10});
  for (let i = 0; i < 50; i++) assert(await c.set('k' + i, 'v' + i, {expires: 100}));
  for (let i = 0; i < 50; i++) assert.equal(String((await c.get('k' + i)).value), 'v' + i);
  assert.equal((await c.get('nope')).value, null);
  assert.equal(await c.add('k1', 'x', {}), false);
  assert(await c.replace('k1', 'y', {}));
  assert.equal((await c.increment('n', 5, {initial: 7})).value, 7);
  assert.equal((await c.increment('n', 5, {initial: 7})).value, 12);
  assert(await c.append('k1', 'z')); assert(await c.prepend('k1', 'x'));
  assert.equal(String((await c.get('k1')).value).length, 3); // this memjs appends for both
  assert(await c.touch('k1', 50)); assert(await c.delete('k1'));
  assert.equal((await c.get('k1')).value, null);
  await new Promise((done) => c.stats((e, s, stats) => { assert(!e); assert(stats.curr_items > 40); done(); }));
  c.close();
  console.log('fine');
})().catch((e) => { console.error(e); process.exit(1); });
""".replace("PORT", str(m.port))
    run = subprocess.run(["node", "-e", script], capture_output=True, text=True,
                         timeout=60 * SLOW, env={**os.environ, "NODE_PATH": str(modules.resolve())})
    assert run.returncode == 0 and "fine" in run.stdout, run.stdout + run.stderr
