/* replicas.c - pools whose servers all have all keys: which one takes a request. */
#include "upstream/replicas.h"

#include "core/log.h"
#include "upstream/health.h"

/* True for a server that can be asked now: nothing speaks against it. */
static bool is_well(const struct mr_server *s)
{
    const struct mr_health *h = s->health;

    if (mr_health_ejected(h) || mr_health_load(&h->state) == MR_HEALTH_DOWN)
        return false;
    return mr_health_load(&h->failures) == 0 ||
           s->pool->loop->now_us >= mr_health_load(&h->retry_us);
}

static bool can_read(const struct mr_pool *pool, uint32_t i, int avoid)
{
    const struct mr_server *s = &pool->servers[i];
    const struct mr_health *h = s->health;
    const uint64_t max_us = pool->config->max_replica_lag_ms * UINT64_C(1000);

    if (i == pool->master || (int)i == avoid || !is_well(s))
        return false;
    if (mr_health_load(&h->role) == MR_ROLE_MASTER) /* of something else */
        return !pool->config->follow_roles;
    return max_us == 0 || mr_health_load(&h->role) == MR_ROLE_UNKNOWN ||
           (mr_health_load(&h->link) != 0 && mr_health_load(&h->lag_us) <= max_us);
}

static uint64_t waiting_at(const struct mr_server *s)
{
    return s->metrics->in_queue + s->metrics->out_queue;
}

/* The replica with the fewest requests of this worker; those with equally few by turns. */
static int least_loaded(struct mr_pool *pool, int avoid)
{
    const uint32_t first = pool->turn;
    uint64_t least = UINT64_MAX;
    int best = -1;

    for (uint32_t k = 0; k < pool->n_servers; k++) {
        const uint32_t i = (first + k) % pool->n_servers;
        if (can_read(pool, i, avoid) && waiting_at(&pool->servers[i]) < least) {
            least = waiting_at(&pool->servers[i]);
            best = (int)i;
        }
    }
    pool->turn = (uint32_t)(best + 1);
    return best;
}

/* By the time that probes take; what was never probed is far. */
static int nearest(const struct mr_pool *pool, int avoid)
{
    uint64_t least = UINT64_MAX;
    int best = -1;

    for (uint32_t i = 0; i < pool->n_servers; i++) {
        const struct mr_server *s = &pool->servers[i];
        const uint64_t rtt = mr_health_load(&s->health->rtt_us) > 0
                                 ? mr_health_load(&s->health->rtt_us)
                                 : UINT64_MAX - 1;
        if ((i == pool->master ? is_well(s) && (int)i != avoid : can_read(pool, i, avoid)) &&
            rtt < least) {
            least = rtt;
            best = (int)i;
        }
    }
    return best;
}

int mr_replicas_choose(struct mr_pool *pool, struct mr_slice key, bool to_master, int avoid)
{
    const struct mr_pool_config *config = pool->config;
    const int master = pool->master == MR_NO_MASTER ? -1 : (int)pool->master;
    int i;

    if (to_master || (config->read_from == MR_READ_MASTER && !config->meitu_compat))
        return master;
    if (config->meitu_compat) {
        i = mr_pool_route(pool, key);
        if (i >= 0 && !can_read(pool, (uint32_t)i, avoid))
            i = -1;
    } else {
        mr_pool_refresh(pool);
        i = config->read_from == MR_READ_NEAREST ? nearest(pool, avoid) : least_loaded(pool, avoid);
    }
    return i >= 0 || config->read_fallback == MR_FALLBACK_NONE ? i : master;
}

void mr_replicas_follow(struct mr_pool *pool)
{
    uint32_t found = MR_NO_MASTER;

    for (uint32_t i = 0; i < pool->n_servers; i++) {
        const struct mr_health *h = pool->servers[i].health;
        if (mr_health_load(&h->state) != MR_HEALTH_UP || mr_health_load(&h->role) != MR_ROLE_MASTER)
            continue;
        if (i == pool->master)
            return; /* it still is, whatever others say */
        found = i;
    }
    if (found == MR_NO_MASTER)
        return;
    mr_log(MR_LOG_NOTICE, "master_changed pool=%s old=%s new=%s", pool->config->name,
           pool->master == MR_NO_MASTER ? "none" : pool->servers[pool->master].config->name,
           pool->servers[found].config->name);
    pool->master = found;
}
