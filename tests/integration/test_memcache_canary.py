"""Clients that send anything do no harm to one beside them that shares their server connections.

`./dev fuzz` runs it for longer: MILLRACE_FUZZ_SECONDS, and MILLRACE_FUZZ_SEED repeats a run.
"""

import contextlib
import os
import random
import time

from harness import Millrace, Raw
from memcache_fuzz import Requests
from memcached import Memcached, packet, read_packet, stored

ROUNDS = 2000
SECONDS = float(os.environ.get("MILLRACE_FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("MILLRACE_FUZZ_SEED", "1"))


class TextCanary:
    """Writes and reads by the classic and the meta commands."""

    def __init__(self, port):
        self.client, self.expected, self.n = Raw(port, timeout=10), [], 0

    def send(self):
        """More requests; each writes a value, reads it and an older one, and misses a key."""
        self.n += 1
        new, old = b"text-canary%d" % (self.n % 50), b"text-canary%d" % max(self.n % 50 - 7, 1)
        value, older = b"%08d" % self.n, b"%08d" % (self.n if old == new else max(self.n - 7, 1))
        self.client.send(b"set %s 5 0 8\r\n%s\r\nget %s\r\n" % (new, value, new))
        self.expected += [b"STORED", b"VALUE %s 5 8" % new, value, b"END"]
        if self.n % 50 > 8:
            self.client.send(b"mg %s v k\r\n" % old)
            self.expected += [b"VA 8 k%s" % old, older]
        self.client.send(b"get no-canary\r\nms meta-canary 8 T0\r\n%s\r\nmg meta-canary v\r\n" % value)
        self.expected += [b"END", b"HD", b"VA 8", value]

    def check(self):
        got = [self.client.line() for _ in self.expected]
        assert got == self.expected
        self.expected = []


class BinaryCanary:
    """The same with the binary dialect, whose server connections are others."""

    def __init__(self, port):
        self.client, self.expected, self.n = Raw(port, timeout=10), [], 0

    def send(self):
        self.n += 1
        key, value = b"binary-canary%d" % (self.n % 50), b"%08d" % self.n
        self.client.send(packet(0x01, key, value, stored(5), opaque=self.n) +
                         packet(0x0C, key, opaque=self.n + 1) +
                         packet(0x00, b"no-canary", opaque=self.n + 2))
        self.expected += [(0x01, 0, self.n, b"", b"", b""),
                          (0x0C, 0, self.n + 1, stored(5)[:4], key, value),
                          (0x00, 1, self.n + 2, b"", b"", b"Not found")]

    def check(self):
        got = [read_packet(self.client) for _ in self.expected]
        assert [g[:3] + g[4:] for g in got] == self.expected
        self.expected = []


def flushes(server):
    with Raw(server.port) as c:
        c.send(b"stats\r\n")
        stats = {}
        while (line := c.line()) != b"END":
            _, name, value = line.split(b" ", 2)
            stats[name] = value
        return int(stats[b"cmd_flush"])


def send_in_pieces(client, data, rng):
    at = rng.randrange(len(data) + 1) if rng.random() < 0.4 else len(data)
    client.send(data[:at])
    yield
    client.send(data[at:])


def round_of(requests, port, canaries, rng):
    """One client beside the canaries, whose requests leave before, in between and after its own."""
    batch = requests.batch()
    try:
        for c in canaries:
            c.send()
        with Raw(port, timeout=10) as client, contextlib.suppress(ConnectionError):
            for _ in send_in_pieces(client, b"".join(batch), rng):
                for c in canaries:
                    c.send()
            for c in canaries:
                c.check()
            client.sock.settimeout(0.001)
            with contextlib.suppress(TimeoutError):
                client.sock.recv(1 << 16)
        for c in canaries:
            c.send()
            c.check()
    except (AssertionError, EOFError, OSError) as e:
        raise AssertionError(f"seed {SEED}: a canary was harmed beside {batch!r}") from e


def test_canaries_are_never_harmed(start):
    server = start(Memcached, "-m", "256")
    m = start(Millrace, [server.port], redis=None, timeout=5000)
    canaries = [TextCanary(m.port), BinaryCanary(m.port)]
    rng = random.Random(SEED)
    requests = Requests(rng)
    end = time.monotonic() + SECONDS
    rounds = 0
    while rounds < ROUNDS or time.monotonic() < end:
        round_of(requests, m.port, canaries, rng)
        rounds += 1
        if rounds % 50 == 0:
            assert flushes(server) == 0, f"seed {SEED}: a refused command was run before round {rounds}"
    assert flushes(server) == 0
    print(f"seed {SEED}: {rounds} rounds, {canaries[0].n} of each canary")
