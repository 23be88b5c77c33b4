/* slice.h - a borrowed run of bytes; not NUL-terminated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct mr_slice {
    const char *at;
    size_t len; /* bytes */
};

/** A slice of a string literal or other NUL-terminated text. */
static inline struct mr_slice mr_slice_of(const char *text)
{
    return (struct mr_slice){text, strlen(text)};
}

static inline bool mr_slice_eq(struct mr_slice a, struct mr_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

/** Compares in time that does not depend on how many bytes match. */
static inline bool mr_slice_eq_secret(struct mr_slice given, const char *secret)
{
    const size_t len = strlen(secret);
    unsigned char differ = given.len != len;

    for (size_t i = 0; i < given.len; i++)
        differ |= (unsigned char)(given.at[i] ^ secret[len > 0 ? i % len : 0]);
    return differ == 0;
}

/** Case-insensitive comparison (ASCII) with text in lower case. */
static inline bool mr_slice_eq_nocase(struct mr_slice s, const char *lower)
{
    if (strlen(lower) != s.len)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.at[i];
        if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != lower[i])
            return false;
    }
    return true;
}
