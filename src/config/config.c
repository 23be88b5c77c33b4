/* config.c - from the YAML tree to a checked snapshot. */
#include "config/config.h"

#include "config/value.h"
#include "config/yaml.h"
#include "core/number.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES (16u << 20)

#define X(name) " " #name
static const char *const BAD_HASH = "is not a valid hash; allowed:"
#include "route/hashes.def"
    ;

enum scope { GLOBAL, POOL };

enum type {
    BOOL,
    UINT,
    MSEC,
    TIME,
    SECONDS,
    SIZE,
    COUNT_AUTO,
    COALESCE,
    TEXT,
    HASH,
    DISTRIBUTION,
    TAG,
    CROSS,
    FAILURE,
    TOPOLOGY,
    READ_FROM,
    FALLBACK,
    HEALTH,
    ENGINE,
    ACCEPT,
    PROTOCOL,
    LISTEN,
    SERVERS,
};

struct key {
    enum scope scope;
    enum type type;
    const char *name;
    const char *default_text;
    size_t offset;
    uint64_t min, max;
};

#define OFFSET_GLOBAL(field) offsetof(struct mr_config, field)
#define OFFSET_POOL(field)   offsetof(struct mr_pool_config, field)

static const struct key KEYS[] = {
#define X(scope, key, type, field, default_text, min, max, help)                                   \
    {scope, type, #key, default_text, OFFSET_##scope(field), min, max},
#include "config/schema.def"
};

const struct mr_config_key MR_CONFIG_KEYS[] = {
#define X(scope, key, type, field, default_text, min, max, help)                                   \
    {(scope) == GLOBAL, #key, default_text, help},
#include "config/schema.def"
};
const size_t MR_CONFIG_KEY_COUNT = MR_COUNT(MR_CONFIG_KEYS);

/* The words of the types that are one of a few, in the order of their enums. */
static const char *const WORDS[][5] = {
    [CROSS] = {"refuse", "first_key"},
    [FAILURE] = {"error", "miss"},
    [TOPOLOGY] = {"shards", "replicated"},
    [READ_FROM] = {"master", "prefer_replica", "replica", "nearest"},
    [FALLBACK] = {"master", "none"},
    [HEALTH] = {"auto", "always", "off"},
    [ENGINE] = {"auto", "epoll", "io_uring"},
    [ACCEPT] = {"auto", "reuseport", "exclusive", "mutex"},
};

/* What every step of reading needs. */
struct reader {
    struct mr_config *config;
    const char *path;
    struct mr_error *err;
};

static enum mr_result MR_PRINTF(3, 4)
    fail_at(const struct reader *r, const struct mr_yaml *node, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(r->err->text, sizeof(r->err->text), fmt, ap);
    va_end(ap);
    r->err->sys = 0;
    mr_error_prefix(r->err, "%s:%u:%u", r->path, node->line, node->column);
    return MR_ECONFIG;
}

static void MR_PRINTF(2, 3) warn(struct mr_config *config, const char *fmt, ...)
{
    char *line = NULL;
    va_list ap;

    va_start(ap, fmt);
    MR_CHECK(vasprintf(&line, fmt, ap) >= 0);
    va_end(ap);
    config->warnings = realloc(config->warnings, (config->n_warnings + 1) * sizeof(char *));
    MR_CHECK(config->warnings != NULL);
    config->warnings[config->n_warnings++] = line;
}

/* Edits (insert, delete, replace) between two short words. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[64];
    const size_t n = strlen(b);

    if (n >= MR_COUNT(row))
        return UINT32_MAX;
    for (unsigned j = 0; j <= n; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= n; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static enum mr_result unknown_key(const struct reader *r, enum scope scope,
                                  const struct mr_yaml *key)
{
    const struct key *best = NULL;
    unsigned best_distance = 4; /* further off is no help */

    for (size_t i = 0; i < MR_COUNT(KEYS); i++) {
        const unsigned d = KEYS[i].scope == scope ? distance(key->text, KEYS[i].name) : UINT32_MAX;
        if (d < best_distance) {
            best = &KEYS[i];
            best_distance = d;
        }
    }
    if (best != NULL)
        return fail_at(r, key, "directive \"%s\" is unknown; did you mean \"%s\"?", key->text,
                       best->name);
    return fail_at(r, key, "directive \"%s\" is unknown", key->text);
}

static enum mr_result bad_value(const struct reader *r, const struct key *k,
                                const struct mr_yaml *value, const char *why)
{
    return fail_at(r, value, "directive \"%s\": value \"%s\" %s", k->name, value->text, why);
}

static enum mr_result set_uint(const struct reader *r, const struct key *k,
                               const struct mr_yaml *value, void *field)
{
    uint64_t v = 0;
    bool ok;

    switch (k->type) {
    case TIME:
        if (!mr_value_time_ms(value->text, &v))
            return bad_value(r, k, value, "is not a time; allowed: digits with ms, s, m or h");
        break;
    case COALESCE:
        if (!mr_value_time_us(value->text, &v))
            return bad_value(r, k, value, "is not known; allowed: auto, off, digits with us or ms");
        break;
    case SECONDS:
        ok = mr_parse_uint(mr_slice_of(value->text), UINT32_MAX, &v);
        v *= 1000;
        if (!ok && !mr_value_time_ms(value->text, &v))
            return bad_value(r, k, value,
                             "is not a time; allowed: seconds, or digits with ms, s, m or h");
        break;
    case SIZE:
        if (!mr_value_size(value->text, &v))
            return bad_value(r, k, value, "is not a size; allowed: digits with b, kb, mb or gb");
        break;
    default:
        if (!mr_parse_uint(mr_slice_of(value->text), UINT64_MAX, &v))
            return bad_value(r, k, value, "is not a number");
        break;
    }
    if (v < k->min || v > k->max) {
        if (v == 0 && k->min == 1)
            return fail_at(r, value, "directive \"%s\" cannot be 0", k->name);
        return fail_at(
            r, value, "directive \"%s\": value \"%s\" is out of range; allowed: %llu to %llu",
            k->name, value->text, (unsigned long long)k->min, (unsigned long long)k->max);
    }
    *(uint32_t *)field = (uint32_t)v;
    return MR_OK;
}

/* The word's number, or -1 after failing. */
static int find_choice(const struct reader *r, const struct key *k, const struct mr_yaml *value)
{
    const char *const *words = WORDS[k->type];
    char why[100] = "is not known; allowed:";
    size_t n = strlen(why);
    int i;

    for (i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], value->text) == 0)
            return i;
        n += (size_t)snprintf(why + n, sizeof(why) - n, "%s %s", i > 0 ? "," : "", words[i]);
    }
    (void)bad_value(r, k, value, why);
    return -1;
}

static enum mr_result set_choice(const struct reader *r, const struct key *k,
                                 const struct mr_yaml *value, unsigned *field)
{
    const int choice = find_choice(r, k, value);

    if (choice < 0)
        return MR_ECONFIG;
    *field = (unsigned)choice;
    return MR_OK;
}

static enum mr_result set_word(const struct reader *r, const struct key *k,
                               const struct mr_yaml *value, void *field)
{
    const struct mr_slice text = mr_slice_of(value->text);

    switch (k->type) {
    case HASH:
        return mr_hash_by_name(text, field) ? MR_OK : bad_value(r, k, value, BAD_HASH);
    case DISTRIBUTION:
        return mr_distribution_by_name(text, field)
                   ? MR_OK
                   : bad_value(r, k, value,
                               "is not a valid distribution; allowed: ketama, modula, random");
    default: /* PROTOCOL */
        *(const struct mr_proto **)field = mr_proto_by_name(text);
        return *(const struct mr_proto **)field != NULL
                   ? MR_OK
                   : bad_value(r, k, value, "is not a protocol; allowed: redis, memcache");
    }
}

static enum mr_result set_text(const struct reader *r, const struct key *k,
                               const struct mr_yaml *value, char **field)
{
    if (k->type != TEXT && find_choice(r, k, value) < 0)
        return MR_ECONFIG;
    if (strlen(value->text) < k->min)
        return fail_at(r, value, "directive \"%s\" is too short; at least %llu characters", k->name,
                       (unsigned long long)k->min);
    free(*field);
    *field = strdup(value->text);
    MR_CHECK(*field != NULL);
    return MR_OK;
}

static enum mr_result add_listen(const struct reader *r, const struct key *k,
                                 const struct mr_yaml *value, struct mr_listens *list)
{
    struct mr_error why;
    struct mr_listen_config one;

    if (value->kind != MR_YAML_SCALAR)
        return fail_at(r, value, "directive \"%s\" must be an address", k->name);
    if (mr_value_listen(&one, value->text, &why) != MR_OK)
        return bad_value(r, k, value, why.text);
    list->at = realloc(list->at, (list->n + 1) * sizeof(one));
    MR_CHECK(list->at != NULL);
    list->at[list->n++] = one;
    return MR_OK;
}

static enum mr_result add_server(const struct reader *r, const struct key *k,
                                 const struct mr_yaml *value, struct mr_servers *list)
{
    struct mr_error why;
    struct mr_server_config one;

    if (value->kind != MR_YAML_SCALAR)
        return fail_at(r, value, "directive \"%s\" must be a list of servers", k->name);
    if (mr_value_server(&one, value->text, &why) != MR_OK)
        return bad_value(r, k, value, why.text);
    list->at = realloc(list->at, (list->n + 1) * sizeof(one));
    MR_CHECK(list->at != NULL);
    list->at[list->n++] = one;
    return MR_OK;
}

static enum mr_result set_list(const struct reader *r, const struct key *k,
                               const struct mr_yaml *value, void *field)
{
    enum mr_result rc = MR_OK;

    if (k->type == LISTEN && value->kind == MR_YAML_SCALAR)
        return add_listen(r, k, value, field);
    if (value->kind != MR_YAML_LIST || value->n == 0)
        return fail_at(r, value, "directive \"%s\" must be a list with one entry at least",
                       k->name);
    for (uint32_t i = 0; i < value->n && rc == MR_OK; i++)
        rc = k->type == LISTEN ? add_listen(r, k, value->children[i], field)
                               : add_server(r, k, value->children[i], field);
    return rc;
}

static enum mr_result set_tag(const struct reader *r, const struct key *k,
                              const struct mr_yaml *value, struct mr_pool_config *pool)
{
    if (strlen(value->text) != 2)
        return bad_value(r, k, value, "is not a valid hash tag string with two characters");
    memcpy(pool->hash_tag, value->text, 2);
    pool->has_hash_tag = true;
    return MR_OK;
}

static enum mr_result set_bool(const struct reader *r, const struct key *k,
                               const struct mr_yaml *value, bool *field)
{
    const bool yes = strcmp(value->text, "true") == 0;

    if (!yes && strcmp(value->text, "false") != 0)
        return bad_value(r, k, value, "is not \"true\" or \"false\"");
    *field = yes;
    return MR_OK;
}

/* Puts one value into the struct at `base`. */
static enum mr_result set(const struct reader *r, const struct key *k, const struct mr_yaml *value,
                          void *base)
{
    void *field = (char *)base + k->offset;

    if (k->type == LISTEN || k->type == SERVERS)
        return set_list(r, k, value, field);
    if (value->kind != MR_YAML_SCALAR)
        return fail_at(r, value, "directive \"%s\" must be a single value", k->name);
    if (value->text[0] == '\0')
        return fail_at(r, value, "directive \"%s\" has no value", k->name);
    switch (k->type) {
    case BOOL:
        return set_bool(r, k, value, field);
    case COALESCE:
        if (strcmp(value->text, "off") == 0) {
            *(uint32_t *)field = 0;
            return MR_OK;
        }
        MR_FALLTHROUGH;
    case COUNT_AUTO:
        if (strcmp(value->text, "auto") == 0) {
            *(uint32_t *)field = MR_AUTO;
            return MR_OK;
        }
        MR_FALLTHROUGH;
    case UINT:
    case MSEC:
    case TIME:
    case SECONDS:
    case SIZE:
        return set_uint(r, k, value, field);
    case TEXT:
    case ACCEPT:
    case ENGINE:
        return set_text(r, k, value, field);
    case CROSS:
    case FAILURE:
    case TOPOLOGY:
    case READ_FROM:
    case FALLBACK:
    case HEALTH:
        return set_choice(r, k, value, field);
    case HASH:
    case DISTRIBUTION:
    case PROTOCOL:
        return set_word(r, k, value, field);
    case TAG:
        return set_tag(r, k, value, base);
    case LISTEN:
    case SERVERS:
        break;
    }
    MR_BUG("a key of no type");
}

static const struct key *find_key(enum scope scope, const char *name)
{
    for (size_t i = 0; i < MR_COUNT(KEYS); i++)
        if (KEYS[i].scope == scope && strcmp(KEYS[i].name, name) == 0)
            return &KEYS[i];
    return NULL;
}

static enum mr_result set_default(const struct reader *r, enum scope scope, const char *name,
                                  const char *text, void *base)
{
    struct mr_yaml value = {.kind = MR_YAML_SCALAR, .text = (char *)(uintptr_t)text};

    return set(r, find_key(scope, name), &value, base);
}

static void set_defaults(const struct reader *r, enum scope scope, void *base)
{
    for (size_t i = 0; i < MR_COUNT(KEYS); i++)
        if (KEYS[i].scope == scope && KEYS[i].default_text[0] != '\0')
            MR_CHECK(set_default(r, scope, KEYS[i].name, KEYS[i].default_text, base) == MR_OK);
}

static enum mr_result check_duplicate_keys(const struct reader *r, const struct mr_yaml *map)
{
    for (uint32_t i = 0; i < map->n; i++)
        if (mr_yaml_get(map, map->children[i]->key->text) != map->children[i])
            return fail_at(r, map->children[i]->key, "directive \"%s\" is a duplicate",
                           map->children[i]->key->text);
    return MR_OK;
}

/* Applies a mapping of keys to the struct at `base`. */
static enum mr_result read_section(const struct reader *r, enum scope scope,
                                   const struct mr_yaml *map, void *base)
{
    enum mr_result rc;

    if (map->kind != MR_YAML_MAP)
        return fail_at(r, map, "\"%s\" must be a mapping of directives", map->key->text);
    rc = check_duplicate_keys(r, map);
    for (uint32_t i = 0; i < map->n && rc == MR_OK; i++) {
        const struct mr_yaml *value = map->children[i];
        const struct key *k = find_key(scope, value->key->text);
        rc = k != NULL ? set(r, k, value, base) : unknown_key(r, scope, value->key);
    }
    return rc;
}

static int compare_names(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);

    return n != m ? (n < m ? -1 : 1) : memcmp(a, b, n);
}

static int by_server_name(const void *a, const void *b)
{
    return compare_names(((const struct mr_server_config *)a)->name,
                         ((const struct mr_server_config *)b)->name);
}

static int by_pool_name(const void *a, const void *b)
{
    return compare_names(((const struct mr_pool_config *)a)->name,
                         ((const struct mr_pool_config *)b)->name);
}

struct mr_ring_member *mr_config_ring_members(const struct mr_pool_config *pool)
{
    struct mr_ring_member *members = calloc(pool->servers.n + 1, sizeof(*members));

    MR_CHECK(members != NULL);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        members[i] = (struct mr_ring_member){.name = mr_slice_of(pool->servers.at[i].name),
                                             .weight = pool->servers.at[i].weight,
                                             .live = i != pool->master};
    return members;
}

/* The ring must be possible; say so where it does not do what it seems to. */
static enum mr_result check_ring(const struct reader *r, const struct mr_yaml *node,
                                 const struct mr_pool_config *pool)
{
    struct mr_ring_member *members = mr_config_ring_members(pool);
    struct mr_ring ring;
    struct mr_error why;
    const enum mr_result rc =
        mr_ring_build(&ring, pool->distribution, members, pool->servers.n, &why);

    free(members);
    if (rc != MR_OK)
        return fail_at(r, node, "pool '%s': %s", pool->name, why.text);
    for (uint32_t i = 0; i < pool->servers.n && pool->servers.n > 1; i++)
        if (i != pool->master && mr_ring_share(&ring, i) == 0)
            warn(r->config,
                 "pool '%s': server '%s' gets no points on the ring, no key will reach it: its "
                 "weight %u is too small beside the others",
                 pool->name, pool->servers.at[i].name, pool->servers.at[i].weight);
    mr_ring_free(&ring);
    if (pool->servers.n > 1 && pool->distribution == MR_DIST_KETAMA && pool->hash == MR_HASH_crc32)
        warn(r->config,
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

static void warn_stats_name(const struct reader *r, const char *kind, const char *name)
{
    if (is_stats_field(name))
        warn(r->config, "%s '%s' has the name of a statistics field and is shown there as '%s:%s'",
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
static enum mr_result check_topology(const struct reader *r, const struct mr_yaml *servers,
                                     struct mr_pool_config *pool)
{
    bool named = false;

    pool->master = MR_NO_MASTER;
    for (uint32_t i = 0; i < pool->servers.n; i++)
        named |= strcmp(pool->servers.at[i].name, MR_MASTER) == 0;
    if (named && r->config->meitu && !pool->says_topology)
        pool->topology = MR_REPLICATED;
    if (named && pool->topology == MR_SHARDS)
        warn(r->config,
             "pool '%s': the server named '" MR_MASTER
             "' is a shard like the others; say \"topology: "
             "replicated\" if they are its replicas",
             pool->name);
    if (pool->topology == MR_SHARDS)
        return MR_OK;
    if (!pool->redis)
        return fail_at(r, servers, "pool '%s': only a redis pool can be replicated", pool->name);
    if (!named && !pool->follow_roles)
        return fail_at(r, servers,
                       "pool '%s' is replicated, but no server is named '" MR_MASTER
                       "', and \"follow_roles\" is not true",
                       pool->name);
    if (named && pool->servers.n == 1)
        return fail_at(r, servers, "pool '%s' has no servers beside the master", pool->name);
    find_master(pool);
    return MR_OK;
}

static enum mr_result check_servers(const struct reader *r, const struct mr_yaml *node,
                                    struct mr_pool_config *pool)
{
    qsort(pool->servers.at, pool->servers.n, sizeof(*pool->servers.at), by_server_name);
    for (uint32_t i = 0; i + 1 < pool->servers.n; i++)
        if (strcmp(pool->servers.at[i].name, pool->servers.at[i + 1].name) == 0)
            return fail_at(r, node, "pool '%s' has servers with same name '%s'", pool->name,
                           pool->servers.at[i].name);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        warn_stats_name(r, "server", pool->servers.at[i].name);
    const enum mr_result rc = check_topology(r, node, pool);
    return rc == MR_OK ? check_ring(r, node, pool) : rc;
}

static enum mr_result check_protocol(const struct reader *r, const struct mr_yaml *node,
                                     struct mr_pool_config *pool)
{
    const struct mr_proto *redis = mr_proto_by_name(mr_slice_of("redis"));

    if (pool->protocol != NULL && pool->redis && pool->protocol != redis)
        return fail_at(r, mr_yaml_get(node, "protocol"),
                       "pool '%s': \"redis: true\" and \"protocol: %s\" contradict each other",
                       pool->name, pool->protocol->name);
    if (pool->protocol == NULL)
        pool->protocol = pool->redis ? redis : mr_proto_by_name(mr_slice_of("memcache"));
    pool->redis = pool->protocol == redis;
    if (!pool->redis && pool->redis_auth != NULL)
        return fail_at(r, mr_yaml_get(node, "redis_auth"),
                       "pool '%s': directive \"redis_auth\" is only valid for a redis pool",
                       pool->name);
    return MR_OK;
}

static enum mr_result read_pool(const struct reader *r, const struct mr_yaml *node,
                                uint32_t max_key_bytes)
{
    struct mr_config *config = r->config;
    struct mr_pool_config *pool = &config->pools[config->n_pools++];
    enum mr_result rc;

    pool->name = strdup(node->key->text);
    MR_CHECK(pool->name != NULL);
    set_defaults(r, POOL, pool);
    if (config->meitu)
        MR_CHECK(set_default(r, POOL, "client_connections", "2048", pool) == MR_OK &&
                 set_default(r, POOL, "meitu_compat", "true", pool) == MR_OK);
    pool->says_topology = mr_yaml_get(node, "topology") != NULL;
    rc = read_section(r, POOL, node, pool);
    if (rc != MR_OK)
        return rc;
    if (pool->name[0] == '\0')
        return fail_at(r, node->key, "a pool has an empty name");
    if (pool->listens.n == 0)
        return fail_at(r, node, "pool '%s': directive \"listen:\" is missing", pool->name);
    if (pool->servers.n == 0)
        return fail_at(r, node, "pool '%s': directive \"servers:\" is missing", pool->name);
    if (config->meitu && pool->client_connections == 0)
        return fail_at(r, mr_yaml_get(node, "client_connections"),
                       "directive \"client_connections\" cannot be 0");
    rc = check_protocol(r, node, pool);
    if (rc == MR_OK)
        rc = check_servers(r, mr_yaml_get(node, "servers"), pool);
    pool->options =
        (struct mr_proto_options){.auth = pool->redis_auth,
                                  .db = pool->redis_db,
                                  .max_request_bytes = pool->max_request_bytes,
                                  .max_key_bytes = max_key_bytes,
                                  .max_item_bytes = pool->max_item_bytes,
                                  .allow_flush = pool->allow_flush_all,
                                  .failure_is_miss = pool->on_server_failure == MR_FAILURE_MISS,
                                  .replicated = pool->topology == MR_REPLICATED,
                                  .meitu_reads = pool->meitu_compat};
    config->n_servers += pool->servers.n;
    return rc;
}

/* A mapping that says where to listen or whom to ask is a pool, whatever it is called. */
static bool is_pool(const struct mr_yaml *node)
{
    return node->kind == MR_YAML_MAP &&
           (mr_yaml_get(node, "listen") != NULL || mr_yaml_get(node, "servers") != NULL);
}

static enum mr_result read_pools(const struct reader *r, const struct mr_yaml *map,
                                 const struct mr_yaml *skip, uint32_t max_key_bytes)
{
    enum mr_result rc;

    if (map->kind != MR_YAML_MAP)
        return fail_at(r, map, "pools must be a mapping of names to directives");
    rc = check_duplicate_keys(r, map);
    r->config->pools = calloc(map->n + 1, sizeof(*r->config->pools));
    MR_CHECK(r->config->pools != NULL);
    for (uint32_t i = 0; i < map->n && rc == MR_OK; i++)
        if (map->children[i] != skip)
            rc = read_pool(r, map->children[i], max_key_bytes);
    if (rc == MR_OK && r->config->n_pools == 0)
        rc = fail_at(r, map, "there is no pool");
    return rc;
}

static enum mr_result check_listens_differ(const struct reader *r, const struct mr_yaml *root)
{
    const struct mr_config *c = r->config;

    for (uint32_t p = 0; p < c->n_pools; p++)
        for (uint32_t i = 0; i < c->pools[p].listens.n; i++)
            for (uint32_t q = p; q < c->n_pools; q++)
                for (uint32_t j = q == p ? i + 1 : 0; j < c->pools[q].listens.n; j++)
                    if (mr_addr_eq(&c->pools[p].listens.at[i].addr,
                                   &c->pools[q].listens.at[j].addr))
                        return fail_at(
                            r, root, "pools '%s' and '%s' have the same listen address '%s'",
                            c->pools[p].name, c->pools[q].name, c->pools[q].listens.at[j].text);
    return MR_OK;
}

static enum mr_result read_root(const struct reader *r, const struct mr_yaml *root,
                                uint32_t max_key_bytes)
{
    struct mr_config *config = r->config;
    enum mr_result rc;

    if (root->kind != MR_YAML_MAP)
        return fail_at(r, root, "a configuration is a mapping of pool names to directives");
    const struct mr_yaml *global = mr_yaml_get(root, "global");
    const struct mr_yaml *pools = mr_yaml_get(root, "pools");
    if (global != NULL && is_pool(global))
        global = NULL;
    if (pools != NULL && is_pool(pools))
        pools = NULL;
    config->meitu = pools != NULL;
    set_defaults(r, GLOBAL, config);
    if (config->meitu) {
        MR_CHECK(set_default(r, GLOBAL, "worker_processes", "0", config) == MR_OK);
        MR_CHECK(set_default(r, GLOBAL, "user", "nobody", config) == MR_OK);
    }
    if (global != NULL && (rc = read_section(r, GLOBAL, global, config)) != MR_OK)
        return rc;
    for (uint32_t i = 0; config->meitu && i < root->n; i++)
        if (root->children[i] != global && root->children[i] != pools)
            return fail_at(r, root->children[i]->key,
                           "unknown section \"%s\"; with \"pools:\" only \"global:\" may stand "
                           "beside it",
                           root->children[i]->key->text);
    rc = config->meitu ? read_pools(r, pools, NULL, max_key_bytes)
                       : read_pools(r, root, global, max_key_bytes);
    if (rc != MR_OK)
        return rc;
    qsort(config->pools, config->n_pools, sizeof(*config->pools), by_pool_name);
    for (uint32_t i = 0; i < config->n_pools && !config->meitu; i++)
        warn_stats_name(r, "pool", config->pools[i].name);
    return check_listens_differ(r, root);
}

static char *copy_text(struct mr_slice text)
{
    char *copy = malloc(text.len + 1);

    MR_CHECK(copy != NULL);
    memcpy(copy, text.at, text.len);
    copy[text.len] = '\0';
    return copy;
}

enum mr_result mr_config_parse(struct mr_config **out, const char *path, struct mr_slice text,
                               uint32_t max_key_bytes, struct mr_error *err)
{
    struct mr_yaml *root;
    enum mr_result rc = mr_yaml_parse(&root, path, text, err);

    if (rc != MR_OK)
        return rc;
    struct mr_config *config = calloc(1, sizeof(*config));
    MR_CHECK(config != NULL);
    const struct reader r = {config, path, err};
    rc = read_root(&r, root, max_key_bytes);
    mr_yaml_free(root);
    if (rc != MR_OK)
        mr_config_free(config);
    else
        *out = config;
    if (rc == MR_OK)
        config->source = copy_text(text);
    return rc;
}

static enum mr_result read_file(const char *path, char **text, size_t *len, struct mr_error *err)
{
    FILE *f = fopen(path, "re");

    if (f == NULL)
        return mr_fail_sys(err, "%s", path);
    char *bytes = malloc(FILE_MAX_BYTES + 1);
    MR_CHECK(bytes != NULL);
    errno = 0;
    const size_t n = fread(bytes, 1, FILE_MAX_BYTES + 1, f);
    const bool failed = ferror(f) != 0;
    const int error = errno;
    (void)fclose(f);
    if (failed || n > FILE_MAX_BYTES) {
        free(bytes);
        errno = error;
        return failed ? mr_fail_sys(err, "%s", path)
                      : mr_fail(err, MR_ELIMIT, "%s: larger than %u bytes", path, FILE_MAX_BYTES);
    }
    *text = bytes;
    *len = n;
    return MR_OK;
}

enum mr_result mr_config_load(struct mr_config **out, const char *path, uint32_t max_key_bytes,
                              struct mr_error *err)
{
    char *text = NULL;
    size_t len = 0;
    enum mr_result rc = read_file(path, &text, &len, err);

    if (rc != MR_OK)
        return rc;
    rc = mr_config_parse(out, path, (struct mr_slice){text, len}, max_key_bytes, err);
    free(text);
    return rc;
}

const struct mr_pool_config *mr_config_pool(const struct mr_config *config, const char *name)
{
    for (uint32_t i = 0; i < config->n_pools; i++)
        if (strcmp(config->pools[i].name, name) == 0)
            return &config->pools[i];
    return NULL;
}

static void free_listens(struct mr_listens *listens)
{
    for (uint32_t i = 0; i < listens->n; i++)
        mr_listen_config_fini(&listens->at[i]);
    free(listens->at);
}

static void free_pool(struct mr_pool_config *pool)
{
    free_listens(&pool->listens);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        mr_server_config_fini(&pool->servers.at[i]);
    free(pool->servers.at);
    free(pool->name);
    free(pool->redis_auth);
}

void mr_config_free(struct mr_config *config)
{
    if (config == NULL)
        return;
    for (uint32_t i = 0; i < config->n_pools; i++)
        free_pool(&config->pools[i]);
    for (uint32_t i = 0; i < config->n_warnings; i++)
        free(config->warnings[i]);
    free(config->pools);
    free(config->warnings);
    free(config->user);
    free(config->group);
    free(config->source);
    free(config->engine);
    free(config->worker_cpu_affinity);
    free(config->accept);
    free(config->pid_file);
    free(config->log_file);
    free(config->stats_addr);
    free_listens(&config->admin);
    free(config->admin_token);
    free(config);
}
