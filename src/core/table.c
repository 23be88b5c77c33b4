/* table.c - chained buckets, doubled when there are more items than buckets. */
#include "core/table.h"

#include "core/check.h"

#include <stdlib.h>

#define FIRST_BUCKETS 16u

/* FNV-1a, then mixed so that the low bits are good. */
uint64_t mr_table_hash(struct mr_slice bytes, uint64_t seed)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ (seed * UINT64_C(0x9e3779b97f4a7c15));

    for (size_t i = 0; i < bytes.len; i++)
        h = (h ^ (unsigned char)bytes.at[i]) * UINT64_C(0x100000001b3);
    h ^= h >> 32;
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

void mr_table_fini(struct mr_table *t)
{
    free(t->buckets);
    *t = (struct mr_table){0};
}

static struct mr_table_item **bucket(const struct mr_table *t, uint64_t hash)
{
    return &t->buckets[hash & (t->n_buckets - 1)];
}

static void grow(struct mr_table *t)
{
    struct mr_table bigger = {.n_buckets = t->n_buckets > 0 ? 2 * t->n_buckets : FIRST_BUCKETS,
                              .n = t->n};

    bigger.buckets = calloc(bigger.n_buckets, sizeof(struct mr_table_item *));
    MR_CHECK(bigger.buckets != NULL);
    for (size_t i = 0; i < t->n_buckets; i++)
        for (struct mr_table_item *item = t->buckets[i], *next; item != NULL; item = next) {
            struct mr_table_item **to = bucket(&bigger, item->hash);
            next = item->next;
            item->next = *to;
            *to = item;
        }
    free(t->buckets);
    *t = bigger;
}

void mr_table_add(struct mr_table *t, struct mr_table_item *item, uint64_t hash)
{
    if (t->n == t->n_buckets)
        grow(t);
    struct mr_table_item **to = bucket(t, hash);
    item->hash = hash;
    item->next = *to;
    *to = item;
    t->n++;
}

void mr_table_del(struct mr_table *t, struct mr_table_item *item)
{
    struct mr_table_item **at = bucket(t, item->hash);

    while (*at != item) {
        MR_CHECK(*at != NULL);
        at = &(*at)->next;
    }
    *at = item->next;
    t->n--;
}

static struct mr_table_item *with_hash(struct mr_table_item *item, uint64_t hash)
{
    while (item != NULL && item->hash != hash)
        item = item->next;
    return item;
}

struct mr_table_item *mr_table_find(const struct mr_table *t, uint64_t hash)
{
    return t->n > 0 ? with_hash(*bucket(t, hash), hash) : NULL;
}

struct mr_table_item *mr_table_same(const struct mr_table_item *item)
{
    return with_hash(item->next, item->hash);
}

struct mr_table_item *mr_table_next(const struct mr_table *t, const struct mr_table_item *item)
{
    size_t i = 0;

    if (item != NULL && item->next != NULL)
        return item->next;
    if (item != NULL)
        i = (item->hash & (t->n_buckets - 1)) + 1;
    while (i < t->n_buckets && t->buckets[i] == NULL)
        i++;
    return i < t->n_buckets ? t->buckets[i] : NULL;
}
