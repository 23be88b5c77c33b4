"""Clients that send anything do no harm to those beside them that share their server connections.

`./dev fuzz` runs it for longer: MILLRACE_FUZZ_SECONDS, and MILLRACE_FUZZ_SEED repeats a run.
"""

import contextlib
import os
import random
import time

from harness import Millrace, Raw, Redis, command
from resp_fuzz import Requests

ROUNDS = 1500
SECONDS = float(os.environ.get("MILLRACE_FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("MILLRACE_FUZZ_SEED", "1"))
KEPT = 5  # clients that send more in later rounds
REFUSED = [b"flushall", b"flushdb", b"shutdown", b"debug", b"monitor", b"replicaof", b"save",
           b"config|set", b"acl|setuser", b"migrate", b"psync", b"sync", b"client|pause", b"failover"]
WRONG = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"


def bulk(value):
    return b"$%d\r\n%s\r\n" % (len(value), value)


def plain(key, value):
    """Each writes a value, reads it and an error, and misses a key: (request, exact reply)."""
    yield ("SET", key, value), b"+OK\r\n"
    yield ("GET", key), bulk(value)
    yield ("MGET", key, "no-canary", key), b"*3\r\n" + bulk(value) + b"$-1\r\n" + bulk(value)
    yield ("LPUSH", key, "x"), WRONG
    yield ("EXISTS", key, key, "no-canary"), b":2\r\n"
    yield ("ECHO", value), bulk(value)


def third(key, value):
    yield ("HSET", key + b"h", "f", value), None
    yield ("HGETALL", key + b"h"), b"%1\r\n" + bulk(b"f") + bulk(value)
    yield ("GET", "no-canary"), b"_\r\n"
    yield ("SMEMBERS", "no-canary"), b"~0\r\n"


def transaction(key, value):
    yield ("WATCH", key), b"+OK\r\n"
    yield ("MULTI",), b"+OK\r\n"
    yield ("SET", key, value), b"+QUEUED\r\n"
    yield ("GET", key), b"+QUEUED\r\n"
    yield ("LPOP", key), b"+QUEUED\r\n"
    yield ("EXEC",), b"*3\r\n+OK\r\n" + bulk(value) + WRONG
    yield ("MULTI",), b"+OK\r\n"
    yield ("GET", key), b"+QUEUED\r\n"
    yield ("DISCARD",), b"+OK\r\n"


def blocking(key, value):
    yield ("LPUSH", key + b"l", value), b":1\r\n"
    yield ("BLMOVE", key + b"l", key + b"l", "LEFT", "RIGHT", "0"), bulk(value)
    yield ("BLPOP", "no-canary", key + b"l", "0"), b"*2\r\n" + bulk(key + b"l") + bulk(value)


def script(key, value):
    yield ("EVAL", "redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], {redis.call('GET', KEYS[1])}}", 1, key,
           value), b"*2\r\n" + bulk(key) + b"*1\r\n" + bulk(value)
    yield ("EVAL", "return redis.error_reply(ARGV[1])", 1, key, b"ERR " + value), b"-ERR " + value + b"\r\n"


class Canary:
    """Sends the requests of `lines` and compares every byte of the replies."""

    def __init__(self, port, lines, *greeting):
        self.client, self.lines, self.n, self.expected = Raw(port, timeout=10), lines, 0, []
        self.name = b"canary-" + lines.__name__.encode()
        for words in greeting:
            assert not isinstance(self.client.ask(*words), bytes) or words[0] == "SELECT"

    def send(self):
        self.n += 1
        key, value = self.name + b"%d" % (self.n % 20), self.name + b"=%d" % self.n
        lines = list(self.lines(key, value))
        self.client.send(b"".join(command(*words) for words, _ in lines))
        self.expected += [reply for _, reply in lines]

    def check(self):
        for expected in self.expected:
            got = self.client.line() + b"\r\n" if expected is None else self.client.exactly(len(expected))
            assert got == expected or expected is None and got in (b":0\r\n", b":1\r\n"), (self.name, got, expected)
        self.expected = []


def all_canaries(port):
    return [Canary(port, plain), Canary(port, third, ("HELLO", 3)), Canary(port, transaction), Canary(port, blocking),
            Canary(port, script), Canary(port, plain, ("SELECT", 3)), Canary(port, transaction, ("SELECT", 2))]


def executed(server):
    """The refused commands that the server has executed."""
    lines = server.ask("INFO", "commandstats").split(b"\r\n")
    calls = dict(line.removeprefix(b"cmdstat_").split(b":", 1) for line in lines if b":" in line)
    return {name for name in REFUSED if name in calls and not calls[name].startswith(b"calls=0,")}


class Others:
    """Clients that send anything; some stay for later rounds."""

    def __init__(self, port, rng):
        self.port, self.rng, self.kept = port, rng, []

    def take(self):
        if self.kept and self.rng.random() < 0.4:
            return self.kept.pop(self.rng.randrange(len(self.kept)))
        return Raw(self.port, timeout=10)

    def leave(self, client):
        if self.rng.random() < 0.4 and len(self.kept) < KEPT:
            self.kept.append(client)
        else:
            client.close()

    def send(self, client, data, meanwhile):
        at = self.rng.randrange(len(data) + 1) if self.rng.random() < 0.4 else len(data)
        for piece in (data[:at], data[at:]):
            client.sock.settimeout(0.2) # one that blocks may read no more
            with contextlib.suppress(ConnectionError, TimeoutError):
                client.send(piece)
            meanwhile()
        client.sock.settimeout(0.001)
        with contextlib.suppress(ConnectionError, TimeoutError):
            client.sock.recv(1 << 16)


def round_of(requests, others, canaries):
    """One client beside the canaries, whose requests leave before, in between and after its own."""
    def all_send():
        for c in canaries:
            c.send()

    batch = requests.batch()
    try:
        all_send()
        client = others.take()
        others.send(client, b"".join(batch), all_send)
        others.leave(client)
        all_send()
        for c in canaries:
            c.check()
    except (AssertionError, EOFError, OSError) as e:
        raise AssertionError(f"seed {SEED}: a canary was harmed beside {batch!r}: {e!r}") from e


def test_canaries_are_never_harmed(start):
    server = start(Redis)
    m = start(Millrace, [server.port], timeout=5000)
    canaries = all_canaries(m.port)
    rng = random.Random(SEED)
    requests, others = Requests(rng), Others(m.port, rng)
    end = time.monotonic() + SECONDS
    rounds = 0
    while rounds < ROUNDS or time.monotonic() < end:
        round_of(requests, others, canaries)
        rounds += 1
        if rounds % 50 == 0:
            assert executed(server) == set(), f"seed {SEED}: a refused command was executed before round {rounds}"
    assert executed(server) == set()
    print(f"seed {SEED}: {rounds} rounds, {canaries[0].n} of each canary")
