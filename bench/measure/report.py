"""report - tables and plots of docs/performance.md, and comparisons of two results."""

import json
import os
import pathlib
import platform
import subprocess
import time

from . import acks, instructions, peers, scale, tail
from .figures import median
from .programs import ROOT

DOC = ROOT / "docs" / "performance.md"
TABLES = {"peers": peers.table, "tail": tail.table, "acks": acks.table, "scale": scale.table,
          "instructions": instructions.table}
PLOTTED = {"peers", "tail", "scale"}

def about():
    return {"system": f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, "
                      f"{cpu_model()}",
            "date": time.strftime("%Y-%m-%d"),
            "commit": version("git", "-C", ROOT, "describe", "--always", "--dirty"),
            "versions": {"redis-server": version("redis-server", "--version"),
                         "nutcracker": version("nutcracker", "--version"),
                         "haproxy": version("haproxy", "-v"),
                         "predixy": version("predixy", "--version")}}


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def version(*command):
    try:
        out = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "not there"
    text = (out.stdout + out.stderr).strip()
    return text.splitlines()[0] if text else "?"


def plots(results, folder):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    folder.mkdir(exist_ok=True)

    def save(figure, name):
        figure.tight_layout()
        figure.savefig(folder / name, metadata={"Date": None})
        plt.close(figure)

    if "peers" in results:
        rows = results["peers"]
        names = list(dict.fromkeys(n for row in rows.values() for n in row if n != "direct"))
        figure, axis = plt.subplots(figsize=(11, 5))
        for i, name in enumerate(names):
            xs = [w + (i - len(names) / 2) * 0.8 / len(names) for w, row in enumerate(rows.values())
                  if name in row]
            base = [median([r["proxy_us"] for r in row.get("nutcracker", row[names[0]])])
                    for row in rows.values() if name in row]
            ys = [median([r["proxy_us"] for r in row[name]]) for row in rows.values()
                  if name in row]
            axis.bar(xs, [y / b for y, b in zip(ys, base)], width=0.8 / len(names), label=name)
        axis.set_xticks(range(len(rows)), list(rows), rotation=20)
        axis.set_ylabel("proxy CPU per request, nutcracker = 1")
        axis.legend(fontsize=8)
        save(figure, "peers.svg")
    if "tail" in results:
        figure, axis = plt.subplots(figsize=(7, 4.5))
        for name, rounds in results["tail"]["shares"]["50"]["rounds"].items():
            counts = {}
            for r in rounds:
                for us, n in r["histogram"]:
                    counts[us] = counts.get(us, 0) + n
            total, left = sum(counts.values()), sum(counts.values())
            xs, ys = [], []
            for us in sorted(counts):
                left -= counts[us]
                xs.append(us)
                ys.append(max(left, 0.5) / total)
            axis.plot(xs, ys, label=name)
        axis.set(xscale="log", yscale="log", xlabel="latency, us", ylabel="share of requests above")
        axis.legend()
        axis.grid(True, which="both", alpha=0.2)
        save(figure, "tail.svg")
    if "scale" in results:
        figure, axes = plt.subplots(1, len(results["scale"]), figsize=(15, 3.2))
        for axis, (curve, row) in zip(axes, results["scale"].items()):
            xs = [int(x) for x in row]
            axis.plot(xs, [median(v) for v in row.values()], marker="o")
            axis.fill_between(xs, [min(v) for v in row.values()], [max(v) for v in row.values()],
                              alpha=0.2)
            axis.set(xscale="log", xlabel=scale.CURVES[curve][1].split(" on ")[0], ylim=(0, None))
            if curve == "value":
                axis.set(yscale="log", ylim=(1, None))
        axes[0].set_ylabel("proxy CPU, us per GET")
        save(figure, "scale.svg")


def renew_document(results):
    """Writes the tables between the markers in docs/performance.md."""
    text = DOC.read_text()
    facts = results["about"]
    for name, table in TABLES.items():
        if name not in results:
            continue
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, rest = text.split(begin)
        _, tail_ = rest.split(end)
        picture = f"\n![{name}](performance/{name}.svg)\n" if name in PLOTTED else ""
        text = (head + begin + f"`bench/run {name}`, {facts['date']}, {facts['system']}.\n\n" +
                table(results[name]) + "\n" + picture + end + tail_)
    DOC.write_text(text)


def diff(a, b):
    """Prints medians of two results side by side."""
    a, b = (json.loads(pathlib.Path(p).read_text()) for p in (a, b))
    print(f"{'':45} {a['about']['commit']:>14} {b['about']['commit']:>14}  ratio")

    def line(name, x, y):
        print(f"{name:45} {x:14.2f} {y:14.2f}  {y / x:.2f}")

    for w in a.get("peers", {}):
        for name in a["peers"][w]:
            if name.startswith("millrace") and name in b.get("peers", {}).get(w, {}):
                line(f"{w}, {name}, CPU us", median([r["proxy_us"] for r in a["peers"][w][name]]),
                     median([r["proxy_us"] for r in b["peers"][w][name]]))
    for name in a.get("instructions", {}):
        if name in b.get("instructions", {}):
            line(f"{name}, instructions", a["instructions"][name], b["instructions"][name])
