/* test_reply.c - the ends of replies, at every split. */
#include "proto/resp/resp.h"
#include "unit/test.h"

static enum mr_result scan(uint8_t lane, struct mr_reply_state *state, const char *bytes, size_t n,
                           size_t *len)
{
    char *copy = malloc(n + 1); /* of the exact size, so that sanitizers notice overreads */
    memcpy(copy, bytes, n);
    const enum mr_result rc = MR_PROTO_RESP.server.scan_reply(lane, state, copy, n, len);
    free(copy);
    return rc;
}

struct end {
    const char *bytes;
    enum mr_result rc;
    size_t len;
};

static void check_ends(uint8_t lane, const struct end *cases, size_t n_cases)
{
    for (size_t i = 0; i < n_cases; i++) {
        const size_t n = strlen(cases[i].bytes);
        for (size_t cut = 0; cut <= n; cut++) {
            struct mr_reply_state st = {0};
            size_t len = 0;
            enum mr_result rc = scan(lane, &st, cases[i].bytes, cut, &len);
            if (rc == MR_AGAIN)
                rc = scan(lane, &st, cases[i].bytes, n, &len);
            if (rc != cases[i].rc)
                fail_msg("'%s' cut at %zu: rc %d", cases[i].bytes, cut, rc);
            if (rc == MR_OK || rc == MR_ASIDE)
                assert_int_equal(len, cases[i].len);
        }
    }
}

static void finds_ends_at_every_split(void **state)
{
    static const struct end CASES[] = {
        {"+OK\r\n", MR_OK, 5},
        {"-ERR x\r\n+next", MR_OK, 8},
        {":-5\r\n", MR_OK, 5},
        {"$-1\r\n", MR_OK, 5},
        {"$0\r\n\r\n", MR_OK, 6},
        {"$3\r\na\r\n\r\n", MR_OK, 9},
        {"*0\r\n", MR_OK, 4},
        {"*-1\r\n", MR_OK, 5},
        {"*2\r\n$1\r\na\r\n$-1\r\n", MR_OK, 16},
        {"*2\r\n*1\r\n+x\r\n*2\r\n:1\r\n*0\r\n+more", MR_OK, 24},
        {"*2\r\n+a\r\n", MR_AGAIN, 0},
        {"$5\r\nabc", MR_AGAIN, 0},
        {"+OK\r", MR_AGAIN, 0},
        {"+OK\n", MR_EPROTO, 0},
        {"$3\r\nabcX\r\n", MR_EPROTO, 0},
        {"$3\r\nabc\rX", MR_EPROTO, 0},
        {"$-2\r\n", MR_EPROTO, 0},
        {"$03\r\n", MR_EPROTO, 0},
        {"$99999999999999999999\r\n", MR_EPROTO, 0},
        {"*99999999999999\r\n", MR_EPROTO, 0},
        {"hello\r\n", MR_EPROTO, 0},
        {"_\r\n", MR_EPROTO, 0}, /* RESP3 not requested */
        {"%1\r\n", MR_EPROTO, 0},
        {"*2\r\n+a\r\nx", MR_EPROTO, 0},
    };

    (void)state;
    check_ends(0, CASES, MR_COUNT(CASES));
}

static void finds_ends_of_resp3(void **state)
{
    static const struct end CASES[] = {
        {"_\r\n", MR_OK, 3},
        {"#t\r\n", MR_OK, 4},
        {",1.5e3\r\n", MR_OK, 8},
        {",-inf\r\n+", MR_OK, 7},
        {"(-12345678901234567890123\r\n", MR_OK, 27},
        {"=8\r\ntxt:a\r\nb\r\n", MR_OK, 14},
        {"!5\r\nERR x\r\n", MR_OK, 11},
        {"~2\r\n:1\r\n_\r\n", MR_OK, 11},
        {"%0\r\n", MR_OK, 4},
        {"%1\r\n+a\r\n%1\r\n#f\r\n*1\r\n,2\r\n+more", MR_OK, 24},
        {"|1\r\n+ttl\r\n:5\r\n$1\r\nx\r\n", MR_OK, 21},
        {"*2\r\n|1\r\n+ttl\r\n:5\r\n:1\r\n:2\r\n+more", MR_OK, 26},
        {">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n", MR_ASIDE, 28},
        {"$1\r\nx\r\n>1\r\n+a\r\n", MR_OK, 7},
        {"*1\r\n>1\r\n+a\r\n", MR_EPROTO, 0}, /* never inside a reply */
        {"|1\r\n+a\r\n+b\r\n>1\r\n+a\r\n", MR_EPROTO, 0},
        {"%-1\r\n", MR_EPROTO, 0},
        {"~x\r\n", MR_EPROTO, 0},
        {"=3\r\nabcX\r\n", MR_EPROTO, 0},
        {"%99999999999999\r\n", MR_EPROTO, 0},
        {"*?\r\n", MR_EPROTO, 0},
        {"%2\r\n+a\r\n+b\r\n+c\r\n", MR_AGAIN, 0},
        {"=9\r\ntxt:", MR_AGAIN, 0},
    };

    (void)state;
    check_ends(1, CASES, MR_COUNT(CASES));
}

/* A push in pieces does not mix with the reply after it. */
static void a_push_can_come_in_pieces(void **state)
{
    static const char PUSH[] = ">2\r\n+a\r\n$6\r\nxxxxxx\r\n";
    struct mr_reply_state st = {0};
    size_t len = 0, at = 0;

    (void)state;
    assert_int_equal(MR_PROTO_RESP.server.scan_reply(1, &st, PUSH, 14, &len), MR_AGAIN);
    assert_true(st.aside);
    at = st.offset < 14 ? (size_t)st.offset : 14;
    st.offset -= at;
    assert_int_equal(
        MR_PROTO_RESP.server.scan_reply(1, &st, PUSH + at, sizeof(PUSH) - 1 - at, &len), MR_ASIDE);
    assert_int_equal(at + len, sizeof(PUSH) - 1);
    assert_int_equal(MR_PROTO_RESP.server.scan_reply(1, &st, "+OK\r\n", 5, &len), MR_OK);
}

/* A caller may pass on what was scanned and keep the rest; the offset moves along. */
static void a_large_bulk_can_be_passed_on(void **state)
{
    static char body[100000];
    struct mr_reply_state st = {0};
    size_t len = 0, passed = 0;

    (void)state;
    const int head = snprintf(body, sizeof(body), "$%d\r\n", 90000);
    const size_t total = (size_t)head + 90000 + 2;
    memset(body + head, 'x', 90000);
    memcpy(body + head + 90000, "\r\n", 2);
    while (passed < total) {
        const size_t piece = total - passed < 16384 ? total - passed : 16384;
        const enum mr_result rc =
            MR_PROTO_RESP.server.scan_reply(0, &st, body + passed, piece, &len);
        if (rc == MR_OK) {
            passed += len;
            break;
        }
        assert_int_equal(rc, MR_AGAIN);
        const size_t step = st.offset < piece ? (size_t)st.offset : piece;
        assert_true(step > 0);
        st.offset -= step;
        passed += step;
    }
    assert_int_equal(passed, total);
}

/* A copy of the exact size, so that sanitizers notice overreads. */
static enum mr_meaning judge(unsigned possible, const char *reply, size_t len, char **copy,
                             struct mr_verdict *verdict)
{
    *copy = malloc(len + 1);
    memcpy(*copy, reply, len);
    MR_PROTO_RESP.server.judge(possible, 0, (struct mr_slice){*copy, len}, verdict);
    return verdict->meaning;
}

static void knows_redirects(void **state)
{
    static const struct {
        const char *reply;
        enum mr_meaning meaning;
        enum mr_redirect_kind kind;
        uint32_t slot;
        const char *host;
        uint16_t port;
    } CASES[] = {
        {"-MOVED 3999 127.0.0.1:6381\r\n", MR_REPLY_REDIRECT, MR_REDIRECT_MOVED, 3999, "127.0.0.1",
         6381},
        {"-ASK 16383 ::1:6381\r\n", MR_REPLY_REDIRECT, MR_REDIRECT_ASK, 16383, "::1", 6381},
        {"-MOVED 0 :1\r\n", MR_REPLY_REDIRECT, MR_REDIRECT_MOVED, 0, "", 1},
        {"-TRYAGAIN Multiple keys\r\n", MR_REPLY_REDIRECT, MR_REDIRECT_LATER, 0, "", 0},
        {"-READONLY You can't write\r\n", MR_REPLY_REDIRECT, MR_REDIRECT_LATER, 0, "", 0},
        {"-LOADING Redis is loading\r\n", MR_REPLY_REDIRECT, MR_REDIRECT_OTHER, 0, "", 0},
        {"-MASTERDOWN Link with MASTER\r\n", MR_REPLY_REDIRECT, MR_REDIRECT_OTHER, 0, "", 0},
        {.reply = "-MOVED 16384 h:1\r\n"},
        {.reply = "-MOVED 1 h:65536\r\n"},
        {.reply = "-MOVED 1 h\r\n"},
        {.reply = "-MOVED 1\r\n"},
        {.reply = "-MOVED x h:1\r\n"},
        {.reply = "-MOVED 1 h:1"},
        {.reply = "-MOVED"},
        {.reply = "-ERR no\r\n"},
        {.reply = "+MOVED 1 h:1\r\n"},
        {.reply = "$7\r\n-ASK 1 \r\n"},
        {.reply = "-"},
        {.reply = ""},
    };
    struct mr_verdict v;
    char *copy;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const size_t n = strlen(CASES[i].reply);
        const unsigned all = MR_REPLY_REDIRECT | MR_REPLY_RETRY | MR_REPLY_PUSH;
        if (judge(all, CASES[i].reply, n, &copy, &v) != CASES[i].meaning)
            fail_msg("'%s' means %d", CASES[i].reply, v.meaning);
        if (v.meaning == MR_REPLY_REDIRECT) {
            assert_int_equal(v.redirect.kind, CASES[i].kind);
            assert_int_equal(v.redirect.slot, CASES[i].slot);
            assert_int_equal(v.redirect.port, CASES[i].port);
            assert_int_equal(v.redirect.host.len, strlen(CASES[i].host));
            if (v.redirect.host.len > 0)
                assert_memory_equal(v.redirect.host.at, CASES[i].host, v.redirect.host.len);
        }
        free(copy);
        assert_int_equal(judge(MR_REPLY_RETRY, CASES[i].reply, n, &copy, &v), MR_REPLY_PASS);
        free(copy);
    }
}

static void knows_an_ended_command(void **state)
{
    static const char TEXT[] = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
    struct mr_verdict v;
    char *copy;

    (void)state;
    assert_int_equal(judge(MR_REPLY_RETRY, TEXT, sizeof(TEXT) - 1, &copy, &v), MR_REPLY_RETRY);
    free(copy);
    assert_int_equal(judge(MR_REPLY_REDIRECT, TEXT, sizeof(TEXT) - 1, &copy, &v), MR_REPLY_PASS);
    free(copy);
    assert_int_equal(judge(MR_REPLY_RETRY, "-UNBLOCKED", 10, &copy, &v), MR_REPLY_PASS);
    free(copy);
}

static void knows_pushes(void **state)
{
    static const struct {
        const char *reply;
        enum mr_meaning meaning;
        bool ended;
        enum mr_topic_kind kind;
        const char *name;
    } CASES[] = {
        {"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n", MR_REPLY_PUSH, false, MR_TOPIC_CHANNEL,
         "a"},
        {"*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$1\r\nx\r\n", MR_REPLY_PUSH, false,
         MR_TOPIC_PATTERN, "a*"},
        {"*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\nx\r\n", MR_REPLY_PUSH, false, MR_TOPIC_SHARD,
         "a"},
        {"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n", MR_REPLY_PUSH, true, MR_TOPIC_SHARD,
         "a"},
        {.reply = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"},
        {.reply = "*2\r\n$7\r\nmessage\r\n$1\r\na\r\n"},
        {.reply = "*3\r\n$7\r\nmessage\r\n:1\r\n:1\r\n"},
        {.reply = "*3\r\n$7\r\nmessage\r\n$5\r\na"},
        {.reply = "+PONG\r\n"},
        {.reply = "*"},
    };
    struct mr_verdict v;
    char *copy;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const size_t n = strlen(CASES[i].reply);
        if (judge(MR_REPLY_PUSH, CASES[i].reply, n, &copy, &v) != CASES[i].meaning)
            fail_msg("'%s' means %d", CASES[i].reply, v.meaning);
        if (v.meaning == MR_REPLY_PUSH) {
            assert_int_equal(v.push.ended, CASES[i].ended);
            assert_int_equal(v.push.kind, CASES[i].kind);
            assert_true(mr_slice_eq(v.push.name, mr_slice_of(CASES[i].name)));
        }
        free(copy);
    }
}

RUN(T(knows_redirects), T(knows_an_ended_command), T(knows_pushes), T(finds_ends_at_every_split),
    T(finds_ends_of_resp3), T(a_push_can_come_in_pieces), T(a_large_bulk_can_be_passed_on))
