"""A name server on loopback whose answers, and faults, a test chooses."""

import contextlib
import ipaddress
import socket
import struct
import threading
import time

A, AAAA, SRV = 1, 28, 33
NXDOMAIN, SERVFAIL = 3, 2


def pack_name(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.strip(".").split(".") if p) + b"\0"


def read_question(data):
    at, labels = 12, []
    while (n := data[at]) > 0:
        labels.append(data[at + 1:at + 1 + n].decode())
        at += 1 + n
    kind, _ = struct.unpack("!HH", data[at + 1:at + 5])
    return ".".join(labels).lower(), kind, data[12:at + 5]


class NameServer:
    """
    hosts[name] is a list of addresses, services[name] one of (priority, port, host). What a name
    meets besides an answer is in faults[name]: "never", "late" (after `delay` seconds), "twice",
    "forged" (a wrong id comes first), "truncated" (the rest over TCP), "garbage", "servfail". Answers
    rotate. A host `*.test` stands for all names that end so.
    """

    def __init__(self, hosts=None, ttl=0):
        self.hosts, self.services, self.faults = dict(hosts or {}), {}, {}
        self.ttl, self.delay = ttl, 0.3
        self.asked = []  # names, one per question
        self.over_tcp = 0
        self.turn = 0
        self.udp, self.tcp = self.bind()
        self.port = self.udp.getsockname()[1]
        self.conf = f"nameservers: '127.0.0.1:{self.port}'"
        threading.Thread(target=self.serve_udp, daemon=True).start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()

    @staticmethod
    def bind():
        while True:
            udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
            udp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                tcp.bind(udp.getsockname())
                tcp.listen()
                return udp, tcp
            udp.close()
            tcp.close()

    def alive(self):
        return self.udp.fileno() >= 0

    def kill(self):
        for s in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def count(self, name):
        return self.asked.count(name)

    def records(self, name, kind):
        """None for a name that does not exist."""
        if name in self.services:
            return [struct.pack("!HHH", priority, 1, port) + pack_name(host)
                    for priority, port, host in self.services[name]] if kind == SRV else []
        addresses = self.hosts.get(name, self.hosts.get("*." + name.rsplit(".", 1)[-1]))
        if addresses is None:
            return None
        parsed = [ipaddress.ip_address(a) for a in addresses]
        self.turn += kind == A
        if parsed:
            parsed = parsed[self.turn % len(parsed):] + parsed[:self.turn % len(parsed)]
        return [a.packed for a in parsed if a.version == {A: 4, AAAA: 6}.get(kind)]

    def answer(self, data, tcp=False):
        """A list of messages to send."""
        name, kind, question = read_question(data)
        self.asked.append(name)
        fault = self.faults.get(name)
        if fault == "never":
            return []
        if fault == "late":
            time.sleep(self.delay)
        if fault == "garbage":
            return [data[:2] + b"\x81\x80" + b"\xff" * 40]
        records = self.records(name, kind)
        code = SERVFAIL if fault == "servfail" else NXDOMAIN if records is None else 0
        truncated = fault == "truncated" and not tcp
        records = [] if truncated or code else records
        flags = 0x8180 | code | (0x0200 if truncated else 0)
        message = (data[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question +
                   b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, self.ttl, len(r)) + r
                            for r in records))
        if fault == "forged":
            wrong = struct.pack("!H", struct.unpack("!H", data[:2])[0] ^ 1)
            return [wrong + message[2:].replace(b"\x7f", b"\x7e"), message]
        return [message] * (2 if fault == "twice" else 1)

    def serve_udp(self):
        while True:
            try:
                data, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            if self.faults.get(read_question(data)[0]) == "late":  # nobody else has to wait
                threading.Thread(target=self.reply, args=(data, peer), daemon=True).start()
            else:
                self.reply(data, peer)

    def reply(self, data, peer):
        for message in self.answer(data):
            with contextlib.suppress(OSError):
                self.udp.sendto(message, peer)

    def serve_tcp(self):
        while True:
            try:
                conn, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.serve_connection, args=(conn,), daemon=True).start()

    def serve_connection(self, conn):
        with conn, contextlib.suppress(OSError):
            stream = conn.makefile("rb")
            while len(head := stream.read(2)) == 2:
                self.over_tcp += 1
                for message in self.answer(stream.read(struct.unpack("!H", head)[0]), tcp=True):
                    conn.sendall(struct.pack("!H", len(message)) + message)

    # ---- for tests that need a single address ----

    def are(self, address):
        """All names in `.test`, from now on; "" for names that do not exist, "hang" for no answer."""
        self.never = address == "hang"
        self.faults = Always("never") if self.never else {}
        self.hosts = {} if address in ("", "hang") else {"*.test": [address]}
        self.hung = len(self.asked)

    def hang(self):
        return self.never and len(self.asked) > self.hung


class Always(dict):
    """Every name meets the same fault."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def get(self, name, default=None):
        return self.fault
