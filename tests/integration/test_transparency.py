"""The same requests to a redis-server directly and through the proxy: the replies have the same bytes."""

import re

from harness import Millrace, Raw, Redis, command

REQUESTS = """
set s hello|get s|GET s|append s !|strlen s|getrange s 1 3|substr s 0 1|setrange s 1 E|get s
setnx s x|setnx s2 x|setex s3 100 v|psetex s4 100000 v|getset s2 y|getdel s2|get s2|getex s3 persist
incr n|incrby n 41|decr n|decrby n 2|incrbyfloat f 1.5|incr s|mget s n none|mset a 1 b 2 c 3|msetnx a 1 z 2
setbit bits 7 1|getbit bits 7|bitcount bits|bitpos bits 1|bitfield bits get u8 0|bitop not nbits bits
bitfield_ro bits get u4 0|exists a b c none a|touch a none|type a|type none|ttl a|pttl a|expire a 100
expireat b 99999999999|persist a|expiretime b|pexpiretime b|pexpire a 100000|pexpireat a 99999999999999
rename a a2|renamenx a2 b|copy a2 a3|dump none|object encoding n|object refcount n|object help|unlink a3 none
lpush l 1 2 3|rpush l 4|lrange l 0 -1|llen l|lindex l 0|linsert l before 1 x|lset l 0 z|lrem l 1 4|ltrim l 0 1
lpop l|rpop l 2|lpop none|lpushx none 1|rpushx none 1|rpush l a b c d a|lpos l a rank 2|lmove l l2 left right
rpoplpush l l2|lmpop 2 none l left|lrange l 0 -1|lrange l2 0 -1|get l|lpush s 1
hset h a 1 b 2|hget h a|hmget h a b none|hgetall h|hlen h|hkeys h|hvals h|hexists h a|hincrby h a 5
hincrbyfloat h b 0.5|hsetnx h a 1|hstrlen h a|hdel h a none|hmset h x 1 y 2|hscan h 0|hrandfield h 0
sadd t 1 2 3|sadd t2 2 3 4|sismember t 1|smismember t 1 9|scard t|srem t 1 9|sinter t t2|sinterstore t3 t t2
sunionstore t4 t t2|sdiff t t2|sdiffstore t5 t2 t|sintercard 2 t t2|smove t2 t 4|sscan t5 0|spop none
srandmember none|scard t4|smembers none
zadd z 1 a 2 b 3 c|zadd z nx gt 1 a|zadd z xx ch incr 5 a|zscore z a|zmscore z a none|zcard z|zcount z 1 3
zincrby z 2 b|zrange z 0 -1 withscores|zrange z 1 9 byscore limit 0 1|zrangebyscore z -inf +inf|zrank z c
zrevrank z c|zrevrange z 0 0|zrevrangebyscore z 9 0|zadd lex 0 a 0 b 0 c|zrangebylex lex [a (c|zlexcount lex - +
zrevrangebylex lex + -|zadd z2 1 a 1 b|zunion 2 z z2 withscores|zinter 2 z z2|zdiff 2 z z2
zunionstore zu 2 z z2 weights 2 3 aggregate max|zinterstore zi 2 z z2|zdiffstore zd 2 z z2|zrangestore zr z 0 1
zintercard 2 z z2|zmpop 1 zu min|zpopmin zi|zpopmax zd|zremrangebyrank zu 0 0|zremrangebyscore zr 0 1
zremrangebylex lex [a [b|zrem z a none|zscan z 0|zrandmember none
geoadd g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania|geodist g Palermo Catania km|geopos g Palermo
geohash g Palermo none|georadius g 15 37 200 km|georadius g 15 37 200 km store g2|zcard g2
georadiusbymember g Palermo 200 km|geosearch g fromlonlat 15 37 byradius 200 km asc
geosearchstore g3 g fromlonlat 15 37 byradius 200 km|georadius_ro g 15 37 200 km
pfadd p a b c|pfadd p2 c d|pfcount p p2|pfmerge p3 p p2|pfcount p3
xadd x 1-1 f v|xadd x 1-2 f w|xlen x|xrange x - +|xrevrange x + -|xread count 1 streams x 0|xtrim x maxlen 1
xgroup create x grp 0|xreadgroup group grp me streams x >|xpending x grp|xack x grp 1-2|xinfo stream none
xdel x 1-2|xautoclaim x grp me 0 0|xclaim x grp me 0 1-1|xsetid x 9-9|xgroup destroy x grp
sort l2 alpha|sort l2 alpha desc limit 0 1|sort l2 alpha store sorted|sort_ro l2 alpha|lrange sorted 0 -1
eval return{KEYS[1],ARGV[1]} 1 k v|eval return1 0|evalsha ffffffffffffffffffffffffffffffffffffffff 0
eval_ro return(1) 1 k|lcs s s3|del s n f|unlink l|command count|command getkeys get x
get|set|set a|mset a|zadd z|zadd z x a|hset h a|lrange l x y|expire a x|incrby b x|nosuch a b|bitop x
restore r 0 nonsense|restore|object|object nosuch b|xgroup nosuch x|echo hi|ping|ping hi|ping a b|echo
"""


def without_time(reply):
    return re.sub(rb"(?<=:)\d{13}(?=\r\n)", b"TIME", reply)


def raw_reply(client, request):
    """The bytes of one reply."""
    client.send(request)
    out = b""
    pending = 1
    while pending:
        line = client.line()
        out += line + b"\r\n"
        pending -= 1
        if line[:1] == b"$" and line != b"$-1":
            out += client.exactly(int(line[1:]) + 2)
        elif line[:1] == b"*" and line != b"*-1":
            pending += int(line[1:])
    return out


def test_replies_are_the_servers_own(start):
    direct_server, proxied_server = start(Redis), start(Redis)
    m = start(Millrace, [proxied_server.port])
    requests = [r.split(" ") for line in REQUESTS.strip().splitlines() for r in line.split("|")]
    assert len(requests) > 200
    with Raw(direct_server.port) as direct, m.raw() as proxied:
        for r in requests:
            wire = command(*r)
            want, got = raw_reply(direct, wire), raw_reply(proxied, wire)
            assert without_time(got) == without_time(want), r
        # everything again as inline commands, in one write
        wire = b"".join(" ".join(r).encode() + b"\r\n" for r in requests)
        direct.send(wire)
        proxied.send(wire)
        for r in requests:
            assert proxied.reply() == direct.reply() or r[0] in ("xadd", "xpending"), r
    assert m.pool()[f"127.0.0.1:{proxied_server.port}"]["server_connections"] == 1
