/* test_parse.c - RESP requests: results at every split, keys, refusals. */
#include "proto/resp/command.h"
#include "proto/resp/resp.h"
#include "unit/proto/fixture.h"

static struct mr_proto_options options = {.max_request_bytes = 1000, .max_key_bytes = 50};
static struct mr_session session = {.id = 1, .authed = true};
static const struct mr_proto_ctx CTX = {&options, &session, &slab, &scratch, NULL};

struct outcome {
    enum mr_result rc;
    enum mr_msg_action action;
    size_t consumed;
    char key[64];
    char reply[512];
    char wire[1024];
    uint32_t n_keys;
    bool splittable;
    enum mr_step step;
    bool once;
};

static void record(struct outcome *o, enum mr_result rc, const struct mr_msg *msg)
{
    memset(o, 0, sizeof(*o));
    o->rc = rc;
    if (rc == MR_AGAIN)
        return;
    o->action = rc == MR_OK ? msg->action : MR_MSG_REFUSE;
    if (o->action == MR_MSG_REFUSE)
        memcpy(o->reply, msg->reply.at, msg->reply.len);
    if (rc != MR_OK)
        return;
    o->consumed = msg->consumed;
    if (o->action == MR_MSG_BY_KEY || o->action == MR_MSG_BY_KEYS)
        memcpy(o->key, msg->key.at, msg->key.len);
    if (o->action == MR_MSG_BY_KEYS) {
        o->n_keys = msg->n_keys;
        o->splittable = msg->splittable;
    }
    o->step = (enum mr_step)msg->step;
    o->once = msg->once;
    if (o->action != MR_MSG_SKIP && o->action != MR_MSG_REFUSE)
        memcpy(o->wire, msg->wire.at, msg->wire.len);
}

/* Parses the bytes in two pieces, each time in a new allocation of the exact size. */
static void parse_cut(struct outcome *o, const char *bytes, size_t n, size_t cut)
{
    struct mr_parse_state state = {0};
    struct mr_msg msg = {0};
    char *first = malloc(cut + 1), *whole = malloc(n + 1);
    enum mr_result rc;

    memcpy(first, bytes, cut);
    memcpy(whole, bytes, n);
    rc = MR_PROTO_RESP.client.parse(&CTX, &state, first, cut, &msg);
    if (rc == MR_AGAIN && cut < n) {
        assert_true(state.want <= n || state.want > cut);
        rc = MR_PROTO_RESP.client.parse(&CTX, &state, whole, n, &msg);
    }
    record(o, rc, &msg);
    free(first);
    free(whole);
}

/* The result must be the same however the bytes are cut, even byte by byte. */
static void parse(struct outcome *o, const char *bytes, size_t n)
{
    struct outcome at_cut;

    parse_cut(o, bytes, n, n);
    for (size_t cut = 0; cut < n; cut++) {
        parse_cut(&at_cut, bytes, n, cut);
        if (memcmp(&at_cut, o, sizeof(*o)) != 0)
            fail_msg("cut at %zu of '%s': rc %d instead of %d, '%s' instead of '%s'", cut, bytes,
                     at_cut.rc, o->rc, at_cut.reply, o->reply);
    }
    struct mr_parse_state state = {0};
    for (size_t len = 1; len <= n; len++) {
        struct mr_msg msg = {0};
        char *piece = malloc(len);
        memcpy(piece, bytes, len);
        const enum mr_result rc = MR_PROTO_RESP.client.parse(&CTX, &state, piece, len, &msg);
        if (rc != MR_AGAIN || len == n) {
            record(&at_cut, rc, &msg);
            assert_int_equal(at_cut.rc, o->rc);
            assert_string_equal(at_cut.reply, o->reply);
            assert_string_equal(at_cut.key, o->key);
            len = n;
        }
        free(piece);
    }
}

static struct outcome parsed(const char *bytes)
{
    struct outcome o;

    parse(&o, bytes, strlen(bytes));
    return o;
}

/* A request from blank-separated words. */
static struct outcome request(const char *line)
{
    char words[1024], wire[2048] = "", one[1200];
    unsigned n = 0;
    char *save = NULL;

    strcpy(words, line);
    for (char *w = strtok_r(words, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save), n++) {
        snprintf(one, sizeof(one), "$%zu\r\n%s\r\n", strlen(w), w);
        strcat(wire, one);
    }
    snprintf(one, sizeof(one), "*%u\r\n", n);
    memmove(wire + strlen(one), wire, strlen(wire) + 1);
    memcpy(wire, one, strlen(one));
    return parsed(wire);
}

static void framing(void **state)
{
    static const struct {
        const char *bytes;
        enum mr_result rc;
        const char *reply;
    } CASES[] = {
        {"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", MR_OK, ""},
        {"*2\r\n$3\r\nGET\r\n$1\r\nk\r", MR_AGAIN, ""},
        {"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", MR_OK, ""},
        {"*0\r\n", MR_OK, ""},
        {"*-1\r\n", MR_OK, ""},
        {"*-10\r\n", MR_OK, ""},
        {"*", MR_AGAIN, ""},
        {"*1048576\r\n", MR_AGAIN, ""},
        {"*1048577\r\n", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*4294967298\r\n", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*99999999999999999999", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*01\r\n", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*+1\r\n", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*-0\r\n", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*x\r\n", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*1\n", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*1\rx", MR_EPROTO, "-ERR Protocol error: invalid multibulk length\r\n"},
        {"*1\r\n:1\r\n", MR_EPROTO, "-ERR Protocol error: expected '$', got ':'\r\n"},
        {"*1\r\n$-1\r\n", MR_EPROTO, "-ERR Protocol error: invalid bulk length\r\n"},
        {"*1\r\n$01\r\n", MR_EPROTO, "-ERR Protocol error: invalid bulk length\r\n"},
        {"*2\r\n$3\r\nGET\r\n$536870913\r\n", MR_EPROTO,
         "-ERR Protocol error: invalid bulk length\r\n"},
        {"*1\r\n$4294967299\r\n", MR_EPROTO, "-ERR Protocol error: invalid bulk length\r\n"},
        {"*2\r\n$3\r\nGET\r\n$536870912\r\n", MR_ELIMIT,
         "-ERR Protocol error: request is larger than 1000 bytes\r\n"},
        {"*1\r\n$257\r\n", MR_EPROTO, "-ERR Protocol error: command name is too long\r\n"},
        {"*1\r\n$256\r\n", MR_AGAIN, ""},
        {"*2\r\n$3\r\nSET\r\n$979\r\n", MR_AGAIN, ""}, /* just fits */
        {"*2\r\n$3\r\nSET\r\n$980\r\n", MR_ELIMIT,
         "-ERR Protocol error: request is larger than 1000 bytes\r\n"},
        {"*1\r\n$4\r\nPINGxx", MR_EPROTO,
         "-ERR Protocol error: expected CRLF after a bulk string\r\n"},
        {"*1\r\n$4\r\nPING\rx", MR_EPROTO,
         "-ERR Protocol error: expected CRLF after a bulk string\r\n"},
        {"set k \"a\r\n", MR_EPROTO, "-ERR Protocol error: unbalanced quotes in request\r\n"},
        {"set k \"a\"b\r\n", MR_EPROTO, "-ERR Protocol error: unbalanced quotes in request\r\n"},
        {"POST / HTTP/1.1\r\n", MR_EPROTO, "-ERR Protocol error: this is not an HTTP server\r\n"},
        {"Host: localhost\r\n", MR_EPROTO, "-ERR Protocol error: this is not an HTTP server\r\n"},
        {"\r\n", MR_OK, ""},
        {"\n", MR_OK, ""},
        {"PING", MR_AGAIN, ""},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const struct outcome o = parsed(CASES[i].bytes);
        if (o.rc != CASES[i].rc)
            fail_msg("'%s': rc %d", CASES[i].bytes, o.rc);
        assert_string_equal(o.reply, CASES[i].reply);
    }
}

static void inline_commands(void **state)
{
    static const struct {
        const char *line, *wire;
    } CASES[] = {
        {"GET k\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"},
        {"  GET   k  \n", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"},
        {"set k \"a b\\x41\\n\\\"\"\r\n", "*3\r\n$3\r\nset\r\n$1\r\nk\r\n$6\r\na bA\n\"\r\n"},
        {"set k 'a \\' \\n'\r\n", "*3\r\n$3\r\nset\r\n$1\r\nk\r\n$6\r\na ' \\n\r\n"},
        {"set k \"\"\r\n", "*3\r\n$3\r\nset\r\n$1\r\nk\r\n$0\r\n\r\n"},
        {"\vset k\ta\vb\fc\r\n", "*3\r\n$3\r\nset\r\n$1\r\nk\r\n$5\r\na\vb\fc\r\n"},
        {"set k \"a\"\v\r\n", "*3\r\n$3\r\nset\r\n$1\r\nk\r\n$1\r\na\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const struct outcome o = parsed(CASES[i].line);
        assert_int_equal(o.rc, MR_OK);
        assert_string_equal(o.wire, CASES[i].wire);
        assert_int_equal(o.consumed, strlen(CASES[i].line));
        assert_string_equal(o.key, "k");
    }
}

static void an_endless_line_is_cut(void **state)
{
    char *line = malloc(70000);
    struct mr_parse_state ps = {0};
    struct mr_msg msg;

    (void)state;
    memset(line, 'a', 70000);
    assert_int_equal(MR_PROTO_RESP.client.parse(&CTX, &ps, line, 65535, &msg), MR_AGAIN);
    assert_int_equal(MR_PROTO_RESP.client.parse(&CTX, &ps, line, 65536, &msg), MR_EPROTO);
    ps = (struct mr_parse_state){0};
    line[69999] = '\n';
    assert_int_equal(MR_PROTO_RESP.client.parse(&CTX, &ps, line, 70000, &msg), MR_EPROTO);
    free(line);
}

static void routes(void **state)
{
    static const struct {
        const char *line;
        enum mr_msg_action action;
        const char *key;
        uint32_t n_keys;
        bool splittable;
    } CASES[] = {
        {"get k", MR_MSG_BY_KEY, "k", 0, false},
        {"GeT k", MR_MSG_BY_KEY, "k", 0, false},
        {"set k v EX 10", MR_MSG_BY_KEY, "k", 0, false},
        {"georadiusbymember_ro k m 1 km", MR_MSG_BY_KEY, "k", 0, false},
        {"mget a b c", MR_MSG_BY_KEYS, "a", 3, true},
        {"mget a", MR_MSG_BY_KEY, "a", 0, false},
        {"mset a 1 b 2", MR_MSG_BY_KEYS, "a", 2, true},
        {"del a b", MR_MSG_BY_KEYS, "a", 2, true},
        {"unlink a b", MR_MSG_BY_KEYS, "a", 2, true},
        {"exists a a", MR_MSG_BY_KEYS, "a", 2, true},
        {"touch a b", MR_MSG_BY_KEYS, "a", 2, true},
        {"msetnx a 1 b 2", MR_MSG_BY_KEYS, "a", 2, false},
        {"rename a b", MR_MSG_BY_KEYS, "a", 2, false},
        {"copy a b REPLACE", MR_MSG_BY_KEYS, "a", 2, false},
        {"bitop AND dst a b", MR_MSG_BY_KEYS, "dst", 3, false},
        {"bitop NOT dst a", MR_MSG_BY_KEYS, "dst", 2, false},
        {"pfcount a b c", MR_MSG_BY_KEYS, "a", 3, false},
        {"zunionstore d 2 a b WEIGHTS 1 2", MR_MSG_BY_KEYS, "d", 3, false},
        {"zunion 2 a b", MR_MSG_BY_KEYS, "a", 2, false},
        {"sintercard 1 a LIMIT 3", MR_MSG_BY_KEY, "a", 0, false},
        {"lmpop 2 a b LEFT", MR_MSG_BY_KEYS, "a", 2, false},
        {"eval return1 1 k arg", MR_MSG_BY_KEY, "k", 0, false},
        {"eval return1 2 k j arg", MR_MSG_BY_KEYS, "k", 2, false},
        {"evalsha abc 0 arg", MR_MSG_ANYWHERE, "", 0, false},
        {"fcall f 1 k", MR_MSG_BY_KEY, "k", 0, false},
        {"sort k BY w LIMIT 0 5", MR_MSG_BY_KEY, "k", 0, false},
        {"sort k BY w STORE dst", MR_MSG_BY_KEYS, "k", 2, false},
        {"sort k STORE a STORE b STORE c", MR_MSG_BY_KEYS, "k", 2, false},
        {"sort k BY store GET store", MR_MSG_BY_KEY, "k", 0, false},
        {"sort k LIMIT store store", MR_MSG_BY_KEY, "k", 0, false},
        {"sort k GET store STORE dst", MR_MSG_BY_KEYS, "k", 2, false},
        {"sort_ro k STORE dst", MR_MSG_BY_KEY, "k", 0, false},
        {"copy a b", MR_MSG_BY_KEYS, "a", 2, false},
        {"copy a b REPLACE", MR_MSG_BY_KEYS, "a", 2, false},
        {"memory usage k SAMPLES 5", MR_MSG_BY_KEY, "k", 0, false},
        {"georadius k 1 2 3 km STORE d", MR_MSG_BY_KEYS, "k", 2, false},
        {"georadius k 1 2 3 km storedist d", MR_MSG_BY_KEYS, "k", 2, false},
        {"georadius k 1 2 3 km", MR_MSG_BY_KEY, "k", 0, false},
        {"xread COUNT 2 STREAMS a b 0 0", MR_MSG_BY_KEYS, "a", 2, false},
        {"xread STREAMS a 0", MR_MSG_BY_KEY, "a", 0, false},
        {"xreadgroup GROUP block me STREAMS a >", MR_MSG_BY_KEY, "a", 0, false},
        {"object encoding k", MR_MSG_BY_KEY, "k", 0, false},
        {"object help", MR_MSG_ANYWHERE, "", 0, false},
        {"xgroup CREATE k g 0", MR_MSG_BY_KEY, "k", 0, false},
        {"memory help", MR_MSG_ANYWHERE, "", 0, false},
        {"eval s x k", MR_MSG_ANYWHERE, "", 0, false}, /* the server knows what is wrong */
        {"eval s 3 k", MR_MSG_ANYWHERE, "", 0, false},
        {"eval s -1 k", MR_MSG_ANYWHERE, "", 0, false},
        {"zunionstore d 3 a", MR_MSG_ANYWHERE, "", 0, false},
        {"xread STREAMS a b 0", MR_MSG_ANYWHERE, "", 0, false},
        {"xread COUNT 2 COUNT", MR_MSG_ANYWHERE, "", 0, false},
        {"copy a b DB x", MR_MSG_BY_KEYS, "a", 2, false},
        {"copy a b DB 0", MR_MSG_BY_KEYS, "a", 2, false},
        {"move a 0", MR_MSG_BY_KEY, "a", 0, false},
        {"command", MR_MSG_ANYWHERE, "", 0, false},
        {"command count", MR_MSG_ANYWHERE, "", 0, false},
        {"lolwut", MR_MSG_ANYWHERE, "", 0, false},
        {"ping", MR_MSG_LOCAL, "", 0, false},
        {"time", MR_MSG_LOCAL, "", 0, false},
        {"hello 3", MR_MSG_LOCAL, "", 0, false},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const struct outcome o = request(CASES[i].line);
        if (o.rc != MR_OK || o.action != CASES[i].action)
            fail_msg("'%s': rc %d action %d reply '%s'", CASES[i].line, o.rc, o.action, o.reply);
        assert_string_equal(o.key, CASES[i].key);
        if (o.action == MR_MSG_BY_KEYS) {
            assert_int_equal(o.n_keys, CASES[i].n_keys);
            assert_int_equal(o.splittable, CASES[i].splittable);
        }
    }
}

static void refuses(void **state)
{
    static const struct {
        const char *line, *reply;
    } CASES[] = {
        {"foo bar baz", "-ERR unknown command 'foo', with args beginning with: 'bar' 'baz' \r\n"},
        {"foo", "-ERR unknown command 'foo', with args beginning with: \r\n"},
        {"get", "-ERR wrong number of arguments for 'get' command\r\n"},
        {"GET a b", "-ERR wrong number of arguments for 'get' command\r\n"},
        {"mset a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"},
        {"copy a b DB 2", "-ERR DB index is out of range\r\n"},
        {"copy a b replace db 0 db 2", "-ERR DB index is out of range\r\n"},
        {"move a 2", "-ERR DB index is out of range\r\n"},
        {"memory purge", "-ERR command 'memory' is not supported by this proxy: it administers "
                         "one server\r\n"},
        {"memory doctor k", "-ERR command 'memory' is not supported by this proxy: it administers "
                            "one server\r\n"},
        {"flushall", "-ERR 'flushall' is not allowed by this proxy (allow_flush_all)\r\n"},
        {"swapdb 1 2", "-ERR command 'swapdb' is not supported by this proxy: it concerns all "
                       "keys of all servers\r\n"},
        {"scan x", "-ERR invalid cursor\r\n"},
        {"scan -1", "-ERR invalid cursor\r\n"},
        {"scan 18446744073709551616", "-ERR invalid cursor\r\n"},
        {"script load", "-ERR wrong number of arguments for 'script|load' command\r\n"},
        {"script exists", "-ERR wrong number of arguments for 'script|exists' command\r\n"},
        {"script what x", "-ERR unknown subcommand 'what'. Try SCRIPT HELP.\r\n"},
        {"function what", "-ERR unknown subcommand 'what'. Try FUNCTION HELP.\r\n"},
        {"get aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "-ERR key of 51 bytes is longer than the limit of 50\r\n"},
        {"mget a aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "-ERR key of 51 bytes is longer than the limit of 50\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const struct outcome o = request(CASES[i].line);
        assert_int_equal(o.rc, MR_OK);
        assert_int_equal(o.action, MR_MSG_REFUSE);
        assert_string_equal(o.reply, CASES[i].reply);
    }
    assert_int_equal(request("get aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").action,
                     MR_MSG_BY_KEY); /* exactly at the limit */
    /* clients cannot forge a second reply line */
    assert_string_equal(parsed("*2\r\n$5\r\na\r\n+b\r\n$3\r\n\r\nx\r\n").reply,
                        "-ERR unknown command 'a  +b', with args beginning with: '  x' \r\n");
}

static void steps_are_told(void **state)
{
    static const struct {
        const char *line;
        enum mr_step step;
        enum mr_msg_action action;
        uint32_t n_keys;
        bool once;
    } CASES[] = {
        {"multi", MR_STEP_BEGIN, MR_MSG_ANYWHERE, 0, false},
        {"EXEC", MR_STEP_COMMIT, MR_MSG_ANYWHERE, 0, false},
        {"discard", MR_STEP_DISCARD, MR_MSG_ANYWHERE, 0, false},
        {"unwatch", MR_STEP_UNWATCH, MR_MSG_ANYWHERE, 0, false},
        {"watch a", MR_STEP_WATCH, MR_MSG_BY_KEY, 1, false},
        {"watch a b", MR_STEP_WATCH, MR_MSG_BY_KEYS, 2, false},
        {"blpop a 0", MR_STEP_BLOCK, MR_MSG_BY_KEY, 1, false},
        {"bzpopmin a b 1.5", MR_STEP_BLOCK, MR_MSG_BY_KEYS, 2, false},
        {"blmpop 0 2 a b left", MR_STEP_BLOCK, MR_MSG_BY_KEYS, 2, false},
        {"blmove a b left right 0", MR_STEP_BLOCK, MR_MSG_BY_KEYS, 2, false},
        {"xread block 0 streams a 0-1", MR_STEP_BLOCK, MR_MSG_BY_KEY, 1, false},
        {"xread block 0 streams a b 0 $", MR_STEP_BLOCK, MR_MSG_BY_KEYS, 2, true},
        {"xread streams a 0-1", MR_STEP_NONE, MR_MSG_BY_KEY, 1, false},
        {"xreadgroup group block c block 5 streams a >", MR_STEP_BLOCK, MR_MSG_BY_KEY, 1, false},
        {"xreadgroup group block block streams a >", MR_STEP_NONE, MR_MSG_BY_KEY, 1, false},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const struct outcome o = request(CASES[i].line);
        assert_int_equal(o.rc, MR_OK);
        assert_int_equal(o.step, CASES[i].step);
        assert_int_equal(o.action, CASES[i].action);
        assert_int_equal(o.once, CASES[i].once);
        if (CASES[i].n_keys > 1)
            assert_int_equal(o.n_keys, CASES[i].n_keys);
    }
}

static void nothing_passes_before_auth(void **state)
{
    static const char *const SERVED[] = {"auth x", "hello 2", "quit", "reset"};

    (void)state;
    session.authed = false;
    for (size_t i = 0; i < MR_COUNT(SERVED); i++)
        assert_int_equal(request(SERVED[i]).action, MR_MSG_LOCAL);
    static const char *const REFUSED[] = {"get k",      "ping",          "command",    "scan 0",
                                          "rename a b", "bitop NOT a b", "msetnx a 1", "time",
                                          "client id",  "mget a b",      "eval s 0"};
    for (size_t i = 0; i < MR_COUNT(REFUSED); i++)
        assert_string_equal(request(REFUSED[i]).reply, "-NOAUTH Authentication required.\r\n");
    session.authed = true;
}

/* Clients that have not authenticated cannot make the proxy buffer much. */
static void strangers_say_little(void **state)
{
    static const struct {
        const char *bytes;
        enum mr_result rc;
        const char *reply;
    } CASES[] = {
        {"*10\r\n$5\r\nHELLO\r\n$16384\r\n", MR_AGAIN, ""},
        {"*11\r\n", MR_EPROTO, "-ERR Protocol error: unauthenticated multibulk length\r\n"},
        {"*2\r\n$4\r\nAUTH\r\n$16385\r\n", MR_EPROTO,
         "-ERR Protocol error: unauthenticated bulk length\r\n"},
    };

    (void)state;
    session.authed = false;
    options.max_request_bytes = 1u << 20;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const struct outcome o = parsed(CASES[i].bytes);
        assert_int_equal(o.rc, CASES[i].rc);
        assert_string_equal(o.reply, CASES[i].reply);
    }
    session.authed = true;
    assert_int_equal(parsed(CASES[1].bytes).rc, MR_AGAIN);
    assert_int_equal(parsed(CASES[2].bytes).rc, MR_AGAIN);
    options.max_request_bytes = 1000;
}

static void walks_all_keys(void **state)
{
    static const char WIRE[] =
        "*9\r\n$11\r\nzunionstore\r\n$1\r\nd\r\n$1\r\n5\r\n$1\r\na\r\n$2\r\nbb\r\n"
        "$0\r\n\r\n$3\r\nccc\r\n$1\r\ne\r\n$3\r\nMAX\r\n";
    static const char *const WANT[] = {"d", "a", "bb", "", "ccc", "e"};
    struct mr_parse_state ps = {0};
    struct mr_key_walk walk = {0};
    struct mr_slice key;
    struct mr_msg msg;

    (void)state;
    assert_int_equal(MR_PROTO_RESP.client.parse(&CTX, &ps, WIRE, sizeof(WIRE) - 1, &msg), MR_OK);
    for (size_t i = 0; i < MR_COUNT(WANT); i++) {
        assert_true(MR_PROTO_RESP.keys.next(&msg, &walk, &key));
        assert_true(mr_slice_eq(key, mr_slice_of(WANT[i])));
    }
    assert_false(MR_PROTO_RESP.keys.next(&msg, &walk, &key));
}

/* Of several STOREs the last one counts, as in Redis. */
static void the_last_store_is_a_key(void **state)
{
    static const char *const LINES[] = {
        "sort k STORE a STORE b\r\n",
        "sort k store store BY store GET store STORE b\r\n",
        "georadius k 1 2 3 km STORE a STOREDIST b\r\n",
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(LINES); i++) {
        struct mr_parse_state ps = {0};
        struct mr_key_walk walk = {0};
        struct mr_slice key;
        struct mr_msg msg;
        assert_int_equal(MR_PROTO_RESP.client.parse(&CTX, &ps, LINES[i], strlen(LINES[i]), &msg),
                         MR_OK);
        assert_int_equal(msg.n_keys, 2);
        assert_true(MR_PROTO_RESP.keys.next(&msg, &walk, &key));
        assert_true(mr_slice_eq(key, mr_slice_of("k")));
        assert_true(MR_PROTO_RESP.keys.next(&msg, &walk, &key));
        assert_true(mr_slice_eq(key, mr_slice_of("b")));
        assert_false(MR_PROTO_RESP.keys.next(&msg, &walk, &key));
    }
}

/* A refused message has no step, and one without keys does not keep another message's key. */
static void a_refusal_has_no_step(void **state)
{
    static const struct {
        const char *line;
        enum mr_msg_action action;
        enum mr_step step;
    } CASES[] = {
        {"xread BLOCK 0 STREAMS a\r\n", MR_MSG_ANYWHERE, MR_STEP_BLOCK},
        {"xread BLOCK 0 COUNT\r\n", MR_MSG_ANYWHERE, MR_STEP_BLOCK},
        {"xread BLOCK 0 STREAMS aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0\r\n",
         MR_MSG_REFUSE, MR_STEP_NONE},
        {"blmpop 0 x a LEFT\r\n", MR_MSG_ANYWHERE, MR_STEP_BLOCK},
        {"blmpop 0 0 LEFT COUNT\r\n", MR_MSG_ANYWHERE, MR_STEP_BLOCK},
        {"multi\r\n", MR_MSG_ANYWHERE, MR_STEP_BEGIN},
        {"reset\r\n", MR_MSG_LOCAL, MR_STEP_END},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        struct mr_parse_state ps = {0};
        struct mr_msg msg;
        memset(&msg, 0xa5, sizeof(msg));
        assert_int_equal(
            MR_PROTO_RESP.client.parse(&CTX, &ps, CASES[i].line, strlen(CASES[i].line), &msg),
            MR_OK);
        assert_int_equal(msg.action, CASES[i].action);
        assert_int_equal(msg.step, CASES[i].step);
        if (msg.action == MR_MSG_ANYWHERE)
            assert_int_equal(msg.key.len, 0);
    }
}

/* Commands of modules, and of newer servers. */
static void commands_beyond_the_table(void **state)
{
    static const struct mr_resp_command ROWS[] = {
        {"my.get", 2, MR_CLASS_READ, 0, MR_RESP_ROUTE, MR_RESP_KEYS, 1, 1, 1},
        {"my.stat", -1, MR_CLASS_READ, 0, MR_RESP_ROUTE, MR_RESP_NO_KEYS, 0, 0, 0},
        {"get", 9, MR_CLASS_WRITE, 0, MR_RESP_ROUTE, MR_RESP_KEYS, 2, 2, 1},
    };

    (void)state;
    options.unknown_by_key = true;
    const struct outcome o = request("json.set doc $ 1");
    assert_int_equal(o.action, MR_MSG_BY_KEY);
    assert_string_equal(o.key, "doc");
    assert_int_equal(request("json.debug").action, MR_MSG_REFUSE);
    session.authed = false;
    assert_string_equal(request("json.set doc $ 1").reply, "-NOAUTH Authentication required.\r\n");
    session.authed = true;
    options.unknown_by_key = false;
    assert_int_equal(request("json.set doc $ 1").action, MR_MSG_REFUSE);
    options.commands = ROWS;
    options.n_commands = MR_COUNT(ROWS);
    assert_string_equal(request("MY.GET k").key, "k");
    assert_int_equal(request("my.stat x").action, MR_MSG_ANYWHERE);
    assert_string_equal(request("my.get").reply,
                        "-ERR wrong number of arguments for 'my.get' command\r\n");
    assert_int_equal(request("my.set k").action, MR_MSG_REFUSE);
    assert_string_equal(request("get k").key, "k");
    options.n_commands = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(framing),
        T(inline_commands),
        T(an_endless_line_is_cut),
        T(routes),
        T(refuses),
        T(walks_all_keys),
        T(steps_are_told),
        T(nothing_passes_before_auth),
        T(the_last_store_is_a_key),
        T(strangers_say_little),
        T(a_refusal_has_no_step),
        T(commands_beyond_the_table),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
