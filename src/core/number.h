/* number.h - strict numbers from text: no sign, blank, leading zero or overflow slips through. */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

/** Decimal digits only, any number of leading zeros; false unless all of `s` fits 0..max. */
bool mr_parse_uint(struct mr_slice s, uint64_t max, uint64_t *out);

/** As Redis reads a length: optional '-', no leading zeros, no plus; false unless all fits. */
bool mr_parse_int64(struct mr_slice s, int64_t *out);

/** Writes the decimal text of `v` (20 bytes at most, no NUL); returns its length. */
size_t mr_format_uint(char *at, uint64_t v);
