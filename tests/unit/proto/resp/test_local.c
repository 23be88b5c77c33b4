/* test_local.c - commands that the proxy answers itself. */
#include "proto/resp/internal.h"
#include "proto/resp/resp.h"
#include "unit/proto/fixture.h"

#include <time.h>

static struct mr_proto_options options = {.max_request_bytes = 10000, .max_key_bytes = 50};
static struct mr_session session = {.id = 7, .authed = true};
static const struct mr_proto_ctx CTX = {&options, &session, &slab, &scratch, NULL};
static enum mr_verdict verdict;

/* The reply to an inline command. */
static const char *ask(const char *line)
{
    static char text[4096];
    struct mr_parse_state state = {0};
    struct mr_buf out = {0};
    struct mr_msg msg;
    char wire[512];

    snprintf(wire, sizeof(wire), "%s\r\n", line);
    assert_int_equal(MR_PROTO_RESP.parse(&CTX, &state, wire, strlen(wire), &msg), MR_OK);
    if (msg.action == MR_MSG_REFUSE) {
        assert_true(mr_buf_append(&out, &slab, msg.reply.at, msg.reply.len));
    } else {
        assert_int_equal(msg.action, MR_MSG_LOCAL);
        verdict = MR_PROTO_RESP.answer(&CTX, &msg, &out);
    }
    const struct mr_slice s = mr_buf_slice(&out);
    memcpy(text, s.at, s.len);
    text[s.len] = '\0';
    mr_buf_clear(&out, &slab);
    return text;
}

static void simple_ones(void **state)
{
    static const struct {
        const char *line, *reply;
    } CASES[] = {
        {"PING", "+PONG\r\n"},
        {"PING hello", "$5\r\nhello\r\n"},
        {"PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"},
        {"ECHO x", "$1\r\nx\r\n"},
        {"SELECT 0", "+OK\r\n"},
        {"SELECT 1", "-ERR SELECT is not supported by this proxy: the pool serves database 0\r\n"},
        {"SELECT x", "-ERR invalid DB index\r\n"},
        {"READONLY", "+OK\r\n"},
        {"AUTH x", "-ERR Client sent AUTH, but no password is set\r\n"},
        {"HELLO 3", "-NOPROTO unsupported protocol version\r\n"},
        {"HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"},
        {"HELLO 2 NONSENSE", "-ERR Syntax error in HELLO option\r\n"},
        {"CLIENT ID", ":7\r\n"},
        {"CLIENT GETNAME", "$-1\r\n"},
        {"CLIENT SETNAME bob", "+OK\r\n"},
        {"CLIENT GETNAME", "$3\r\nbob\r\n"},
        {"CLIENT SETNAME \"a b\"",
         "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"},
        {"CLIENT SETINFO lib-name x", "+OK\r\n"},
        {"CLIENT MAINT_NOTIFICATIONS ON",
         "-ERR unknown subcommand or wrong number of arguments for 'MAINT_NOTIFICATIONS'. Try "
         "CLIENT HELP.\r\n"},
        {"RESET", "+RESET\r\n"},
        {"CLIENT GETNAME", "$-1\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        assert_string_equal(ask(CASES[i].line), CASES[i].reply);
        assert_int_equal(verdict, MR_KEEP_CLIENT);
    }
    assert_memory_equal(ask("HELLO"), "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n", 28);
    assert_memory_equal(ask("TIME"), "*2\r\n$10\r\n", 9);
    assert_non_null(strstr(ask("INFO"), "redis_version:"));
    assert_string_equal(ask("QUIT"), "+OK\r\n");
    assert_int_equal(verdict, MR_CLOSE_CLIENT);
    verdict = MR_KEEP_CLIENT;
}

static void passwords(void **state)
{
    (void)state;
    options.auth = "secret";
    session.authed = false;
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required\r\n");
    assert_string_equal(ask("AUTH wrong"), "-ERR invalid password\r\n");
    assert_string_equal(ask("AUTH secret"), "+OK\r\n");
    assert_string_equal(ask("PING"), "+PONG\r\n");
    assert_string_equal(ask("AUTH wrong"), "-ERR invalid password\r\n");
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required\r\n");
    assert_string_equal(ask("AUTH default secret"), "+OK\r\n");
    assert_string_equal(ask("AUTH bob secret"),
                        "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    assert_memory_equal(ask("HELLO 2"), "-NOAUTH HELLO must be called", 28);
    assert_memory_equal(ask("HELLO 2 AUTH default nope"), "-WRONGPASS", 10);
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required\r\n");
    assert_memory_equal(ask("HELLO 2 AUTH default secret SETNAME me"), "*14", 3);
    assert_string_equal(ask("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert_string_equal(ask("RESET"), "+RESET\r\n");
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required\r\n");
    options.auth = NULL;
    session.authed = true;
}

static void compares_passwords(void **state)
{
    (void)state;
    assert_true(mr_slice_eq_secret(mr_slice_of("abc"), "abc"));
    assert_false(mr_slice_eq_secret(mr_slice_of("abcabc"), "abc"));
    assert_false(mr_slice_eq_secret(mr_slice_of("ab"), "abc"));
    assert_false(mr_slice_eq_secret(mr_slice_of(""), "abc"));
    assert_false(mr_slice_eq_secret(mr_slice_of("abd"), "abc"));
}

static void greets_servers(void **state)
{
    struct mr_buf out = {0};
    const struct mr_proto_options both = {.auth = "pw", .db = 5};
    uint8_t able = 0;

    (void)state;
    assert_int_equal(MR_PROTO_RESP.hello(&options, 0, &slab, &out), 0);
    assert_true(mr_buf_empty(&out));
    assert_int_equal(MR_PROTO_RESP.hello(&both, 0, &slab, &out), 2);
    const char *want = "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n";
    assert_int_equal(mr_buf_len(&out), strlen(want));
    assert_memory_equal(mr_buf_slice(&out).at, want, strlen(want));
    mr_buf_clear(&out, &slab);
    assert_null(MR_PROTO_RESP.check_hello(&both, 0, 0, mr_slice_of("+OK\r\n"), &able));
    assert_string_equal(MR_PROTO_RESP.check_hello(&both, 0, 0, mr_slice_of("-ERR\r\n"), &able),
                        "server refused the password of the proxy");
    assert_string_equal(MR_PROTO_RESP.check_hello(&both, 0, 1, mr_slice_of("-ERR\r\n"), &able),
                        "server refused the database of the pool");
}

#define MANY_ARGS 50000u

/* The command, a 2, and the words again and again. */
static void put_many(struct mr_buf *wire, const char *name, const char *const *words)
{
    uint32_t n = 2;

    mr_resp_put_head(wire, &slab, '*', MANY_ARGS);
    mr_resp_put_bulk(wire, &slab, mr_slice_of(name));
    mr_resp_put_bulk(wire, &slab, mr_slice_of("2"));
    while (n < MANY_ARGS)
        for (size_t i = 0; words[i] != NULL && n < MANY_ARGS; i++, n++)
            mr_resp_put_bulk(wire, &slab, mr_slice_of(words[i]));
}

/* A request costs what it has bytes, whatever its options: one client must not stop the worker. */
static void options_cost_linear_time(void **state)
{
    static const struct mr_proto_options large = {.max_request_bytes = 1u << 24,
                                                  .max_key_bytes = 50};
    static const struct mr_proto_ctx ctx = {&large, &session, &slab, &scratch, NULL};
    static const char *const WORDS[][4] = {{"setname", "a"}, {"store", "a"}, {"group", "a", "b"}};

    (void)state;
    for (uint32_t c = 0; c < MR_RESP_COMMAND_COUNT; c++)
        for (size_t w = 0; MR_RESP_COMMANDS[c].arity < 0 && w < MR_COUNT(WORDS); w++) {
            struct mr_buf wire = {0}, out = {0};
            struct mr_parse_state ps = {0};
            struct mr_msg msg;
            put_many(&wire, MR_RESP_COMMANDS[c].name, WORDS[w]);
            const struct mr_slice bytes = mr_buf_slice(&wire);
            const clock_t from = clock();
            assert_int_equal(MR_PROTO_RESP.parse(&ctx, &ps, bytes.at, bytes.len, &msg), MR_OK);
            if (msg.action == MR_MSG_LOCAL)
                (void)MR_PROTO_RESP.answer(&ctx, &msg, &out);
            if (clock() - from > 3 * CLOCKS_PER_SEC / 2)
                fail_msg("%s %s took too long", MR_RESP_COMMANDS[c].name, WORDS[w][0]);
            mr_buf_clear(&wire, &slab);
            mr_buf_clear(&out, &slab);
        }
    free(session.name);
    session.name = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {T(simple_ones), T(passwords), T(compares_passwords),
                                       T(greets_servers), T(options_cost_linear_time)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
