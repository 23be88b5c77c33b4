/* number.h - strict parsing of numbers: the whole text must be a number in range. */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

/** Parses decimal digits, leading zeros allowed. False unless all of `s` is a number in 0..max. */
bool mr_parse_uint(struct mr_slice s, uint64_t max, uint64_t *out);

/**
 * Parses a length as Redis does: optional '-', no '+', no leading zeros. False unless all of `s` is
 * such a number and fits.
 */
bool mr_parse_int64(struct mr_slice s, int64_t *out);

/** Writes `v` in decimal (at most 20 bytes, no NUL) and returns the length. */
size_t mr_format_uint(char *at, uint64_t v);
