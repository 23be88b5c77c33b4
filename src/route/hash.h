/*
 * hash.h - twemproxy's twelve key hashes, bit for bit.
 *
 * Where the original reads plain `char`, bytes are signed here on every machine, so ARM maps keys
 * like x86. Rules and values: docs/protocol.md, "Key to server".
 */
#pragma once

#include "core/slice.h"

#include <stdint.h>

enum mr_hash {
#define X(name) MR_HASH_##name,
#include "route/hashes.def"
    MR_HASH_COUNT
};

typedef uint32_t (*mr_hash_fn)(const char *key, size_t len);

/** The name used in a configuration. */
const char *mr_hash_name(enum mr_hash hash);

mr_hash_fn mr_hash_function(enum mr_hash hash);

/** False if there is no hash of that name. Case matters. */
bool mr_hash_by_name(struct mr_slice name, enum mr_hash *out);
