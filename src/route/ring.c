/* ring.c - hash value to server index. */
#include "route/ring.h"

#include "route/hash.h"
#include "route/md5.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define POINTS_PER_SERVER 160
#define POINTS_PER_HASH   4
#define POINT_NAME_MAX    272 /* bytes of "name-number" that get hashed */

static const char *const NAMES[] = {"ketama", "modula", "random"};

bool mr_distribution_by_name(struct mr_slice name, enum mr_distribution *out)
{
    for (size_t i = 0; i < MR_COUNT(NAMES); i++)
        if (mr_slice_eq(name, mr_slice_of(NAMES[i]))) {
            *out = (enum mr_distribution)i;
            return true;
        }
    return false;
}

struct mr_slice mr_hash_tag(struct mr_slice key, const char *tag)
{
    if (tag == NULL || key.len == 0)
        return key;
    const char *open = memchr(key.at, tag[0], key.len);
    if (open == NULL)
        return key;
    open++;
    const size_t left = (size_t)(key.at + key.len - open);
    const char *close = left > 0 ? memchr(open, tag[1], left) : NULL;
    if (close == NULL || close == open)
        return key;
    return (struct mr_slice){open, (size_t)(close - open)};
}

uint32_t mr_hash_slot(struct mr_slice key)
{
    const struct mr_slice tag = mr_hash_tag(key, "{}");

    return mr_hash_function(MR_HASH_crc16)(tag.at, tag.len) % MR_HASH_SLOTS;
}

static int by_value(const void *a, const void *b)
{
    const struct mr_ring_point *p = a, *q = b;

    if (p->value != q->value)
        return p->value < q->value ? -1 : 1;
    return p->index < q->index ? -1 : p->index > q->index; /* ties: lower index first */
}

/* A member's number of hashes (four points each), in single precision, evaluated left to right. */
static uint32_t ketama_hashes(uint32_t weight, uint64_t total, uint32_t n_live)
{
    const float share = (float)weight / (float)total;
    const float t = share * POINTS_PER_SERVER / POINTS_PER_HASH * (float)n_live;

    return (uint32_t)floorf((float)((double)t + 1e-10));
}

static uint32_t place_member(struct mr_ring_point *points, const struct mr_ring_member *m,
                             uint32_t index, uint32_t hashes)
{
    char name[POINT_NAME_MAX + 16];
    uint32_t n = 0;

    for (uint32_t j = 0; j < hashes; j++) {
        uint8_t digest[16];
        const int keep = m->name.len < POINT_NAME_MAX ? (int)m->name.len : POINT_NAME_MAX;
        int len = snprintf(name, sizeof(name), "%.*s-%u", keep, m->name.at, j);
        if (len > POINT_NAME_MAX)
            len = POINT_NAME_MAX;
        mr_md5(name, (size_t)len, digest);
        for (unsigned x = 0; x < POINTS_PER_HASH; x++) {
            const uint8_t *d = digest + (size_t)4 * x;
            points[n++] = (struct mr_ring_point){
                (uint32_t)d[3] << 24 | (uint32_t)d[2] << 16 | (uint32_t)d[1] << 8 | d[0], index};
        }
    }
    return n;
}

static void build_ketama(struct mr_ring *ring, const struct mr_ring_member *members, uint32_t n,
                         uint32_t n_live, uint64_t total)
{
    uint32_t hashes = 0;

    for (uint32_t i = 0; i < n; i++)
        if (members[i].live)
            hashes += ketama_hashes(members[i].weight, total, n_live);
    ring->points = calloc((size_t)hashes * POINTS_PER_HASH + 1, sizeof(*ring->points));
    MR_CHECK(ring->points != NULL);
    for (uint32_t i = 0; i < n; i++)
        if (members[i].live)
            ring->n_points += place_member(ring->points + ring->n_points, &members[i], i,
                                           ketama_hashes(members[i].weight, total, n_live));
    qsort(ring->points, ring->n_points, sizeof(*ring->points), by_value);
}

static void build_in_order(struct mr_ring *ring, const struct mr_ring_member *members, uint32_t n,
                           uint32_t n_live)
{
    ring->points = calloc((size_t)n_live + 1, sizeof(*ring->points));
    MR_CHECK(ring->points != NULL);
    ring->flat = true;
    for (uint32_t i = 0; i < n; i++) {
        if (!members[i].live)
            continue;
        ring->total += members[i].weight;
        ring->flat = ring->flat && members[i].weight == 1;
        ring->points[ring->n_points++] = (struct mr_ring_point){ring->total, i};
    }
}

/* Divides the values up to `last` into about as many ranges as there are points. */
static void build_ranges(struct mr_ring *ring, uint32_t last)
{
    while (last >> ring->shift >= 2 * ring->n_points)
        ring->shift++;
    const uint32_t n = (last >> ring->shift) + 1;
    ring->first = calloc((size_t)n + 1, sizeof(*ring->first));
    MR_CHECK(ring->first != NULL);
    for (uint32_t range = 0, at = 0; range <= n; range++) {
        while (at < ring->n_points && ring->points[at].value >> ring->shift < range)
            at++;
        ring->first[range] = at;
    }
}

enum mr_result mr_ring_build(struct mr_ring *ring, enum mr_distribution distribution,
                             const struct mr_ring_member *members, uint32_t n, struct mr_error *err)
{
    struct mr_ring made = {.distribution = distribution};
    uint64_t total = 0;
    uint32_t n_live = 0;

    for (uint32_t i = 0; i < n; i++)
        if (members[i].live) {
            total += members[i].weight;
            n_live++;
        }
    if (total > UINT32_MAX)
        return mr_fail(err, MR_ELIMIT, "the sum of the weights is above %u", UINT32_MAX);
    if (n_live > 0 && distribution == MR_DIST_KETAMA)
        build_ketama(&made, members, n, n_live, total);
    else if (n_live > 0)
        build_in_order(&made, members, n, n_live);
    if (made.n_points > 0)
        build_ranges(&made, distribution == MR_DIST_KETAMA ? UINT32_MAX : made.total);
    *ring = made;
    return MR_OK;
}

void mr_ring_free(struct mr_ring *ring)
{
    free(ring->points);
    free(ring->first);
    *ring = (struct mr_ring){0};
}

/* Index of the first point whose value is >= v, or n_points. */
static uint32_t lower_bound(const struct mr_ring *ring, uint32_t v)
{
    const uint32_t range = v >> ring->shift;
    const struct mr_ring_point *base = ring->points + ring->first[range];
    uint32_t n = ring->first[range + 1] - ring->first[range];

    while (n > 1) { /* branchless: compiles to a conditional move */
        const uint32_t half = n / 2;
        base = base[half - 1].value < v ? base + half : base;
        n -= half;
    }
    return (uint32_t)(base - ring->points) + (n == 1 && base->value < v);
}

uint32_t mr_ring_pick(const struct mr_ring *ring, uint32_t hash, uint32_t random)
{
    MR_CHECK(ring->n_points > 0);
    switch (ring->distribution) {
    case MR_DIST_KETAMA: {
        const uint32_t at = lower_bound(ring, hash);
        return ring->points[at == ring->n_points ? 0 : at].index;
    }
    case MR_DIST_MODULA: {
        const uint32_t slot = hash % ring->total;
        return ring->points[ring->flat ? slot : lower_bound(ring, slot + 1)].index;
    }
    case MR_DIST_RANDOM:
        break;
    }
    return ring->points[random % ring->n_points].index;
}

uint32_t *mr_ring_shares(const struct mr_ring *ring, uint32_t n)
{
    uint32_t *shares = calloc(n + 1, sizeof(*shares));

    MR_CHECK(shares != NULL);
    for (uint32_t i = 0; i < ring->n_points; i++)
        shares[ring->points[i].index]++;
    return shares;
}
