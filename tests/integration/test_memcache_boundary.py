"""Input of one client is never executed as another's command, and replies never reach another client; see
docs/memcached.md."""

import base64
import contextlib
import threading

import pytest
from harness import Millrace, Raw, Scripted, free_port, wait_for
from memcached import Memcached, packet, read_packet, stored

LOST = b"SERVER_ERROR server gave a reply that does not belong to the request"
TOO_OLD = b"SERVER_ERROR ms needs a server of memcached 1.6.10 or later"
BAD = b"CLIENT_ERROR bad command line format"


@pytest.fixture(scope="module")
def servers():
    three = [Memcached() for _ in range(3)]
    yield three
    for s in three:
        s.kill()


@pytest.fixture
def mc(servers):
    for s in servers:
        with Raw(s.port) as c:
            assert c.send(b"flush_all\r\n").line() == b"OK"
    return servers


def set_text(c, key, value):
    return c.send(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value)).line()


class Canary(threading.Thread):
    """A client that continually checks that it reads what it wrote."""

    KEYS = 50

    def __init__(self, port):
        super().__init__(daemon=True)
        self.wrong, self.errors, self.checked, self.stopping = [], [], 0, False
        self.client = Raw(port, timeout=20)
        for i in range(self.KEYS):
            assert set_text(self.client, b"canary%d" % i, b"%04d" % i) == b"STORED"
        self.start()
        wait_for(lambda: self.checked > 100)

    def reply(self):
        lines = [self.client.line()]
        if lines[0].startswith(b"VALUE "):
            lines += [self.client.line(), self.client.line()]
        return lines

    def run(self):
        while not self.stopping:
            self.client.send(b"".join(b"get canary%d\r\n" % i for i in range(self.KEYS)))
            for i in range(self.KEYS):
                got = self.reply()
                if got[0].startswith(b"SERVER_ERROR"):
                    self.errors.append(got)
                elif got != [b"VALUE canary%d 0 4" % i, b"%04d" % i, b"END"]:
                    self.wrong.append(got)
                self.checked += 1

    def stop(self):
        """Call it at the end: a few more rounds must succeed."""
        before = self.checked
        wait_for(lambda: self.checked > before + 10 * self.KEYS, 20)
        self.stopping = True
        self.join(20)
        self.client.close()
        assert not self.wrong, self.wrong[:5]
        return self.errors


@pytest.fixture
def canary():
    started = []

    def make(port):
        started.append(Canary(port))
        return started[-1]

    yield make
    for c in started:
        c.stopping = True


# ---- storage commands ----


def test_no_value_of_a_meta_set_is_run(start, mc, canary):
    """A server that counts too many words rejects the line and executes the value."""
    m = start(Millrace, [mc[0].port], redis=None)
    watch = canary(m.port)
    with m.raw() as a:
        for words in range(4, 26):
            a.send(b"ms k 9" + b" I" * (words - 3) + b"\r\nflush_all\r\nmn\r\n")
            assert a.line().startswith(b"HD" if words == 4 else b"CLIENT_ERROR ")
            assert a.line() == b"MN"
        secret = b"\r\n".join([b"get canary1"] * 5)
        for flag in (b"!", b"{", b"\xff", b"~", b"I I", b"S2", b"Tx", b"C", b"b", b"O" + b"x" * 40):
            a.send(b"ms k %d %s\r\n%s\r\nmn\r\n" % (len(secret), flag, secret))
            assert a.line().startswith(b"CLIENT_ERROR ") and a.line() == b"MN"
    assert watch.stop() == []
    with Raw(mc[0].port) as direct:
        assert direct.send(b"get canary1\r\n").line() == b"VALUE canary1 0 4"


def test_a_reply_that_no_server_gives_is_not_passed_on(start, canary):
    """Whatever the server replies to the value of a rejected line, nobody gets to see it."""

    def serve(conn, server):
        data = b""
        while got := server.read(conn):
            data += got
            while b"\r\n" in data:
                line, data = data.split(b"\r\n", 1)
                if line.startswith(b"version"):
                    conn.sendall(b"VERSION 1.6.18\r\n")
                elif line.startswith(b"set canary"):
                    data = data.split(b"\r\n", 1)[1] if b"\r\n" in data else b""
                    conn.sendall(b"STORED\r\n")
                elif line.startswith(b"get canary"):
                    n = int(line[10:])
                    conn.sendall(b"VALUE canary%d 0 4\r\n%04d\r\nEND\r\n" % (n, n))
                elif line.startswith(b"get secret"):
                    conn.sendall(b"VALUE secret 0 6\r\nHIDDEN\r\nEND\r\n")
                else:
                    conn.sendall(b"CLIENT_ERROR something new\r\n")

    m = start(Millrace, [start(Scripted, serve).port], redis=None)
    watch = canary(m.port)
    with m.raw() as a:
        for _ in range(20):
            assert set_text(a, b"k", b"\r\n".join([b"get secret"] * 3)) == LOST
            assert a.send(b"ms k 10\r\nget secret\r\n").line() == LOST
    watch.stop()


@pytest.mark.parametrize("refused", [b"CLIENT_ERROR bad command line format\r\n", b"ERROR\r\n"])
def test_a_late_refusal_is_noticed(start, refused):
    """The reply to a timed-out request is checked before it is discarded."""
    go = threading.Event()
    closed = []

    def serve(conn, server):
        late = False
        with contextlib.suppress(OSError):
            while data := server.read(conn):
                if data.startswith(b"version"):
                    conn.sendall(b"VERSION 1.6.18\r\n")
                elif data.startswith(b"set"):
                    late = True
                    go.wait(20)
                    conn.sendall(refused + b"VALUE secret 0 6\r\nHIDDEN\r\nEND\r\n")
                else:
                    conn.sendall(b"VALUE k1 0 4\r\ngood\r\nEND\r\n")
        closed.append(late)

    m = start(Millrace, [start(Scripted, serve).port], redis=None, timeout=200)
    with m.raw() as a, m.raw() as b:
        assert set_text(a, b"k", b"get secret") == b"SERVER_ERROR Connection timed out"
        b.send(b"get k1\r\n")
        go.set()
        assert b.line() in (LOST, b"SERVER_ERROR Connection timed out")
        wait_for(lambda: True in closed)
        for _ in range(10):
            assert b.send(b"get k1\r\n").line() == b"VALUE k1 0 4"
            assert b.line() == b"good" and b.line() == b"END"


def test_a_late_answer_costs_nothing(start):
    """The same with a valid reply: the connection stays open."""
    go = threading.Event()

    def serve(conn, server):
        while data := server.read(conn):
            if data.startswith(b"version"):
                conn.sendall(b"VERSION 1.6.18\r\n")
            elif data.startswith(b"set"):
                go.wait(20)
                conn.sendall(b"STORED\r\n")
            else:
                conn.sendall(b"END\r\n" * data.count(b"get"))

    s = start(Scripted, serve)
    m = start(Millrace, [s.port], redis=None, timeout=200)
    with m.raw() as a, m.raw() as b:
        assert set_text(a, b"k", b"x") == b"SERVER_ERROR Connection timed out"
        go.set()
        for _ in range(10):
            assert b.send(b"get k1\r\n").line() == b"END"
    assert s.accepted == 1


# ---- servers without the meta set ----


def speaks(version, known=(b"get", b"set")):
    """A server that executes every line it does not know as the next command."""

    def serve(conn, server):
        data = b""
        while got := server.read(conn):
            data += got
            while b"\r\n" in data:
                line, data = data.split(b"\r\n", 1)
                if line.startswith(b"version"):
                    conn.sendall(b"VERSION %s\r\n" % version())
                elif line.startswith(b"get"):
                    conn.sendall(b"END\r\n")
                elif line.startswith(b"ms") and version() >= b"1.6.10":
                    length = int(line.split()[2])
                    while len(data) < length + 2:
                        data += server.read(conn)
                    data = data[length + 2:]
                    conn.sendall(b"HD\r\n")
                else:
                    server.ran.append(line)
                    conn.sendall(b"ERROR\r\n")

    return serve


class Speaker(Scripted):
    def __init__(self, version, port=None):
        self.ran = []
        self.version = version
        super().__init__(speaks(lambda: self.version), port)


@pytest.mark.parametrize("version", [b"1.6.9", b"1.5.22", b"1.4.39", b"0.5.0", b"38.0.0 mcrouter"])
def test_a_server_without_the_meta_set_never_sees_one(start, version):
    s = start(Speaker, version)
    m = start(Millrace, [s.port], redis=None)
    with m.raw() as c:
        # the first of them while the server is being connected
        c.send(b"get a\r\nms k 9\r\nflush_all\r\nms k 9 q\r\nflush_all\r\nget b\r\nmn\r\n")
        assert [c.line() for _ in range(5)] == [b"END", TOO_OLD, TOO_OLD, b"END", b"MN"]
        assert c.send(b"ms k 9\r\nflush_all\r\nget a\r\n").line() == TOO_OLD
        assert c.line() == b"END"
    assert s.ran == [] and s.accepted == 1
    wait_for(lambda: m.pool()["client_connections"] == 0)
    stats = next(v for v in m.pool().values() if isinstance(v, dict))
    assert stats["in_queue"] == stats["out_queue"] == 0
    assert stats["in_queue_bytes"] == stats["out_queue_bytes"] == 0


def test_what_a_server_knows_is_learnt_with_each_connection(start):
    """One of several servers is older, and another comes back as an older version."""
    old, new = start(Speaker, b"1.5.22"), start(Speaker, b"1.6.18")
    m = start(Millrace, [old.port, new.port], redis=None, timeout=5000)
    with m.raw() as c:
        replies = [c.send(b"ms key%d 2\r\nmn\r\n" % i).line() for i in range(40)]
        assert set(replies) == {b"HD", TOO_OLD}
        new.version = b"1.6.9"
        for conn in new.connections:
            conn.close()
        wait_for(lambda: c.send(b"ms key%d 2\r\nmn\r\n" % replies.index(b"HD")).line() == TOO_OLD)
        new.version = b"1.6.10"
        for conn in new.connections:
            with contextlib.suppress(OSError):
                conn.shutdown(2)
        wait_for(lambda: c.send(b"ms key%d 2\r\nmn\r\n" % replies.index(b"HD")).line() == b"HD")
    assert old.ran == [] and new.ran == []


# ---- keys ----


EVIL = b"x\r\nVALUE canary1 0 4\r\nEVIL\r\nEND\r\nHD"


def test_a_key_that_ends_a_line_splits_no_reply(start, mc, canary):
    m = start(Millrace, [mc[0].port], redis=None)
    watch = canary(m.port)
    with m.raw() as b, m.raw() as a, Raw(mc[0].port) as direct:
        for opcode in (0x01, 0x02, 0x11, 0x0E, 0x00, 0x0D):
            b.send(packet(opcode, EVIL, b"" if opcode in (0, 0x0D) else b"v",
                          stored() if opcode in (1, 2, 0x11) else b"", opaque=opcode))
            assert read_packet(b)[:3] == (opcode, 0x04, opcode)
        coded = base64.b64encode(EVIL)
        # when such a key exists on a server anyway
        direct.send(packet(0x01, EVIL, b"v", stored()))
        assert read_packet(direct)[1] == 0
        for _ in range(10):
            assert a.send(b"me %s b\r\n" % coded).line() == \
                b"CLIENT_ERROR the key cannot be shown in a line"
            assert a.send(b"mg %s b k\r\n" % coded).line().startswith(b"SERVER_ERROR ")
            assert a.send(b"mg %s b k v\r\n" % coded).line().startswith(b"SERVER_ERROR ")
        wait_for(lambda: a.send(b"get nothing\r\n").line() == b"END")
        # and when the key is known to be base64
        assert a.send(b"ms %s 2 b k\r\nmn\r\n" % coded).line() == b"HD k%s b" % coded
        assert a.send(b"mg %s b k v\r\n" % coded).line() == b"VA 2 k%s b" % coded
        assert a.line() == b"mn"
        assert a.send(b"md %s b k q\r\nmg %s b k\r\n" % (coded, coded)).line() == \
            b"EN k%s b" % coded
    watch.stop()


def test_a_base64_key_is_debugged_where_it_lives(start, mc):
    m = start(Millrace, [s.port for s in mc], redis=None)
    with m.raw() as c:
        for i in range(40):
            key = b"user-%d" % i
            assert set_text(c, key, b"x") == b"STORED"
            assert c.send(b"me %s b\r\n" % base64.b64encode(key)).line().startswith(b"ME %s " % key)


# ---- long lines ----


@pytest.mark.parametrize("verb", [b"gat 100", b"gats 100", b"get", b"gets"])
def test_many_keys_go_in_lines_that_servers_take(start, mc, canary, verb):
    m = start(Millrace, [s.port for s in mc], redis=None)
    one = start(Millrace, [mc[0].port], redis=None)
    for proxy in (m, one):
        watch = canary(proxy.port)
        with proxy.raw(timeout=20) as c:
            have = [b"key%017d" % i for i in range(3000) if i % 7 == 0]
            for key in have:
                assert set_text(c, key, key[-4:]) == b"STORED"
            asked = [b"key%017d" % (i % 3000) for i in range(3500)]
            c.send(verb + b" " + b" ".join(asked) + b"\r\nversion\r\n")
            for key in (k for k in asked if k in set(have)):
                words = c.line().split()
                assert words[:4] == [b"VALUE", key, b"0", b"4"]
                assert len(words) == 4 + verb.startswith((b"gats", b"gets"))
                assert c.line() == key[-4:]
            assert c.line() == b"END" and c.line().startswith(b"VERSION")
        assert watch.stop() == []


def test_no_line_makes_a_server_hang_up(start, mc, canary):
    m = start(Millrace, [mc[0].port], redis=None)
    watch = canary(m.port)
    long = [(b"incr k %s1", BAD.replace(b"bad command line format", b"invalid numeric delta argument")),
            (b"decr %s 1", b"NOT_FOUND"), (b"touch k %s0", b"CLIENT_ERROR invalid exptime argument"),
            (b"mg k O%s", b"CLIENT_ERROR line too long"), (b"md k %s", b"CLIENT_ERROR line too long"),
            (b"delete k %s", None), (b"get %s k", b"END"), (b"gat 0 %s k", b"END")]
    with m.raw() as c:
        for line, reply in long:
            for n in (1000, 2000, 2100, 5000, 15000):
                filler = b" " if b"decr" in line or b" k" in line[-2:] else b"0"
                c.send(b"get a\r\n" * 20 + line % (filler * n) + (b" k" if b"decr" in line else b"") +
                       b"\r\nget b\r\n")
                got = [c.line() for _ in range(22)]
                assert got[:20] == [b"END"] * 20 and got[21] == b"END", (line, got[20:])
        # a storage line may be long because of blanks, which are dropped when it is forwarded
        c.send(b"set k%s0 0 5\r\nhello\r\nget k\r\n" % (b" " * 5000))
        assert [c.line() for _ in range(4)] == [b"STORED", b"VALUE k 0 5", b"hello", b"END"]
    assert watch.stop() == []
