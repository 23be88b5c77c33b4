"""acks - a server whose replies wait for delayed acknowledgements."""

import contextlib
import socket
import threading

from .figures import head, median, progress, row
from .programs import Bench, free_port, wait_for_port


def nagle_server(listener):
    """Answers every GET in two writes with Nagle's algorithm, so the second waits for an ACK."""
    conn, _ = listener.accept()
    with contextlib.suppress(OSError):
        while data := conn.recv(65536):
            for _ in range(data.count(b"GET") + data.count(b"SET")):
                conn.sendall(b"$100\r\n")
                conn.sendall(b"x" * 100 + b"\r\n")


def measure(args):
    results = {}
    with Bench(args) as b:
        for r in range(args.rounds):
            for quick in ("false", "true"):
                progress(f"acks: round {r + 1}/{args.rounds}, tcp_quickack {quick}")
                listener = socket.create_server(("127.0.0.1", 0))
                threading.Thread(target=nagle_server, args=(listener,), daemon=True).start()
                port = free_port()
                conf = b.pool("acks", port, [listener.getsockname()[1]],
                              f"  tcp_quickack: {quick}\n  preconnect: true\n")
                child = b.start(args.proxy_core, args.millrace, "-c", conf, "--workers", 0, "-s",
                                free_port(), "-a", "127.0.0.1")
                wait_for_port(port, "millrace")
                out = b.run_load(port, "-c", 1, "-n", 200, "--keys", 1)
                results.setdefault(quick, []).append(out["latency_us"])
                b.stop(child)
                listener.close()
    progress("")
    return results


def table(results):
    out = ["One client, a server that answers in two writes without TCP_NODELAY; latency in us, "
           "median of the rounds\n", *head(["tcp_quickack", "p50", "p99"])]
    return "\n".join(out + [row([quick, *[f"{median([r[q] for r in rounds]):.0f}"
                                          for q in ("p50", "p99")]])
                            for quick, rounds in results.items()])
