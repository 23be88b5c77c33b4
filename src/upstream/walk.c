/* walk.c - the order in which requests visit all servers of a pool. */
#include "upstream/walk.h"

#include "route/hash.h"

#include <stdlib.h>

static int by_place(const void *a, const void *b)
{
    const struct mr_stop *x = a, *y = b;

    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return (x->server > y->server) - (x->server < y->server); /* servers are sorted by name */
}

void mr_walk_init(struct mr_walk *walk, uint32_t most)
{
    *walk = (struct mr_walk){.stops = calloc(most + 1, sizeof(*walk->stops))};
    MR_CHECK(walk->stops != NULL);
}

uint32_t mr_walk_place(const char *name)
{
    const struct mr_slice text = mr_slice_of(name);

    return mr_hash_function(MR_HASH_fnv1a_32)(text.at, text.len) % MR_PLACES;
}

void mr_walk_add(struct mr_walk *walk, uint32_t place, uint32_t server)
{
    walk->stops[walk->n++] = (struct mr_stop){place, server};
}

void mr_walk_close(struct mr_walk *walk)
{
    qsort(walk->stops, walk->n, sizeof(*walk->stops), by_place);
    for (uint32_t i = 1; i < walk->n; i++)
        if (walk->stops[i].place <= walk->stops[i - 1].place)
            walk->stops[i].place = walk->stops[i - 1].place + 1;
}

void mr_walk_fini(struct mr_walk *walk)
{
    free(walk->stops);
}

const struct mr_stop *mr_walk_at(const struct mr_walk *walk, uint32_t place)
{
    uint32_t first = 0, behind = walk->n;

    while (first < behind) {
        const uint32_t middle = first + (behind - first) / 2;
        if (walk->stops[middle].place < place)
            first = middle + 1;
        else
            behind = middle;
    }
    return first < walk->n ? &walk->stops[first] : NULL;
}

uint32_t mr_walk_next(const struct mr_walk *walk, const struct mr_stop *stop)
{
    return stop + 1 < walk->stops + walk->n ? stop[1].place : 0;
}
