"""Requests in Redis's protocol, right and wrong, from a seed; their values are requests and replies."""

from harness import command

# A value that the proxy or the server takes for a request or a reply shows: the proxy refuses FLUSHALL,
# and the server counts it; the rest moves the replies of others.
VALUES = [b"*1\r\n$8\r\nFLUSHALL\r\n", b"FLUSHALL\r\n", b"\r\nFLUSHALL\r\n", b"+OK\r\n", b"$-1\r\n", b":1\r\n",
          b"*1\r\n$4\r\nPING\r\n" * 20, b"x", b"", b"\r\n", b"1", b"-1", b"x" * 20000, b"*2\r\n$3\r\nGET\r\n$1\r\n"]
NUMBERS = [b"1", b"2", b"-1", b"007", b"1.5", b"0x10", b"1a", b"", b"+1", b"4294967296", b"18446744073709551616",
           b"9223372036854775807", b"-9223372036854775808", b"inf", b"nan"]
KEYS = [b"k", b"l", b"h", b"s", b"z", b"x", b"n", b"{k}1", b"{}", b"", b"\r\n", b"\x00", b"\xff\xfe", b"k" * 300]
SCRIPTS = [b"return 1", b"return {1, {2, {3, {}}}, 'x', false}", b"return redis.error_reply('ERR mine')",
           b"return redis.call('GET', KEYS[1])", b"return {err='a\\r\\nb'}", b"syntax (", b"return {double=1.5}",
           b"redis.setresp(3) return {map={a=1, b={set={x=true}}}}", b"return string.rep('+OK\\r\\n', 2000)",
           b"local t = {} for i = 1, 500 do t[i] = {i} end return t", b"return redis.call('LPUSH', KEYS[1], '1')"]
# %k a key, %v a value, %n a number, %s a script, %t a short time-out
LINES = [line.split() for line in """
SET %k %v|SET %k %v EX %n|SET %k %v GET|GET %k|GETSET %k %v|GETDEL %k|APPEND %k %v|STRLEN %k|INCRBY %k %n|SETRANGE %k %n %v
MGET %k %k %k|MSET %k %v %k %v|DEL %k %k|EXISTS %k %k|TOUCH %k|UNLINK %k|MSETNX %k %v|RENAME %k %k|COPY %k %k|MOVE %k %n
HSET h f %v|HGETALL h|HMGET h f %v|HSCAN h 0|HRANDFIELD h %n WITHVALUES|HINCRBY h f %n|HDEL h f
LPUSH l %v %v|RPUSH l %v|LPOP l|LPOP l %n|LRANGE l 0 -1|LINSERT l BEFORE %v %v|LMPOP 1 l LEFT|LMPOP %n l LEFT|LPOS l %v
SADD s %v %v|SMEMBERS s|SPOP s|SMISMEMBER s %v x|SINTERCARD %n s s|SUNIONSTORE s s %k
ZADD z 1 %v|ZADD z INCR %n %v|ZRANGE z 0 -1 WITHSCORES|ZSCORE z %v|ZUNIONSTORE z 2 z z|ZUNION %n z z|ZPOPMIN z|ZMPOP 1 z MIN
XADD x * f %v|XRANGE x - +|XREAD COUNT 2 STREAMS x 0|XREAD BLOCK 1 STREAMS x $|XREAD STREAMS x x 0|XGROUP CREATE x g 0
XREADGROUP GROUP g c STREAMS x >|XINFO STREAM x|XLEN x|XTRIM x MAXLEN 5
EVAL %s 1 %k|EVAL %s 0|EVAL %s %n %k %v|EVALSHA %v 1 %k|EVAL_RO %s 1 %k|SCRIPT LOAD %s|SCRIPT EXISTS %v|FUNCTION LIST|FCALL f 1 %k
MULTI|EXEC|DISCARD|WATCH %k|WATCH l z|UNWATCH|MULTI x|EXEC x|WATCH
BLPOP l %t|BRPOP l s %t|BLMOVE l l LEFT RIGHT %t|BZPOPMIN z %t|BZMPOP %t 1 z MIN|BLMPOP %t %n l LEFT|BLPOP l %n|BRPOPLPUSH l l %t
SORT l ALPHA|SORT l BY nosort STORE l|SORT l GET # GET %k|OBJECT ENCODING %k|OBJECT HELP|MEMORY USAGE %k|DUMP %k|RESTORE %k 0 %v
SELECT %n|SELECT 0|SELECT 1|HELLO|HELLO 3|HELLO 2|HELLO 3 SETNAME %v|HELLO %n|RESET|AUTH %v|PING|PING %v|ECHO %v|TIME
CLIENT SETNAME %v|CLIENT GETNAME|CLIENT LIST|CLIENT INFO|CLIENT ID|CLIENT KILL ID 99999999|CLIENT UNBLOCK 99999999
CLIENT REPLY SKIP|CLIENT REPLY OFF|CLIENT REPLY ON|CLIENT PAUSE 100|CLIENT TRACKING ON|CLIENT NOSUCH|CONFIG GET save
SCAN 0|SCAN %n|SCAN 0 MATCH %v COUNT 5|KEYS %k|DBSIZE|RANDOMKEY|COMMAND COUNT|COMMAND DOCS get|LOLWUT|INFO|WAIT 0 1|WAITAOF 0 0 1
FLUSHALL|FLUSHDB|SWAPDB 0 1|DEBUG SLEEP 9|SHUTDOWN|MONITOR|SUBSCRIBE %k|PSUBSCRIBE *|PUBLISH %k %v|REPLICAOF NO ONE|SYNC|PSYNC ? -1
CONFIG SET save x|SAVE|ACL SETUSER x|CLUSTER SLOTS|READONLY|ASKING|NOSUCH %k|QUIT|SPUBLISH %k %v|MIGRATE x 1 %k 0 1|FAILOVER
""".strip().replace("\n", "|").encode().split(b"|")]
PIECES = [b"\r\n", b"\n", b"\r", b" ", b"\x00", b"\xff", b"*1\r\n", b"*-1\r\n", b"*0\r\n", b"$-1\r\n", b"$0\r\n\r\n",
          b"$5\r\n", b"+OK\r\n", b":1\r\n", b"*1048577\r\n", b"*9999999999\r\n", b"$536870913\r\n", b"$99999999999\r\n",
          b'"', b"'", b">1\r\n", b"%1\r\n", b"~1\r\n", b"|1\r\n", b"_\r\n", b"*1\r\n$8\r\nFLUSHALL\r\n", b"FLUSHALL\r\n",
          b"-", b"0", b"1", b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"]


class Requests:
    """`random` decides on everything."""

    def __init__(self, random):
        self.random = random
        self.choice = random.choice

    def often(self, usual, others, share=0.3):
        return self.choice(others) if self.random.random() < share else usual

    def word(self, word):
        if word == b"%k":
            return self.often(b"k", KEYS, 0.5)
        if word == b"%v":
            return self.choice(VALUES)
        if word == b"%n":
            return self.often(b"1", NUMBERS, 0.5)
        if word == b"%s":
            return self.choice(SCRIPTS)
        if word == b"%t":
            return self.often(b"0.001", [b"0", b"-1", b"x", b"", b"1e-3", b"99999999999999999999"], 0.1)
        return self.often(word, [word.lower(), word + b"\x00", b""], 0.02)

    def words(self, line):
        words = [self.word(w) for w in line]
        chance = self.random.random()
        if chance < 0.03:
            return words[:-1] or words
        if chance < 0.06:
            return words + [self.choice(VALUES)]
        return words

    def framed(self, words):
        if self.random.random() < 0.9:
            return command(*words)
        if self.random.random() < 0.5: # an inline command
            quoted = [b'"%s"' % w if b" " in w or not w else w for w in words]
            return b" ".join(quoted) + self.often(b"\r\n", [b"\n", b"\r\r\n", b" \r\n"])
        digits = self.choice([b"*%03d\r\n", b"*+%d\r\n", b"*%d\n", b"* %d\r\n", b"*%d \r\n"]) % len(words)
        return digits + command(*words).split(b"\r\n", 1)[1]

    def mutated(self, request):
        data = bytearray(request)
        for _ in range(self.often(0, [1, 1, 2, 4], 0.2)):
            at = self.random.randrange(len(data) + 1)
            what = self.random.random()
            if what < 0.3 and at < len(data):
                data[at] = self.random.randrange(256)
            elif what < 0.6:
                data[at:at] = self.choice(PIECES)
            elif what < 0.8:
                del data[at:at + self.random.randrange(1, 5)]
            else:
                data[at:at + 2] = self.choice(PIECES)
        return bytes(data)

    def line(self):
        return self.mutated(self.framed(self.words(self.choice(LINES))))

    def transaction(self):
        inside = [self.line() for _ in range(self.random.randrange(8))]
        return command(b"MULTI") + b"".join(inside) + command(self.often(b"EXEC", [b"DISCARD", b"PING"]))

    def batch(self):
        """What one client sends."""
        make = [self.line] * 5 + [self.transaction]
        return [self.choice(make)() for _ in range(self.random.randrange(1, 12))]
