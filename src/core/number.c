/* number.c - strict parsing of numbers. */
#include "core/number.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

#define SAFE_DIGITS 19u /* that any uint64_t has room for */

bool mr_parse_uint(struct mr_slice s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (!is_digit(s.at[i]))
            return false;
        const uint64_t digit = (uint64_t)(s.at[i] - '0');
        if (i >= SAFE_DIGITS && v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    if (v > max)
        return false;
    *out = v;
    return true;
}

bool mr_parse_int64(struct mr_slice s, int64_t *out)
{
    const bool negative = s.len > 0 && s.at[0] == '-';
    uint64_t v;

    if (negative)
        s = (struct mr_slice){s.at + 1, s.len - 1};
    if (s.len == 0 || (s.at[0] == '0' && (s.len > 1 || negative)))
        return false;
    if (!mr_parse_uint(s, (uint64_t)INT64_MAX + negative, &v))
        return false;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

size_t mr_format_uint(char *at, uint64_t v)
{
    char digits[20];
    size_t n = 0;

    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    for (size_t i = 0; i < n; i++)
        at[i] = digits[n - 1 - i];
    return n;
}
