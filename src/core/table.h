/*
 * table.h - an intrusive hash table. Items are embedded in what they stand for; the table owns only
 * its buckets.
 */
#pragma once

#include "core/slice.h"

#include <stddef.h>
#include <stdint.h>

struct mr_table_item {
    struct mr_table_item *next;
    uint64_t hash;
};

/** Zeroed before first use. */
struct mr_table {
    struct mr_table_item **buckets;
    size_t n_buckets; /* a power of two, or 0 */
    size_t n;
};

/** Hash of bytes; `seed` separates kinds of keys. */
uint64_t mr_table_hash(struct mr_slice bytes, uint64_t seed);

/** Frees the buckets. Items stay their owners'. */
void mr_table_fini(struct mr_table *t);

void mr_table_add(struct mr_table *t, struct mr_table_item *item, uint64_t hash);
void mr_table_del(struct mr_table *t, struct mr_table_item *item);

/** The first item with this hash, or NULL. Equal hashes may still be of different keys. */
struct mr_table_item *mr_table_find(const struct mr_table *t, uint64_t hash);

/** The next item with the same hash, or NULL. */
struct mr_table_item *mr_table_same(const struct mr_table_item *item);

/**
 * Iterates over all items, from NULL; returns NULL after the last. Meanwhile none may be added, and
 * an item may be deleted only once the next one is known.
 */
struct mr_table_item *mr_table_next(const struct mr_table *t, const struct mr_table_item *item);
