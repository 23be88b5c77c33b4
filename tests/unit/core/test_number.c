/* test_number.c - strict parsing of numbers. */
#include "core/number.h"
#include "unit/test.h"

static void reads_unsigned(void **state)
{
    static const struct {
        const char *text;
        uint64_t max, want;
        bool ok;
    } CASES[] = {
        {"0", 10, 0, true},
        {"10", 10, 10, true},
        {"11", 10, 0, false},
        {"007", 10, 7, true},
        {"", 10, 0, false},
        {"-1", 10, 0, false},
        {"+1", 10, 0, false},
        {" 1", 10, 0, false},
        {"1 ", 10, 0, false},
        {"0x1", 10, 0, false},
        {"1.5", 10, 0, false},
        {"18446744073709551615", UINT64_MAX, UINT64_MAX, true},
        {"18446744073709551616", UINT64_MAX, 0, false},
        {"99999999999999999999", UINT64_MAX, 0, false},
        {"000000000000000000000000018446744073709551615", UINT64_MAX, UINT64_MAX, true},
        {"000000000000000000000000018446744073709551616", UINT64_MAX, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        uint64_t v = 77;
        assert_int_equal(mr_parse_uint(mr_slice_of(CASES[i].text), CASES[i].max, &v), CASES[i].ok);
        assert_int_equal(v, CASES[i].ok ? CASES[i].want : 77);
    }
}

static void reads_signed(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
        bool ok;
    } CASES[] = {
        {"0", 0, true},
        {"-1", -1, true},
        {"-0", 0, false},
        {"01", 0, false},
        {"-01", 0, false},
        {"", 0, false},
        {"-", 0, false},
        {"+1", 0, false},
        {"1a", 0, false},
        {"9223372036854775807", INT64_MAX, true},
        {"9223372036854775808", 0, false},
        {"-9223372036854775808", INT64_MIN, true},
        {"-9223372036854775809", 0, false},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        int64_t v = 77;
        assert_int_equal(mr_parse_int64(mr_slice_of(CASES[i].text), &v), CASES[i].ok);
        assert_true(v == (CASES[i].ok ? CASES[i].want : 77));
    }
}

static void writes(void **state)
{
    char text[20];

    (void)state;
    assert_int_equal(mr_format_uint(text, 0), 1);
    assert_memory_equal(text, "0", 1);
    assert_int_equal(mr_format_uint(text, UINT64_MAX), 20);
    assert_memory_equal(text, "18446744073709551615", 20);
}

RUN(T(reads_unsigned), T(reads_signed), T(writes))
