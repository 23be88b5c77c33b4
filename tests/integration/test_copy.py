"""millrace copy: all keys of a pool arrive in another, whatever happens meanwhile."""

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

from cluster import Cluster
from harness import BINARY, Millrace, Raw, Redis, command, free_port, pool_yaml, wait_for
from test_mirror import Mirrored, Writers, address, dump, same


class Pair(Millrace):
    """Pools alpha and beta."""

    def __init__(self, sources, targets, alpha=None, beta=None, workers=2):
        super().__init__(workers=workers, conf=pool_yaml("alpha", "127.0.0.1:@PORT@", address(sources), **(alpha or {})) +
                         pool_yaml("beta", f"127.0.0.1:{free_port()}", address(targets), **(beta or {})))


def start_copy(m, *args, env=None):
    return subprocess.Popen([BINARY, "copy", "--from=alpha", "--to=beta", "-c", str(m.conf),
                             f"--state={m.dir}/state", *map(str, args)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})


def copy(m, *args, status=0, env=None):
    run = start_copy(m, *args, env=env)
    out, err = run.communicate(timeout=120)
    assert run.returncode == status, (out, err)
    assert "Sanitizer" not in err, err
    return out + err


def fill(servers, m, n=1200):
    """Keys of every type, through the proxy."""
    r = random.Random(1)
    with m.raw(timeout=30) as c:
        for i in range(0, n, 10):
            batch = [("SET", f"s{i}", r.randbytes(r.randrange(300))), ("SET", f"e{i}", i, "PX", 1000000 + i),
                     ("RPUSH", f"l{i}", *range(r.randrange(1, 300))), ("SADD", f"t{i}", *[r.random() for _ in range(200)]),
                     ("HSET", f"h{i}", *range(2 * r.randrange(1, 200))), ("ZADD", f"z{i}", 1, "a", 2.5, "b"),
                     ("XADD", f"x{i}", "1-1", "f", "v"), ("SET", f"{i} key\r\nwith \0 anything", i),
                     ("SETBIT", f"b{i}", 100, 1), ("PFADD", f"p{i}", i, i + 1)]
            c.send(b"".join(command(*b) for b in batch))
            for b in batch:
                assert not str(c.reply()).startswith("-"), b
    assert sum(s.ask("DBSIZE") for s in servers) == n


def test_everything_is_copied(start, redis4):
    m = start(Pair, redis4[:2], redis4[2:])
    fill(redis4[:2], m)
    out = copy(m)
    assert "1200 keys: 1200 copied, 0 kept, 0 gone meanwhile, 0 unsteady, 0 failed" in out
    assert "1000 random keys compared: 0 differ" in out and "100%" in out
    assert same(redis4[:2], redis4[2:])
    assert not os.path.exists(m.dir / "state")


def test_what_is_there_already(start, redis4):
    m = start(Pair, redis4[:1], redis4[1:2])
    for s, value in ((redis4[0], "new"), (redis4[1], "old")):
        s.ask("MSET", "a", value, "b", value)
    redis4[0].ask("SET", "c", 1)
    redis4[1].ask("SET", "d", 1)
    out = copy(m, "--verify=20", status=2)
    assert "3 keys: 1 copied, 2 kept" in out and "key 'a' differs" in out
    assert redis4[1].ask("MGET", "a", "b", "c", "d") == [b"old", b"old", b"1", b"1"]
    assert "3 keys: 3 copied, 0 kept" in copy(m, "--replace", "--verify=50")
    assert redis4[1].ask("MGET", "a", "b", "c", "d") == [b"new", b"new", b"1", b"1"]


def test_some_keys_of_a_database(start, redis4):
    m = start(Pair, redis4[:1], redis4[1:2])
    redis4[0].ask("MSET", "user:1", 1, "user:2", 2, "other", 3, db=3)
    redis4[0].ask("SET", "user:3", 3)
    assert "2 keys: 2 copied" in copy(m, "--db=3", "--match=user:*", "--verify=0")
    assert sorted(redis4[1].ask("KEYS", "*", db=3)) == [b"user:1", b"user:2"]
    assert redis4[1].ask("DBSIZE") == 0


def test_rate(start, redis4):
    m = start(Pair, redis4[:1], redis4[1:2])
    redis4[0].ask(*["MSET", *[x for i in range(1500) for x in (f"k{i}", i)]])
    before = time.monotonic()
    copy(m, "--rate=1000", "--verify=0", "--quiet")
    assert time.monotonic() - before >= 1.4


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM])
def test_goes_on_after_an_interruption(start, redis4, signo):
    m = start(Pair, redis4[:2], redis4[2:])
    fill(redis4[:2], m)
    for _ in range(2):
        run = start_copy(m, "--rate=250", "--quiet")
        time.sleep(1.3)
        run.send_signal(signo)
        _, err = run.communicate(timeout=20)
        assert run.returncode == (3 if signo == signal.SIGTERM else -signal.SIGKILL), err
    out = copy(m, "--verify=100")
    assert "goes on after" in out and "1200 keys: " in out and " 0 failed" in out
    if signo == signal.SIGTERM:
        assert "1200 copied, 0 kept" in out  # nothing was done twice
    assert same(redis4[:2], redis4[2:])


def test_servers_and_the_proxy_go_and_come_back(start, redis4):
    target = start(Redis)
    m = start(Pair, redis4[:2], [target], beta={"server_retry_timeout": 100})
    fill(redis4[:2], m)
    run = start_copy(m, "--rate=500", "--verify=0")
    time.sleep(.7)
    target.kill()
    time.sleep(.5)
    start(Redis, port=target.port)
    out, err = run.communicate(timeout=60)
    assert "failed" in out and run.returncode in (0, 2), (out, err)
    assert " 0 failed" in out and "trying again" in err


def test_while_clients_write_and_with_a_mirror_nothing_is_lost(start, redis4):
    nodes = Cluster(start).masters
    m = start(Mirrored, redis4[:3], nodes, workers=2, beta={"topology": "cluster", "hash": None, "distribution": None})
    with m.raw() as c:
        c.send(b"".join(command("SET", f"before{i}", i) for i in range(2000)))
        for _ in range(2000):
            c.reply()
    m.idle()
    for n in nodes:
        n.ask("FLUSHALL")  # as if the keys were older than the mirror
    writers = Writers(m.port, keys=500)
    out = copy(m, "--verify=300", status=0)
    writers.stop()
    m.idle()
    assert not writers.errors and " 0 failed" in out
    assert same(redis4[:3], nodes)
    assert b"before7" in dump(nodes)


def test_from_shards_to_a_cluster_without_stopping(start, redis4):
    """The walk in docs/migrate.md."""
    nodes = Cluster(start).masters
    cluster = {"topology": "cluster", "hash": None, "distribution": None}
    text = pool_yaml("alpha", "127.0.0.1:@PORT@", address(redis4))
    m = start(Millrace, conf=text, workers=2)
    fill(redis4, m, 1000)
    writers = Writers(m.port, keys=500)

    def reload(text):
        before = m.log_text().count(" reloaded ")
        m.conf.write_text(text.replace("@PORT@", str(m.port)))
        os.kill(m.pid, signal.SIGHUP)
        wait_for(lambda: m.log_text().count(" reloaded ") > before, 20, "reload")

    beta = pool_yaml("beta", f"127.0.0.1:{free_port()}", address(nodes), **cluster)
    reload(text.replace("alpha:\n", "alpha:\n  mirror_to: beta\n") + beta)
    assert " 0 failed" in copy(m, "--verify=200")
    time.sleep(.5)
    reload(pool_yaml("alpha", "127.0.0.1:@PORT@", address(nodes), **cluster))
    before = dump(redis4)
    done = writers.done
    time.sleep(1)
    writers.stop()
    assert not writers.errors and writers.done > done
    assert dump(redis4) == before  # nobody writes there any more
    written = {b"k%d" % i for i in range(500)} | {b"lk%d" % i for i in range(500)}
    old, new = ({k: v for k, v in keys.items() if k not in written} for keys in (before, dump(nodes)))
    assert old == new and len(old) == 1000
    assert "mirror_dropped" not in m.log_text()


def test_large_values_do_not_pile_up_in_the_proxy(start, redis4):
    m = start(Pair, redis4[:1], redis4[1:2], alpha={"client_output_limit": 8388608}, beta={"client_output_limit": 8388608})
    for i in range(30):
        redis4[0].ask("SET", f"k{i}", os.urandom(1500000))
    assert "30 keys: 30 copied" in copy(m, "--verify=30")


def test_values_are_those_of_the_master(start, redis4):
    """A replica that is behind must not be asked."""
    master = start(Redis, "--repl-diskless-sync-delay", 0)
    stale = start(Redis)
    stale.ask("SET", "a", "old")
    conf = pool_yaml("alpha", "127.0.0.1:@PORT@", [f"127.0.0.1:{master.port}:1 master", f"127.0.0.1:{stale.port}:1 replica"],
                     topology="replicated", health_checks="off") + pool_yaml(
                         "beta", f"127.0.0.1:{free_port()}", address(redis4[:1]))
    m = start(Millrace, conf=conf)
    master.ask("MSET", "a", "new", "b", "new")
    with m.raw() as c:
        assert c.ask("GET", "a") == b"old"
    copy(m, "--verify=0")
    assert redis4[0].ask("MGET", "a", "b") == [b"new", b"new"]


def test_passwords_and_users(start, redis4):
    secured = start(Redis, "--requirepass", "secret")
    m = start(Pair, redis4[:1], [secured], beta={"redis_auth": "secret"})
    redis4[0].ask("SET", "a", 1)
    copy(m)
    with contextlib.closing(Raw(secured.port)) as c:
        assert c.ask("AUTH", "secret") == b"+OK" and c.ask("GET", "a") == b"1"
    users = start(Millrace, conf="global: {users: {bob: {password: secret}}}\n" + pool_yaml(
        "alpha", "127.0.0.1:@PORT@", address(redis4[:1])) + pool_yaml(
            "beta", f"127.0.0.1:{free_port()}", address(redis4[1:2])))
    assert "without --user: NOAUTH" in copy(users, status=1)
    assert "WRONGPASS" in copy(users, "--user=bob", status=1, env={"MILLRACE_PASSWORD": "wrong"})
    assert "1 keys: 1 copied" in copy(users, "--user=bob", env={"MILLRACE_PASSWORD": "secret"})


def test_errors(start, redis4, tmp_path):
    m = start(Pair, redis4[:1], redis4[1:2])
    for args, words in ((["--to=gamma"], "there is no pool 'gamma'"), (["--to=alpha"], "the same pool"),
                        (["--rate=x"], "--rate requires a number"), (["x"], "unexpected argument 'x'"),
                        (["--nonsense"], "unknown option"), (["--state=/nonexistent/x"], "/nonexistent/x.new"),
                        (["--db=99"], "without --user: ERR DB index is out of range"), (["--user=bob"], "$MILLRACE_PASSWORD"),
                        (["-c", "/nonexistent"], "/nonexistent")):
        assert words in copy(m, *args, status=1), args
    (tmp_path / "state").write_text("nonsense")
    assert "is not a state file" in copy(m, f"--state={tmp_path}/state", status=1)
    assert "0 keys" in copy(m, f"--state={tmp_path}/state", "--restart")
    m.kill(signal.SIGTERM)
    assert "no millrace answers at 127.0.0.1" in copy(m, status=1)


def test_help():
    run = subprocess.run([BINARY, "copy", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "--from=POOL" in run.stderr and "mirror_to" in run.stderr
