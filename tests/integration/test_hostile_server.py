"""Servers that answer anything: no crash, no hang, and nobody gets a reply that is another's."""

import os
import random
import time

from harness import Millrace, Raw, Redis, Scripted, command, free_port, pool_yaml, wait_for

ROUNDS = 200
SECONDS = float(os.environ.get("MILLRACE_FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("MILLRACE_FUZZ_SEED", "1"))


def bulk(value):
    return b"$%d\r\n%s\r\n" % (len(value), value)


def scalar(rng):
    return rng.choice([b"+OK\r\n", b"+QUEUED\r\n", b"-ERR no\r\n", b"-MOVED 1 x:1\r\n", b"-ASK x\r\n", b"-NOAUTH\r\n",
                       b"-LOADING\r\n", b"-READONLY\r\n", b":1\r\n", b":-9223372036854775808\r\n", b"$-1\r\n", b"*-1\r\n",
                       b"$0\r\n\r\n", b"*0\r\n", b"_\r\n", b"#t\r\n", b",inf\r\n", b"(123456789012345678901234567890\r\n",
                       b"=7\r\ntxt:abc\r\n", b"!5\r\nERR x\r\n", b"%0\r\n", b"~0\r\n", bulk(b"x" * rng.randrange(70000)),
                       bulk(b"+OK\r\n:1\r\n*2\r\n")])


def nested(rng, depth=0):
    """One whole reply, which may be odd."""
    if depth > 12 or rng.random() < 0.5:
        return scalar(rng)
    kind, each = rng.choice([(b"*", 1), (b"~", 1), (b"%", 2)])
    n = rng.choice([0, 1, 1, 2, 3]) if depth else rng.choice([1, 2, 3, 50])
    return kind + b"%d\r\n" % n + b"".join(nested(rng, depth + 1 + (n == 50) * 10) for _ in range(n * each))


def whole(rng):
    chance = rng.random()
    if chance < 0.1:
        return b">2\r\n+push\r\n:1\r\n" + nested(rng)
    if chance < 0.2:
        return b"|1\r\n+ttl\r\n:9\r\n" + nested(rng)
    if chance < 0.3:
        return b"*1\r\n" * rng.choice([5, 31, 33, 127, 200, 5000]) + b":1\r\n"
    return nested(rng)


WRONG = [b"*2147483647\r\n", b"*1048577\r\n:1\r\n", b"$536870913\r\n", b"$99999999999999999999\r\n", b"%4294967296\r\n",
         b"*-2\r\n", b"$-2\r\n", b"$5\r\nhelloXX", b"x\r\n", b"\r\n", b"\x00\x00\x00", b"+" + b"x" * 100000, b":12a\r\n",
         b":\r\n", b">0\r\n", b"#x\r\n", b"_x\r\n", b"GET k\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
UNFINISHED = [b"$3\r\nab", b"*2\r\n:1\r\n", b"*2\r\n$1\r\nk\r\n", b"+O", b":1\r", b"$70000\r\n" + b"x" * 69000, b"*2\r\n" * 30]


def read_request(f):
    head = f.readline()
    if not head.startswith(b"*"):
        return None
    return [f.read(int(f.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]


class Hostile(Scripted):
    """Answers a GET of `tag...` with the key, greets well, and answers all else as `rng` decides."""

    def __init__(self, rng):
        self.rng = rng
        super().__init__(Hostile.answer)

    @staticmethod
    def answer(conn, server):
        rng, f, n = random.Random(server.rng.random()), conn.makefile("rb"), 0
        while words := read_request(f):
            n += 1
            if words[:1] == [b"GET"] and words[1].startswith(b"tag"):
                conn.sendall(bulk(words[1]))
            elif words[0] in (b"PING", b"HELLO"):
                conn.sendall(b"+PONG\r\n" if words[0] == b"PING" else b"%0\r\n")
            elif n == 1 or rng.random() < 0.8: # a connection without any reply makes the proxy back off
                conn.sendall(whole(rng))
            else:
                unfinished = rng.random() < 0.5
                conn.sendall(rng.choice(UNFINISHED if unfinished else WRONG))
                if unfinished: # for good
                    while conn.recv(1 << 16):
                        pass
                break
        conn.close()


LINES = """
GET k1|GET k2|MGET k1 k2 k3 k4|MGET tag1 k2 tag3|DEL k1 k2 k3|EXISTS k1 k2|MSET k1 1 k2 2 k3 3|SET k1 x|HGETALL k2
MULTI;SET k1 1;GET k1;EXEC|WATCH k1;MULTI;GET k1;EXEC|MULTI;EXEC|WATCH k1;UNWATCH|BLPOP k1 1|XREAD BLOCK 1 STREAMS k1 $
SCAN 0|KEYS *|DBSIZE|RANDOMKEY|SCRIPT LOAD x|SCRIPT EXISTS x|FUNCTION LIST|EVAL x 1 k1|COMMAND COUNT|LOLWUT|SELECT 1;GET k1
HELLO 3;GET k1;HGETALL k1|HELLO 3;MGET k1 k2|HELLO 3;MULTI;GET k1;EXEC|WAIT 1 1|SORT k1|OBJECT HELP k1
""".strip().replace("\n", "|").split("|")
LINES = [[words.split() for words in line.split(";")] for line in LINES]


def ends(client):
    """Reads until nothing more comes; every request was answered, or the connection closed."""
    client.send(command("ECHO", "the end"))
    data = b""
    try:
        while not data.endswith(b"$7\r\nthe end\r\n"):
            got = client.sock.recv(1 << 20)
            if not got:
                return
            data += got
    except ConnectionError:
        return


def check_tag(client, tag):
    """The reply to GET `tag` is the tag, or an error."""
    line = client.line()
    if not line.startswith(b"-"):
        assert line == b"$%d" % len(tag), line
        assert client.exactly(len(tag) + 2) == tag + b"\r\n"


def are_well(client):
    """Both servers answer; the proxy backs off from one that has broken a connection."""
    tags = [b"tag:%d" % i for i in range(8)]
    client.send(b"".join(command("GET", tag) for tag in tags))
    return all([client.reply() == tag for tag in tags])


def round_of(rng, m, other, tagged, n):
    line = rng.choice(LINES)
    tag = b"tag%d" % n
    try:
        for c in tagged:
            wait_for(lambda c=c: are_well(c), 15, "answer of both servers")
        with Raw(m.port, timeout=15) as victim:
            victim.send(b"".join(command(*words) for words in line))
            for c in tagged: # behind it on the same connections
                c.send(command("GET", tag))
            other.send(command("SET", tag, tag) + command("GET", tag))
            ends(victim)
        for c in tagged:
            check_tag(c, tag)
        assert other.exactly(5) == b"+OK\r\n"
        check_tag(other, tag)
    except (AssertionError, EOFError, OSError) as e:
        raise AssertionError(f"seed {SEED}, round {n}: {line}: {e!r}") from e


def test_a_hostile_server_harms_only_its_own_requests(start):
    rng = random.Random(SEED)
    bad, good, port = [start(Hostile, rng), start(Hostile, rng)], start(Redis), free_port()
    conf = (pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{s.port}:1" for s in bad], timeout=200) +
            pool_yaml("beta", f"127.0.0.1:{port}", [f"127.0.0.1:{good.port}:1"], timeout=5000))
    m = start(Millrace, conf=conf)
    pid = m.child_pids()
    tagged, other = [Raw(m.port, timeout=15), Raw(m.port, timeout=15)], Raw(port, timeout=15)
    assert tagged[1].ask("HELLO", 3)[b"proto"] == 3
    end = time.monotonic() + SECONDS
    n = 0
    while n < ROUNDS or time.monotonic() < end:
        round_of(rng, m, other, tagged, n)
        n += 1
    assert m.child_pids() == pid
    print(f"seed {SEED}: {n} rounds")
