/* test_command.c - the command table. */
#include "proto/resp/command.h"
#include "unit/test.h"

#include <ctype.h>

static void every_row_is_found_in_any_case(void **state)
{
    char upper[32];

    (void)state;
    for (uint32_t i = 0; i < MR_RESP_COMMAND_COUNT; i++) {
        const char *name = MR_RESP_COMMANDS[i].name;
        size_t n = strlen(name);
        for (size_t j = 0; j <= n; j++)
            upper[j] = (char)toupper(name[j]);
        assert_ptr_equal(mr_resp_command(mr_slice_of(name)), &MR_RESP_COMMANDS[i]);
        assert_ptr_equal(mr_resp_command(mr_slice_of(upper)), &MR_RESP_COMMANDS[i]);
    }
}

static void nothing_else_is_found(void **state)
{
    static const char *const NAMES[] = {"",
                                        "g",
                                        "ge",
                                        "gett",
                                        "get\x01",
                                        "GET ",
                                        "g\x45t\x80",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                        "georadiusbymember_rO0",
                                        "restore_asking"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(NAMES); i++)
        assert_null(mr_resp_command(mr_slice_of(NAMES[i])));
    assert_null(mr_resp_command((struct mr_slice){"get\0", 4}));
}

static void rows_are_sorted_and_sane(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MR_RESP_COMMAND_COUNT; i++) {
        const struct mr_resp_command *c = &MR_RESP_COMMANDS[i];
        assert_true(i == 0 || strcmp(MR_RESP_COMMANDS[i - 1].name, c->name) < 0);
        assert_true(c->arity != 0);
        if (c->handling <= MR_RESP_SPLIT_SUM)
            assert_int_not_equal(c->keys, MR_RESP_NO_KEYS);
        if (c->keys == MR_RESP_KEYS)
            assert_true(c->a >= 1 && c->c >= 1 && (c->b < 0 || c->b >= c->a));
        /* the arity guarantees a first key, unless none means all */
        if (c->keys == MR_RESP_KEYS && c->a == 1 && c->handling != MR_RESP_UNSUBSCRIBE)
            assert_true(abs(c->arity) >= 2);
    }
}

RUN(T(every_row_is_found_in_any_case), T(nothing_else_is_found), T(rows_are_sorted_and_sane))
