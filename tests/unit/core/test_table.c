/* The hash table: many items, equal hashes, iteration with deletion. */
#include "core/table.h"

#include "core/check.h"
#include "unit/test.h"

#include <stdio.h>
#include <stdlib.h>

struct thing {
    struct mr_table_item item;
    int number;
};

static uint64_t hash_of(int number)
{
    char text[16];
    const int n = snprintf(text, sizeof(text), "%d", number);

    return mr_table_hash((struct mr_slice){text, (size_t)n}, 7);
}

static struct thing *of(struct mr_table_item *item)
{
    return MR_CONTAINER_OF(item, struct thing, item);
}

static bool has(const struct mr_table *t, int number, uint64_t hash)
{
    struct mr_table_item *item = mr_table_find(t, hash);

    while (item != NULL && of(item)->number != number)
        item = mr_table_same(item);
    return item != NULL;
}

static void what_was_added_is_found(void **state)
{
    enum { N = 1000 };
    struct thing *things = calloc(N, sizeof(*things));
    struct mr_table t = {0};

    (void)state;
    assert_null(mr_table_find(&t, 1));
    assert_null(mr_table_next(&t, NULL));
    for (int i = 0; i < N; i++) {
        things[i].number = i;
        mr_table_add(&t, &things[i].item, hash_of(i));
    }
    for (int i = 0; i < N; i += 2)
        mr_table_del(&t, &things[i].item);
    assert_int_equal(t.n, N / 2);
    for (int i = 0; i < N; i++)
        assert_int_equal(has(&t, i, hash_of(i)), i % 2);
    mr_table_fini(&t);
    free(things);
}

static void equal_hashes_are_kept_apart(void **state)
{
    struct thing things[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    struct mr_table t = {0};

    (void)state;
    for (int i = 0; i < 3; i++)
        mr_table_add(&t, &things[i].item, 99);
    mr_table_del(&t, &things[1].item);
    assert_true(has(&t, 0, 99) && !has(&t, 1, 99) && has(&t, 2, 99));
    mr_table_fini(&t);
}

static void all_are_visited_once_while_they_go(void **state)
{
    enum { N = 200 };
    struct thing things[N];
    int seen[N] = {0};
    struct mr_table t = {0};

    (void)state;
    for (int i = 0; i < N; i++) {
        things[i].number = i;
        mr_table_add(&t, &things[i].item, hash_of(i));
    }
    for (struct mr_table_item *item = mr_table_next(&t, NULL), *next; item != NULL; item = next) {
        next = mr_table_next(&t, item);
        seen[of(item)->number]++;
        mr_table_del(&t, item);
    }
    assert_int_equal(t.n, 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(seen[i], 1);
    mr_table_fini(&t);
}

RUN(T(what_was_added_is_found), T(equal_hashes_are_kept_apart),
    T(all_are_visited_once_while_they_go))
