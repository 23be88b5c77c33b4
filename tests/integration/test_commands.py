"""The command table compared with a real server's COMMAND and COMMAND GETKEYS; configured commands."""

import os
import pathlib
import random
import re
import subprocess

import pytest

from harness import Millrace, Raw, command

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", ROOT / "build"))
ROW = re.compile(r'^X\("([\w-]+)", (-?\d+), (\w+), ([\w| ]+), (\w+), (.*)\)$')
LOCAL = re.compile(r'^(LOCAL|FACADE)\("([\w-]+)", (-?\d+), .*\)$')


def table():
    """{name: (arity, class, handling, keys)} of the proxy."""
    rows = {}
    for line in (ROOT / "src/proto/resp/commands.def").read_text().splitlines():
        if m := ROW.match(line):
            rows[m[1]] = (int(m[2]), m[3], m[5], m[6])
        elif m := LOCAL.match(line):
            handling = "LOCAL" if m[1] == "LOCAL" else "REFUSE"  # in pools without a facade
            rows[m[2]] = (int(m[3]), "OTHER", handling, "NO_KEYS")
    assert len(rows) > 230
    return rows


@pytest.fixture(scope="module")
def servers_table(shared_redis):
    return {row[0].decode(): row for row in shared_redis[0].ask("COMMAND")}


# The server leaves these open: a script or transaction may write; subcommands of a container agree.
CLASSED_HERE = {"eval", "evalsha", "exec", "fcall", "memory", "object", "xgroup", "xinfo"}
BLOCK_BY_OPTION = {"xread", "xreadgroup"}


def server_class(flags):
    flags = {f.lstrip(b"+") for f in flags}
    return "WRITE" if b"write" in flags else "READ" if b"readonly" in flags else "OTHER"


def test_every_command_of_the_server_is_in_the_table(servers_table):
    assert set(servers_table) - set(table()) == set()


def test_arity(servers_table):
    assert [(name, row[0]) for name, row in table().items()
            if name in servers_table and servers_table[name][1] != row[0]] == []


def test_reads_and_writes(servers_table):
    differ = {name for name, (_, cls, handling, _) in table().items()
              if name in servers_table and handling != "LOCAL" and cls != server_class(servers_table[name][2])}
    assert differ == CLASSED_HERE


def test_what_blocks(servers_table):
    differ = {name for name, row in table().items() if name in servers_table and
              (b"+blocking" in servers_table[name][2]) != (row[2] == "BLOCK")}
    assert differ == BLOCK_BY_OPTION


def test_key_ranges(servers_table):
    wrong = []
    for name, (_, _, handling, keys) in table().items():
        m = re.match(r"KEYS\((\d+), (-?\d+), (\d+)\)$", keys)
        if name not in servers_table or not m:
            continue
        if servers_table[name][3:6] != [int(x) for x in m.groups()] and name not in CONTAINERS:
            wrong.append((name, keys, servers_table[name][3:6]))
    assert wrong == []


# ---- positions of keys, with generated arguments ----

CONTAINERS = {"object": ["encoding", "freq", "idletime", "refcount"],
              "memory": ["usage"],
              "xgroup": ["create", "createconsumer", "delconsumer", "destroy", "setid"],
              "xinfo": ["consumers", "groups", "stream"]}

WORDS = ("store storedist streams block count group by get limit weights aggregate keys numkeys left "
         "right asc desc alpha nx xx ch incr withscores withcoord noack db replace "
         "a b c d e 0 1 2 3 -1 10 1.5 * $ > ( [").split()


def generate(rng, name, arity, keys):
    """Generates arguments that a server might accept: as many as the arity requires, or more."""
    n = abs(arity) - 1 + (rng.choice((0, 0, 1, 2, 3, 4, 8)) if arity < 0 else 0)
    args = [rng.choice(WORDS) if rng.random() < 0.6 else f"key{rng.randrange(100)}" for _ in range(n)]
    if name in CONTAINERS:
        args[0] = rng.choice(CONTAINERS[name])
        args += [f"key{rng.randrange(9)}"] * (6 - len(args))
    if m := re.match(r"NUM_KEYS\((\d+)", keys):
        args[int(m[1]) - 1] = str(rng.randrange(0, n + 1))
    if keys == "STREAM_KEYS":
        lead = rng.choice(([], ["count", "2"], ["block", "10"], ["noack"], ["count", "1", "block", "0"]))
        group = ["group", rng.choice(("g", "streams")), rng.choice(("c", "streams"))]
        k = rng.randrange(1, 4)
        args = (group if name == "xreadgroup" else []) + lead + ["streams"] + \
            [f"key{i}" for i in range(k)] + [rng.choice(("0", "$", "1-1")) for _ in range(k)]
    if keys == "SORT_KEYS":
        args = ["key0"]
        for _ in range(rng.randrange(5)):
            args += rng.choice((["by", rng.choice(WORDS)], ["limit", "0", "5"], ["get", rng.choice(WORDS)],
                                ["asc"], ["alpha"], ["store", f"key{rng.randrange(9)}"]))
    return [name, *args]


def found_by_the_proxy(requests):
    """The proxy's action and the keys it finds, for each request."""
    out = subprocess.run([BUILD / "tests" / "read_requests"], input=b"".join(command(*r) for r in requests),
                         stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    assert len(out) == len(requests)
    return [(action, keys) for action, *keys in (line.split(" ") for line in out)]


def found_by_the_server(server, requests):
    """The keys the server finds; an error if there are none."""
    with Raw(server.port) as c:
        for r in requests:
            c.send(command("COMMAND", "GETKEYS", *r))
            got = c.reply()
            yield [k.decode() for k in got] if isinstance(got, list) else got


def test_keys_are_where_the_server_finds_them(redis1, servers_table):
    rng = random.Random(11)
    requests = []
    for name, (arity, _, handling, keys) in table().items():
        if name in servers_table and not keys.startswith(("NO_KEYS", "TOPICS")) and not handling.startswith("REFUSE"):
            requests += [generate(rng, name, arity, keys) for _ in range(60)]
    wrong, compared = [], 0
    for request, (action, found), want in zip(requests, found_by_the_proxy(requests),
                                              found_by_the_server(redis1, requests)):
        if action == "refuse" or (isinstance(want, bytes) and b"no key" not in want):
            continue  # one of them refuses it, so its keys do not matter
        compared += 1
        if sorted(found) != sorted(want if isinstance(want, list) else []):
            wrong.append((request, action, found, want))
    assert wrong == []
    assert compared > len(requests) / 2


# ---- commands outside the table ----

def asked(m):
    """Requests that the proxy has sent to its servers."""
    return sum(s["requests"] for s in m.pool().values() if isinstance(s, dict) and "requests" in s)


def test_unknown_commands(start, redis1):
    """An error, or forwarded by the first argument; the server's own error proves it."""
    refusing = start(Millrace, [redis1.port])
    asking = start(Millrace, [redis1.port], unknown_commands="first_key")
    with Raw(redis1.port) as direct, refusing.raw() as r, asking.raw() as a:
        theirs = direct.ask("NO.SUCH", "key", "x")
        assert r.ask("NO.SUCH", "key", "x") == theirs
        assert a.ask("NO.SUCH", "key", "x") == theirs
        assert a.ask("NO.SUCH") == direct.ask("NO.SUCH")
    assert asked(asking) == 1
    assert asked(refusing) == 0


def test_commands_that_the_file_declares(start, redis4):
    m = start(Millrace, [s.port for s in redis4],
              commands=["My.Get -2 read 1 1 1", "my.copy 3 write 1 2 1", "my.stat 1 read 0 0 0"])
    with Raw(redis4[0].port) as direct, m.raw() as c:
        for args in (("MY.GET", "k"), ("my.get", "k", "x"), ("MY.stat",)):
            assert c.ask(*args) == direct.ask(*args)
        assert asked(m) == 3
        assert c.ask("my.get") == b"-ERR wrong number of arguments for 'my.get' command"
        assert c.ask("my.copy", "k") == b"-ERR wrong number of arguments for 'my.copy' command"
        apart = {c.ask("my.copy", "k", f"k{i}")[:10] for i in range(40)}
        assert apart == {b"-CROSSSLOT", b"-ERR unkno"}
        assert c.ask("my.other", "k").startswith(b"-ERR unknown command")
