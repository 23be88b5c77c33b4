/* check.c - what the values of a pool, and pools beside each other, must make together. */
#include "config/internal.h"

#include <stdlib.h>
#include <string.h>

static int by_server_name(const void *a, const void *b)
{
    return mr_config_compare_names(((const struct mr_server_config *)a)->name,
                                   ((const struct mr_server_config *)b)->name);
}

static int by_pool_name(const void *a, const void *b)
{
    return mr_config_compare_names(((const struct mr_pool_config *)a)->name,
                                   ((const struct mr_pool_config *)b)->name);
}

/* The ring must be possible; say so where it does not do what it seems to. */
static enum mr_result check_ring(const struct mr_config_reader *r, const struct mr_yaml *node,
                                 const struct mr_pool_config *pool)
{
    struct mr_ring_member *members = mr_config_ring_members(pool);
    struct mr_ring ring;
    struct mr_error why;

    if (pool->follow_roles && pool->master != MR_NO_MASTER)
        members[pool->master].live = true; /* any of them may be the master */
    const enum mr_result rc =
        mr_ring_build(&ring, pool->distribution, members, pool->servers.n, &why);

    free(members);
    if (rc != MR_OK)
        return mr_config_fail(r, node, "pool '%s': %s", pool->name, why.text);
    uint32_t *shares = mr_ring_shares(&ring, pool->servers.n);
    for (uint32_t i = 0; i < pool->servers.n && pool->servers.n > 1; i++)
        if (i != pool->master && shares[i] == 0)
            mr_config_warn(
                r->config,
                "pool '%s': server '%s' gets no points on the ring, no key will reach it: its "
                "weight %u is too small beside the others",
                pool->name, pool->servers.at[i].name, pool->servers.at[i].weight);
    free(shares);
    mr_ring_free(&ring);
    if (pool->servers.n > 1 && pool->distribution == MR_DIST_KETAMA && pool->hash == MR_HASH_crc32)
        mr_config_warn(
            r->config,
            "pool '%s': hash crc32 gives numbers up to 32767 only, with ketama nearly every key "
            "goes to one server; crc32a uses all 32 bits",
            pool->name);
    return MR_OK;
}

/* Names that stand beside the server's own fields in the statistics. */
static bool is_stats_field(const char *name)
{
    static const char *const FIELDS[] = {
#define X_POOL(name, kind, unit, prometheus, help) #name,
#include "core/metrics.def"
        "service",           "source",          "version", "uptime", "timestamp",
        "total_connections", "curr_connections"};

    for (size_t i = 0; i < MR_COUNT(FIELDS); i++)
        if (strcmp(FIELDS[i], name) == 0)
            return true;
    return false;
}

static void warn_stats_name(const struct mr_config_reader *r, const char *kind, const char *name)
{
    if (is_stats_field(name))
        mr_config_warn(r->config,
                       "%s '%s' has the name of a statistics field and is shown there as '%s:%s'",
                       kind, name, kind, name);
}

/* A master is listed last, as in the statistics of Meitu's fork. */
static void find_master(struct mr_pool_config *pool)
{
    struct mr_server_config *at = pool->servers.at;
    const uint32_t last = pool->servers.n - 1;

    for (uint32_t i = 0; i <= last; i++)
        if (strcmp(at[i].name, MR_MASTER) == 0) {
            const struct mr_server_config master = at[i];
            memmove(&at[i], &at[i + 1], (last - i) * sizeof(*at));
            at[last] = master;
            pool->master = last;
            return;
        }
}

/* `servers` is the node of the list; what the pool says of its topology stands beside it. */
static enum mr_result check_topology(const struct mr_config_reader *r,
                                     const struct mr_yaml *servers, struct mr_pool_config *pool)
{
    bool named = false;

    pool->master = MR_NO_MASTER;
    for (uint32_t i = 0; i < pool->servers.n; i++)
        named |= strcmp(pool->servers.at[i].name, MR_MASTER) == 0;
    if (named && r->config->meitu && !pool->says_topology)
        pool->topology = MR_REPLICATED;
    if (named && pool->topology == MR_SHARDS)
        mr_config_warn(r->config,
                       "pool '%s': the server named '" MR_MASTER
                       "' is a shard like the others; say \"topology: "
                       "replicated\" if they are its replicas",
                       pool->name);
    if (pool->topology == MR_SHARDS)
        return MR_OK;
    if (!pool->redis)
        return mr_config_fail(r, servers, "pool '%s': only a redis pool can be replicated",
                              pool->name);
    if (!named && !pool->follow_roles)
        return mr_config_fail(r, servers,
                              "pool '%s' is replicated, but no server is named '" MR_MASTER
                              "', and \"follow_roles\" is not true",
                              pool->name);
    if (named && pool->servers.n == 1)
        return mr_config_fail(r, servers, "pool '%s' has no servers beside the master", pool->name);
    find_master(pool);
    return MR_OK;
}

enum mr_result mr_config_check_servers(const struct mr_config_reader *r, const struct mr_yaml *node,
                                       struct mr_pool_config *pool)
{
    qsort(pool->servers.at, pool->servers.n, sizeof(*pool->servers.at), by_server_name);
    for (uint32_t i = 0; i + 1 < pool->servers.n; i++)
        if (strcmp(pool->servers.at[i].name, pool->servers.at[i + 1].name) == 0)
            return mr_config_fail(r, node, "pool '%s' has servers with same name '%s'", pool->name,
                                  pool->servers.at[i].name);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        warn_stats_name(r, "server", pool->servers.at[i].name);
    const enum mr_result rc = check_topology(r, node, pool);
    return rc == MR_OK ? check_ring(r, node, pool) : rc;
}

enum mr_result mr_config_check_protocol(const struct mr_config_reader *r,
                                        const struct mr_yaml *node, struct mr_pool_config *pool)
{
    const struct mr_proto *redis = mr_proto_by_name(mr_slice_of("redis"));

    if (pool->protocol != NULL && pool->redis && pool->protocol != redis)
        return mr_config_fail(
            r, mr_yaml_get(node, "protocol"),
            "pool '%s': \"redis: true\" and \"protocol: %s\" contradict each other", pool->name,
            pool->protocol->name);
    if (pool->protocol == NULL)
        pool->protocol = pool->redis ? redis : mr_proto_by_name(mr_slice_of("memcache"));
    pool->redis = pool->protocol == redis;
    if (!pool->redis && pool->redis_auth != NULL)
        return mr_config_fail(r, mr_yaml_get(node, "redis_auth"),
                              "pool '%s': directive \"redis_auth\" is only valid for a redis pool",
                              pool->name);
    return MR_OK;
}

static enum mr_result check_listens_differ(const struct mr_config_reader *r,
                                           const struct mr_yaml *root)
{
    const struct mr_listen_ref *refs = r->config->listens;

    for (uint32_t i = 0; i + 1 < r->config->n_listens; i++)
        if (mr_addr_eq(&refs[i].listen->addr, &refs[i + 1].listen->addr))
            return mr_config_fail(r, root, "pools '%s' and '%s' have the same listen address '%s'",
                                  refs[i].pool->name, refs[i + 1].pool->name,
                                  refs[i + 1].listen->text);
    return MR_OK;
}

static void number_servers(struct mr_config *config)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < config->n_pools; i++) {
        config->pools[i].first_server = n;
        n += config->pools[i].servers.n;
    }
}

enum mr_result mr_config_check_pools(const struct mr_config_reader *r, const struct mr_yaml *root)
{
    struct mr_config *config = r->config;

    qsort(config->pools, config->n_pools, sizeof(*config->pools), by_pool_name);
    for (uint32_t i = 0; i < config->n_pools && !config->meitu; i++)
        warn_stats_name(r, "pool", config->pools[i].name);
    number_servers(config);
    mr_config_sort_listens(config);
    return check_listens_differ(r, root);
}
