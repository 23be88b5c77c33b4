/* pool.c - the servers of a pool, from the beginning to the end. */
#include "upstream/pool.h"

#include "upstream/again.h"
#include "upstream/backend.h"
#include "upstream/lease.h"
#include "upstream/prober.h"

#include <errno.h>
#include <stdlib.h>

/* ---- lanes ---- */

enum mr_lane_state mr_pool_lane_state(struct mr_pool *pool, uint8_t lane)
{
    bool refused = false, unknown = false, spoken = false;

    for (uint32_t i = 0; i < pool->n_servers; i++) {
        if (!mr_server_is_known(&pool->servers[i]) || pool->servers[i].config->is_sentinel)
            continue;
        const enum mr_lane_state state = mr_server_lane_state(&pool->servers[i], lane);
        refused |= state == MR_LANE_REFUSED;
        unknown |= state == MR_LANE_UNKNOWN;
        spoken |= mr_server_lane(&pool->servers[i], lane)->spoken;
    }
    if (refused)
        return MR_LANE_REFUSED;
    if (!unknown || spoken)
        return MR_LANE_USABLE;
    pool->lane_awaited = true;
    return MR_LANE_UNKNOWN;
}

enum mr_lane_state mr_pool_any_lane_state(struct mr_pool *pool, uint8_t lane)
{
    enum mr_lane_state state = MR_LANE_USABLE;
    uint32_t i = 0;

    while (i < pool->n_servers && !pool->servers[i].lanes[0]->spoken)
        i++;
    if (i < pool->n_servers) /* rather one that has answered */
        state = mr_server_lane_state(&pool->servers[i], lane);
    else
        for (i = 0; i < pool->n_servers && state != MR_LANE_UNKNOWN; i++)
            if (mr_server_is_known(&pool->servers[i]))
                state = mr_server_lane_state(&pool->servers[i], lane);
    pool->lane_awaited |= state == MR_LANE_UNKNOWN;
    return state;
}

/* ---- its life ---- */

static void start(struct mr_pool *pool)
{
    mr_pool_probe(pool, true);
    if (pool->topology->start != NULL)
        pool->topology->start(pool);
    mr_feeds_start(pool);
}

static void init_server(struct mr_pool *pool, uint32_t i, const struct mr_pool_setup *setup)
{
    struct mr_server *s = &pool->servers[i];

    s->pool = pool;
    s->index = i;
    s->config = &pool->config->servers.at[i];
    s->name = s->config->name;
    s->options = s->config->is_sentinel ? &pool->config->sentinel_options : &pool->config->options;
    s->metrics = &setup->server_metrics[i];
    s->health = setup->health != NULL ? &setup->health[i] : &pool->own_health[i];
    s->addr = s->config->addr;
    if (s->addr.len == 0 && setup->addresses != NULL)
        s->addr = setup->addresses[i];
    mr_list_init(&s->backends);
    mr_leases_init(s);
    s->lanes = calloc(pool->n_lanes, sizeof(*s->lanes));
    MR_CHECK(s->lanes != NULL);
    (void)mr_server_lane(s, 0);
    mr_server_find_zone(s);
}

void mr_pool_init(struct mr_pool *pool, const struct mr_pool_setup *setup)
{
    *pool = (struct mr_pool){.loop = setup->loop,
                             .config = setup->config,
                             .topology = mr_topology_of(setup->config),
                             .metrics = setup->metrics,
                             .process = setup->process,
                             .extra_room = setup->extra_room,
                             .nodes = setup->nodes,
                             .hosts = setup->hosts,
                             .n_groups = setup->config->servers.n,
                             .n_servers = setup->config->servers.n,
                             .n_lanes =
                                 mr_proto_lanes(setup->config->protocol, &setup->config->options)};
    mr_agains_init(pool);
    mr_prober_init(pool);
    pool->servers = calloc(pool->n_servers, sizeof(*pool->servers));
    MR_CHECK(pool->servers != NULL);
    if (setup->health == NULL)
        pool->own_health = calloc(pool->n_servers, sizeof(*pool->own_health));
    MR_CHECK(setup->health != NULL || pool->own_health != NULL);
    for (uint32_t i = 0; i < pool->n_servers; i++)
        init_server(pool, i, setup);
    mr_pool_count_ejected(pool);
    pool->topology->init(pool);
    mr_pool_plan_walk(pool);
    for (uint32_t i = 0; i < pool->n_servers && pool->config->preconnect; i++)
        mr_server_preconnect(&pool->servers[i]);
    start(pool);
    mr_pool_look_around(pool); /* takes over what other workers know */
}

void mr_pool_close(struct mr_pool *pool)
{
    pool->closing = true;
    mr_prober_stop(pool);
    mr_feeds_stop(pool);
    mr_agains_refuse(pool, mr_pool_reason(ECONNRESET));
    if (pool->topology->stop != NULL)
        pool->topology->stop(pool);
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
    start(pool);
}

bool mr_pool_quiet(const struct mr_pool *pool)
{
    if (!mr_list_empty(&pool->waiting))
        return false;
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
        for (uint32_t lane = 0; lane < pool->n_lanes; lane++) {
            if (pool->servers[i].lanes[lane] != NULL)
                mr_timer_cancel(&pool->servers[i].lanes[lane]->idle);
            free(pool->servers[i].lanes[lane]);
        }
        free(pool->servers[i].lanes);
    }
    mr_feeds_fini(pool);
    pool->topology->fini(pool);
    mr_walk_fini(&pool->walk);
    free(pool->own_health);
    free(pool->servers);
}

void mr_pool_set_address(struct mr_pool *pool, uint32_t server, const struct mr_addr *addr)
{
    mr_server_set_address(&pool->servers[server], addr);
}
