/* test_split.c - splitting requests over servers, and joining the replies. */
#include "proto/resp/resp.h"

static const struct mr_proto_options OPTIONS = {
    .max_request_bytes = 10000, .max_key_bytes = 50, .allow_flush = true};
#define PROTO MR_PROTO_RESP
#include "unit/proto/splitting.h"

#define MGET "*6\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$0\r\n\r\n$1\r\na\r\n$2\r\ncc\r\n"

static void mget_keeps_order_and_repeats(void **state)
{
    (void)state;
    split(MGET, "01001", 2);
    assert_string_equal(part_request(0), "*4\r\n$4\r\nMGET\r\n$1\r\na\r\n$0\r\n\r\n$1\r\na\r\n");
    assert_string_equal(part_request(1), "*3\r\n$4\r\nMGET\r\n$1\r\nb\r\n$2\r\ncc\r\n");
    answer(0, "*3\r\n$1\r\nA\r\n$-1\r\n$1\r\nA\r\n");
    answer(1, "*2\r\n$3\r\nB\r\n\r\n$2\r\nCC\r\n");
    assert_string_equal(joined(), "*5\r\n$1\r\nA\r\n$3\r\nB\r\n\r\n$-1\r\n$1\r\nA\r\n$2\r\nCC\r\n");
}

static void mget_failures(void **state)
{
    (void)state;
    split(MGET, "01001", 2);
    answer(0, "*3\r\n$1\r\nA\r\n$-1\r\n$1\r\nA\r\n");
    parts[1].failure = "Connection refused";
    assert_string_equal(joined(), "-ERR Connection refused\r\n");
    split(MGET, "01001", 2);
    answer(0, "-LOADING Redis is loading the dataset in memory\r\n");
    answer(1, "*2\r\n$-1\r\n$-1\r\n");
    assert_string_equal(joined(), "-LOADING Redis is loading the dataset in memory\r\n");
    split(MGET, "01001", 2);
    answer(0, "*2\r\n$-1\r\n$-1\r\n"); /* one too few */
    answer(1, "*2\r\n$-1\r\n$-1\r\n");
    assert_string_equal(joined(), "-ERR Invalid argument\r\n");
    split(MGET, "01001", 2);
    answer(0, "+OK\r\n");
    answer(1, "*2\r\n$-1\r\n$-1\r\n");
    assert_string_equal(joined(), "-ERR Invalid argument\r\n");
}

static void mset_takes_values_along(void **state)
{
    (void)state;
    split("*5\r\n$4\r\nmset\r\n$1\r\na\r\n$2\r\n\r\n\r\n$1\r\nb\r\n$0\r\n\r\n", "10", 2);
    assert_string_equal(part_request(1), "*3\r\n$4\r\nmset\r\n$1\r\na\r\n$2\r\n\r\n\r\n");
    assert_string_equal(part_request(0), "*3\r\n$4\r\nmset\r\n$1\r\nb\r\n$0\r\n\r\n");
    answer(0, "+OK\r\n");
    answer(1, "+OK\r\n");
    assert_string_equal(joined(), "+OK\r\n");
    split("*5\r\n$4\r\nmset\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n", "10", 2);
    answer(0, "+OK\r\n");
    answer(1, "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    assert_string_equal(joined(), "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
}

static void counts_are_summed(void **state)
{
    static const char *const NAMES[] = {"del", "unlink", "exists", "touch"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(NAMES); i++) {
        char wire[128];
        snprintf(wire, sizeof(wire), "*4\r\n$%zu\r\n%s\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
                 strlen(NAMES[i]), NAMES[i]);
        split(wire, "012", 3);
        answer(0, ":1\r\n");
        answer(1, ":0\r\n");
        answer(2, ":4294967296\r\n");
        assert_string_equal(joined(), ":4294967297\r\n");
    }
}

/* How replies of two servers are joined. */
static void whole_pool_replies(void **state)
{
#define ERROR "-LOADING busy\r\n"
    static const struct {
        const char *request, *first, *second, *joined;
    } CASES[] = {
        {"DBSIZE", ":3\r\n", ":4\r\n", ":7\r\n"},
        {"DBSIZE", ":3\r\n", ERROR, ERROR},
        {"DBSIZE", ":3\r\n", "+x\r\n", "-ERR Invalid argument\r\n"},
        {"KEYS *", "*1\r\n$1\r\na\r\n", "*2\r\n$1\r\nb\r\n$1\r\nc\r\n",
         "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"},
        {"KEYS *", "*0\r\n", "*0\r\n", "*0\r\n"},
        {"KEYS *", "*0\r\n", ":1\r\n", "-ERR Invalid argument\r\n"},
        {"RANDOMKEY", "$-1\r\n", "$1\r\na\r\n", "$1\r\na\r\n"},
        {"RANDOMKEY", "$1\r\na\r\n", "_\r\n", "$1\r\na\r\n"},
        {"RANDOMKEY", "_\r\n", "_\r\n", "_\r\n"},
        {"FLUSHALL ASYNC", "+OK\r\n", "+OK\r\n", "+OK\r\n"},
        {"flushdb", "+OK\r\n", "-MISCONF no\r\n", "-MISCONF no\r\n"},
        {"SCRIPT LOAD x", "$1\r\n5\r\n", "$1\r\n5\r\n", "$1\r\n5\r\n"},
        {"SCRIPT EXISTS a b c", "*3\r\n:1\r\n:0\r\n:1\r\n", "*3\r\n:1\r\n:1\r\n:0\r\n",
         "*3\r\n:1\r\n:0\r\n:0\r\n"},
        {"SCRIPT EXISTS a", "*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n", "-ERR Invalid argument\r\n"},
        {"SCRIPT EXISTS a", "*1\r\n:1\r\n", "*1\r\n$1\r\n1\r\n", "-ERR Invalid argument\r\n"},
        {"SCRIPT KILL", "-NOTBUSY no\r\n", "+OK\r\n", "+OK\r\n"},
        {"SCRIPT KILL", "-NOTBUSY no\r\n", "-NOTBUSY no\r\n", "-NOTBUSY no\r\n"},
        {"FUNCTION STATS", "*4\r\n$14\r\nrunning_script\r\n$-1\r\n$7\r\nengines\r\n*0\r\n",
         "%2\r\n$14\r\nrunning_script\r\n*0\r\n$7\r\nengines\r\n*0\r\n",
         "%2\r\n$14\r\nrunning_script\r\n*0\r\n$7\r\nengines\r\n*0\r\n"},
        {"FUNCTION DELETE f", "+OK\r\n", "-ERR Library not found\r\n",
         "-ERR Library not found\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        char line[64];
        (void)snprintf(line, sizeof(line), "%s\r\n", CASES[i].request);
        split(line, "", 2);
        answer(0, CASES[i].first);
        answer(1, CASES[i].second);
        const char *got = joined();
        if (strcmp(got, CASES[i].joined) != 0)
            fail_msg("%s: %s", CASES[i].request, got);
    }
}

static void a_scan_goes_on_where_it_was(void **state)
{
    static const struct {
        const char *cursor, *asked, *said, *shown;
    } CASES[] = {
        {"0", "$1\r\n0", "$1\r\n5", "$7\r\n5242880"},         /* 5 << 20 | 0 */
        {"5242887", "$1\r\n5", "$2\r\n12", "$8\r\n12582919"}, /* at place 7 */
        {"5242887", "$1\r\n5", "$1\r\n0", "$2\r\n99"},        /* on to the next server */
        {"18446744073709551615", "$14\r\n17592186044415", "$14\r\n17592186044415",
         "$20\r\n18446744073709551615"},
    };
    char request[100], reply[100], shown[100];

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        (void)snprintf(request, sizeof(request), "SCAN %s COUNT 3\r\n", CASES[i].cursor);
        split(request, "", 1);
        (void)snprintf(shown, sizeof(shown), "*4\r\n$4\r\nSCAN\r\n%s\r\n$5\r\nCOUNT\r\n$1\r\n3\r\n",
                       CASES[i].asked);
        assert_string_equal(part_request(0), shown);
        (void)snprintf(reply, sizeof(reply), "*2\r\n%s\r\n*1\r\n$1\r\nk\r\n", CASES[i].said);
        answer(0, reply);
        (void)snprintf(shown, sizeof(shown), "*2\r\n%s\r\n*1\r\n$1\r\nk\r\n", CASES[i].shown);
        assert_string_equal(joined(), shown);
    }
}

static void a_scan_that_cannot_go_on(void **state)
{
    static const struct {
        const char *said, *shown;
    } CASES[] = {
        {"*2\r\n$14\r\n17592186044416\r\n*0\r\n",
         "-ERR the server's cursor is too large for a pool of several servers\r\n"},
        {"*2\r\n$1\r\nx\r\n*0\r\n", "-ERR Invalid argument\r\n"},
        {"*2\r\n$0\r\n\r\n*0\r\n", "-ERR Invalid argument\r\n"},
        {"*2\r\n:1\r\n*0\r\n", "-ERR Invalid argument\r\n"},
        {"*1\r\n$1\r\n1\r\n", "-ERR Invalid argument\r\n"},
        {"*0\r\n", "-ERR Invalid argument\r\n"},
        {"+OK\r\n", "-ERR Invalid argument\r\n"},
        {"-ERR syntax error\r\n", "-ERR syntax error\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        split("SCAN 0\r\n", "", 1);
        answer(0, CASES[i].said);
        assert_string_equal(joined(), CASES[i].shown);
    }
    split("SCAN 0\r\n", "", 1);
    parts[0].failure = "Connection refused";
    assert_string_equal(joined(), "-ERR Connection refused\r\n");
    split("SCAN 77\r\n", "", 0); /* there are no more servers */
    plan.next = 0;
    assert_string_equal(joined(), "*2\r\n$1\r\n0\r\n*0\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(mget_keeps_order_and_repeats), T(mget_failures),
        T(mset_takes_values_along),      T(counts_are_summed),
        T(whole_pool_replies),           T(a_scan_goes_on_where_it_was),
        T(a_scan_that_cannot_go_on)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
