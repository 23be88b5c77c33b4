"""Requests in memcached's three dialects, right and wrong, from a seed; their values are commands."""

import struct

from memcached import counted, packet, stored

# What a server does when it takes a value for commands shows: the proxy refuses all that destroys,
# and a server counts it; the rest gives replies that nobody has asked for.
VALUES = [b"flush_all", b"flush_all\r\nmn", b"mn\r\nmn\r\nmn", b"version\r\nversion", b"get k", b"x", b"",
          b"gets k\r\nflush_all noreply", packet(0x08), packet(0x18), packet(0x0A) * 3,
          b"flush_all\r\n" * 40, b"\r\n", b"stats\r\nflush_all 0"]
NUMBERS = [b"0", b"1", b"-1", b"+1", b"007", b"1.5", b"0x10", b"1a", b"", b"noreply", b"4294967296",
           b"18446744073709551616", b"9223372036854775808", b"-9223372036854775808", b"2147483648",
           b"1\t", b"1048577", b"99999999999999999999999"]
KEYS = [b"k", b"n", b"0", b"noreply", b"x" * 250, b"x" * 251, b"\xc3\xa9", b"a\tb", b"a\x00b", b"a\x7f",
        b"Zm9v", b"Zm9=", b"Zm9v=", b"=", b"-1", b"VALUE", b"END"]
FLAGS = [b"v", b"s", b"k", b"q", b"b", b"c", b"t", b"f", b"h", b"l", b"x", b"O1", b"O" + b"o" * 33, b"T0",
         b"T-1", b"Tx", b"N5", b"Nx", b"R5", b"F5", b"F-1", b"C1", b"Cx", b"I", b"MS", b"MA", b"M", b"D2",
         b"J3", b"E9", b"S3", b"0", b"qq", b"bb", b"\xff", b"-", b"=", b"{", b"!"]
STORES = [b"set", b"add", b"replace", b"append", b"prepend", b"cas"]
PIECES = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\x80", b"\x81", b"\xff", b"noreply", b" q", b" b",
          b"0", b"1", b"set k 0 0 ", b"ms k ", b"\r\nflush_all\r\n", b"-1", b"4294967295"]
OPCODES = [*range(0x00, 0x26), 0x30, 0x41, 0x50, 0x7f, 0xff]


class Requests:
    """`random` decides on everything."""

    def __init__(self, random):
        self.random = random
        self.choice = random.choice

    def often(self, usual, others, share=0.3):
        return self.choice(others) if self.random.random() < share else usual

    def number(self):
        return self.often(b"0", NUMBERS)

    def key(self):
        return self.often(b"k", KEYS)

    def flags(self):
        n = self.often(self.random.randrange(4), [8, 19, 20, 21, 22, 23, 24, 25, 30], 0.1)
        same = self.choice(FLAGS)
        return [same] * n if n > 4 else [self.choice(FLAGS) for _ in range(n)]

    def line(self, words):
        words = [w for w in words if w != b""] if self.random.random() < 0.8 else words
        blank = self.often(b" ", [b"  ", b"   ", b"\t", b" " * 2000], 0.05)
        return blank.join(words) + self.often(b"\r\n", [b"\n", b"\r\r\n"], 0.06)

    def with_value(self, verb, *words):
        """The words after the length come last; the value is a command."""
        value = self.choice(VALUES)
        length = self.often(b"%d" % len(value), [*NUMBERS, b"%d" % (len(value) + 1)], 0.1)
        line = self.line([verb, self.key(), *(length if w is None else w for w in words)])
        return line + value + self.often(b"\r\n", [b"", b"\n", b"xx", b"\r"], 0.05)

    def tail(self):
        return self.often(b"", [b"noreply", b"x", b"0", b"noreply x", b"q"])

    def text(self):
        verb = self.choice(STORES + [b"get", b"incr", b"touch", b"delete", b"gat", b"other"])
        if verb == b"cas":
            return self.with_value(verb, self.number(), self.number(), None, self.number(), self.tail())
        if verb in STORES:
            return self.with_value(verb, self.number(), self.number(), None, self.tail())
        if verb == b"get":
            return self.line([self.choice([b"get", b"gets"]), *(self.key() for _ in range(3))])
        if verb == b"gat":
            return self.line([self.choice([b"gat", b"gats"]), self.number(), self.key(), self.key()])
        if verb == b"delete":
            return self.line([verb, self.key(), self.tail()])
        if verb == b"other":
            return self.line([self.choice([b"version", b"stats", b"verbosity", b"flush_all", b"slabs",
                                           b"lru", b"shutdown", b"watch", b"extstore", b"GET", b"",
                                           b"stats settings", b"cache_memlimit", b"mx", b"misbehave"]),
                              self.tail()])
        return self.line([self.choice([verb, b"decr"]) if verb == b"incr" else verb, self.key(),
                          self.number(), self.tail()])

    def meta(self):
        verb = self.choice([b"ms", b"ms", b"ms", b"mg", b"md", b"ma", b"me", b"mn"])
        if verb == b"ms":
            return self.with_value(verb, None, *self.flags())
        return self.line([verb, self.key(), *self.flags()])

    def binary(self):
        opcode = self.choice(OPCODES)
        value = self.choice(VALUES)
        extras = self.choice([b"", stored(), counted(1), struct.pack(">I", 0), b"\0" * 21])
        if self.random.random() < 0.6: # one that is right
            opcode = self.choice([0x00, 0x01, 0x02, 0x04, 0x05, 0x09, 0x0A, 0x0D, 0x0E, 0x11, 0x14, 0x1C])
            extras = (stored() if opcode in (1, 2, 0x11) else counted(1) if opcode == 5 else
                      struct.pack(">I", 0) if opcode == 0x1C else b"")
            value = value if opcode in (1, 2, 0x0E, 0x11) else b""
        key = b"" if opcode in (0x07, 0x0A, 0x0B, 0x10) else self.key()
        return packet(opcode, key, value, extras, opaque=self.random.randrange(1 << 32),
                      cas=self.often(0, [1, 1 << 63], 0.1))

    def mutated(self, request):
        data = bytearray(request)
        for _ in range(self.often(0, [1, 1, 2, 4], 0.3)):
            at = self.random.randrange(len(data) + 1)
            what = self.random.random()
            if what < 0.3 and at < len(data):
                data[at] = self.random.randrange(256)
            elif what < 0.6:
                data[at:at] = self.choice(PIECES)
            elif what < 0.8:
                del data[at:at + self.random.randrange(1, 5)]
            else:
                data[at:at + 2] = self.choice(PIECES)
        return bytes(data)

    def batch(self):
        """What one client sends: mostly one dialect, for a connection has one for good."""
        make = self.choice([self.text, self.meta, self.binary])
        return [self.mutated(self.often(make, [self.text, self.meta, self.binary], 0.1)())
                for _ in range(self.random.randrange(1, 12))]
