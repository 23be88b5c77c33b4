/* test_permit.c - what users may do. */
#include "proto/resp/internal.h"
#include "proto/resp/resp.h"
#include "proto/user.h"
#include "unit/proto/fixture.h"

static const struct mr_resp_command DECLARED[] = {{.name = "mod.get",
                                                   .arity = -2,
                                                   .class = MR_CLASS_READ,
                                                   .keys = MR_RESP_KEYS,
                                                   .a = 1,
                                                   .b = 1,
                                                   .c = 1},
                                                  {.name = "mod.set",
                                                   .arity = -2,
                                                   .class = MR_CLASS_WRITE,
                                                   .keys = MR_RESP_KEYS,
                                                   .a = 1,
                                                   .b = 1,
                                                   .c = 1}};
static const struct mr_proto_options OPTIONS = {.max_request_bytes = 10000,
                                                .max_key_bytes = 50,
                                                .allow_flush = true,
                                                .commands = DECLARED,
                                                .n_commands = 2,
                                                .unknown_by_key = true};

static struct mr_user user;

/* "+word" or "-word", in order. */
static void permit(const char *words)
{
    char text[256];

    memset(user.permits, 0, sizeof(user.permits));
    snprintf(text, sizeof(text), "%s", words);
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
        assert_true(mr_resp_permit(&user, mr_slice_of(word + 1), word[0] == '+'));
}

/* The reply that refuses an inline command, or "". */
static const char *refusal(const char *line)
{
    static char text[512];
    struct mr_session session = {.authed = true, .user = &user};
    const struct mr_proto_ctx ctx = {&OPTIONS, &session, &slab, &scratch, NULL};
    struct mr_parse_state state = {0};
    struct mr_msg msg;
    char wire[512];

    snprintf(wire, sizeof(wire), "%s\r\n", line);
    assert_int_equal(MR_PROTO_RESP.client.parse(&ctx, &state, wire, strlen(wire), &msg), MR_OK);
    if (msg.action != MR_MSG_REFUSE)
        return "";
    assert_int_equal(msg.step, MR_STEP_NONE);
    memcpy(text, msg.reply.at, msg.reply.len);
    text[msg.reply.len] = '\0';
    return text;
}

static bool may(const char *line)
{
    const char *why = refusal(line);

    if (why[0] != '\0' && strncmp(why, "-NOPERM ", 8) != 0)
        fail_msg("%s: %s", line, why);
    return why[0] == '\0';
}

static void commands(void **state)
{
    (void)state;
    permit("");
    assert_false(may("GET k"));
    assert_true(may("AUTH x") && may("HELLO 3") && may("RESET") && may("QUIT"));
    permit("+@all");
    assert_true(may("GET k") && may("SCRIPT FLUSH") && may("CLIENT LIST"));
    permit("+@all -SET -@hash");
    assert_true(may("GET k") && may("MGET a b"));
    assert_false(may("set k v") || may("HGET k f") || may("HPEXPIRE k 1 FIELDS 1 f"));
    permit("+get +@set");
    assert_true(may("GET k") && may("SADD k a"));
    assert_false(may("SET k v") || may("MULTI"));
    assert_string_equal(refusal("SET k v"),
                        "-NOPERM this user has no permissions to run the 'set' command\r\n");
}

static void subcommands(void **state)
{
    (void)state;
    permit("+client|ID +script");
    assert_true(may("CLIENT id") && may("SCRIPT FLUSH") && may("SCRIPT LOAD x"));
    assert_false(may("CLIENT LIST"));
    assert_string_equal(
        refusal("CLIENT List"),
        "-NOPERM this user has no permissions to run the 'client|list' command\r\n");
    assert_string_equal(refusal("CLIENT X"), "-ERR unknown subcommand 'X'. Try CLIENT HELP.\r\n");
    permit("+@all -script|flush -@dangerous");
    assert_true(may("SCRIPT LOAD x") && may("CLIENT ID"));
    assert_false(may("SCRIPT FLUSH") || may("CLIENT LIST") || may("FLUSHALL"));
    permit("+@all -client +client|id");
    assert_true(may("CLIENT ID"));
    assert_false(may("CLIENT GETNAME"));
}

/* They are judged by their class. */
static void commands_that_are_not_in_the_table(void **state)
{
    static char *prefixes[] = {"app:"};

    (void)state;
    permit("+@read +get");
    assert_true(may("MOD.GET k"));
    assert_false(may("MOD.SET k") || may("Mod.Other k"));
    assert_string_equal(refusal("Mod.Other k"),
                        "-NOPERM this user has no permissions to run the 'mod.other' command\r\n");
    permit("+@all -@write");
    assert_true(may("MOD.GET k"));
    assert_false(may("MOD.SET k") || may("MOD.OTHER k"));
    permit("+@all");
    assert_true(may("MOD.SET k") && may("MOD.OTHER k"));
    user.prefixes = prefixes;
    user.n_prefixes = 1;
    assert_true(may("MOD.SET app:k"));
    assert_false(may("MOD.SET k") || may("MOD.OTHER app:k")); /* it may have other keys as well */
    user.n_prefixes = 0;
}

static void words_that_mean_nothing(void **state)
{
    static const char *const WORDS[] = {"",      "@",           "@none", "nope",    "client|nope",
                                        "get|x", "client|id|x", "all",   "@read x", "|"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(WORDS); i++)
        if (mr_resp_permit(&user, mr_slice_of(WORDS[i]), true))
            fail_msg("\"%s\"", WORDS[i]);
    char large[200];
    memset(large, 'x', sizeof(large));
    assert_false(mr_resp_permit(&user, (struct mr_slice){large, sizeof(large)}, true));
}

static void keys(void **state)
{
    static char *prefixes[] = {"app:", "a*b", ""};
    static const struct {
        const char *line;
        bool may;
    } CASES[] = {
        {"GET app:1", true},
        {"GET app:", true},
        {"GET app", false},
        {"GET a*b", true},
        {"GET axb", false},
        {"MSET app:1 x app:2 y", true},
        {"MSET app:1 x other y", false},
        {"EVAL x 2 app:1 app:2", true},
        {"EVAL x 2 app:1 other", false},
        {"SORT app:1 STORE other", false},
        {"GEORADIUS app:1 1 1 1 m STORE app:2 STORE other", false},
        {"XREAD BLOCK 0 STREAMS app:1 other 0 0", false},
        {"BLPOP app:1 other 0", false},
        {"WATCH other", false},
        {"KEYS app:*", true},
        {"KEYS a*b", false},
        {"KEYS *", false},
        {"SCAN 0", false},
        {"SCAN 0 MATCH app:x*", true},
        {"SCAN 0 COUNT 1 match app: TYPE x", true},
        {"SCAN 0 MATCH app:* MATCH *", false},
        {"SCAN 0 COUNT MATCH app:*", false},
        {"DBSIZE", false},
        {"RANDOMKEY", false},
        {"FLUSHALL", false},
        {"SCRIPT FLUSH", true},
        {"OBJECT HELP", true},
        {"MULTI", true},
        {"PING", true},
    };

    (void)state;
    permit("+@all");
    user.prefixes = prefixes;
    user.n_prefixes = 2;
    for (size_t i = 0; i < MR_COUNT(CASES); i++)
        if (may(CASES[i].line) != CASES[i].may)
            fail_msg("%s", CASES[i].line);
    assert_string_equal(refusal("SORT app:1 BY other:* GET app:*"),
                        "-ERR BY option of SORT denied due to insufficient ACL permissions.\r\n");
    assert_string_equal(refusal("SORT_RO app:1 BY app:* GET # GET other:*->f"),
                        "-ERR GET option of SORT denied due to insufficient ACL permissions.\r\n");
    assert_true(may("SORT app:1 BY nosort GET # GET app:* LIMIT get *"));
    user.n_prefixes = 0;
}

static bool in_category(const char *category, uint32_t row)
{
    struct mr_user one = {0};

    assert_true(mr_resp_permit(&one, mr_slice_of(category), true));
    return (one.permits[row / 64] >> row % 64 & 1) != 0;
}

/* Compares the categories with the command table. Commands with subcommands have none. */
static void every_command_has_its_categories(void **state)
{
    static const char *const SCRIPTS[] = {"eval", "evalsha", "fcall", "exec"};

    (void)state;
    for (uint32_t i = 0; i < MR_RESP_COMMAND_COUNT; i++) {
        const struct mr_resp_command *cmd = &MR_RESP_COMMANDS[i];
        bool writes = cmd->class == MR_CLASS_WRITE && strcmp(cmd->name, "xgroup") != 0;
        for (size_t k = 0; k < MR_COUNT(SCRIPTS); k++)
            writes &= strcmp(cmd->name, SCRIPTS[k]) != 0;
        if (!in_category("@all", i) || !in_category(cmd->name, i))
            fail_msg("%s is not listed", cmd->name);
        if (in_category("@read", i) && cmd->class != MR_CLASS_READ)
            fail_msg("%s reads", cmd->name);
        if (in_category("@write", i) != writes)
            fail_msg("%s writes", cmd->name);
    }
}

int main(void)
{
#define WITH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH(commands),
        WITH(subcommands),
        WITH(commands_that_are_not_in_the_table),
        WITH(words_that_mean_nothing),
        WITH(keys),
        WITH(every_command_has_its_categories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
