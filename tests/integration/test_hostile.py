"""Clients that send garbage, leave at bad moments and do not read, beside clients that must not notice."""

import os
import random
import socket
import threading
import time

from harness import SLOW, Millrace, Raw, command, wait_for

SECONDS = float(os.environ.get("MILLRACE_HOSTILE_SECONDS", "3"))
PIECES = [command("GET", "a"), command("SET", "h", "x" * 100), command("MGET", *"abcdefgh"),
          command("MSET", "a", 1, "b", 2, "c", 3), command("DEL", *"abcdefgh"), b"PING\r\n",
          command("EVAL", "return 1", 0), command("SET", "big", b"y" * 70000),
          command("GET", "big") * 20, b"*0\r\n", b"\r\n", command("NOSUCH", "x"),
          command("CLIENT", "SETNAME", "evil"), command("ZUNIONSTORE", "d", 2, "a", "b"), b"QUIT\r\n"]


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at:at + rng.randint(1, 20)]
        elif kind == 2:
            data[at:at] = rng.choice([b"\r\n", b"$-1\r\n", b"*9\r\n", b"\0", b"$99999999\r\n"])
        else:
            del data[at:]
        if not data:
            return b"x"
    return bytes(data)


def hostile(seed, m, stop, errors):
    rng = random.Random(seed)
    while not stop.is_set():
        try:
            c = Raw(m.port, timeout=1)
        except OSError:
            continue
        try:
            for _ in range(rng.randint(1, 6)):
                c.send(mutate(rng, b"".join(rng.choices(PIECES, k=rng.randint(1, 8)))))
                if rng.random() < 0.4:
                    c.sock.settimeout(0.02)
                    c.sock.recv(rng.choice([1, 100, 100000]))
            if rng.random() < 0.3:
                c.sock.shutdown(socket.SHUT_WR)
            if rng.random() < 0.3:
                c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except (OSError, EOFError):
            pass
        except Exception as e:  # noqa: BLE001 - a mistake of the test must not hide
            errors.append(repr(e))
        c.close()


def honest(n, m, stop, errors, counts):
    i = 0
    try:
        with Raw(m.port, timeout=20) as c:
            while not stop.is_set():
                i += 1
                keys = [f"honest:{n}:{j}" for j in range(12)]
                c.send(command("MSET", *[x for k in keys for x in (k, f"{k}={i}")]) +
                       command("MGET", *keys) + command("GET", keys[3]) + command("ECHO", i) +
                       command("EXISTS", *keys))
                want = [f"{k}={i}".encode() for k in keys]
                got = [c.reply() for _ in range(5)]
                if got != [b"+OK", want, want[3], b"%d" % i, 12]:
                    errors.append((n, i, got))
                    return
                counts[n] = i
    except Exception as e:  # noqa: BLE001
        errors.append((n, i, repr(e)))


def test_honest_clients_do_not_notice(start, redis4):
    m = start(Millrace, [s.port for s in redis4], workers=2,
              client_output_limit="1mb", timeout=5000)
    stop, errors, counts = threading.Event(), [], {}
    threads = [threading.Thread(target=hostile, args=(i, m, stop, errors)) for i in range(6)]
    threads += [threading.Thread(target=honest, args=(i, m, stop, errors, counts))
                for i in range(4)]
    for t in threads:
        t.start()
    time.sleep(SECONDS)
    stop.set()
    for t in threads:
        t.join(30 * SLOW)
    assert not errors, errors[:3]
    assert len(counts) == 4 and min(counts.values()) > 5
    assert "child_died" not in m.log_text() and "child_exited" not in m.log_text()
    wait_for(lambda: m.pool()["client_connections"] == 0, 40, "every client gone")
    gauges = ("out_queue", "in_queue", "out_queue_bytes", "in_queue_bytes")
    for s in redis4:
        def server():
            return m.pool()[f"127.0.0.1:{s.port}"]
        wait_for(lambda: [server()[k] for k in gauges] == [0] * 4, 10, "replies that nobody wants")
        assert server()["server_err"] == 0, "no client can cost the others a server connection"
