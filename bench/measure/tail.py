"""tail - latencies in an open loop, at shares of what the best peer can do."""

import os

from .figures import cell, head, progress, row
from .programs import Bench

SHARES = [25, 50, 75]  # percent of the best peer's saturation
QUANTILES = ["p50", "p90", "p99", "p99.9"]


def measure(args):
    """
    Proxy, server and load client share all cores, as on a small machine, if the cores are not
    chosen; --proxy-core and the like pin them.
    """
    results = {"top": 0, "shares": {}}
    with Bench(args) as b:
        servers = b.redis(1)
        names = ["millrace io_uring", "millrace epoll", "millrace io_uring off",
                 "millrace epoll off", *args.also, *b.peers()]
        core = args.proxy_core if args.pinned else None
        if not args.pinned:
            args.load_core = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        running = {n: b.proxy(n, servers, core=core, workers=0 if args.pinned else 2)
                   for n in names}
        running["direct"] = (servers[0], None)
        b.run_load(servers[0], "--prefill-only")
        limits = b.peers() or names[:1]
        results["top"] = max(
            b.run_load(running[n][0], "--filled", "-n", 100000)["requests_per_second"]
            for n in limits for _ in range(3))
        for r in range(args.rounds):
            for share in SHARES:
                rate = int(results["top"] * share / 100)
                of = results["shares"].setdefault(str(share), {"rate": rate, "rounds": {}})
                order = list(running)
                order = order[r % len(order):] + order[:r % len(order)]
                for name in order:
                    progress(f"tail: round {r + 1}/{args.rounds}, {name}, {rate}/s")
                    out = b.run_load(running[name][0], "--filled", "-r", rate, "-t", args.seconds)
                    of["rounds"].setdefault(name, []).append(
                        {**out["latency_us"], "histogram": out["histogram_us"]})
    progress("")
    return results


def title(name):
    return name.removesuffix(" off") + ", `coalesce: off`" if name.endswith(" off") else name


def table(result):
    out = [f"Open loop, 50 clients; latency in us: median (lowest-highest). The best peer's "
           f"saturation: {result['top']:.0f} requests a second"]
    for share, of in result["shares"].items():
        out += ["", *head([f"{share} %: {of['rate']} requests a second", *QUANTILES])]
        out += [row([title(name), *[cell([r[q] for r in rounds], 0) for q in QUANTILES]])
                for name, rounds in of["rounds"].items()]
    return "\n".join(out)
