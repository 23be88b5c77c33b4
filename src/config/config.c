/* config.c - reads a file or text in either layout into a checked snapshot. */
#include "config/internal.h"

#include "config/value.h"
#include "route/ring.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES (16u << 20)

static void find(const struct mr_config_reader *r, bool error, struct mr_place at, const char *fmt,
                 va_list ap)
{
    char *sentence = NULL;

    MR_CHECK(vasprintf(&sentence, fmt, ap) >= 0);
    mr_findings_add(r->found, error, at, "%s:%u:%u: %s", r->path, at.line, at.column, sentence);
    free(sentence);
}

enum mr_result mr_config_fail(const struct mr_config_reader *r, struct mr_place at, const char *fmt,
                              ...)
{
    va_list ap;

    va_start(ap, fmt);
    find(r, true, at, fmt, ap);
    va_end(ap);
    return MR_ECONFIG;
}

void mr_config_warn(const struct mr_config_reader *r, struct mr_place at, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    find(r, false, at, fmt, ap);
    va_end(ap);
}

struct mr_place mr_config_place_of(const struct mr_yaml *map, const char *key)
{
    const struct mr_yaml *node = mr_yaml_get(map, key);

    return node != NULL ? node->at : map->at;
}

bool mr_config_sound(const struct mr_yaml *map, const char *const *keys)
{
    for (; *keys != NULL; keys++) {
        const struct mr_yaml *node = mr_yaml_get(map, *keys);
        if (node != NULL && node->bad)
            return false;
    }
    return true;
}

static void check_pool_name(const struct mr_config_reader *r, const struct mr_yaml *key)
{
    const size_t bytes = strlen(key->text);

    if (bytes == 0)
        (void)mr_config_fail(r, key->at, "a pool has an empty name");
    if (bytes > MR_NAME_BYTES)
        (void)mr_config_fail(r, key->at, "a pool's name has %zu bytes; at most %u are allowed",
                             bytes, MR_NAME_BYTES);
    if (mr_value_has_control(key->text))
        (void)mr_config_fail(r, key->at, "a pool's name has a control character");
}

static void set_pool_defaults(const struct mr_config_reader *r, struct mr_pool_config *pool)
{
    mr_config_set_defaults(r, MR_KEY_POOL, pool);
    if (r->config->meitu)
        MR_CHECK(mr_config_set_default(r, MR_KEY_POOL, "client_connections", "2048", pool) ==
                     MR_OK &&
                 mr_config_set_default(r, MR_KEY_POOL, "meitu_compat", "true", pool) == MR_OK);
}

static void check_needed(const struct mr_config_reader *r, const struct mr_yaml *node,
                         const struct mr_pool_config *pool)
{
    const bool sentinels = node->kind == MR_YAML_MAP && mr_yaml_get(node, "sentinels") != NULL;
    const char *const NEEDED[] = {"listen", sentinels ? "master_name" : "servers"};
    static const char *const CONNECTIONS[] = {"client_connections", NULL};

    for (size_t i = 0; i < MR_COUNT(NEEDED) && node->kind == MR_YAML_MAP; i++)
        if (mr_yaml_get(node, NEEDED[i]) == NULL)
            (void)mr_config_fail(r, node->at, "pool '%s': directive \"%s:\" is missing", pool->name,
                                 NEEDED[i]);
    if (sentinels && mr_yaml_get(node, "servers") != NULL)
        (void)mr_config_fail(r, mr_config_place_of(node, "servers"),
                             "pool '%s': \"servers\" and \"sentinels\" contradict each other",
                             pool->name);
    if (r->config->meitu && pool->client_connections == 0 && mr_config_sound(node, CONNECTIONS))
        (void)mr_config_fail(r, mr_config_place_of(node, "client_connections"),
                             "directive \"client_connections\" cannot be 0");
}

static struct mr_proto_options options_of(const struct mr_pool_config *pool, uint32_t max_key_bytes)
{
    return (struct mr_proto_options){
        .auth = pool->redis_auth,
        .db = pool->redis_db,
        .databases = pool->redis && pool->topology != MR_CLUSTER ? pool->databases : 0,
        .max_request_bytes = pool->max_request_bytes,
        .max_key_bytes = max_key_bytes,
        .max_item_bytes = pool->max_item_bytes,
        .allow_flush = pool->allow_flush_all,
        .lone = pool->servers.n == 1 || pool->master_names.n == 1,
        .failure_is_miss = pool->on_server_failure == MR_FAILURE_MISS,
        .present_as = pool->present_as,
        .announced = pool->announced.at,
        .n_announced = pool->announced.n,
        .master_name = pool->announced_name != NULL ? pool->announced_name : pool->name,
        .slot_of = mr_hash_slot,
        .unknown_by_key = pool->unknown_commands == MR_UNKNOWN_BY_KEY,
        .commands = pool->commands.at,
        .n_commands = pool->commands.n,
        .replicated = pool->topology == MR_REPLICATED,
        .relays = pool->topology == MR_CLUSTER,
        .replicas_of_slots = pool->topology == MR_CLUSTER && pool->read_from != MR_READ_MASTER,
        .meitu_reads = pool->meitu_compat};
}

static void read_pool(const struct mr_config_reader *r, const struct mr_yaml *node,
                      uint32_t max_key_bytes)
{
    struct mr_config *config = r->config;
    struct mr_pool_config *pool = &config->pools[config->n_pools++];

    check_pool_name(r, node->key);
    pool->name = strdup(node->key->text);
    MR_CHECK(pool->name != NULL);
    pool->place = node->key->at;
    set_pool_defaults(r, pool);
    pool->says_topology = mr_yaml_get(node, "topology") != NULL;
    if (!pool->says_topology && mr_yaml_get(node, "sentinels") != NULL)
        pool->topology = MR_SENTINEL;
    pool->says_read_from = mr_yaml_get(node, "read_from") != NULL;
    mr_config_read_section(r, MR_KEY_POOL, node, pool);
    check_needed(r, node, pool);
    mr_config_check_protocol(r, node, pool);
    if (pool->servers.n > 0)
        mr_config_check_servers(r, node, pool);
    pool->options = options_of(pool, max_key_bytes);
    pool->sentinel_options = pool->options;
    pool->sentinel_options.auth = pool->sentinel_auth;
    pool->sentinel_options.db = pool->sentinel_options.databases = 0;
    config->n_servers += pool->servers.n;
}

/* A mapping with `listen` or `servers` is a pool, whatever its name. */
static bool is_pool(const struct mr_yaml *node)
{
    return node->kind == MR_YAML_MAP &&
           (mr_yaml_get(node, "listen") != NULL || mr_yaml_get(node, "servers") != NULL);
}

static void read_pools(const struct mr_config_reader *r, const struct mr_yaml *map,
                       const struct mr_yaml *skip, uint32_t max_key_bytes)
{
    if (map->kind != MR_YAML_MAP) {
        (void)mr_config_fail(r, map->at, "pools must be a mapping of names to directives");
        return;
    }
    mr_config_check_duplicates(r, map);
    r->config->pools = calloc(map->n + 1, sizeof(*r->config->pools));
    MR_CHECK(r->config->pools != NULL);
    for (uint32_t i = 0; i < map->n; i++)
        if (map->children[i] != skip && !map->children[i]->bad)
            read_pool(r, map->children[i], max_key_bytes);
    if (r->config->n_pools == 0)
        (void)mr_config_fail(r, map->at, "there are no pools");
    mr_config_check_pools(r);
}

static void set_global_defaults(const struct mr_config_reader *r)
{
    mr_config_set_defaults(r, MR_KEY_GLOBAL, r->config);
    if (r->config->meitu)
        MR_CHECK(mr_config_set_default(r, MR_KEY_GLOBAL, "worker_processes", "0", r->config) ==
                     MR_OK &&
                 mr_config_set_default(r, MR_KEY_GLOBAL, "user", "nobody", r->config) == MR_OK);
}

static void read_root(const struct mr_config_reader *r, const struct mr_yaml *root,
                      uint32_t max_key_bytes)
{
    struct mr_config *config = r->config;

    if (root->kind != MR_YAML_MAP) {
        (void)mr_config_fail(r, root->at,
                             "a configuration is a mapping of pool names to directives");
        return;
    }
    const struct mr_yaml *global = mr_yaml_get(root, "global");
    const struct mr_yaml *pools = mr_yaml_get(root, "pools");
    if (global != NULL && is_pool(global))
        global = NULL;
    if (pools != NULL && is_pool(pools))
        pools = NULL;
    config->meitu = pools != NULL;
    set_global_defaults(r);
    if (global != NULL)
        mr_config_read_section(r, MR_KEY_GLOBAL, global, config);
    for (uint32_t i = 0; config->meitu && i < root->n; i++)
        if (root->children[i] != global && root->children[i] != pools)
            (void)mr_config_fail(
                r, root->children[i]->key->at,
                "unknown section \"%s\"; only \"global:\" is allowed beside \"pools:\"",
                root->children[i]->key->text);
    if (config->meitu)
        read_pools(r, pools, NULL, max_key_bytes);
    else
        read_pools(r, root, global, max_key_bytes);
}

static char *copy_text(struct mr_slice text)
{
    char *copy = malloc(text.len + 1);

    MR_CHECK(copy != NULL);
    memcpy(copy, text.at, text.len);
    copy[text.len] = '\0';
    return copy;
}

/* Returned owned; usable only if no error was found. */
static struct mr_config *read_text(const char *path, struct mr_slice text, uint32_t max_key_bytes,
                                   struct mr_findings *found)
{
    struct mr_config *config = calloc(1, sizeof(*config));
    const struct mr_config_reader r = {config, path, found};
    struct mr_yaml *root;
    struct mr_place where;
    struct mr_error why;

    MR_CHECK(config != NULL);
    if (mr_yaml_parse(&root, text, &where, &why) != MR_OK) {
        (void)mr_config_fail(&r, where, "%s", why.text);
        return config;
    }
    read_root(&r, root, max_key_bytes);
    mr_yaml_free(root);
    config->source = copy_text(text);
    return config;
}

enum mr_result mr_config_parse(struct mr_config **out, const char *path, struct mr_slice text,
                               uint32_t max_key_bytes, struct mr_findings *found,
                               struct mr_error *err)
{
    struct mr_findings here = {0};
    struct mr_config *config = read_text(path, text, max_key_bytes, &here);
    const bool good = here.n_errors == 0;

    mr_findings_sort(&here);
    if (good) {
        *out = config;
    } else {
        (void)mr_fail(err, MR_ECONFIG, "%s", mr_findings_first_error(&here));
        mr_config_free(config);
    }
    if (found != NULL)
        mr_findings_move(found, &here);
    mr_findings_fini(&here);
    return good ? MR_OK : MR_ECONFIG;
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
                              struct mr_findings *found, struct mr_error *err)
{
    char *text = NULL;
    size_t len = 0;
    enum mr_result rc = read_file(path, &text, &len, err);

    if (rc != MR_OK)
        return rc;
    rc = mr_config_parse(out, path, (struct mr_slice){text, len}, max_key_bytes, found, err);
    free(text);
    return rc;
}
