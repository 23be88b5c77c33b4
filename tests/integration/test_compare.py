"""Every command of the table: the proxy's reply equals the server's, byte for byte. Arguments are
generated from the server's COMMAND DOCS. The same requests run directly and through the proxy, on the
same data of the same server."""

import random

import pytest

from harness import Millrace, Raw, Redis, command
from test_commands import table

PIECES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}  # elements per counted item
ROUNDS = 30


class Wire(Raw):
    """A client that keeps the raw bytes of replies."""

    def whole(self):
        line = self.line()
        kind, rest = line[:1], line[1:]
        data = line + b"\r\n"
        if kind in b"$=!" and rest != b"-1":
            data += self.exactly(int(rest) + 2)
        elif kind in PIECES and rest != b"-1":
            data += b"".join(self.whole() for _ in range(int(rest) * PIECES[kind] + (kind == b"|")))
        return data

    def tell(self, *args):
        return self.send(command(*args)).whole()


# All keys have the same tag, so they are on one server of a pool.
DATA = """
SET {t}str hello|SET {t}num 41|SET {t}float 1.5|RPUSH {t}list a b c b|SADD {t}set a b c|SADD {t}ints 1 2 3
ZADD {t}zset 1 a 2 b 2.5 c|HSET {t}hash f v g 2|PFADD {t}hll a b|PFADD {t}hll2 c|SETEX {t}ttl 1000 x
GEOADD {t}geo 13.36 38.11 P 15.08 37.50 C|XADD {t}stream 1-1 f v|XADD {t}stream 2-1 g w
XGROUP CREATE {t}stream group 0|XREADGROUP GROUP group me COUNT 1 STREAMS {t}stream >|SETBIT {t}bits 7 1
"""
FILL = [command(*line.split()) for line in DATA.replace("\n", "|").split("|") if line]

KEYS = [f"{{t}}{name}" for name in "str num float list set ints zset hash hll hll2 geo stream ttl bits none "
        "other".split()]
STRINGS = "a b c f g v hello 1 2 -1 0 group me * P C 1-1 2-1 $ > - + [a (b x".split()


class Arguments:
    """Random arguments for a command, according to its documentation."""

    def __init__(self, rng):
        self.rng = rng

    def value(self, arg):
        rng, kind, name = self.rng, arg["type"], arg.get("name", "")
        if "timeout" in name:
            return [rng.choice(("0.01", "0.02"))]
        if "seconds" in name and kind == "integer":  # nothing may expire meanwhile
            return [rng.choice(("100000", "0", "-1", "x"))]
        if name == "numkeys":
            return ["\0numkeys"]
        if kind == "key":
            return [rng.choice(KEYS)]
        if kind == "integer":
            return [rng.choice(("0", "1", "2", "3", "-1", "10", "x") if rng.random() < 0.3 else ("1", "2", "3"))]
        if kind == "double":
            return [rng.choice(("1.5", "-2", "0", "10", "inf", "x"))]
        if kind == "unix-time":
            return [rng.choice(("33000000000", "1"))]
        if kind == "pattern":
            return [rng.choice(("*", "?", "a*"))]
        return [rng.choice(STRINGS)]

    def one(self, arg):
        kind = arg["type"]
        if kind == "oneof":
            return self.some([self.rng.choice(arg["arguments"])])
        if kind == "block":
            return self.some(arg["arguments"])
        if kind == "pure-token":
            return []
        return self.value(arg)

    def some(self, args):
        out = []
        for arg in args:
            flags = arg.get("flags", ())
            if "optional" in flags and self.rng.random() < 0.6:
                continue
            times = self.rng.choice((1, 1, 2, 3)) if "multiple" in flags else 1
            for i in range(times):
                if "token" in arg and (i == 0 or "multiple_token" in flags):
                    out.append(arg["token"])
                out += self.one(arg)
        return out

    def of(self, words, docs):
        out = [*words, *self.some(docs.get("arguments", []))]
        if "\0numkeys" in out:  # usually the right one
            at = out.index("\0numkeys")
            n = 0
            while at + 1 + n < len(out) and out[at + 1 + n] in KEYS:
                n += 1
            out[at] = str(n if self.rng.random() < 0.85 else self.rng.choice((-1, 0, n + 9, "x")))
        r = self.rng.random()
        if r < 0.1 and len(out) > len(words):
            out.pop(self.rng.randrange(len(words), len(out)))
        elif r < 0.15:
            out.append(self.rng.choice(STRINGS))
        return out


def to_text(value):
    """A reply in RESP3 with strings for bytes."""
    if isinstance(value, bytes):
        return value.decode().lstrip("+")
    if isinstance(value, list):
        return [to_text(v) for v in value]
    if isinstance(value, dict):
        return {to_text(k): to_text(v) for k, v in value.items()}
    return value


@pytest.fixture(scope="module")
def docs(shared_redis):
    with Raw(shared_redis[0].port) as c:
        c.ask("HELLO", 3)
        return to_text(c.ask("COMMAND", "DOCS"))


def requests_for(name, docs):
    """Random requests for a command, the same in every run."""
    rng = random.Random(name)
    arguments = Arguments(rng)
    forms = [((name,), docs)]
    for sub, sub_docs in docs.get("subcommands", {}).items():
        forms.append((tuple(sub.split("|")), sub_docs))
    requests = [[*words] for words, _ in forms]
    if len(forms) > 1:
        forms = forms[1:]
    for _ in range(ROUNDS):
        words, d = rng.choice(forms)
        request = arguments.of(words, d)
        requests.append([request[0].upper() if rng.random() < 0.2 else request[0], *request[1:]])
    return requests


def run(servers, server, port, version, requests):
    """Replies to the requests, on the initial data of one of the servers."""
    for each in servers:
        with Wire(each.port) as c:
            c.send(command("FLUSHALL") + command("SCRIPT", "FLUSH") + command("FUNCTION", "FLUSH") +
                   (b"".join(FILL) if each is server else b""))
            for _ in range(3 + len(FILL) * (each is server)):
                c.whole()
    with Wire(port) as c:
        c.tell("HELLO", version)
        return [c.tell(*r) for r in requests]


# ---- allowed differences ----

# Depends on chance, the clock or memory: the type of the reply must be the same.
BY_CHANCE = {"randomkey", "srandmember", "spop", "hrandfield", "zrandmember", "time", "object", "memory",
             "ttl", "pttl", "expiretime", "pexpiretime", "xinfo", "dump", "lolwut", "xpending", "xautoclaim",
             "xclaim", "xadd", "command", "getex", "scan"}

# Refused on purpose, with an error that says so, or answered by the proxy's own rules.
OWN_WAY = {("memory", "doctor"), ("memory", "malloc-stats"), ("memory", "purge"), ("memory", "stats"),
           ("script", "debug"), ("scan", "-1"), ("exec", "0")}


def differ(request, theirs, ours):
    name = request[0].lower()
    if theirs == ours or ours.startswith(b"-CROSSSLOT "):  # by chance a key without the tag
        return False
    if (name, request[1].lower() if len(request) > 1 else "") in OWN_WAY:
        return not ours.startswith(b"-ERR ")
    if name in ("wait", "waitaof") and b"not supported by this proxy" in ours:  # of several servers
        return False
    return name not in BY_CHANCE or ours[:1] != theirs[:1]


ROWS = table()
SERVED = sorted(n for n, row in ROWS.items() if not row[2].startswith("REFUSE") and row[2] != "LOCAL")


def home_of(m, servers):
    """The server that has the keys with the tag."""
    with m.raw() as c:
        c.ask("SET", KEYS[0], "x")
    return next(s for s in servers if s.ask("EXISTS", KEYS[0]) == 1)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("version", [2, 3])
def test_generated_requests(start, redis4, docs, version, n):
    servers = redis4[:n]
    m = start(Millrace, [s.port for s in servers], hash_tag='"{}"', allow_flush_all="true")
    home = home_of(m, servers)
    wrong, compared = [], 0
    for name in SERVED:
        if name in docs:
            requests = requests_for(name, docs[name])
            theirs = run(servers, home, home.port, version, requests)
            ours = run(servers, home, m.port, version, requests)
            wrong += [x for x in zip(requests, theirs, ours) if differ(*x)]
            compared += len(requests)
    assert wrong == []
    assert compared > 25 * len(SERVED)


# ---- what the proxy answers itself ----

LOCAL = """
PING|PING x|PING x y|ECHO|ECHO x|ECHO x y|TIME x|READONLY x|SELECT|SELECT 1|SELECT 99|SELECT -1|SELECT x|SELECT 1 2
AUTH|AUTH a b c|HELLO 1|HELLO x|HELLO 4|HELLO 3 AUTH|HELLO 2 SETNAME|HELLO 2 NOSUCH|HELLO 2 AUTH bob x
CLIENT|CLIENT GETNAME|CLIENT GETNAME x|CLIENT SETNAME|CLIENT SETNAME me|CLIENT GETNAME|CLIENT ID x|CLIENT INFO x
CLIENT LIST x|CLIENT LIST TYPE|CLIENT LIST TYPE x|CLIENT LIST TYPE master|CLIENT LIST ID x|CLIENT LIST ID
CLIENT LIST ID 999999999|CLIENT LIST ID 999999999 x|CLIENT NO-EVICT|CLIENT NO-EVICT x|CLIENT NO-EVICT on
CLIENT REPLY|CLIENT REPLY x|CLIENT REPLY on|CLIENT GETREDIR|CLIENT GETREDIR x|CLIENT TRACKINGINFO
CLIENT TRACKINGINFO x|CLIENT TRACKING|CLIENT TRACKING off|CLIENT TRACKING x|CLIENT CACHING|CLIENT CACHING yes
CLIENT KILL|CLIENT KILL x|CLIENT KILL 1.2.3.4:5|CLIENT KILL ID|CLIENT KILL ID x|CLIENT KILL ID 0
CLIENT KILL ID 999999999|CLIENT KILL ADDR 1.2.3.4:5|CLIENT KILL LADDR 1.2.3.4:5|CLIENT KILL TYPE x
CLIENT KILL TYPE master|CLIENT KILL USER nobody|CLIENT KILL SKIPME x|CLIENT KILL NOSUCH x|CLIENT KILL ID 9 TYPE
CLIENT UNBLOCK|CLIENT UNBLOCK x|CLIENT UNBLOCK 999999999|CLIENT UNBLOCK 999999999 TIMEOUT
CLIENT UNBLOCK 999999999 ERROR|CLIENT UNBLOCK 999999999 x|CLIENT UNBLOCK 1 ERROR x|CLIENT PAUSE|CLIENT UNPAUSE x
CLIENT NOSUCH|CLIENT HELP x|CONFIG|CONFIG GET|CONFIG GET save|CONFIG GET nosuch|CONFIG GET databases|CONFIG NOSUCH
RESET x|RESET|CLIENT GETNAME|SELECT 1|MULTI|PING|PING x|ECHO x|ECHO|EXEC|MULTI|RESET|EXEC|MULTI|EXEC x|PING|EXEC x y|QUIT
"""


@pytest.mark.parametrize("version", [2, 3])
def test_what_the_proxy_answers_itself(start, redis1, version):
    m = start(Millrace, [redis1.port])
    lines = [line.split() for line in LOCAL.replace("\n", "|").split("|") if line]
    theirs, ours = (run([redis1], redis1, port, version, lines) for port in (redis1.port, m.port))
    assert [x for x in zip(lines, theirs, ours) if x[1] != x[2]] == []
    assert {name for name, row in ROWS.items() if row[2] == "LOCAL"} - {line[0].lower() for line in lines} == {
        "info", "readwrite"}


def test_what_is_refused_has_the_right_number_of_arguments_first(start, redis1):
    """Otherwise the error is the server's; nothing of it is run on the server itself."""
    m = start(Millrace, [redis1.port])
    with Wire(redis1.port) as direct, m.raw() as c:
        for name, (arity, _, handling, _) in ROWS.items():
            if handling.startswith("REFUSE"):
                if arity not in (1, -1) and not direct.tell(name).startswith(b"-ERR unknown command"):
                    assert c.ask(name) == direct.tell(name).strip(), name
                n = abs(arity) - 1 + (arity < 0)
                said = b"unknown command" if name == "sentinel" else b"this proxy"  # only sentinels know it
                assert said in c.ask(name, *["x"] * n), name
