/* test_walk.c - the order of servers for requests that visit all of them. */
#include "upstream/walk.h"
#include "unit/test.h"

#include <stdlib.h>

#define MANY 3000u /* enough for many collisions */

static char names[MANY][24];

/* Servers 0 to n - 1, leaving out those with i % every == rest. */
static struct mr_walk walk_of(uint32_t n, uint32_t every, uint32_t rest)
{
    struct mr_walk walk;
    uint32_t added = 0;

    mr_walk_init(&walk, n);
    for (uint32_t i = 0; i < n; i++) {
        if (every > 0 && i % every == rest)
            continue;
        (void)snprintf(names[added], sizeof(names[0]), "s%08x", i * UINT32_C(2654435761));
        mr_walk_add(&walk, mr_walk_place(names[added]), added);
        added++;
    }
    mr_walk_close(&walk);
    return walk;
}

static uint32_t place_of(const struct mr_walk *walk, uint32_t server)
{
    for (uint32_t i = 0; i < walk->n; i++)
        if (walk->stops[i].server == server)
            return walk->stops[i].place;
    fail_msg("server %u has no place", server);
    return 0;
}

static void visits_every_server_once(void **state)
{
    struct mr_walk walk = walk_of(MANY, 0, 0);
    static bool seen[MANY];
    uint32_t place = 0, n = 0;

    (void)state;
    do {
        const struct mr_stop *stop = mr_walk_at(&walk, place);
        assert_non_null(stop);
        assert_true(stop->place >= place && stop->place < 1u << MR_PLACE_BITS);
        assert_false(seen[stop->server]);
        seen[stop->server] = true;
        n++;
        place = mr_walk_next(&walk, stop);
    } while (place != 0);
    assert_int_equal(n, MANY);
    assert_null(mr_walk_at(&walk, walk.stops[MANY - 1].place + 1));
    mr_walk_fini(&walk);
}

/* A walk meets every server that exists throughout, although others are added. */
static void added_servers_push_others_forwards_only(void **state)
{
    struct mr_walk before = walk_of(MANY, 3, 1);
    struct mr_walk after = walk_of(MANY, 0, 0);
    uint32_t moved = 0;

    (void)state;
    for (uint32_t i = 0, server = 0; i < MANY; i++) {
        if (i % 3 == 1)
            continue;
        const uint32_t was = place_of(&before, server++), is = place_of(&after, i);
        assert_true(is >= was);
        moved += is > was;
    }
    assert_true(moved > 0); /* otherwise nothing was tested */
    mr_walk_fini(&before);
    mr_walk_fini(&after);
}

RUN(T(visits_every_server_once), T(added_servers_push_others_forwards_only))
