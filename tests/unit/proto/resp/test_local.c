/* test_local.c - commands that the proxy answers itself. */
#include "proto/resp/local.h"
#include "proto/resp/resp.h"
#include "unit/proto/fixture.h"

#include <stdlib.h>
#include <time.h>

static struct mr_proto_options options = {.max_request_bytes = 10000, .max_key_bytes = 50};
static struct mr_session session = {.id = 7, .authed = true};
static enum mr_lane_state lane = MR_LANE_USABLE;

static enum mr_lane_state lane_fact(const struct mr_proto_facts *facts, uint8_t wanted)
{
    (void)facts;
    assert_int_equal(wanted, 1);
    return lane;
}

static bool logins_allowed = true;
static unsigned logins_failed;

static bool may_log_in(const struct mr_proto_facts *facts, const struct mr_session *s,
                       struct mr_slice name)
{
    (void)facts;
    assert_ptr_equal(s, &session);
    assert_true(name.len > 0);
    return logins_allowed;
}

static void login_failed(const struct mr_proto_facts *facts, const struct mr_session *s,
                         struct mr_slice name)
{
    (void)may_log_in(facts, s, name);
    logins_failed++;
}

static const struct mr_session *next_client(const struct mr_proto_facts *facts,
                                            const struct mr_session *s)
{
    (void)facts;
    (void)s;
    return NULL;
}

static void describe_client(const struct mr_session *s, struct mr_client_facts *facts)
{
    (void)s;
    *facts = (struct mr_client_facts){.peer = "?:0", .local = "?:0", .queued = -1};
}

static bool next_counter(const struct mr_proto_facts *facts, uint32_t *index, const char **name,
                         uint64_t *value)
{
    static const char *const NAMES[] = {"client_connections", "blocked_clients"};

    (void)facts;
    if (*index >= MR_COUNT(NAMES))
        return false;
    *name = NAMES[*index];
    *value = 7 + (*index)++;
    return true;
}

static const struct mr_proto_facts FACTS = {.next = next_counter,
                                            .next_client = next_client,
                                            .describe_client = describe_client,
                                            .lane = lane_fact,
                                            .any_lane = lane_fact,
                                            .version = "",
                                            .may_log_in = may_log_in,
                                            .login_failed = login_failed};
static const struct mr_proto_ctx CTX = {&options, &session, &slab, &scratch, &FACTS};
static enum mr_outcome verdict;

/* The reply to an inline command. */
static const char *ask(const char *line)
{
    static char text[4096];
    struct mr_parse_state state = {0};
    struct mr_buf out = {0};
    struct mr_msg msg;
    char wire[512];

    snprintf(wire, sizeof(wire), "%s\r\n", line);
    assert_int_equal(MR_PROTO_RESP.client.parse(&CTX, &state, wire, strlen(wire), &msg), MR_OK);
    if (msg.action == MR_MSG_REFUSE) {
        assert_true(mr_buf_append(&out, &slab, msg.reply.at, msg.reply.len));
    } else {
        assert_int_equal(msg.action, MR_MSG_LOCAL);
        verdict = MR_PROTO_RESP.client.answer(&CTX, &msg, &out);
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
        {"SELECT 1", "-ERR DB index is out of range\r\n"},
        {"SELECT -1", "-ERR DB index is out of range\r\n"},
        {"SELECT x", "-ERR value is not an integer or out of range\r\n"},
        {"READONLY", "+OK\r\n"},
        {"AUTH x", "-ERR Client sent AUTH, but no password is set\r\n"},
        {"AUTH default x", "+OK\r\n"},
        {"AUTH bob x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"},
        {"PING", "+PONG\r\n"},
        {"HELLO 1", "-NOPROTO unsupported protocol version\r\n"},
        {"HELLO 4", "-NOPROTO unsupported protocol version\r\n"},
        {"HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"},
        {"HELLO 2 NONSENSE", "-ERR Syntax error in HELLO option 'NONSENSE'\r\n"},
        {"CLIENT ID", ":7\r\n"},
        {"CLIENT GETNAME", "$-1\r\n"},
        {"CLIENT SETNAME bob", "+OK\r\n"},
        {"CLIENT GETNAME", "$3\r\nbob\r\n"},
        {"CLIENT SETNAME \"a b\"",
         "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"},
        {"CLIENT SETINFO lib-name x", "+OK\r\n"},
        {"CLIENT SETINFO lib-x x", "-ERR Unrecognized option 'lib-x'\r\n"},
        {"CLIENT MAINT_NOTIFICATIONS ON",
         "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n"},
        {"CLIENT TRACKING ON", "-ERR unknown subcommand 'TRACKING'. Try CLIENT HELP.\r\n"},
        {"CLIENT TRACKING off", "+OK\r\n"},
        {"CLIENT TRACKINGINFO", "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect"
                                "\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n"},
        {"CLIENT GETREDIR", ":-1\r\n"},
        {"CLIENT NO-EVICT on", "+OK\r\n"},
        {"CLIENT NO-EVICT x", "-ERR syntax error\r\n"},
        {"CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command\r\n"},
        {"INFO CLIENTS", "$51\r\n# Clients\r\nconnected_clients:7\r\nblocked_clients:8\r\n\r\n"},
        {"INFO nothing", "$0\r\n\r\n"},
        {"INFO persistence", "$43\r\n# Persistence\r\nloading:0\r\nasync_loading:0\r\n\r\n"},
        {"CONFIG GET save appendonly",
         "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n\r\n"},
        {"CONFIG GET DATA*", "*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"},
        {"CONFIG GET nothing", "*0\r\n"},
        {"CONFIG GET", "-ERR wrong number of arguments for 'config|get' command\r\n"},
        {"CONFIG SET save x",
         "-ERR command 'config' is not supported by this proxy: it administers one server\r\n"},
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

static void resp3(void **state)
{
    (void)state;
    assert_memory_equal(ask("HELLO 3"), "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n", 27);
    assert_non_null(strstr(ask("HELLO"), "$5\r\nproto\r\n:3\r\n"));
    assert_string_equal(ask("CLIENT GETNAME"), "_\r\n");
    assert_memory_equal(ask("CLIENT TRACKINGINFO"), "%3\r\n$5\r\nflags\r\n~1\r\n", 19);
    assert_string_equal(ask("INFO replication"),
                        "=74\r\ntxt:# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
                        "master_repl_offset:0\r\n\r\n");
    assert_non_null(strstr(ask("CLIENT INFO"), " resp=3 lib-name= lib-ver=\n"));
    assert_string_equal(ask("CONFIG GET save"), "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
    assert_string_equal(ask("HELLO 3 SETNAME \"a b\""),
                        "-ERR Client names cannot contain spaces, newlines or special "
                        "characters.\r\n");
    assert_string_equal(MR_PROTO_RESP.client.say(&session, MR_SAY_BROKEN).at, "_\r\n");
    assert_string_equal(ask("RESET"), "+RESET\r\n");
    assert_string_equal(MR_PROTO_RESP.client.say(&session, MR_SAY_BROKEN).at, "*-1\r\n");
    assert_string_equal(ask("CLIENT GETNAME"), "$-1\r\n");
    assert_memory_equal(ask("HELLO 3"), "%7", 2);
    assert_memory_equal(ask("HELLO 2"), "*14", 3);
    assert_memory_equal(ask("HELLO 2 AUTH bob x"), "-WRONGPASS", 10);
}

/* HELLO has no effect until the servers are known to speak RESP3. */
static void resp3_where_servers_do_not(void **state)
{
    (void)state;
    lane = MR_LANE_UNKNOWN;
    assert_string_equal(ask("HELLO 3 SETNAME me"), "");
    assert_int_equal(verdict, MR_ASK_LATER);
    lane = MR_LANE_REFUSED;
    assert_string_equal(ask("HELLO 3 SETNAME me"), "-NOPROTO unsupported protocol version\r\n");
    assert_int_equal(verdict, MR_KEEP_CLIENT);
    assert_string_equal(ask("CLIENT GETNAME"), "$-1\r\n");
    assert_memory_equal(ask("HELLO 2"), "*14", 3);
    lane = MR_LANE_USABLE;
}

static void passwords(void **state)
{
    (void)state;
    options.auth = "secret";
    session.authed = false;
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required.\r\n");
    assert_string_equal(ask("AUTH wrong"), "-ERR invalid password\r\n");
    assert_string_equal(ask("AUTH secret"), "+OK\r\n");
    assert_string_equal(ask("PING"), "+PONG\r\n");
    assert_string_equal(ask("AUTH wrong"), "-ERR invalid password\r\n");
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required.\r\n");
    assert_string_equal(ask("AUTH default secret"), "+OK\r\n");
    assert_string_equal(ask("AUTH bob secret"),
                        "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    assert_memory_equal(ask("HELLO 2"), "-NOAUTH HELLO must be called", 28);
    assert_memory_equal(ask("HELLO 2 AUTH default nope"), "-WRONGPASS", 10);
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required.\r\n");
    assert_memory_equal(ask("HELLO 2 AUTH default secret SETNAME me"), "*14", 3);
    assert_string_equal(ask("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert_string_equal(ask("RESET"), "+RESET\r\n");
    assert_string_equal(ask("PING"), "-NOAUTH Authentication required.\r\n");
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
    struct mr_greeting greeting = {0};

    (void)state;
    assert_int_equal(MR_PROTO_RESP.server.hello(&options, 0, &slab, &out), 0);
    assert_true(mr_buf_empty(&out));
    assert_int_equal(MR_PROTO_RESP.server.hello(&both, 0, &slab, &out), 2);
    const char *want = "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n";
    assert_int_equal(mr_buf_len(&out), strlen(want));
    assert_memory_equal(mr_buf_slice(&out).at, want, strlen(want));
    mr_buf_clear(&out, &slab);
    assert_null(MR_PROTO_RESP.server.check_hello(&both, 0, 0, mr_slice_of("+OK\r\n"), &greeting));
    assert_string_equal(
        MR_PROTO_RESP.server.check_hello(&both, 0, 0, mr_slice_of("-ERR\r\n"), &greeting),
        "server refused the password of the proxy");
    assert_string_equal(
        MR_PROTO_RESP.server.check_hello(&both, 0, 1, mr_slice_of("-ERR\r\n"), &greeting),
        "server refused the database of the pool");
}

static void greets_servers_in_resp3(void **state)
{
    static const char WANT[] = "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
                               "*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n";
    const struct mr_proto_options both = {.auth = "pw", .db = 5};
    const struct mr_slice old = mr_slice_of("-ERR unknown command `HELLO`, with args\r\n");
    struct mr_buf out = {0};
    struct mr_greeting greeting = {0};

    (void)state;
    assert_int_equal(MR_PROTO_RESP.server.hello(&both, 1, &slab, &out), 3);
    assert_int_equal(mr_buf_len(&out), strlen(WANT));
    assert_memory_equal(mr_buf_slice(&out).at, WANT, strlen(WANT));
    mr_buf_clear(&out, &slab);
    assert_null(MR_PROTO_RESP.server.check_hello(&both, 1, 1, mr_slice_of("%7\r\n"), &greeting));
    assert_null(MR_PROTO_RESP.server.check_hello(&both, 1, 2, mr_slice_of("+OK\r\n"), &greeting));
    assert_string_equal(
        MR_PROTO_RESP.server.check_hello(&both, 1, 0, mr_slice_of("-ERR\r\n"), &greeting),
        "server refused the password of the proxy");
    assert_string_equal(
        MR_PROTO_RESP.server.check_hello(&both, 1, 2, mr_slice_of("-ERR\r\n"), &greeting),
        "server refused the database of the pool");
    assert_false(greeting.lane_only);
    assert_string_equal(
        MR_PROTO_RESP.server.check_hello(&both, 5, 2, mr_slice_of("-ERR\r\n"), &greeting),
        "server refused the database of the client");
    assert_true(greeting.lane_only);
    greeting.lane_only = false;
    assert_non_null(MR_PROTO_RESP.server.check_hello(&both, 1, 1, old, &greeting));
    assert_true(greeting.lane_only);
    greeting.lane_only = false;
    assert_non_null(
        MR_PROTO_RESP.server.check_hello(&options, 1, 0, mr_slice_of("-NOPROTO x\r\n"), &greeting));
    assert_true(greeting.lane_only);
    greeting.lane_only = false;
    assert_string_equal(MR_PROTO_RESP.server.check_hello(
                            &options, 1, 0, mr_slice_of("-ERR max clients\r\n"), &greeting),
                        "server refused HELLO");
    assert_false(greeting.lane_only);
}

static void the_greeting_tells_the_version(void **state)
{
    struct mr_greeting greeting = {0};

    (void)state;
    assert_null(MR_PROTO_RESP.server.check_hello(
        &options, 1, 0,
        mr_slice_of("%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n"),
        &greeting));
    assert_string_equal(greeting.version, "7.2.4");
    greeting.version[0] = '\0';
    assert_null(MR_PROTO_RESP.server.check_hello(
        &options, 1, 0, mr_slice_of("%1\r\n$7\r\nversion\r\n$99\r\n7.2\r\n"), &greeting));
    assert_string_equal(greeting.version, "");
}

/* A reload may remove databases. */
static void lanes(void **state)
{
    static const struct mr_proto_options EIGHT = {.db = 2, .databases = 8}, NONE = {.db = 2};
    uint8_t found;

    (void)state;
    assert_true(mr_resp_lane_of(&EIGHT, MR_RESP_3, 2, &found));
    assert_int_equal(found, 1);
    for (unsigned db = 0; db < 8; db++) {
        assert_true(mr_resp_lane_of(&EIGHT, MR_RESP_3, db, &found));
        assert_int_equal(mr_resp_lane_db(&EIGHT, found), db);
        assert_int_equal(mr_resp_version(found), MR_RESP_3);
        assert_true(MR_PROTO_RESP.client.has_dialect(&EIGHT, found));
        assert_int_equal(MR_PROTO_RESP.client.has_dialect(&NONE, found), db == 2);
    }
    assert_false(mr_resp_lane_of(&EIGHT, MR_RESP_2, 8, &found));
    assert_true(mr_resp_lane_of(&NONE, MR_RESP_2, 2, &found));
    assert_int_equal(found, 0);
    assert_false(mr_resp_lane_of(&NONE, MR_RESP_2, 0, &found));
}

static void labels(void **state)
{
    struct mr_session s = {0};

    (void)state;
    assert_string_equal(mr_resp_label(&s, MR_RESP_LIB_VERSION), "");
    mr_resp_set_label(&s, MR_RESP_LIB_VERSION, mr_slice_of("1.2"));
    mr_resp_set_label(&s, MR_RESP_NAME, mr_slice_of("me"));
    assert_string_equal(mr_resp_label(&s, MR_RESP_NAME), "me");
    assert_string_equal(mr_resp_label(&s, MR_RESP_LIB_NAME), "");
    assert_string_equal(mr_resp_label(&s, MR_RESP_LIB_VERSION), "1.2");
    mr_session_set_labels(&s,
                          (struct mr_slice){"old", 3}); /* from an earlier version: only the name */
    assert_string_equal(mr_resp_label(&s, MR_RESP_LIB_NAME), "");
    mr_resp_set_label(&s, MR_RESP_LIB_NAME, mr_slice_of("lib"));
    assert_string_equal(mr_resp_label(&s, MR_RESP_NAME), "old");
    free(s.labels);
}

#define MANY_ARGS 50000u

/* The command, a 2, and the words repeated. */
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

/* Cost is linear in bytes, whatever the options: one client must not stall the worker. */
static void options_cost_linear_time(void **state)
{
    static const struct mr_proto_options large = {.max_request_bytes = 1u << 24,
                                                  .max_key_bytes = 50};
    static const struct mr_proto_ctx ctx = {&large, &session, &slab, &scratch, &FACTS};
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
            assert_int_equal(MR_PROTO_RESP.client.parse(&ctx, &ps, bytes.at, bytes.len, &msg),
                             MR_OK);
            if (msg.action == MR_MSG_LOCAL)
                (void)MR_PROTO_RESP.client.answer(&ctx, &msg, &out);
            if (clock() - from > 3 * CLOCKS_PER_SEC / 2)
                fail_msg("%s %s took too long", MR_RESP_COMMANDS[c].name, WORDS[w][0]);
            mr_buf_clear(&wire, &slab);
            mr_buf_clear(&out, &slab);
        }
    free(session.labels);
    session.labels = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {T(simple_ones),
                                       T(resp3),
                                       T(resp3_where_servers_do_not),
                                       T(greets_servers_in_resp3),
                                       T(passwords),
                                       T(compares_passwords),
                                       T(greets_servers),
                                       T(the_greeting_tells_the_version),
                                       T(lanes),
                                       T(labels),
                                       T(options_cost_linear_time)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
