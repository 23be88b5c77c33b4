/* balanced.c - any server may take a connection: the least loaded, the next, or by hash. */
#include "core/metrics.h"
#include "upstream/pool.h"
#include "upstream/shards.h"

#include <errno.h>
#include <stdlib.h>

struct balanced {
    struct mr_shards *shards; /* by hash; also knows which servers are ejected */
    int64_t *credit;          /* by turns: per server, how far its turn has come */
    uint32_t first;           /* where the search for the least loaded begins */
};

static void init(struct mr_pool *pool)
{
    struct balanced *b = calloc(1, sizeof(*b));

    MR_CHECK(b != NULL);
    b->shards = mr_shards_new(pool, NULL);
    b->credit = calloc(pool->n_servers, sizeof(*b->credit));
    MR_CHECK(b->credit != NULL);
    pool->map = b;
}

static void fini(struct mr_pool *pool)
{
    struct balanced *b = pool->map;

    mr_shards_free(b->shards);
    free(b->credit);
    free(b);
}

/* Connections of all workers. */
static uint64_t load(const struct mr_pool *pool, uint32_t server)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < pool->n_slots; i++)
        n += pool->slots[i].servers[pool->config->first_server + server].server_connections;
    return n;
}

static bool is_candidate(struct mr_server *server, const struct mr_server *avoid, bool well_only)
{
    const uint64_t now_us = server->pool->loop->now_us;

    if (server == avoid || mr_health_ejected(server->health))
        return false;
    return !well_only ||
           (mr_health_is_well(server->health, now_us) &&
            mr_server_takes_share(server, server->pool->config->slow_start_ms * UINT64_C(1000),
                                  now_us));
}

/* Fewest connections per weight; of equals, each in turn. */
static struct mr_server *least_loaded(struct mr_pool *pool, const struct mr_server *avoid,
                                      bool well_only)
{
    struct balanced *b = pool->map;
    struct mr_server *best = NULL;
    uint64_t best_load = 0;

    b->first = (b->first + 1) % pool->n_servers;
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_server *s = &pool->servers[(b->first + i) % pool->n_servers];
        if (!is_candidate(s, avoid, well_only))
            continue;
        const uint64_t n = load(pool, s->index) + 1;
        if (best != NULL && n * best->config->weight >= best_load * s->config->weight)
            continue;
        best = s;
        best_load = n;
    }
    return best;
}

/* Smooth: every server gains its weight, the richest pays for all. */
static struct mr_server *next_in_turn(struct mr_pool *pool, const struct mr_server *avoid,
                                      bool well_only)
{
    struct balanced *b = pool->map;
    struct mr_server *best = NULL;
    int64_t total = 0;

    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_server *s = &pool->servers[i];
        if (!is_candidate(s, avoid, well_only))
            continue;
        b->credit[i] += s->config->weight;
        total += s->config->weight;
        if (best == NULL || b->credit[i] > b->credit[best->index])
            best = s;
    }
    if (best != NULL)
        b->credit[best->index] -= total;
    return best;
}

static struct mr_server *pick(struct mr_pool *pool, struct mr_slice key,
                              const struct mr_server *avoid, bool well_only)
{
    const struct balanced *b = pool->map;
    struct mr_server *hashed;

    switch (pool->config->balance) {
    case MR_BY_CONNECTIONS:
        break;
    case MR_BY_TURNS:
        return next_in_turn(pool, avoid, well_only);
    case MR_BY_SOURCE:
        hashed = mr_shards_pick(b->shards, key);
        if (hashed != NULL && is_candidate(hashed, avoid, well_only))
            return hashed;
        break;
    }
    return least_loaded(pool, avoid, well_only);
}

/* A server in trouble is chosen only if there is no other. */
static struct mr_target route(struct mr_pool *pool, struct mr_slice key, unsigned intent,
                              const struct mr_server *avoid)
{
    struct mr_server *server = pick(pool, key, avoid, true);

    (void)intent;
    if (server == NULL)
        server = pick(pool, key, avoid, false);
    if (server == NULL)
        return (struct mr_target){.reason = mr_pool_reason(ECONNREFUSED)};
    return (struct mr_target){.server = server, .group = server->index};
}

static void changed(struct mr_pool *pool)
{
    const struct balanced *b = pool->map;

    mr_shards_rebuild(b->shards, NULL);
}

static bool may_eject(const struct mr_server *server)
{
    (void)server;
    return true;
}

const struct mr_topology_ops MR_TOPOLOGY_BALANCED = {
    .name = "balanced",
    .init = init,
    .fini = fini,
    .route = route,
    .changed = changed,
    .may_eject = may_eject,
};
