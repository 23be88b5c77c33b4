/* replicated.c - a master and its replicas: every server has all keys. */
#include "core/log.h"
#include "upstream/shards.h"

#include <errno.h>
#include <stdlib.h>

struct replicas {
    struct mr_server *master; /* NULL while unknown */
    uint32_t turn;            /* position in the rotation among equals */
    struct mr_shards *by_key; /* for `meitu_compat`, which selects replicas by key; else NULL */
};

static struct replicas *of(const struct mr_pool *pool)
{
    return pool->map;
}

static void init(struct mr_pool *pool)
{
    struct replicas *r = calloc(1, sizeof(*r));

    MR_CHECK(r != NULL);
    pool->map = r;
    if (pool->config->master != MR_NO_MASTER)
        r->master = &pool->servers[pool->config->master];
    if (pool->config->meitu_compat)
        r->by_key = mr_shards_new(pool, r->master);
}

static void fini(struct mr_pool *pool)
{
    mr_shards_free(of(pool)->by_key);
    free(of(pool));
}

static void changed(struct mr_pool *pool)
{
    if (of(pool)->by_key != NULL)
        mr_shards_rebuild(of(pool)->by_key, of(pool)->master);
}

/* ---- routing ---- */

static bool is_well(const struct mr_server *s)
{
    return mr_health_is_well(s->health, s->pool->loop->now_us);
}

static bool can_read(const struct mr_server *s, const struct mr_server *avoid)
{
    const struct mr_pool_config *config = s->pool->config;
    const struct mr_health *h = s->health;
    const uint64_t max_us = config->max_replica_lag_ms * UINT64_C(1000);

    if (s == of(s->pool)->master || s == avoid || !is_well(s))
        return false;
    if (mr_health_load(&h->role) == MR_ROLE_MASTER) /* not a replica */
        return !config->follow_roles;
    return max_us == 0 || mr_health_load(&h->role) == MR_ROLE_UNKNOWN ||
           (mr_health_load(&h->link) != 0 && mr_health_load(&h->lag_us) <= max_us);
}

static bool takes_share(struct mr_server *s)
{
    return mr_server_takes_share(s, s->pool->config->slow_start_ms * UINT64_C(1000),
                                 s->pool->loop->now_us);
}

static uint64_t waiting_at(const struct mr_server *s)
{
    return s->metrics->in_queue + s->metrics->out_queue;
}

/*
 * The replica with the fewest requests of this worker in flight, or the nearest server; equal ones
 * take turns.
 */
static struct mr_server *best_for_reads(struct mr_pool *pool, const struct mr_server *avoid,
                                        bool slow_start)
{
    const bool by_distance = pool->config->read_from == MR_READ_NEAREST;
    const uint32_t first = of(pool)->turn;
    uint64_t least = UINT64_MAX;
    struct mr_server *best = NULL;

    for (uint32_t k = 0; k < pool->n_servers; k++) {
        struct mr_server *s = &pool->servers[(first + k) % pool->n_servers];
        const uint64_t cost = by_distance ? mr_server_distance(s) : waiting_at(s);
        const bool can =
            by_distance && s == of(pool)->master ? is_well(s) && s != avoid : can_read(s, avoid);
        if (can && cost < least && (!slow_start || takes_share(s))) {
            least = cost;
            best = s;
        }
    }
    of(pool)->turn = best != NULL ? best->index + 1 : 0;
    return best;
}

static struct mr_server *replica(struct mr_pool *pool, struct mr_slice key,
                                 const struct mr_server *avoid)
{
    if (of(pool)->by_key != NULL) {
        struct mr_server *s = mr_shards_pick(of(pool)->by_key, key);
        return s != NULL && can_read(s, avoid) ? s : NULL;
    }
    struct mr_server *best = best_for_reads(pool, avoid, true);
    return best != NULL ? best : best_for_reads(pool, avoid, false);
}

static struct mr_target master(const struct mr_pool *pool)
{
    if (of(pool)->master == NULL)
        return (struct mr_target){.reason = "no master is known"};
    return (struct mr_target){.server = of(pool)->master};
}

static struct mr_target route(struct mr_pool *pool, struct mr_slice key, unsigned intent,
                              const struct mr_server *avoid)
{
    const struct mr_pool_config *config = pool->config;

    if (intent & MR_TO_MASTER || (config->read_from == MR_READ_MASTER && !config->meitu_compat))
        return master(pool);
    struct mr_server *server = replica(pool, key, avoid);
    if (server == NULL && (config->read_fallback != MR_FALLBACK_NONE || of(pool)->master == NULL))
        return master(pool);
    if (server == NULL)
        return (struct mr_target){.reason = mr_pool_reason(ECONNREFUSED)};
    return (struct mr_target){.server = server};
}

/* ---- results of probes ---- */

/* Records a master's replication offset, at intervals that let the samples cover the lag limit. */
static void take_sample(struct mr_server *server, uint64_t offset)
{
    struct mr_health *h = server->health;
    const uint64_t now = server->pool->loop->now_us, n = mr_health_load(&h->n_samples);
    const uint64_t apart = server->pool->config->max_replica_lag_ms * UINT64_C(1000) * 2;
    const struct mr_lag_sample *last = &h->samples[(n - 1) % MR_LAG_SAMPLES];

    if (n > 0 && now - mr_health_load(&last->at_us) < apart / MR_LAG_SAMPLES)
        return;
    struct mr_lag_sample *next = &h->samples[n % MR_LAG_SAMPLES];
    mr_health_store(&next->at_us, now);
    mr_health_store(&next->offset, offset);
    mr_health_store(&h->n_samples, n + 1);
}

/* How long ago the master had the offset that the replica has now. */
static uint64_t lag_of(const struct mr_server *server, uint64_t offset)
{
    const struct mr_server *from = of(server->pool)->master;
    const uint64_t now = server->pool->loop->now_us;
    uint64_t at = now;

    if (from == NULL || server == from)
        return 0;
    const struct mr_health *h = from->health;
    const uint64_t n = mr_health_load(&h->n_samples);
    for (uint64_t i = 0; i < n && i < MR_LAG_SAMPLES; i++) {
        const struct mr_lag_sample *s = &h->samples[(n - 1 - i) % MR_LAG_SAMPLES];
        if (mr_health_load(&s->offset) <= offset) /* with the latest sample, it has everything */
            return i == 0 ? 0 : now - mr_health_load(&s->at_us);
        at = mr_health_load(&s->at_us);
    }
    return now - at;
}

static enum mr_role configured_role(const struct mr_pool_config *config, uint32_t server)
{
    return server == config->master ? MR_ROLE_MASTER : MR_ROLE_REPLICA;
}

/* Compares the role that a server reports with the configured one. */
static void check_role(struct mr_server *server, enum mr_role role)
{
    const struct mr_pool *pool = server->pool;
    const enum mr_role wanted = configured_role(pool->config, server->index);

    if (role == mr_health_load(&server->health->role))
        return;
    mr_health_store(&server->health->role, role);
    if (!pool->config->follow_roles && role != MR_ROLE_UNKNOWN && role != wanted)
        mr_log(MR_LOG_ERR, "server_role_wrong pool=%s server=%s configured=%s found=%s",
               pool->config->name, server->name, mr_role_name(wanted), mr_role_name(role));
}

static void probed(struct mr_server *server, const struct mr_probe *found)
{
    struct mr_health *h = server->health;

    check_role(server, found->role);
    mr_health_store(&h->link, found->link);
    if (found->role == MR_ROLE_MASTER)
        take_sample(server, found->offset);
    mr_health_store(&h->lag_us, found->role == MR_ROLE_REPLICA ? lag_of(server, found->offset) : 0);
}

/* With `follow_roles`, the server that reports the master role becomes the master. */
static void look_around(struct mr_pool *pool)
{
    struct replicas *r = of(pool);
    struct mr_server *found = NULL;

    if (!pool->config->follow_roles)
        return;
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_server *s = &pool->servers[i];
        if (mr_health_load(&s->health->state) != MR_HEALTH_UP ||
            mr_health_load(&s->health->role) != MR_ROLE_MASTER)
            continue;
        if (s == r->master)
            return; /* unchanged, even if others claim the role */
        found = s;
    }
    if (found == NULL)
        return;
    mr_log(MR_LOG_NOTICE, "master_changed pool=%s old=%s new=%s", pool->config->name,
           r->master == NULL ? "none" : r->master->name, found->name);
    r->master = found;
    pool->map_changes++;
    changed(pool); /* the ring has the other servers */
}

/* Nothing can stand in for the master, so it is never ejected. */
static bool may_eject(const struct mr_server *server)
{
    return server != of(server->pool)->master;
}

const struct mr_topology_ops MR_TOPOLOGY_REPLICATED = {
    .name = "replicated",
    .keys_together = true,
    .elsewhere = true,
    .has_roles = true,
    .probes = true,
    .init = init,
    .fini = fini,
    .route = route,
    .changed = changed,
    .probed = probed,
    .look_around = look_around,
    .may_eject = may_eject,
    .configured_role = configured_role,
};
