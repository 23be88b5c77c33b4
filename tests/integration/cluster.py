"""A Redis Cluster of real servers, for tests."""

import contextlib

from harness import Raw, Redis, free_port, wait_for

SLOTS = 16384


def bus_port():
    """A port whose cluster bus (10000 higher by default) has an explicit port."""
    return free_port()


class Cluster:
    """`masters` nodes that share the slots, each with `replicas` replicas. `start` starts them."""

    def __init__(self, start, masters=3, replicas=0, *args):
        self.start, self.args = start, args
        self.nodes = []
        self.ids = {}
        self.known = {}  # key -> slot
        groups = [[self.node() for _ in range(1 + replicas)] for _ in range(masters)]
        self.masters = [g[0] for g in groups]
        self.replicas = [g[1:] for g in groups]
        self.meet()
        for i, master in enumerate(self.masters):
            first, last = i * SLOTS // masters, (i + 1) * SLOTS // masters - 1
            assert master.ask("CLUSTER", "ADDSLOTSRANGE", first, last) == b"+OK"
        for master, group in zip(self.masters, self.replicas):
            for replica in group:
                self.follow(replica, master)
        self.settle()

    def node(self):
        n = self.start(Redis, "--cluster-enabled", "yes", "--cluster-port", bus_port(),
                       "--cluster-node-timeout", 1000, "--cluster-replica-validity-factor", 0,
                       "--repl-diskless-sync-delay", 0, "--repl-ping-replica-period", 1,
                       "--cluster-allow-replica-migration", "no",
                       "--cluster-require-full-coverage", "no",
                       *self.args)
        self.nodes.append(n)
        self.ids[n] = n.ask("CLUSTER", "MYID")
        n.bus = int(n.ask("CONFIG", "GET", "cluster-port")[1])
        return n

    def meet(self):
        first = self.nodes[0]
        for n in self.nodes[1:]:
            assert first.ask("CLUSTER", "MEET", "127.0.0.1", n.port, n.bus) == b"+OK"
        wait_for(lambda: all(self.knows_all(n) for n in self.nodes), 20, "nodes that know each other")

    def knows_all(self, node):
        lines = node.ask("CLUSTER", "NODES").decode().strip().split("\n")
        return len(lines) >= len(self.nodes) and not any("handshake" in l for l in lines)

    def follow(self, replica, master):
        wait_for(lambda: replica.ask("CLUSTER", "REPLICATE", self.ids[master].decode()) == b"+OK", 20,
                 "replica of a master")
        wait_for(lambda: replica.role()[3] == b"connected", 20, "replica in step")

    def alive(self):
        return [n for n in self.nodes if n.alive()]

    def settle(self, seconds=30):
        replicas = sum(len(g) for g in self.replicas)

        def is_well():
            return all(b"cluster_state:ok" in n.ask("CLUSTER", "INFO") and
                       sum(r[1] - r[0] + 1 for r in self.slots(n)) == SLOTS and
                       len({p for r in self.slots(n) for p in r[2:]}) >= len(self.masters) + replicas
                       for n in self.alive())
        wait_for(is_well, seconds, "cluster in order")

    @staticmethod
    def slots(node):
        return [[int(r[0]), int(r[1]), *[int(p[1]) for p in r[2:]]]
                for r in node.ask("CLUSTER", "SLOTS")]

    def by_port(self, port):
        return next(n for n in self.nodes if n.port == port)

    def owner(self, slot, asked=None):
        for first, last, master, *_ in self.slots(asked or self.alive()[0]):
            if first <= slot <= last:
                return self.by_port(master)
        return None

    def slot_of(self, key):
        if key not in self.known:
            self.known[key] = int(self.alive()[0].ask("CLUSTER", "KEYSLOT", key))
        return self.known[key]

    def begin_move(self, slot, source, target):
        assert target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source].decode()) == b"+OK"
        assert source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target].decode()) == b"+OK"

    def move_keys(self, slot, source, target, count=100):
        while True:
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, count)
            if not keys:
                return
            reply = source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS",
                               *[k.decode() for k in keys])
            assert reply in (b"+OK", b"+NOKEY"), reply

    def end_move(self, slot, target):
        for n in [target] + [n for n in self.alive() if n is not target]:
            with contextlib.suppress(OSError):
                n.ask("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target].decode())

    def move(self, slot, target):
        source = self.owner(slot)
        if source is target:
            return
        self.agree_on_epochs()
        self.begin_move(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, target)

    def agree_on_epochs(self):
        """Nodes that take slots with equal epochs fight over them; people move slots more slowly."""
        def epochs(node):
            lines = [l.split() for l in node.ask("CLUSTER", "NODES").decode().strip().split("\n")]
            return {l[0]: int(l[6]) for l in lines if "master" in l[2] and "fail" not in l[2]}

        def agree():
            seen = [epochs(n) for n in self.alive()]
            return all(s == seen[0] for s in seen) and len(set(seen[0].values())) == len(seen[0])
        wait_for(agree, 20, "agreement on epochs")

    def seeds(self):
        return [n.port for n in self.nodes[:1]]
