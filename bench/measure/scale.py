"""scale - CPU per request by workers, clients, servers, sizes of keys and values."""

import os

from .figures import cell, head, progress, row
from .programs import Bench

CURVES = {
    "workers": ([1, 2, 4, 8, 16], "workers on the same two cores, 100 clients for each"),
    "same": ([1, 2, 4, 8, 16], "workers on the same two cores, 400 clients in all"),
    "clients": ([10, 50, 100, 500, 1000, 5000, 10000], "clients"),
    "servers": ([1, 4, 16, 64, 250], "servers"),
    "key": ([8, 16, 64, 200], "bytes of a key"),
    "value": ([1, 100, 1000, 10000, 100000, 1000000], "bytes of a value"),
}


def point(b, curve, x):
    clients, key, value, n, workers = 100, 16, 100, 1, 0
    if curve == "clients":
        clients = x
    elif curve == "key":
        key = x
    elif curve == "value":
        value = x
    elif curve == "servers":
        n = x
    else:
        workers, clients = x, 100 * x if curve == "workers" else 400
    requests = min(100000, max(2000, 2000000000 // (value + 20000)))
    requests = max(requests, clients * 5)
    servers = b.redis(n)
    all_cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    port, child = b.proxy("millrace", servers, core=all_cores if workers else "proxy",
                          workers=workers)
    try:
        return b.measure(port, child.pid, servers[:1],
                         ["-c", clients, "--key-size", key, "-d", value, "--keys",
                          10000 if n > 1 else 1000 if value < 10000 else 10], requests)["proxy_us"]
    finally:
        b.stop(child)


def measure(args):
    results = {}
    with Bench(args) as b:
        for r in range(args.rounds):
            for curve, (points, _) in CURVES.items():
                for x in points:
                    progress(f"scale: round {r + 1}/{args.rounds}, {curve} {x}")
                    results.setdefault(curve, {}).setdefault(str(x), []).append(
                        point(b, curve, x))
    progress("")
    return results


def table(results):
    out = ["Proxy CPU, us per GET: median (lowest-highest); 100 clients, 100-byte values, 16-byte "
           "keys and one server where not varied\n"]
    for curve, of in results.items():
        out += [*head([CURVES[curve][1], *of]), row(["", *map(cell, of.values())]), ""]
    return "\n".join(out)
