"""Shared by tests of memcached pools: a real memcached, and the binary protocol."""

import struct

from harness import Process, can_connect, free_port

HEADER = struct.Struct(">BBHBBHIIQ")
QUIET = {0x09, 0x0D, *range(0x11, 0x1B), 0x1E, 0x24}


class Memcached(Process):
    """A real memcached."""

    def __init__(self, *args, port=None):
        self.port = port or free_port()
        super().__init__(["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(self.port),
                          "-U", "0", "-m", "64", "-t", "1", *map(str, args)],
                         lambda: can_connect(self.port))


def packet(opcode, key=b"", value=b"", extras=b"", opaque=0, cas=0, magic=0x80):
    body = extras + key + value
    return HEADER.pack(magic, opcode, len(key), len(extras), 0, 0, len(body), opaque, cas) + body


def stored(flags=0, exptime=0):
    return struct.pack(">II", flags, exptime)


def counted(delta, initial=0, exptime=0):
    return struct.pack(">QQI", delta, initial, exptime)


def read_packet(client):
    """Reads one reply: (opcode, status, opaque, cas, extras, key, value)."""
    head = client.exactly(24)
    magic, opcode, key, extras, _, status, body, opaque, cas = HEADER.unpack(head)
    assert magic == 0x81, head
    rest = client.exactly(body)
    return (opcode, status, opaque, cas, rest[:extras], rest[extras:extras + key],
            rest[extras + key:])
