/* test_split.c - requests taken apart by server, replies put together. */
#include "proto/resp/resp.h"

static const struct mr_proto_options OPTIONS = {.max_request_bytes = 10000, .max_key_bytes = 50};
#define PROTO MR_PROTO_RESP
#include "unit/proto/splitting.h"

#define MGET "*6\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$0\r\n\r\n$1\r\na\r\n$2\r\ncc\r\n"

static void mget_keeps_order_and_repeats(void **state)
{
    (void)state;
    split(MGET, "01001", 2);
    assert_string_equal(part_request(0), "*4\r\n$4\r\nmget\r\n$1\r\na\r\n$0\r\n\r\n$1\r\na\r\n");
    assert_string_equal(part_request(1), "*3\r\n$4\r\nmget\r\n$1\r\nb\r\n$2\r\ncc\r\n");
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

int main(void)
{
    const struct CMUnitTest tests[] = {T(mget_keeps_order_and_repeats), T(mget_failures),
                                       T(mset_takes_values_along), T(counts_are_summed)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
