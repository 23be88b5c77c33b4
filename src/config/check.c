/* check.c - checks across the values of a pool, and across pools. */
#include "config/internal.h"

#include "net/dns.h"
#include "proto/resp/resp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_server_name(const void *a, const void *b)
{
    const struct mr_server_config *x = a, *y = b;
    const int c = mr_config_compare_names(x->name, y->name);

    return c != 0 ? c : mr_place_compare(x->place, y->place);
}

static int by_pool_name(const void *a, const void *b)
{
    return mr_config_compare_names(((const struct mr_pool_config *)a)->name,
                                   ((const struct mr_pool_config *)b)->name);
}

static void warn_unreachable(const struct mr_config_reader *r, const struct mr_pool_config *pool,
                             const uint32_t *shares)
{
    for (uint32_t i = 0; i < pool->servers.n && pool->servers.n > 1; i++)
        if (i != pool->master && shares[i] == 0)
            mr_config_warn(
                r, pool->servers.at[i].place,
                "pool '%s': server '%s' gets no keys: its weight %u is too small compared with the "
                "others",
                pool->name, pool->servers.at[i].name, pool->servers.at[i].weight);
}

/* The ring must be possible to build. Warns where it does not do what it seems to. */
static void check_ring(const struct mr_config_reader *r, const struct mr_yaml *node,
                       const struct mr_pool_config *pool)
{
    struct mr_ring_member *members = mr_config_ring_members(pool);
    struct mr_ring ring;
    struct mr_error why;

    if (pool->follow_roles && pool->master != MR_NO_MASTER)
        members[pool->master].live = true; /* any server may become the master */
    const enum mr_result rc =
        mr_ring_build(&ring, pool->distribution, members, pool->servers.n, &why);

    free(members);
    if (rc != MR_OK) {
        (void)mr_config_fail(r, mr_config_place_of(node, "servers"), "pool '%s': %s", pool->name,
                             why.text);
        return;
    }
    uint32_t *shares = mr_ring_shares(&ring, pool->servers.n);
    warn_unreachable(r, pool, shares);
    free(shares);
    mr_ring_free(&ring);
    if (pool->servers.n > 1 && pool->distribution == MR_DIST_KETAMA && pool->hash == MR_HASH_crc32)
        mr_config_warn(
            r, mr_config_place_of(node, "hash"),
            "pool '%s': hash crc32 has only 15 bits, so ketama sends nearly every key to one "
            "server; crc32a has 32",
            pool->name);
}

/* Server and pool names share a JSON object with these fields. */
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

static void warn_stats_name(const struct mr_config_reader *r, struct mr_place at, const char *kind,
                            const char *name)
{
    if (is_stats_field(name))
        mr_config_warn(r, at,
                       "%s '%s' is named like a statistics field and appears there as '%s:%s'",
                       kind, name, kind, name);
}

/* Puts the master last, as Meitu's statistics do. */
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

/* The cluster itself assigns keys to slots, so other settings for that are contradictory. */
static void check_cluster(const struct mr_config_reader *r, const struct mr_yaml *node,
                          struct mr_pool_config *pool)
{
    if (pool->auto_eject_hosts)
        (void)mr_config_fail(r, mr_config_place_of(node, "auto_eject_hosts"),
                             "pool '%s': the nodes of a cluster cannot be ejected", pool->name);
    if (pool->redis_db > 0)
        (void)mr_config_fail(r, mr_config_place_of(node, "redis_db"),
                             "pool '%s': a cluster has database 0 only", pool->name);
    if (pool->distribution == MR_DIST_RANDOM)
        (void)mr_config_fail(r, mr_config_place_of(node, "distribution"),
                             "pool '%s': a cluster has its own distribution", pool->name);
}

/* Several names share the keys by a ring. */
static void check_sentinel(const struct mr_config_reader *r, const struct mr_yaml *node,
                           struct mr_pool_config *pool)
{
    struct mr_ring_member *members = mr_config_name_members(pool);
    const struct mr_names *names = &pool->master_names;
    struct mr_ring ring;
    struct mr_error why;

    if (pool->auto_eject_hosts)
        (void)mr_config_fail(r, mr_config_place_of(node, "auto_eject_hosts"),
                             "pool '%s': sentinels decide which servers are in service",
                             pool->name);
    if (pool->distribution == MR_DIST_RANDOM)
        (void)mr_config_fail(r, mr_config_place_of(node, "distribution"),
                             "pool '%s': sentinels need another distribution than random",
                             pool->name);
    for (uint32_t i = 0; i < names->n; i++)
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(names->at[i], names->at[j]) == 0)
                (void)mr_config_fail(r, mr_config_place_of(node, "master_name"),
                                     "pool '%s' has master_name '%s' twice", pool->name,
                                     names->at[i]);
    if (names->n > 0 && pool->distribution != MR_DIST_RANDOM &&
        mr_ring_build(&ring, pool->distribution, members, names->n, &why) == MR_OK)
        mr_ring_free(&ring);
    free(members);
}

/* Replaces each service by its places. */
static void make_places(const struct mr_config_reader *r, struct mr_pool_config *pool)
{
    const uint32_t n = pool->servers.n;

    for (uint32_t i = 0; i < n; i++) {
        const struct mr_server_config service = pool->servers.at[i];
        if (service.service_place == 0)
            continue;
        if (pool->topology != MR_CLUSTER && pool->topology != MR_SENTINEL) {
            (void)mr_config_fail(r, service.place,
                                 "pool '%s': '%s' is a service; only \"sentinels\" and the "
                                 "\"servers\" of a cluster can be",
                                 pool->name, service.text);
            continue;
        }
        pool->servers.at = realloc(pool->servers.at, (pool->servers.n + MR_SERVICE_PLACES - 1) *
                                                         sizeof(*pool->servers.at));
        MR_CHECK(pool->servers.at != NULL);
        for (uint8_t place = 2; place <= MR_SERVICE_PLACES; place++) {
            struct mr_server_config *s = &pool->servers.at[pool->servers.n++];
            *s = service;
            s->service_place = place;
            s->text = strdup(service.text);
            s->host = strdup(service.host);
            MR_CHECK(s->text != NULL && s->host != NULL &&
                     asprintf(&s->name, "%s#%u", service.name, place) >= 0);
        }
    }
}

/* Adds places for servers that are yet to be discovered. */
static void make_room(struct mr_pool_config *pool)
{
    const uint32_t n = pool->servers.n + pool->cluster_nodes;

    pool->servers.at = realloc(pool->servers.at, n * sizeof(*pool->servers.at));
    MR_CHECK(pool->servers.at != NULL);
    for (; pool->servers.n < n; pool->servers.n++) {
        struct mr_server_config *s = &pool->servers.at[pool->servers.n];
        *s = (struct mr_server_config){.text = strdup(""), .name = strdup(""), .weight = 1};
        MR_CHECK(s->text != NULL && s->name != NULL);
    }
}

static const char *kind_of(enum mr_topology topology)
{
    return topology == MR_CLUSTER    ? "a cluster"
           : topology == MR_SENTINEL ? "watched by sentinels"
                                     : "replicated";
}

/* False after an error. */
static bool check_topology(const struct mr_config_reader *r, const struct mr_yaml *node,
                           struct mr_pool_config *pool)
{
    const struct mr_server_config *named = NULL;

    for (uint32_t i = 0; i < pool->servers.n; i++)
        if (strcmp(pool->servers.at[i].name, MR_MASTER) == 0)
            named = &pool->servers.at[i];
    if (named != NULL && r->config->meitu && !pool->says_topology)
        pool->topology = MR_REPLICATED;
    if (named != NULL && pool->topology == MR_SHARDS)
        mr_config_warn(r, named->place,
                       "pool '%s': the server named '" MR_MASTER
                       "' is a shard like the others; if they are its replicas, set \"topology: "
                       "replicated\"",
                       pool->name);
    if (pool->topology == MR_SHARDS)
        return true;
    const struct mr_place at = mr_config_place_of(node, "servers");
    const uint32_t errors = r->found->n_errors;
    if (!pool->redis)
        (void)mr_config_fail(r, at, "pool '%s': only a redis pool can be %s", pool->name,
                             kind_of(pool->topology));
    if (pool->topology == MR_CLUSTER || pool->topology == MR_SENTINEL) {
        if (!pool->says_read_from)
            pool->read_from = MR_READ_MASTER;
        (pool->topology == MR_CLUSTER ? check_cluster : check_sentinel)(r, node, pool);
        return r->found->n_errors == errors;
    }
    if (named == NULL && !pool->follow_roles)
        (void)mr_config_fail(r, at,
                             "pool '%s' is replicated, but no server is named '" MR_MASTER
                             "', and \"follow_roles\" is not true",
                             pool->name);
    if (named != NULL && pool->servers.n == 1)
        (void)mr_config_fail(r, at, "pool '%s' has no servers besides the master", pool->name);
    find_master(pool);
    return r->found->n_errors == errors;
}

/* False after an error. Servers are sorted by name; equal names by their position in the file. */
static bool check_names(const struct mr_config_reader *r, const struct mr_pool_config *pool)
{
    const struct mr_server_config *at = pool->servers.at;
    bool good = true;

    for (uint32_t i = 0; i < pool->servers.n; i++) {
        if (i > 0 && strcmp(at[i - 1].name, at[i].name) == 0) {
            (void)mr_config_fail(r, at[i].place, "pool '%s' has servers with same name '%s'",
                                 pool->name, at[i].name);
            good = false;
        } else {
            warn_stats_name(r, at[i].place, "server", at[i].name);
        }
    }
    return good;
}

static void check_announced(const struct mr_config_reader *r, const struct mr_yaml *node,
                            const struct mr_pool_config *pool)
{
    static const char *const NEEDY[] = {"announce", "announce_name"};

    if (pool->present_as != MR_PRESENT_NONE && !pool->redis)
        (void)mr_config_fail(r, mr_config_place_of(node, "present_as"),
                             "pool '%s': \"present_as\" needs \"redis: true\"", pool->name);
    for (size_t i = 0; i < MR_COUNT(NEEDY); i++)
        if (pool->present_as == MR_PRESENT_NONE && mr_yaml_get(node, NEEDY[i]) != NULL)
            (void)mr_config_fail(r, mr_config_place_of(node, NEEDY[i]),
                                 "pool '%s': \"%s\" has no effect without \"present_as\"",
                                 pool->name, NEEDY[i]);
    for (uint32_t i = 0; i < pool->announced.n; i++)
        if (!mr_resp_is_address(pool->announced.at[i]))
            (void)mr_config_fail(r, mr_config_place_of(node, "announce"),
                                 "pool '%s': \"announce\" has '%s', which is not \"host:port\"",
                                 pool->name, pool->announced.at[i]);
}

void mr_config_check_servers(const struct mr_config_reader *r, const struct mr_yaml *node,
                             struct mr_pool_config *pool)
{
    static const char *const TOPOLOGY[] = {"servers",  "topology",     "redis",
                                           "protocol", "follow_roles", NULL};
    static const char *const RING[] = {"hash", "distribution", NULL};

    check_announced(r, node, pool);
    pool->master = MR_NO_MASTER;
    make_places(r, pool);
    qsort(pool->servers.at, pool->servers.n, sizeof(*pool->servers.at), by_server_name);
    pool->servers.named = pool->servers.n;
    if (!check_names(r, pool) || !mr_config_sound(node, TOPOLOGY) || !check_topology(r, node, pool))
        return;
    if (pool->topology == MR_CLUSTER || pool->topology == MR_SENTINEL)
        make_room(pool);
    else if (mr_config_sound(node, RING))
        check_ring(r, node, pool);
}

void mr_config_check_protocol(const struct mr_config_reader *r, const struct mr_yaml *node,
                              struct mr_pool_config *pool)
{
    static const char *const KEYS[] = {"redis", "protocol", NULL};
    const struct mr_proto *redis = mr_proto_by_name(mr_slice_of("redis"));

    if (!mr_config_sound(node, KEYS))
        return;
    if (pool->protocol != NULL && pool->redis && pool->protocol != redis) {
        (void)mr_config_fail(
            r, mr_config_place_of(node, "protocol"),
            "pool '%s': \"redis: true\" and \"protocol: %s\" contradict each other", pool->name,
            pool->protocol->name);
        return;
    }
    if (pool->protocol == NULL)
        pool->protocol = pool->redis ? redis : mr_proto_by_name(mr_slice_of("memcache"));
    pool->redis = pool->protocol == redis;
    if (!pool->redis && pool->redis_auth != NULL)
        (void)mr_config_fail(r, mr_config_place_of(node, "redis_auth"),
                             "pool '%s': directive \"redis_auth\" is only valid for a redis pool",
                             pool->name);
}

static void check_listens_differ(const struct mr_config_reader *r)
{
    const struct mr_listen_ref *refs = r->config->listens;

    for (uint32_t i = 0; i + 1 < r->config->n_listens; i++) {
        const struct mr_listen_config *a = refs[i].listen, *b = refs[i + 1].listen;
        if (mr_addr_eq(&a->addr, &b->addr))
            (void)mr_config_fail(r, mr_place_compare(a->place, b->place) > 0 ? a->place : b->place,
                                 "pools '%s' and '%s' have the same listen address '%s'",
                                 refs[i].pool->name, refs[i + 1].pool->name, b->text);
    }
}

static void number_servers(struct mr_config *config)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < config->n_pools; i++) {
        config->pools[i].first_server = n;
        n += config->pools[i].servers.n;
    }
}

static void find_mirror(const struct mr_config_reader *r, struct mr_pool_config *pool)
{
    const struct mr_config *config = r->config;
    uint32_t to = 0;

    pool->mirror = MR_NO_MIRROR;
    if (pool->mirror_to == NULL || pool->protocol == NULL)
        return;
    while (to < config->n_pools && strcmp(config->pools[to].name, pool->mirror_to) != 0)
        to++;
    const struct mr_pool_config *other = to < config->n_pools ? &config->pools[to] : NULL;
    if (other == NULL)
        (void)mr_config_fail(r, pool->place, "pool '%s': \"mirror_to\": there is no pool '%s'",
                             pool->name, pool->mirror_to);
    else if (pool->protocol->transfer.fetch == NULL || other->protocol != pool->protocol)
        (void)mr_config_fail(r, pool->place,
                             "pool '%s': \"mirror_to\" needs \"redis: true\" in both pools",
                             pool->name);
    else if (other == pool || other->mirror_to != NULL)
        (void)mr_config_fail(r, pool->place, "pool '%s': \"mirror_to\": pool '%s' %s", pool->name,
                             pool->mirror_to,
                             other == pool ? "is the pool itself" : "is mirrored to another");
    else
        pool->mirror = to;
}

/* The name of the zone, which may be in the environment. */
static void find_zone(const struct mr_config_reader *r)
{
    struct mr_config *config = r->config;

    if (config->zone == NULL || config->zone[0] != '$')
        return;
    const char *value = getenv(config->zone + 1);
    if (value == NULL)
        mr_config_warn(r, (struct mr_place){0}, "\"zone\": %s is not in the environment",
                       config->zone);
    free(config->zone);
    config->zone = value != NULL ? strdup(value) : NULL;
}

static void check_reads(const struct mr_config_reader *r, struct mr_pool_config *pool)
{
    pool->zone = r->config->zone;
    for (uint32_t i = 0; i < pool->zones.n; i++) {
        const char *equals = strchr(pool->zones.at[i], '=');
        if (equals == NULL || equals == pool->zones.at[i] || equals[1] == '\0')
            (void)mr_config_fail(r, pool->place,
                                 "pool '%s': \"zones\" has '%s', which is not \"ZONE=PREFIX\"",
                                 pool->name, pool->zones.at[i]);
    }
    if (pool->zones.n > 0 && (pool->read_from != MR_READ_NEAREST || pool->zone == NULL))
        mr_config_warn(r, pool->place,
                       "pool '%s': \"zones\" has no effect without \"read_from: nearest\" and the "
                       "proxy's own \"zone\"",
                       pool->name);
    if (pool->fail_fast_without_remap && !pool->auto_eject_hosts)
        (void)mr_config_fail(
            r, pool->place,
            "pool '%s': \"fail_fast_without_remap\" has no effect without \"auto_eject_hosts\"",
            pool->name);
}

bool mr_config_in_zone(const struct mr_pool_config *pool, const char *name, const char *address)
{
    size_t longest = 0;
    bool in_zone = false;

    for (uint32_t i = 0; i < pool->zones.n && pool->zone != NULL; i++) {
        const char *zone = pool->zones.at[i], *prefix = strchr(zone, '=') + 1;
        const size_t n = strlen(prefix), zone_len = (size_t)(prefix - zone) - 1;
        if (n <= longest || (strncmp(name, prefix, n) != 0 && strncmp(address, prefix, n) != 0))
            continue;
        longest = n;
        in_zone = strlen(pool->zone) == zone_len && memcmp(pool->zone, zone, zone_len) == 0;
    }
    return in_zone;
}

void mr_config_check_pools(const struct mr_config_reader *r)
{
    struct mr_config *config = r->config;

    qsort(config->pools, config->n_pools, sizeof(*config->pools), by_pool_name);
    for (uint32_t i = 0; i < config->n_pools && !config->meitu; i++)
        warn_stats_name(r, config->pools[i].place, "pool", config->pools[i].name);
    number_servers(config);
    for (uint32_t i = 0; i < config->n_pools; i++)
        find_mirror(r, &config->pools[i]);
    find_zone(r);
    if (config->nameservers != NULL && !mr_dns_is_server_list(config->nameservers))
        (void)mr_config_fail(r, (struct mr_place){0},
                             "\"nameservers\": value \"%s\" is not a list of addresses",
                             config->nameservers);
    for (uint32_t i = 0; i < config->n_pools; i++)
        check_reads(r, &config->pools[i]);
    mr_config_sort_listens(config);
    check_listens_differ(r);
    mr_config_settle_users(r);
}
