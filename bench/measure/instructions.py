"""instructions - of millrace for each request, counted by callgrind."""

from .figures import head, progress, row
from .programs import Bench, free_port, wait_for_port

COUNTED = {"GET": ["-c", 50], "GET, pipeline 16": ["-c", 50, "-P", 16],
           "MGET of 10 keys, four servers": ["-c", 50, "-x", "mget"],
           "MGET of 100 keys, four servers": ["-c", 50, "-x", "mget", "--mget", 100],
           "memcached get of 100 keys, four servers": ["-c", 50, "--memcache", "-x", "mget",
                                                       "--mget", 100]}


def measure(args):
    """The difference between two runs, so that start and stop do not count."""
    results = {}
    with Bench(args) as b:
        for name, arguments in COUNTED.items():
            servers = b.backends("memcached" if "--memcache" in arguments else "redis",
                                 4 if "four" in name else 1)
            totals = []
            few = 5000 if "100" in name else 20000
            for n in (few, 3 * few):
                progress(f"instructions: {name}, {n} requests")
                port = free_port()
                out = b.dir / "callgrind"
                child = b.start(args.proxy_core, "valgrind", "--tool=callgrind",
                                f"--callgrind-out-file={out}", args.millrace, "-c",
                                b.pool("millrace", port, servers), "--workers", 0, "--engine",
                                "epoll", "-s", free_port(), "-a", "127.0.0.1")
                wait_for_port(port, "millrace under valgrind")
                b.run_load(port, "-n", n, *arguments)
                b.stop(child)
                totals.append(int(out.read_text().split("\ntotals: ")[1].split()[0]))
            results[name] = (totals[1] - totals[0]) / (2 * few)
    progress("")
    return results


def table(results):
    return "\n".join([*head(["workload",
                             "instructions of millrace per request (epoll, kernel not counted)"]),
                      *[row([name, f"{n:.0f}"]) for name, n in results.items()]])
