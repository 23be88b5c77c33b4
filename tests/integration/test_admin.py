"""The admin interface: HTTP, Prometheus, health, reloads, and what the latencies show."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import SLOW, Millrace, Raw, Scripted, free_port, pool_yaml, wait_for
from test_reload import reload
from test_upgrade import Upgradable, adopt_orphans  # noqa: F401

TOKEN = "a-secret-of-the-operator"


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Admin(Millrace):
    """A proxy with admin addresses on TCP and on a unix socket."""

    def __init__(self, servers=(), workers=2, extra="", **keys):
        self.admin_port = free_port()
        text = (f"global:\n  admin: ['127.0.0.1:{self.admin_port}', '@DIR@/admin.sock 0600']\n"
                f"  admin_token: {TOKEN}\n") + pool_yaml(
                    "alpha", "127.0.0.1:@PORT@",
                    [s if isinstance(s, str) else f"127.0.0.1:{s}:1" for s in servers], **keys)
        super().__init__(conf=text + extra, workers=workers)

    def http(self, method, path, unix=False, headers={}, body=None):
        c = Unix(str(self.dir / "admin.sock")) if unix else \
            http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        c.request(method, path, headers=headers, body=body)
        r = c.getresponse()
        got = r.status, r.read().decode()
        c.close()
        return got

    def own(self):
        status, text = Admin.http(self, "GET", "/stats.json")
        assert status == 200
        return json.loads(text)

    def latency(self, what="pool", cls="all"):
        pool = Admin.own(self)["pools"][0]
        return (pool if what == "pool" else pool["servers"][0])["latency"][cls]


def test_pages(start, redis1):
    m = start(Admin, [redis1.port])
    for unix in (False, True):
        assert m.http("GET", "/healthz", unix) == (200, "ok\n")
        assert m.http("GET", "/readyz", unix) == (200, "ready\n")
        assert m.http("HEAD", "/readyz", unix) == (200, "")
        assert "/metrics" in m.http("GET", "/", unix)[1]
        assert m.http("GET", "/nothing", unix)[0] == 404
        assert m.http("POST", "/metrics", unix, body="x" * 100000)[0] == 405
        assert m.http("GET", "/reload", unix)[0] == 405
    assert json.loads(m.http("GET", "/nutcracker.json")[1])["alpha"] == m.stats()["alpha"]


def test_numbers_of_all_shapes_agree(start, redis4):
    m = start(Admin, [s.port for s in redis4])
    with m.raw() as c:
        for i in range(40):
            assert c.ask("SET", f"k{i}", "v") == b"+OK"
            assert c.ask("GET", f"k{i}") == b"v"
        c.ask("MGET", *[f"k{i}" for i in range(40)])
        assert c.ask("PING") == b"+PONG"
        own, old = m.own(), m.pool()
        text = m.http("GET", "/metrics")[1]
    pool = own["pools"][0]
    assert pool["name"] == "alpha" and pool["protocol"] == "redis"
    assert pool["client_connections"] == old["client_connections"] == 1
    for s in pool["servers"]:
        for key, value in old[s["name"]].items():
            assert s[key] == value, key
        want = f'millrace_server_requests_total{{pool="alpha",server="{s["name"]}"}} {s["requests"]}'
        assert want in text
        assert s["latency"]["all"]["count"] == s["responses"]
        assert sum(s["latency"][c]["count"] for c in ("read", "write", "other")) == s["responses"]
    latency = pool["latency"]
    assert latency["read"]["count"] == 41 and latency["write"]["count"] == 40
    assert latency["all"]["count"] == 81
    assert 0 < latency["all"]["p50_us"] <= latency["all"]["p99_us"] <= latency["all"]["max_us"]
    assert 'millrace_request_duration_seconds_count{pool="alpha",class="read"} 41' in text
    assert 'le="+Inf"} 41' in text
    assert [w["state"] for w in own["workers"]] == ["serving"] * 2
    assert {w["pid"] for w in own["workers"]} == set(m.child_pids())
    assert sum(w["clients"] for w in own["workers"]) == 1


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool")
def test_prometheus_accepts_the_metrics(start, redis4):
    extra = pool_yaml('"we \\"quote\\""', f"127.0.0.1:{free_port()}",
                      [f"127.0.0.1:{redis4[0].port}:1 back\\slash"])
    m = start(Admin, [s.port for s in redis4], extra=extra)
    with m.raw() as c:
        c.ask("SET", "a", 1)
    run = subprocess.run(["promtool", "check", "metrics"], input=m.http("GET", "/metrics")[1],
                         capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_buckets_of_prometheus_grow(start, redis1):
    m = start(Admin, [redis1.port])
    with m.raw() as c:
        for i in range(100):
            c.ask("GET", "a")
    text = m.http("GET", "/metrics")[1]
    counts = [int(n) for n in re.findall(
        r'request_duration_seconds_bucket{pool="alpha",class="read",le="[^"]+"} (\d+)', text)]
    assert counts == sorted(counts) and counts[-1] == 100 and len(counts) == 23
    total = float(re.search(r'request_duration_seconds_sum{pool="alpha",class="read"} (\S+)',
                            text)[1])
    assert 0 < total < 10 * SLOW


def test_a_reload_is_for_those_who_may(start, redis1):
    m = start(Admin, [redis1.port])
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN},
                    {"Authorization": "Bearer " + TOKEN + "x"}, {"Authorization": "Bearer "}):
        assert m.http("POST", "/reload", headers=headers)[0] == 403
    assert m.own()["generation"] == 1
    assert m.http("POST", "/reload", headers={"Authorization": "Bearer " + TOKEN})[0] == 202
    wait_for(lambda: m.own()["generation"] == 2)
    assert m.http("POST", "/reload", unix=True)[0] == 202
    wait_for(lambda: m.own()["reloads"] == 2)
    good = m.conf.read_text()
    m.conf.write_text(good.replace("ketama", "kettle"))
    assert m.http("POST", "/reload", unix=True)[0] == 202
    wait_for(lambda: m.own()["reload_failures"] == 1)
    reason = m.own()["last_reload_failure"]
    assert re.search(r"conf\.yml:\d+:\d+", reason) and "kettle" in reason
    assert "millrace_reload_failures_total 1" in m.http("GET", "/metrics")[1]
    assert m.own()["generation"] == 3


@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_readers_do_not_notice_that_the_process_is_replaced(start, redis1, how, adopt_orphans):  # noqa: F811
    port = free_port()
    m = start(Upgradable, conf=f"global: {{admin: '127.0.0.1:{port}'}}\n" +
              pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]), workers=1)
    m.admin_port = port
    failures, done, stop = [], [0], threading.Event()

    def read():
        while not stop.is_set():
            try:
                assert Admin.http(m, "GET", "/metrics")[0] == 200
                done[0] += 1
            except (OSError, http.client.HTTPException, AssertionError) as e:
                failures.append(repr(e))

    threads = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in range(8):
        if how == "upgrade":
            m.upgrade()
        else:
            reload(m)
        time.sleep(0.05)
    stop.set()
    for t in threads:
        t.join(20)
    assert failures == [] and done[0] > 20


def test_the_admin_address_itself_changes_with_a_reload(start, redis1):
    m = start(Admin, [redis1.port])
    old, m.admin_port = m.admin_port, free_port()
    m.conf.write_text(m.conf.read_text().replace(str(old), str(m.admin_port)))
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: " reloaded " in m.log_text())
    assert wait_for(lambda: m.http("GET", "/healthz")) == (200, "ok\n")
    with pytest.raises(OSError):
        for _ in range(100):
            Raw(old).close()
            time.sleep(0.05)
    assert (m.dir / "admin.sock").exists()
    assert m.http("GET", "/healthz", unix=True) == (200, "ok\n")
    m.stop()
    assert not (m.dir / "admin.sock").exists()


def test_a_single_process_serves_it_too(start, redis1):
    m = start(Admin, [redis1.port], workers=0)
    with m.raw() as c:
        c.ask("GET", "a")
        assert m.latency()["count"] == 1
    assert m.http("GET", "/readyz")[0] == 200
    assert m.http("POST", "/reload", unix=True)[0] == 409


def test_readiness_and_the_states_of_workers(start, redis1):
    m = start(Admin, [redis1.port])
    victim = m.child_pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: sum(w["deaths"] for w in m.own()["workers"]) == 1)
    wait_for(lambda: m.http("GET", "/readyz")[0] == 200)
    with m.raw() as c:
        redis1.ask("CLIENT", "PAUSE", 3000)
        c.send(b"GET a\r\n")
        time.sleep(0.1)
        os.kill(m.pid, signal.SIGTERM)  # one request is in flight, so the workers drain
        wait_for(lambda: m.http("GET", "/readyz")[0] == 503)
        wait_for(lambda: "draining" in {w["state"] for w in m.own()["workers"]})
        assert m.http("GET", "/healthz")[0] == 200
        assert c.line() == b"$-1"


def test_the_admin_process_can_die(start, redis1):
    m = start(Admin, [redis1.port])
    with m.raw() as c:
        assert c.ask("SET", "a", 1) == b"+OK"
        os.kill(m.admin_pid(), signal.SIGKILL)
        assert c.ask("GET", "a") == b"1"
        wait_for(lambda: m.child_pids("admin"))
        assert wait_for(lambda: m.http("GET", "/healthz")) == (200, "ok\n")
        assert m.latency()["count"] == 2


def test_a_reason_that_is_cut_inside_a_letter_is_shown(start, redis1):
    m = start(Admin, [redis1.port])
    conf = m.conf.read_text()
    for before in ("", "a"):  # one of them is cut there
        m.conf.write_text(conf.replace("murmur", before + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 600))
        failed = m.log_text().count("reload_failed")
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.log_text().count("reload_failed") > failed)
        assert 'directive "hash"' in m.own()["last_reload_failure"]


def test_slow_and_odd_readers_do_not_hold_it_up(start, redis1):
    m = start(Admin, [redis1.port])
    idle = [Raw(m.admin_port) for _ in range(30)]
    for c in idle[:10]:
        c.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # and no end
    for c in idle[10:20]:
        c.send(b"\x16\x03\x01\x02\x00\x01\x00" * 20)
    for c in idle[20:]:
        c.send(b"GET /" + b"x" * 100000)
    assert m.http("GET", "/healthz") == (200, "ok\n")
    for c in idle:
        c.close()
    with m.raw() as c:
        assert c.ask("PING") == b"+PONG"


def slow_reader(port, request=b""):
    """A client with a small receive buffer that never reads."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", port))
    s.sendall(request)
    return s


@pytest.mark.parametrize("workers", [0, 2])
def test_slow_readers_keep_nobody_out(start, workers):
    """Hundreds of clients that send nothing, or half a request, or do not read: others are served."""
    m = start(Admin, [f"127.0.0.1:{free_port()}:1 server-{i}" for i in range(300)], workers=workers)
    slow = []
    for i in range(200):
        slow.append(slow_reader(m.stats_port))
        slow.append(slow_reader(m.admin_port, [
            b"", b"GET /healthz HTTP/1.1\r\nX: a", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][i % 3]))
        if i % 20 == 0:
            for unix in (False, True):
                assert m.http("GET", "/healthz", unix=unix) == (200, "ok\n")
            assert m.http("GET", "/metrics")[1].count("server-299") > 50
            assert len(m.stats()["alpha"]) > 300
    for s in slow:
        s.close()


def test_a_slow_request_has_an_end(start, redis1):
    """A request that keeps trickling is ended anyway, and so is a reader that does not close."""
    m = start(Admin, [redis1.port])
    fds = pathlib.Path(f"/proc/{m.admin_pid()}/fd")
    before = len(list(fds.iterdir()))
    drip, mute = Raw(m.admin_port), Raw(m.stats_port)
    drip.send(b"GET /healthz HTTP/1.1\r\nX: ")
    wait_for(lambda: len(list(fds.iterdir())) == before + 2)

    def over():
        try:
            drip.send(b"a")
            drip.sock.setblocking(False)
            return drip.sock.recv(100) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    wait_for(over, 30, "end of the request")
    wait_for(lambda: len(list(fds.iterdir())) == before)
    mute.close()


# ---- latencies: only the right one changes ----


def after(seconds):
    def serve(conn, server):
        while data := server.read(conn):
            time.sleep(seconds)
            conn.sendall(b"+OK\r\n" * data.count(b"SET") + b"$-1\r\n" * data.count(b"GET"))

    return serve


@pytest.mark.alone
def test_a_slow_server_shows_in_both(start):
    m = start(Admin, [start(Scripted, after(0.15)).port])
    with m.raw(timeout=20) as c:
        for _ in range(5):
            assert c.ask("SET", "a", 1) == b"+OK"
        assert c.ask("PING") == b"+PONG"
    for what in ("pool", "server"):
        got = m.latency(what, "write")
        assert got["count"] == 5 and got["p50_us"] >= 150000
        assert 5 * 150000 <= got["sum_us"] <= 5 * got["max_us"]
        assert m.latency(what, "read")["count"] == 0
    # the next class is fast, and not mixed with the slow one
    assert m.latency("pool", "other")["max_us"] < 140000 * SLOW


def test_a_slow_network_shows_in_both(start, redis1):
    """A relay between proxy and server delays every byte in both directions."""

    def relay(conn, server):
        with socket.create_connection(("127.0.0.1", redis1.port)) as up:
            while data := server.read(conn):
                time.sleep(0.07)
                up.sendall(data)
                answer = up.recv(65536)
                time.sleep(0.07)
                conn.sendall(answer)

    m = start(Admin, [start(Scripted, relay).port])
    with m.raw(timeout=20) as c:
        for _ in range(3):
            assert c.ask("GET", "a") is None
    for what in ("pool", "server"):
        got = m.latency(what, "read")
        assert got["count"] == 3 and got["p50_us"] >= 140000
        assert m.latency(what, "write")["count"] == 0


@pytest.mark.alone
def test_a_slow_client_shows_in_the_pool_alone(start, redis1):
    m = start(Admin, [redis1.port])
    redis1.ask("SET", "big", b"x" * (4 << 20))
    with m.raw(timeout=20) as c:
        c.send(b"GET big\r\n" * 4)
        time.sleep(0.5)
        for _ in range(4):
            assert len(c.reply()) == 4 << 20
        wait_for(lambda: m.latency("pool", "read")["count"] == 4)
    assert m.latency("pool", "read")["p50_us"] >= 300000
    assert m.latency("server", "read")["p50_us"] < m.latency("pool", "read")["p50_us"]
    with m.raw() as c:  # a client that reads at once is not mixed with it
        for _ in range(50):
            c.ask("SET", "small", 1)
    assert m.latency("pool", "write")["p50_us"] < 100000 * SLOW


def test_latencies_and_admin_addresses_survive_an_upgrade(start, redis1, adopt_orphans):  # noqa: F811
    port = free_port()
    m = start(Upgradable, conf=f"global: {{admin: ['127.0.0.1:{port}', '@DIR@/admin.sock 0600']}}\n" +
              pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{redis1.port}:1"]), workers=2)
    m.admin_port = port
    with m.raw() as c:
        for n in (20, 40):
            for _ in range(20):
                c.ask("GET", "a")
            wait_for(lambda n=n: Admin.latency(m, "server", "read")["count"] == n)
            before = Admin.latency(m, "pool", "read")
            m.upgrade()
            assert wait_for(lambda: Admin.http(m, "GET", "/readyz")) == (200, "ready\n")
            wait_for(lambda b=before: Admin.latency(m, "pool", "read") == b)
            assert Admin.http(m, "GET", "/healthz", unix=True) == (200, "ok\n")
    assert m.stop() == 0
    assert not (m.dir / "admin.sock").exists()


def test_latencies_survive_a_crash_and_a_reload(start, redis1):
    m = start(Admin, [redis1.port], workers=1)
    with m.raw() as c:
        for _ in range(20):
            c.ask("GET", "a")
    os.kill(m.child_pids()[0], signal.SIGKILL)
    wait_for(lambda: sum(w["deaths"] for w in m.own()["workers"]) == 1 and m.child_pids())
    with wait_for(lambda: m.raw()) as c:
        for _ in range(20):
            c.ask("GET", "a")
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: " reloaded " in m.log_text())
    with m.raw() as c:
        for _ in range(20):
            c.ask("GET", "a")
    wait_for(lambda: m.latency("pool", "read")["count"] == 60)
    assert m.latency("server", "read")["count"] == 60
    assert sum(w["deaths"] for w in m.own()["workers"]) == 1
