/*
 * cluster.c - pools whose servers are discovered: Redis Cluster, and masters watched by sentinels.
 *
 * Keys are in groups, the slots of a cluster or the names of masters. Each group has a master,
 * which may have replicas.
 */
#include "core/log.h"
#include "route/hash.h"
#include "route/ring.h"
#include "upstream/discovery.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct cluster {
    struct mr_discovery discovery;
    struct mr_ring ring;          /* of names of masters */
    struct mr_node_map *own;      /* where nobody shares any; NULL */
    struct mr_node_table *table;  /* this worker's copy, with what redirects have told it */
    struct mr_node_table *coming; /* room for the next copy */
    uint16_t *replicas;           /* numbers of servers, grouped by master */
    uint16_t *first_replica;      /* per server, plus one: start of its replicas */
    uint32_t turn;                /* position in the rotation among equals */
};

static struct cluster *of(const struct mr_pool *pool)
{
    return pool->map;
}

/* ---- taking over what is known ---- */

static void sort_replicas(struct mr_pool *pool)
{
    struct cluster *c = of(pool);
    const uint16_t *master_of = c->table->master_of;
    uint16_t n = 0;

    for (uint32_t master = 0; master < pool->n_servers; master++) {
        c->first_replica[master] = n;
        for (uint16_t i = 0; i < pool->n_servers; i++)
            if (master_of[i] == master + 1)
                c->replicas[n++] = i;
    }
    c->first_replica[pool->n_servers] = n;
}

static void changed(struct mr_pool *pool)
{
    struct cluster *c = of(pool);
    const size_t bytes = mr_node_table_bytes(pool->config);

    if (c == NULL)
        return; /* the pool is being created */
    mr_discovery_adopt(pool);
    if (!mr_node_map_copy(pool->nodes, c->coming, bytes))
        return; /* another change is announced once it is written */
    pool->map_changes += memcmp(c->coming->owner, c->table->owner, sizeof(c->table->owner)) != 0;
    memcpy(c->table, c->coming, bytes);
    sort_replicas(pool);
    mr_pool_plan_walk(pool);
}

static struct cluster *new_cluster(struct mr_pool *pool)
{
    struct cluster *c = calloc(1, sizeof(*c));
    const size_t bytes = mr_node_table_bytes(pool->config);

    MR_CHECK(c != NULL);
    if (pool->nodes == NULL) {
        pool->nodes = c->own = calloc(1, mr_node_map_bytes(pool->config));
        MR_CHECK(c->own != NULL);
    }
    c->table = calloc(1, bytes);
    c->coming = malloc(bytes);
    c->replicas = calloc(pool->n_servers, sizeof(*c->replicas));
    c->first_replica = calloc(pool->n_servers + 1, sizeof(*c->first_replica));
    MR_CHECK(c->table != NULL && c->coming != NULL && c->replicas != NULL &&
             c->first_replica != NULL);
    pool->map = c;
    return c;
}

static void init(struct mr_pool *pool)
{
    struct cluster *c = new_cluster(pool);

    pool->n_groups = MR_SLOTS;
    mr_discovery_init(&c->discovery, pool, &MR_DISCOVERY_SLOTS,
                      pool->config->cluster_refresh_ms * UINT64_C(1000));
    changed(pool);
}

static void init_sentinel(struct mr_pool *pool)
{
    struct cluster *c = new_cluster(pool);
    struct mr_ring_member *members = mr_config_name_members(pool->config);
    struct mr_error err;

    pool->n_groups = pool->config->master_names.n;
    /* the configuration check has built it before */
    MR_CHECK(mr_ring_build(&c->ring, pool->config->distribution, members, pool->n_groups, &err) ==
             MR_OK);
    free(members);
    mr_discovery_init(&c->discovery, pool, &MR_DISCOVERY_SENTINEL,
                      pool->config->sentinel_interval_ms * UINT64_C(1000));
    changed(pool);
}

static void fini(struct mr_pool *pool)
{
    struct cluster *c = of(pool);

    mr_ring_free(&c->ring);
    free(c->first_replica);
    free(c->replicas);
    free(c->coming);
    free(c->table);
    free(c->own);
    free(c);
}

static void start(struct mr_pool *pool)
{
    mr_discovery_start(&of(pool)->discovery);
}

static void stop(struct mr_pool *pool)
{
    mr_discovery_stop(&of(pool)->discovery);
}

/* ---- who takes a request ---- */

static uint32_t group(struct mr_pool *pool, struct mr_slice key)
{
    (void)pool;
    return mr_hash_slot(key);
}

static uint32_t group_of_name(struct mr_pool *pool, struct mr_slice key)
{
    const struct mr_pool_config *config = pool->config;

    if (pool->n_groups == 1)
        return 0;
    if (config->has_hash_tag)
        key = mr_hash_tag(key, config->hash_tag);
    return mr_ring_pick(&of(pool)->ring,
                        key.len > 0 ? mr_hash_function(config->hash)(key.at, key.len) : 0, 0);
}

/* Any node knows where slots are; prefers healthy ones with an address. */
static struct mr_server *anybody(struct mr_pool *pool)
{
    struct mr_server *last = &pool->servers[0];

    for (uint32_t k = 0; k < pool->n_servers; k++) {
        struct mr_server *s = &pool->servers[of(pool)->turn++ % pool->n_servers];
        if (s->addr.len == 0)
            continue;
        last = s;
        if (mr_health_is_well(s->health, pool->loop->now_us))
            break;
    }
    return last;
}

static bool can_read(const struct mr_server *s, const struct mr_server *avoid)
{
    return s != avoid && s->addr.len > 0 && mr_health_is_well(s->health, s->pool->loop->now_us);
}

/* The replica with the fewest requests of this worker, or the nearest; NULL if there is none. */
static struct mr_server *best_for_reads(struct mr_pool *pool, struct mr_server *master,
                                        const struct mr_server *avoid, uint64_t slow_start_us)
{
    struct cluster *c = of(pool);
    const bool by_distance = pool->config->read_from == MR_READ_NEAREST;
    const uint32_t first = c->first_replica[master->index],
                   n = c->first_replica[master->index + 1] - first;
    uint64_t least = UINT64_MAX;
    struct mr_server *best = NULL;

    if (n > 0)
        c->turn++;
    for (uint32_t k = 0; k < n + by_distance; k++) {
        struct mr_server *s =
            k == n ? master : &pool->servers[c->replicas[first + (c->turn + k) % n]];
        const uint64_t cost =
            by_distance ? mr_server_distance(s) : s->metrics->in_queue + s->metrics->out_queue;
        if (can_read(s, avoid) && cost < least &&
            mr_server_takes_share(s, slow_start_us, pool->loop->now_us)) {
            least = cost;
            best = s;
        }
    }
    return best;
}

/* If all have come back only now, they share the requests as usual. */
static struct mr_server *replica(struct mr_pool *pool, struct mr_server *master,
                                 const struct mr_server *avoid)
{
    const uint64_t slow_start_us = pool->config->slow_start_ms * UINT64_C(1000);
    struct mr_server *best = best_for_reads(pool, master, avoid, slow_start_us);

    return best != NULL || slow_start_us == 0 ? best : best_for_reads(pool, master, avoid, 0);
}

static struct mr_target by_intent(struct mr_pool *pool, uint32_t group, unsigned intent,
                                  const struct mr_server *avoid)
{
    const struct mr_pool_config *config = pool->config;
    struct mr_server *master = &pool->servers[of(pool)->table->owner[group] - 1];

    if (intent & MR_TO_MASTER || config->read_from == MR_READ_MASTER)
        return (struct mr_target){master, .group = group};
    struct mr_server *server = replica(pool, master, avoid);
    if (server == NULL && config->read_fallback == MR_FALLBACK_MASTER)
        server = master;
    if (server == NULL)
        return (struct mr_target){.reason = "no replica can be asked"};
    return (struct mr_target){server, .group = group};
}

static struct mr_target route(struct mr_pool *pool, struct mr_slice key, unsigned intent,
                              const struct mr_server *avoid)
{
    const uint32_t slot = group(pool, key);

    if (MR_LIKELY(of(pool)->table->owner[slot] > 0))
        return by_intent(pool, slot, intent, avoid);
    mr_discovery_want(&of(pool)->discovery);
    return (struct mr_target){anybody(pool), .group = slot};
}

static struct mr_target route_by_name(struct mr_pool *pool, struct mr_slice key, unsigned intent,
                                      const struct mr_server *avoid)
{
    const uint32_t master = group_of_name(pool, key);

    if (MR_LIKELY(of(pool)->table->owner[master] > 0))
        return by_intent(pool, master, intent, avoid);
    mr_discovery_want(&of(pool)->discovery);
    return (struct mr_target){.reason = "no master is known"};
}

static uint32_t holders(struct mr_pool *pool, uint32_t *servers)
{
    for (uint32_t i = 0; i < pool->walk.n; i++)
        servers[i] = pool->walk.stops[i].server;
    return pool->walk.n;
}

/* A master's position is that of its first group, so its successor takes the same position. */
static uint32_t place_of(const struct mr_pool *pool, uint32_t group)
{
    const struct mr_names *names = &pool->config->master_names;

    return names->n > 0 ? mr_walk_place(names->at[group]) : group * (MR_PLACES / MR_SLOTS);
}

static void plan_walk(struct mr_pool *pool, struct mr_walk *walk)
{
    const struct mr_node_table *table = of(pool)->table;
    bool *met = calloc(pool->n_servers + 1, sizeof(*met));

    MR_CHECK(met != NULL);
    for (uint32_t group = 0; group < pool->n_groups; group++) {
        const uint16_t owner = table->owner[group];
        if (owner > 0 && !met[owner])
            mr_walk_add(walk, place_of(pool, group), owner - 1u);
        met[owner] = true;
    }
    free(met);
}

static struct mr_target redirected(struct mr_server *by, const struct mr_redirect *redirect)
{
    struct mr_pool *pool = by->pool;
    struct cluster *c = of(pool);
    struct mr_server *server = NULL;
    struct mr_addr addr;

    if (redirect->kind != MR_REDIRECT_ASK)
        mr_discovery_want(&c->discovery);
    if ((redirect->kind == MR_REDIRECT_MOVED || redirect->kind == MR_REDIRECT_ASK) &&
        mr_discovery_address(by, redirect->host, redirect->port, &addr) == MR_HOST_IS_KNOWN)
        server = mr_discovery_meet(pool, &addr);
    if (server == NULL)
        return (struct mr_target){0};
    if (!mr_server_is_known(server))
        mr_discovery_adopt(pool);
    if (redirect->kind == MR_REDIRECT_MOVED &&
        c->table->owner[redirect->slot] != server->index + 1) {
        c->table->owner[redirect->slot] = (uint16_t)(server->index + 1);
        pool->map_changes++;
    }
    return (struct mr_target){.server = server};
}

static void failed(struct mr_server *server)
{
    mr_discovery_want(&of(server->pool)->discovery);
}

/* No other server can take over its keys; the cluster, or sentinels, promote a replica. */
static bool may_eject(const struct mr_server *server)
{
    (void)server;
    return false;
}

const struct mr_topology_ops MR_TOPOLOGY_CLUSTER = {
    .name = "cluster",
    .elsewhere = true,
    .has_roles = true,
    .init = init,
    .fini = fini,
    .start = start,
    .stop = stop,
    .route = route,
    .group = group,
    .holders = holders,
    .plan_walk = plan_walk,
    .redirected = redirected,
    .failed = failed,
    .changed = changed,
    .may_eject = may_eject,
};

const struct mr_topology_ops MR_TOPOLOGY_SENTINEL = {
    .name = "sentinel",
    .elsewhere = true,
    .has_roles = true,
    .init = init_sentinel,
    .fini = fini,
    .start = start,
    .stop = stop,
    .route = route_by_name,
    .group = group_of_name,
    .holders = holders,
    .plan_walk = plan_walk,
    .redirected = redirected,
    .failed = failed,
    .changed = changed,
    .may_eject = may_eject,
};
