/* pool.c - the servers of a pool, and which of them are in service. */
#include "upstream/pool.h"

#include "upstream/backend.h"
#include "upstream/lease.h"
#include "upstream/prober.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *mr_pool_reason(int error)
{
    const char *text = error == 0 ? "unknown" : strerrordesc_np(error);

    return text != NULL ? text : "unknown";
}

/* ---- which servers are in service ---- */

static void count_ejected(struct mr_pool *pool)
{
    pool->ring_changes = mr_health_ring_changes(pool->servers[0].health);
    pool->n_ejected = 0;
    pool->retry_us = UINT64_MAX;
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        const struct mr_server *s = &pool->servers[i];
        if (!mr_health_ejected(s->health))
            continue;
        pool->n_ejected++;
        /* where servers are probed, the ticks of the prober look, and not each request */
        if (pool->config->health_checks == MR_HEALTH_OFF && mr_server_back_us(s) < pool->retry_us)
            pool->retry_us = mr_server_back_us(s);
    }
    if (pool->n_ejected > 0)
        mr_prober_start(pool); /* whoever ejected it may be gone before it is back */
}

/* What any worker has ejected or taken back; true when there was something. */
static bool follow_changes(struct mr_pool *pool)
{
    if (MR_LIKELY(mr_health_ring_changes(pool->servers[0].health) == pool->ring_changes))
        return false;
    count_ejected(pool);
    pool->topology->changed(pool);
    return true;
}

static void restore(struct mr_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_servers; i++)
        mr_server_restore(&pool->servers[i]);
    (void)follow_changes(pool);
}

void mr_pool_refresh(struct mr_pool *pool)
{
    const bool news = follow_changes(pool); /* perhaps old ones, in a worker that had no requests */

    if (MR_UNLIKELY(pool->n_ejected > 0) && (news || pool->loop->now_us > pool->retry_us))
        restore(pool);
}

void mr_pool_look_around(struct mr_pool *pool)
{
    (void)follow_changes(pool);
    if (pool->n_ejected > 0)
        restore(pool);
    if (pool->topology->look_around != NULL)
        pool->topology->look_around(pool);
}

/* ---- lanes ---- */

enum mr_lane_state mr_pool_lane_state(struct mr_pool *pool, uint8_t lane)
{
    bool refused = false, unknown = false, spoken = false;

    for (uint32_t i = 0; i < pool->n_servers; i++) {
        const enum mr_lane_state state = mr_server_lane_state(&pool->servers[i], lane);
        refused |= state == MR_LANE_REFUSED;
        unknown |= state == MR_LANE_UNKNOWN;
        spoken |= pool->servers[i].lanes[lane].spoken;
    }
    if (refused)
        return MR_LANE_REFUSED;
    if (!unknown || spoken)
        return MR_LANE_USABLE;
    pool->lane_awaited = true;
    return MR_LANE_UNKNOWN;
}

void mr_pool_lane_known(struct mr_pool *pool)
{
    if (!pool->lane_awaited)
        return;
    pool->lane_awaited = false;
    pool->on_lane_known(pool);
}

/* ---- its life ---- */

static void init_server(struct mr_pool *pool, uint32_t i, const struct mr_pool_setup *setup)
{
    struct mr_server *s = &pool->servers[i];

    s->pool = pool;
    s->index = i;
    s->config = &pool->config->servers.at[i];
    s->metrics = &setup->server_metrics[i];
    s->health = setup->health != NULL ? &setup->health[i] : &pool->own_health[i];
    s->addr = s->config->addr;
    if (s->addr.len == 0 && setup->addresses != NULL)
        s->addr = setup->addresses[i];
    mr_list_init(&s->backends);
    mr_leases_init(s);
    s->slots = calloc((size_t)pool->config->server_connections * pool->config->protocol->lanes,
                      sizeof(struct mr_backend *));
    MR_CHECK(s->slots != NULL);
}

void mr_pool_init(struct mr_pool *pool, const struct mr_pool_setup *setup)
{
    *pool = (struct mr_pool){.loop = setup->loop,
                             .config = setup->config,
                             .topology = mr_topology_of(setup->config),
                             .metrics = setup->metrics,
                             .process = setup->process,
                             .lease_room = setup->lease_room,
                             .n_servers = setup->config->servers.n};
    pool->servers = calloc(pool->n_servers, sizeof(*pool->servers));
    MR_CHECK(pool->servers != NULL);
    if (setup->health == NULL)
        pool->own_health = calloc(pool->n_servers, sizeof(*pool->own_health));
    MR_CHECK(setup->health != NULL || pool->own_health != NULL);
    for (uint32_t i = 0; i < pool->n_servers; i++)
        init_server(pool, i, setup);
    count_ejected(pool);
    pool->topology->init(pool);
    for (uint32_t i = 0; i < pool->n_servers && pool->config->preconnect; i++)
        mr_server_preconnect(&pool->servers[i]);
    mr_prober_start(pool);
    mr_pool_look_around(pool); /* what others know already */
}

void mr_pool_close(struct mr_pool *pool)
{
    pool->closing = true;
    mr_prober_stop(pool);
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_backend *b = NULL;
        mr_leases_refuse(&pool->servers[i], mr_pool_reason(ECONNRESET));
        while ((b = mr_backend_next(&pool->servers[i], b)) != NULL)
            mr_backend_close(b, ECONNRESET);
    }
}

void mr_pool_reopen(struct mr_pool *pool)
{
    if (!pool->closing)
        return;
    pool->closing = false;
    mr_prober_start(pool);
}

bool mr_pool_quiet(const struct mr_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_backend *b = NULL;
        while ((b = mr_backend_next(&pool->servers[i], b)) != NULL)
            if (mr_backend_serves(b) && !mr_backend_idle(b))
                return false;
    }
    return true;
}

void mr_pool_fini(struct mr_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        MR_CHECK(mr_list_empty(&pool->servers[i].backends));
        free(pool->servers[i].slots);
    }
    pool->topology->fini(pool);
    free(pool->own_health);
    free(pool->servers);
}

void mr_pool_set_address(struct mr_pool *pool, uint32_t server, const struct mr_addr *addr)
{
    mr_server_set_address(&pool->servers[server], addr);
}
