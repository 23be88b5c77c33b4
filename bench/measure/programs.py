"""programs - starts servers, proxies and load clients on their cores, and stops all of them."""

import contextlib
import csv
import json
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONE = {"haproxy tcp", "floor epoll", "floor io_uring"}  # know one server only
REDIS_ONLY = {"predixy", "floor epoll", "floor io_uring"}


def free_port(room=0):
    """Below the kernel's ephemeral ports, and so is the port `room` above it."""
    while True:
        port = random.randrange(10000, 32000 - room)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port


def wait_for_port(port, who):
    for _ in range(1000):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)
    sys.exit(f"{who} does not listen on port {port}")


def children(pid):
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += children(int(child))
    return found


def cpu_us(pid):
    """User and system time of a process, its threads and its children, from the scheduler."""
    total = 0
    for p in children(pid):
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{p}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1000


def info(port, section, field):
    text = subprocess.run(["redis-cli", "-p", str(port), "info", section], capture_output=True,
                          text=True).stdout
    return text.split(f"{field}:")[1].split()[0]


class Bench:
    """Starts programs, and stops all of them at the end."""

    def __init__(self, args):
        self.args = args
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="millrace-bench-"))
        self.started = []
        self.servers = {}  # port: pid
        self.kinds = {}    # "redis", "memcached" or "cluster": ports

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.started:
            child.kill()
            child.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, core, *command):
        command = list(map(str, command))
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started.append(child)
        return child

    def stop(self, child):
        child.terminate()
        child.wait()
        self.started.remove(child)

    def backends(self, kind, n):
        """Ports of n servers of a kind, which are started once and keep running."""
        ports = self.kinds.setdefault(kind, [])
        while len(ports) < n:
            port = free_port(10000 if kind == "cluster" else 0)  # of the cluster's bus
            command = ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", port, "-U", 0, "-t", 1]
            if kind != "memcached":
                command = ["redis-server", "--port", port, "--save", "", "--appendonly", "no",
                           "--dir", self.dir]
            if kind == "cluster":
                command += ["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{port}"]
            child = self.start(self.args.server_core, *command)
            wait_for_port(port, command[0])
            self.servers[port] = child.pid
            ports.append(port)
        return ports[:n]

    def redis(self, n):
        return self.backends("redis", n)

    def cluster(self, n):
        """Ports of n masters that share all slots."""
        ports = self.backends("cluster", n)
        subprocess.run(["redis-cli", "--cluster", "create", *[f"127.0.0.1:{p}" for p in ports],
                        "--cluster-yes"], check=True, capture_output=True)
        while any(info_of_cluster(p) != "ok" for p in ports):
            time.sleep(0.1)
        return ports

    def pool(self, name, port, servers, extra=""):
        conf = self.dir / f"{name}-{port}.yml"
        redis = "false" if servers[0] in self.kinds.get("memcached", []) else "true"
        topology = "hash: murmur\n  distribution: ketama"
        if servers[0] in self.kinds.get("cluster", []):
            topology = "topology: cluster"
        conf.write_text(f"alpha:\n  listen: 127.0.0.1:{port}\n  redis: {redis}\n  {topology}\n"
                        f"{extra}  servers:\n" +
                        "".join(f"   - 127.0.0.1:{s}:1\n" for s in servers))
        return conf

    def predixy(self, port, servers):
        conf = self.dir / f"predixy-{port}.conf"
        lines = "".join(f"    + 127.0.0.1:{s}\n" for s in servers)
        if servers[0] in self.kinds.get("cluster", []):
            pool = f"ClusterServerPool {{\n  Servers {{\n{lines}  }}\n}}\n"
        else:
            pool = ("StandaloneServerPool {\n  RefreshMethod fixed\n  Hash murmur\n"
                    f"  Distribution ketama\n  Group shard {{\n{lines}  }}\n}}\n")
        conf.write_text(f"Bind 127.0.0.1:{port}\nWorkerThreads 1\nLogVerbSample 0\n{pool}")
        return [self.args.predixy, conf]

    def haproxy(self, port, servers):
        conf = self.dir / f"haproxy-{port}.cfg"
        conf.write_text("global\n  nbthread 1\n  maxconn 9000\ndefaults\n  mode tcp\n"
                        "  maxconn 9000\n  timeout connect 5s\n  timeout client 60s\n"
                        f"  timeout server 60s\nlisten l\n  bind 127.0.0.1:{port}\n"
                        f"  server s 127.0.0.1:{servers[0]}\n")
        return ["haproxy", "-db", "-f", conf]

    def millrace(self, name, port, servers, workers):
        """`name`: a path, or "millrace ENGINE" with a value of `coalesce` behind it if wanted."""
        words = name.split() if name.startswith("millrace ") else [name]
        extra = f"  coalesce: {words[2]}\n" if len(words) > 2 else ""
        return [self.args.millrace if name.startswith("millrace") else name,
                "-c", self.pool("millrace", port, servers, extra), "--workers", workers,
                "--engine", words[1] if len(words) > 1 else "auto", "-s", free_port(), "-a",
                "127.0.0.1"]

    def proxy(self, name, servers, core="proxy", workers=0):
        """Starts a proxy and returns (port, process)."""
        port = free_port()
        if name == "nutcracker":
            command = ["nutcracker", "-c", self.pool(name, port, servers), "-v", 4, "-o",
                       self.dir / "nutcracker.log", "-s", free_port(), "-a", "127.0.0.1"]
        elif name == "haproxy tcp":
            command = self.haproxy(port, servers)
        elif name == "predixy":
            command = self.predixy(port, servers)
        elif name.startswith("floor"):
            command = [ROOT / "build" / "bench" / "millrace-floor", port, servers[0],
                       *(["io_uring"] if name.endswith("uring") else [])]
        else:
            command = self.millrace(name, port, servers, workers)
        child = self.start(self.args.proxy_core if core == "proxy" else core, *command)
        wait_for_port(port, name)
        return port, child

    def peers(self):
        """The other proxies that are installed."""
        found = ["nutcracker"] if shutil.which("nutcracker") else []
        return found + (["predixy"] if shutil.which(self.args.predixy) else [])

    def names(self):
        return ["millrace io_uring", "millrace epoll", *self.args.also, *self.peers(),
                *(["haproxy tcp"] if shutil.which("haproxy") else []), "floor epoll",
                "floor io_uring"]

    def run_load(self, port, *arguments):
        """Runs millrace-load and returns what it says."""
        out = self.dir / "load.json"
        command = ["taskset", "-c", self.args.load_core, ROOT / "build" / "bench" / "millrace-load",
                   "-q", "--json", out, *arguments, f"127.0.0.1:{port}"]
        done = subprocess.run(list(map(str, command)), timeout=300, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        result = json.loads(out.read_text())
        if result["errors"]:
            raise RuntimeError(f"{result['errors']} error replies")
        return result

    def run_redis_benchmark(self, port, requests, arguments):
        """The same with redis-benchmark, which knows no p99.9."""
        given = dict(zip(arguments[::2], arguments[1::2]))
        command = ["taskset", "-c", self.args.load_core, "redis-benchmark", "-p", port, "-r", 1000,
                   "-n", requests, "-t", given.get("-x", "get"), "-c", given["-c"], "-P",
                   given.get("-P", 1), "-d", given.get("-d", 100), "--csv"]
        done = subprocess.run(list(map(str, command)), timeout=300, capture_output=True, text=True,
                              check=True)
        told = next(csv.DictReader(done.stdout.splitlines()[-2:]))
        return {"requests_per_second": float(told["rps"]),
                "latency_us": {q: 1000 * float(told[f"{q}_latency_ms"]) for q in ("p50", "p99")}}

    def counters(self, servers):
        """Requests and reads of all servers, which memcached does not tell."""
        if servers[0] in self.kinds.get("memcached", []):
            return 0, 0
        return tuple(sum(int(info(s, "stats", field)) for s in servers)
                     for field in ("total_commands_processed", "total_reads_processed"))

    def measure(self, port, pid, servers, arguments, requests):
        """CPU of proxy and servers, requests per read of a server, and what the client saw."""
        requests = max(1000, int(requests * self.args.scale))
        fill = [a for a in map(str, arguments) if a != "--reconnect"]
        foreign = self.args.load == "redis-benchmark" and \
            not {"--memcache", "--reconnect", "mget"} & set(fill)
        if foreign:
            self.run_redis_benchmark(port, 10000, ["-c", 50, "-x", "set", *fill[2:]])
        else:
            self.run_load(port, "--prefill-only", *fill)
        pids = [self.servers[s] for s in servers]
        mine, theirs = (cpu_us(pid) if pid else 0), sum(map(cpu_us, pids))
        commands, reads = self.counters(servers)
        if foreign:
            result = self.run_redis_benchmark(port, requests, arguments)
        else:
            result = self.run_load(port, "-n", requests, "--filled", *arguments)
        commands, reads = (b - a - 2 * len(servers)  # of `counters`: two INFO for each server
                           for a, b in zip((commands, reads), self.counters(servers)))
        out = {"proxy_us": ((cpu_us(pid) if pid else 0) - mine) / requests,
               "server_us": (sum(map(cpu_us, pids)) - theirs) / requests,
               "batch": commands / reads if reads > 0 else 0,
               "rps": result["requests_per_second"]}
        out["sum_us"] = out["proxy_us"] + out["server_us"]
        latency = result["latency_us"]
        return out | {q: latency[q] for q in ("p50", "p99", "p99.9") if q in latency}


def info_of_cluster(port):
    text = subprocess.run(["redis-cli", "-p", str(port), "cluster", "info"], capture_output=True,
                          text=True).stdout
    return text.split("cluster_state:")[1].split()[0]
