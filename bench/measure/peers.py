"""peers - workloads in a closed loop through millrace, other proxies and the floors."""

import sys

from .figures import cell, head, median, progress, row, states, told
from .programs import LONE, REDIS_ONLY, Bench

# name: (title, load client's arguments, requests, kind of servers, how many)
WORKLOADS = {
    "get-50": ("GET, 50 clients", ["-c", 50], 150000, "redis", 1),
    "get-1000": ("GET, 1000 clients", ["-c", 1000], 150000, "redis", 1),
    "get-50-p16": ("GET, 50 clients, pipeline 16", ["-c", 50, "-P", 16], 1500000, "redis", 1),
    "get-50-p128": ("GET, 50 clients, pipeline 128", ["-c", 50, "-P", 128], 1500000, "redis", 1),
    "set-50": ("SET, 50 clients", ["-c", 50, "-x", "set"], 150000, "redis", 1),
    "set-10k": ("SET 10 KB, 50 clients", ["-c", 50, "-x", "set", "-d", 10240], 80000, "redis", 1),
    "get-10k": ("GET 10 KB, 50 clients", ["-c", 50, "-d", 10240], 80000, "redis", 1),
    "mget-10": ("MGET of 10 keys, one server", ["-c", 50, "-x", "mget"], 80000, "redis", 1),
    "mget-10-4": ("MGET of 10 keys, four servers", ["-c", 50, "-x", "mget"], 80000, "redis", 4),
    "mget-100-4": ("MGET of 100 keys, four servers", ["-c", 50, "-x", "mget", "--mget", 100], 15000,
                   "redis", 4),
    "connect": ("connect, GET, close, 50 clients", ["-c", 50, "--reconnect"], 40000, "redis", 1),
    "get-50-3": ("GET, 50 clients, three servers", ["-c", 50], 150000, "redis", 3),
    "get-50-cluster": ("GET, 50 clients, cluster of three masters", ["-c", 50], 150000, "cluster",
                       3),
    "mc-get-50": ("memcached get, 50 clients", ["-c", 50, "--memcache"], 150000, "memcached", 1),
    "mc-get-1000": ("memcached get, 1000 clients", ["-c", 1000, "--memcache"], 150000, "memcached",
                    1),
    "mc-mget-100-4": ("memcached get of 100 keys, four servers",
                      ["-c", 50, "--memcache", "-x", "mget", "--mget", 100], 15000, "memcached", 4),
}


def chosen(args):
    names = args.only.split(",") if args.only else list(WORKLOADS)
    for name in names:
        if name not in WORKLOADS:
            sys.exit(f"bench/run: no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return names


def takes(name, kind, n):
    """Whether a program can serve n servers of a kind."""
    if kind == "cluster":
        return name == "predixy" or name.startswith("millrace") or "/" in name
    return (n == 1 or name not in LONE) and not (kind == "memcached" and name in REDIS_ONLY)


def measure(args):
    results = {}
    with Bench(args) as b:
        for w in chosen(args):
            _, arguments, requests, kind, n = WORKLOADS[w]
            servers = b.cluster(n) if kind == "cluster" else b.backends(kind, n)
            running = {name: b.proxy(name, servers) for name in b.names() if takes(name, kind, n)}
            if n == 1:
                running["direct"] = (servers[0], None)
            for r in range(args.rounds):
                order = list(running)
                order = order[r % len(order):] + order[:r % len(order)]
                for name in order:
                    progress(f"{w}: round {r + 1}/{args.rounds}, {name}")
                    port, child = running[name]
                    results.setdefault(w, {}).setdefault(name, []).append(
                        b.measure(port, child and child.pid, servers, arguments, requests))
            for _, child in running.values():
                if child:
                    b.stop(child)
    progress("")
    return results


def values(rounds, key):
    return [r[key] for r in rounds if key in r]


def cost_table(results, names):
    out = ["Proxy CPU, us per request: median (lowest-highest)\n",
           *head(["workload", *names, "/ nutcracker", "/ best floor"])]
    for w, of in results.items():
        mine = min(median(values(of[n], "proxy_us")) for n in of if n.startswith("millrace"))

        def ratio(others, of=of, mine=mine):
            found = [median(values(of[n], "proxy_us")) for n in others if n in of]
            return f"{mine / min(found):.2f}" if found else "-"

        out.append(row([WORKLOADS[w][0],
                        *[cell(values(of[n], "proxy_us")) if n in of else "-" for n in names],
                        ratio(["nutcracker"]), ratio(["floor epoll", "floor io_uring"])]))
    return out


def sum_table(results, names):
    out = ["Proxy and servers together, us per request; in brackets the servers alone, and requests "
           "that one read of a server brings. Two values: the rounds fell into two states.\n",
           *head(["workload", *names])]
    for w, of in results.items():
        def both(n, of=of):
            if n not in of:
                return "-"
            batch = median(values(of[n], "batch"))
            total = " or ".join(f"{s:.2f}" for s in states(values(of[n], "sum_us")))
            return (f"{total} ({median(values(of[n], 'server_us')):.2f}"
                    f"{f', x{batch:.1f}' if batch else ''})")
        out.append(row([WORKLOADS[w][0], *map(both, names)]))
    return out


def latency_table(results, names):
    out = ["Requests a second, in thousands; p50, p99 and p99.9 in us (closed loop, medians)\n",
           *head(["workload", *names])]
    for w, of in results.items():
        def seen(n, of=of):
            if n not in of:
                return "-"
            quantiles = [values(of[n], q) for q in ("p50", "p99", "p99.9")]
            return f"{median(values(of[n], 'rps')) / 1000:.0f}; " + \
                " / ".join(f"{median(q):.0f}" if q else "-" for q in quantiles)
        out.append(row([WORKLOADS[w][0], *map(seen, names)]))
    return out


def table(results):
    names = list(dict.fromkeys(n for of in results.values() for n in of if n != "direct"))
    return "\n".join([*cost_table(results, names), "", *sum_table(results, ["direct", *names]), "",
                      *latency_table(results, ["direct", *names])])


FIELDS = {"proxy us": "proxy_us", "servers us": "server_us", "sum us": "sum_us", "batch": "batch",
          "req/s": "rps", "p50 us": "p50", "p99 us": "p99", "p99.9 us": "p99.9"}


def rounds(results):
    """Every round of every row, for those who look for a state and not for a median."""
    out = []
    for w, of in results.items():
        out += [f"{WORKLOADS[w][0]}: each round\n", *head(["", *FIELDS])]
        for name, measured in of.items():
            cells = []
            for key in FIELDS.values():
                digits = 0 if key in ("rps", "p50", "p99", "p99.9") else 1
                found = values(measured, key)
                cells.append(" ".join(f"{v:.{digits}f}" for v in found) or "-")
            parted = states(values(measured, "sum_us"))
            note = f" (two states: {told(values(measured, 'sum_us'), 1)})" if len(parted) > 1 else ""
            out.append(row([name + note, *cells]))
        out.append("")
    return "\n".join(out)
