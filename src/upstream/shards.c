/* shards.c - keys distributed over servers by hash and ring. */
#include "upstream/shards.h"

#include "core/clock.h"
#include "upstream/health.h"

#include <errno.h>
#include <stdlib.h>

struct mr_shards {
    struct mr_pool *pool;
    mr_hash_fn hash;
    struct mr_ring ring;
    struct mr_ring_member *members; /* one per server */
    uint32_t n_live;                /* on the ring */
    uint32_t random;                /* random number generator, for `distribution: random` */
};

struct mr_shards *mr_shards_new(struct mr_pool *pool, const struct mr_server *except)
{
    struct mr_shards *s = calloc(1, sizeof(*s));

    MR_CHECK(s != NULL);
    s->pool = pool;
    s->hash = mr_hash_function(pool->config->hash);
    s->members = mr_config_ring_members(pool->config);
    s->random = (uint32_t)mr_clock_wall_us() | 1u;
    mr_shards_rebuild(s, except);
    return s;
}

void mr_shards_free(struct mr_shards *s)
{
    if (s == NULL)
        return;
    mr_ring_free(&s->ring);
    free(s->members);
    free(s);
}

/* If every server is ejected the old ring stays, but is not used. */
void mr_shards_rebuild(struct mr_shards *s, const struct mr_server *except)
{
    const struct mr_pool *pool = s->pool;
    struct mr_ring ring;
    struct mr_error err;

    s->n_live = 0;
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        s->members[i].live = (pool->config->fail_fast_without_remap ||
                              !mr_health_ejected(pool->servers[i].health)) &&
                             &pool->servers[i] != except;
        s->n_live += s->members[i].live;
    }
    if (s->n_live == 0)
        return;
    /* the configuration check built the full ring, so a subset cannot fail */
    MR_CHECK(mr_ring_build(&ring, pool->config->distribution, s->members, pool->n_servers, &err) ==
             MR_OK);
    mr_ring_free(&s->ring);
    s->ring = ring;
}

static uint32_t next_random(struct mr_shards *s)
{
    s->random ^= s->random << 13; /* xorshift32 */
    s->random ^= s->random >> 17;
    s->random ^= s->random << 5;
    return s->random;
}

struct mr_server *mr_shards_pick(struct mr_shards *s, struct mr_slice key)
{
    struct mr_pool *pool = s->pool;
    const struct mr_pool_config *config = pool->config;

    if (MR_UNLIKELY(s->n_live == 0))
        return NULL;
    if (pool->n_servers == 1)
        return pool->servers;
    if (config->distribution == MR_DIST_RANDOM)
        return &pool->servers[mr_ring_pick(&s->ring, 0, next_random(s))];
    if (config->has_hash_tag)
        key = mr_hash_tag(key, config->hash_tag);
    return &pool->servers[mr_ring_pick(&s->ring, key.len > 0 ? s->hash(key.at, key.len) : 0, 0)];
}

/* ---- the vtable ---- */

static void init(struct mr_pool *pool)
{
    pool->map = mr_shards_new(pool, NULL);
}

static void fini(struct mr_pool *pool)
{
    mr_shards_free(pool->map);
}

static struct mr_target route(struct mr_pool *pool, struct mr_slice key, unsigned intent,
                              const struct mr_server *avoid)
{
    struct mr_server *server = mr_shards_pick(pool->map, key);

    (void)intent;
    (void)avoid;
    if (MR_UNLIKELY(server == NULL))
        return (struct mr_target){.reason = mr_pool_reason(ECONNREFUSED)};
    return (struct mr_target){server, .group = server->index};
}

static void changed(struct mr_pool *pool)
{
    mr_shards_rebuild(pool->map, NULL);
    for (uint32_t i = 0; i < pool->n_servers && pool->config->fail_fast_without_remap; i++)
        if (mr_health_ejected(pool->servers[i].health))
            mr_server_disconnect(&pool->servers[i]);
}

static bool may_eject(const struct mr_server *server)
{
    (void)server;
    return true;
}

const struct mr_topology_ops MR_TOPOLOGY_SHARDS = {
    .name = "shards",
    .init = init,
    .fini = fini,
    .route = route,
    .changed = changed,
    .may_eject = may_eject,
};
