"""Users: who may log in, what they may do, and that passwords cannot be guessed."""

import hashlib
import pathlib
import re
import socket
import urllib.request

import pytest
from harness import Millrace, Raw, Redis, free_port, pool_yaml, wait_for
from test_reload import reload, settled
from test_resp3 import Wire
from test_upgrade import Upgradable, adopt_orphans  # noqa: F401, a fixture

ROOT = pathlib.Path(__file__).parents[2]
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled."
NO_KEY = b"-NOPERM this user has no permissions to access one of the keys used as arguments"


def no_command(name):
    return b"-NOPERM this user has no permissions to run the '%s' command" % name.encode()


def users(admin=None, **named):
    lines = ["global:", *([f"  admin: 127.0.0.1:{admin}"] if admin else []), "  users:"]
    for name, keys in named.items():
        lines += [f"    {name}:"] + [f"      {k}: {v}" for k, v in keys.items()]
    return "\n".join(lines) + "\n"


def failures(admin):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics") as page:
        found = re.findall(r"^millrace_pool_auth_failures_total{.*} (\d+)$", page.read().decode(),
                           re.M)
    return sum(map(int, found))


def with_users(start, servers, *, kind=Millrace, pool=None, workers=1, **named):
    conf = users(**named) + pool_yaml("alpha", "127.0.0.1:@PORT@",
                                      [f"127.0.0.1:{s.port}:1" for s in servers], **(pool or {}))
    return start(kind, conf=conf, workers=workers)


SAME = {
    # of redis-server, and of the proxy
    "reader": ("+@all -@write -eval -evalsha -fcall ~*", {"read_only": "true"}),
    "counter": ("+@connection -@dangerous +incr +get +exec +client|list ~*",
                {"allow": "[incr, get, exec, client|list]"}),
    "tenant": ("+@all -@scripting ~app:* ~tmp:*", {"key_prefixes": "[\"app:\", \"tmp:\"]"}),
    "careful": ("+@all -@dangerous -@sortedset -get -script|flush ~*",
                {"deny": "[\"@dangerous\", \"@sortedset\", GET, script|flush]"}),
}
LINES = [
    "GET app:1", "SET app:1 x", "SET other x", "MGET app:1 tmp:1", "MGET app:1 other", "INCR n",
    "DEL app:1", "DEL other app:1", "EVAL return_1 0", "EVAL_RO return_1 0", "ZADD app:z 1 a",
    "ZCARD app:z", "RENAME app:1 app:2", "RENAME app:1 other", "COPY other app:3",
    "SUNIONSTORE app:u app:1 tmp:1", "SUNIONSTORE app:u app:1 other", "OBJECT ENCODING other",
    "OBJECT NONE app:1", "CLIENT GETNAME", "SCRIPT FLUSH", "SCRIPT EXISTS x", "SCRIPT NONE",
    "FUNCTION LIST", "FUNCTION FLUSH", "FUNCTION FLUSH a b c", "XADD app:s 1-1 f v",
    "XREAD COUNT 1 STREAMS app:s other 0 0", "XREAD COUNT 1 STREAMS app:s 0-1", "LPUSH app:l a",
    "SORT app:l BY other:*", "SORT app:l GET other:*", "SORT app:l",
    "SORT_RO app:l BY x LIMIT 0 1", "BLPOP app:l other 0.01", "BLPOP app:l 0.01", "NOPE x",
    "GET", "PING", "ECHO x", "SELECT 0", "WATCH other", "WATCH app:1", "UNWATCH", "MULTI",
    "SET other 1", "SET app:1 1", "GET app:1", "EXEC", "MULTI", "GET app:1", "EXEC",
    "GEOADD app:g 1 1 a", "GEORADIUS app:g 1 1 1 m STORE other", "EXPIRE app:1 100",
    "PFCOUNT app:1 other", "RANDOMKEY x", "SUBSTR app:1 0 1",
    "AUTH {user} wrong", "AUTH a b c", "GET app:1",
]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("user", SAME)
def test_users_are_those_of_redis(start, redis1, user, version):
    acl, keys = SAME[user]
    redis1.ask("ACL", "SETUSER", user, "on", ">pw", *acl.split())
    m = with_users(start, [redis1], **{user: {"password": "pw", **keys}}, pool={
        "allow_flush_all": "true"})
    seen = []
    for port in (redis1.port, m.port):
        with Wire(port) as c:
            c.tell("HELLO", version, "AUTH", user, "pw")
            seen.append([])
            for line in LINES:
                redis1.ask("FLUSHALL")
                redis1.ask("LPUSH", "app:l", "1")
                seen[-1].append((line, c.tell(*line.format(user=user).split())))
    assert seen[1] == seen[0]


def test_categories_are_those_of_redis(redis1):
    text = (ROOT / "src/proto/resp/categories.def").read_text()
    ours = {name: set(categories.lower().split(" | ")) - {"0"}
            for name, categories in re.findall(r'^X\("(.*?)", (.*)\)$', text, re.M)}
    theirs = {c.decode(): {n.decode() for n in redis1.ask("ACL", "CAT", c)}
              for c in redis1.ask("ACL", "CAT")}
    known = theirs["fast"] | theirs["slow"]  # all that this version has
    for category in theirs.keys() - {"fast", "slow"}:
        listed = {n for n in ours if category in ours[n]}
        assert listed & known == theirs[category] & ours.keys(), category
    assert ours["hexpire"] == {"write", "hash"}


def test_logging_in(start, redis1):
    sha = hashlib.sha256(b"hashed").hexdigest()
    admin = free_port()
    m = with_users(start, [redis1], admin=admin, ann={"password": f'[plain, "#{sha}"]'},
                   bob={"password": "b"})
    with m.raw() as c:
        assert c.ask("GET", "a").startswith(b"-NOAUTH")
        for wrong in [("ann", "b"), ("bob", "plain"), ("bob", ""), ("", "b"), ("eve", "b"),
                      ("ann", sha), ("ann", "#" + sha), ("ANN", "plain"), ("default", "b")]:
            assert c.ask("AUTH", *wrong) == WRONG
        assert c.ask("AUTH", "b") == WRONG  # of the user `default`, which does not exist
        assert c.ask("GET", "a").startswith(b"-NOAUTH")
        assert failures(admin) == 10
    with m.raw() as c:
        assert c.ask("AUTH", "ann", "hashed") == b"+OK"
        assert b" user=ann " in c.ask("CLIENT", "INFO")
        assert c.ask("AUTH", "bob", "wrong") == WRONG
        assert b" user=ann " in c.ask("CLIENT", "INFO")  # unchanged
        assert c.ask("HELLO", "2", "AUTH", "bob", "b")[0] == b"server"
        assert b" user=bob " in c.ask("CLIENT", "INFO")
        assert c.ask("RESET") == b"+RESET"
        assert c.ask("GET", "a").startswith(b"-NOAUTH")


def test_redis_auth_stays(start):
    server = start(Redis, "--requirepass", "old")
    m = with_users(start, [server], ann={"password": "a", "read_only": "true"},
                   pool={"redis_auth": "old"})
    with m.raw() as c:
        assert c.ask("AUTH", "old") == b"+OK"
        assert c.ask("SET", "a", "1") == b"+OK"
        assert c.ask("AUTH", "ann", "a") == b"+OK"
        assert c.ask("SET", "a", "1") == no_command("set")
        assert c.ask("AUTH", "default", "old") == b"+OK"
        assert c.ask("SET", "a", "2") == b"+OK"
    server = start(Redis)
    m = with_users(start, [server], default={"password": "new", "deny": "set"})
    with m.raw() as c:
        assert c.ask("AUTH", "old") == WRONG
        assert c.ask("AUTH", "new") == b"+OK"
        assert c.ask("SET", "a", "1") == no_command("set")


def test_users_have_their_pools(start, redis1):
    other = socket.create_server(("127.0.0.1", 0))
    port = other.getsockname()[1]
    other.close()
    servers = [f"127.0.0.1:{redis1.port}:1"]
    conf = (users(ann={"password": "a", "pools": "[beta]"}, bob={"password": "b"}) +
            pool_yaml("alpha", "127.0.0.1:@PORT@", servers) +
            pool_yaml("beta", f"127.0.0.1:{port}", servers))
    m = start(Millrace, conf=conf)
    with m.raw() as alpha, Raw(port) as beta:
        assert alpha.ask("AUTH", "ann", "a") == WRONG
        assert beta.ask("AUTH", "ann", "a") == b"+OK"
        assert alpha.ask("AUTH", "bob", "b") == beta.ask("AUTH", "bob", "b") == b"+OK"


def test_keys_that_are_not_arguments(start, redis4):
    m = with_users(start, redis4, tenant={"password": "p", "key_prefixes": "[\"app:\", \"a*b\"]"},
                   scripter={"password": "p", "key_prefixes": "[\"app:\"]", "allow": "[\"@all\"]"},
                   root={"password": "p"}, pool={"allow_flush_all": "true"})
    with m.raw() as c:
        assert c.ask("AUTH", "root", "p") == b"+OK"
        for key in ("app:1", "app:2", "other", "axb"):
            assert c.ask("SET", key, "x") == b"+OK"
        assert c.ask("DBSIZE") == 4
        assert c.ask("AUTH", "tenant", "p") == b"+OK"
        assert sorted(c.ask("KEYS", "app:*")) == [b"app:1", b"app:2"]
        cursor, seen = b"0", []
        while cursor != b"0" or not seen:
            cursor, keys = c.ask("SCAN", cursor, "COUNT", "100", "match", "app:*")
            seen += keys
        assert sorted(seen) == [b"app:1", b"app:2"]
        for line in ("KEYS *", "KEYS a*b", "KEYS ap[p]:*", "SCAN 0", "SCAN 0 COUNT 10",
                     "SCAN 0 MATCH app:* MATCH *", "RANDOMKEY", "DBSIZE", "FLUSHALL", "FLUSHDB"):
            assert (line, c.ask(*line.split())) == (line, NO_KEY)
        assert c.ask("EVAL", "return redis.call('get', 'other')", "0") == no_command("eval")
        assert c.ask("AUTH", "scripter", "p") == b"+OK"
        assert c.ask("EVAL", "return 1", "0") == 1
        assert c.ask("EVAL", "return 1", "1", "other") == NO_KEY
        assert c.ask("AUTH", "root", "p") == b"+OK"
        assert c.ask("FLUSHALL") == b"+OK"


def test_users_across_reloads_and_upgrades(start, redis1):
    named = {"ann": {"password": "a"}, "bob": {"password": "b"}}
    m = with_users(start, [redis1], kind=Upgradable, workers=2, **named)
    pool = m.conf.read_text().split("alpha:", 1)[1]

    def change(**named):
        m.conf.write_text((users(**named) if named else "") + "alpha:" + pool)
        reload(m)
        settled(m)

    with m.raw() as ann, m.raw() as bob, m.raw() as stranger:
        assert ann.ask("AUTH", "ann", "a") == bob.ask("AUTH", "bob", "b") == b"+OK"
        assert ann.ask("MULTI") == b"+OK" and ann.ask("SET", "a", "1") == b"+QUEUED"
        change(ann={"password": "other", "read_only": "true"}, bob={"password": "b"})
        assert ann.ask("EXEC").startswith(b"-EXECABORT")  # not allowed any more
        assert ann.ask("GET", "a") is None
        assert ann.ask("SET", "a", "1") == no_command("set")
        assert bob.ask("SET", "a", "1") == b"+OK"
        assert stranger.ask("GET", "a").startswith(b"-NOAUTH")
        m.upgrade()
        assert ann.ask("SET", "a", "1") == no_command("set")
        assert b" user=bob " in bob.ask("CLIENT", "INFO")
        change(ann={"password": "other"})
        assert ann.ask("SET", "a", "1") == b"+OK"
        assert bob.ask("SET", "a", "1").startswith(b"-NOAUTH")
        assert bob.ask("AUTH", "bob", "b") == WRONG
        assert bob.ask("AUTH", "ann", "other") == b"+OK"
        change()
        for c in (ann, bob, stranger):
            assert c.ask("SET", "a", "1") == b"+OK"
        change(ann={"password": "other"})  # the pool was open to them
        for c in (ann, bob, stranger):
            assert c.ask("SET", "a", "1").startswith(b"-NOAUTH")


def from_address(m, address):
    c = Raw.__new__(Raw)
    c.sock = socket.create_connection(("127.0.0.1", m.port), source_address=(address, 0), timeout=5)
    c.buffer = b""
    return c


def test_guessing_is_slow(start, redis1):
    admin = free_port()
    m = with_users(start, [redis1], admin=admin, workers=2, ann={"password": "a"},
                   bob={"password": "b"})
    too_many = b"-ERR too many failed logins from this address, try again later"
    replies = []
    for i in range(30):  # over connections of both workers
        with m.raw() as c:
            replies += [c.ask("AUTH", "ann", "a%d" % i), c.ask("AUTH", "nobody", "x")]
    assert replies[:20] == [WRONG] * 20
    assert replies[20:].count(too_many) > 30
    assert failures(admin) == 60
    with m.raw() as c, from_address(m, "127.0.0.9") as other:
        assert c.ask("HELLO", "2", "AUTH", "ann", "a") == too_many
        assert c.ask("AUTH", "bob", "b") == b"+OK"  # another user
        assert other.ask("AUTH", "ann", "a") == b"+OK"  # another address
        wait_for(lambda: c.ask("AUTH", "ann", "a") == b"+OK", what="another try")
