/* config.c - from a file or text to a checked snapshot: the two layouts. */
#include "config/internal.h"

#include "config/value.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES (16u << 20)

enum mr_result mr_config_fail(const struct mr_config_reader *r, const struct mr_yaml *node,
                              const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(r->err->text, sizeof(r->err->text), fmt, ap);
    va_end(ap);
    r->err->sys = 0;
    mr_error_prefix(r->err, "%s:%u:%u", r->path, node->line, node->column);
    return MR_ECONFIG;
}

void mr_config_warn(struct mr_config *config, const char *fmt, ...)
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

static enum mr_result read_pool(const struct mr_config_reader *r, const struct mr_yaml *node,
                                uint32_t max_key_bytes)
{
    struct mr_config *config = r->config;
    struct mr_pool_config *pool = &config->pools[config->n_pools++];
    enum mr_result rc;

    const size_t name_bytes = strlen(node->key->text);
    if (name_bytes > MR_NAME_BYTES) {
        config->n_pools--;
        return mr_config_fail(r, node->key,
                              "a pool has a name of %zu bytes, at most %u are allowed", name_bytes,
                              MR_NAME_BYTES);
    }
    if (mr_value_has_control(node->key->text)) {
        config->n_pools--;
        return mr_config_fail(r, node->key, "a pool has a name with a control character");
    }
    pool->name = strdup(node->key->text);
    MR_CHECK(pool->name != NULL);
    mr_config_set_defaults(r, MR_KEY_POOL, pool);
    if (config->meitu)
        MR_CHECK(mr_config_set_default(r, MR_KEY_POOL, "client_connections", "2048", pool) ==
                     MR_OK &&
                 mr_config_set_default(r, MR_KEY_POOL, "meitu_compat", "true", pool) == MR_OK);
    pool->says_topology = mr_yaml_get(node, "topology") != NULL;
    rc = mr_config_read_section(r, MR_KEY_POOL, node, pool);
    if (rc != MR_OK)
        return rc;
    if (pool->name[0] == '\0')
        return mr_config_fail(r, node->key, "a pool has an empty name");
    if (pool->listens.n == 0)
        return mr_config_fail(r, node, "pool '%s': directive \"listen:\" is missing", pool->name);
    if (pool->servers.n == 0)
        return mr_config_fail(r, node, "pool '%s': directive \"servers:\" is missing", pool->name);
    if (config->meitu && pool->client_connections == 0)
        return mr_config_fail(r, mr_yaml_get(node, "client_connections"),
                              "directive \"client_connections\" cannot be 0");
    rc = mr_config_check_protocol(r, node, pool);
    if (rc == MR_OK)
        rc = mr_config_check_servers(r, mr_yaml_get(node, "servers"), pool);
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

static enum mr_result read_pools(const struct mr_config_reader *r, const struct mr_yaml *map,
                                 const struct mr_yaml *skip, uint32_t max_key_bytes)
{
    enum mr_result rc;

    if (map->kind != MR_YAML_MAP)
        return mr_config_fail(r, map, "pools must be a mapping of names to directives");
    rc = mr_config_check_duplicates(r, map);
    r->config->pools = calloc(map->n + 1, sizeof(*r->config->pools));
    MR_CHECK(r->config->pools != NULL);
    for (uint32_t i = 0; i < map->n && rc == MR_OK; i++)
        if (map->children[i] != skip)
            rc = read_pool(r, map->children[i], max_key_bytes);
    if (rc == MR_OK && r->config->n_pools == 0)
        rc = mr_config_fail(r, map, "there is no pool");
    return rc;
}

static enum mr_result read_root(const struct mr_config_reader *r, const struct mr_yaml *root,
                                uint32_t max_key_bytes)
{
    struct mr_config *config = r->config;
    enum mr_result rc;

    if (root->kind != MR_YAML_MAP)
        return mr_config_fail(r, root, "a configuration is a mapping of pool names to directives");
    const struct mr_yaml *global = mr_yaml_get(root, "global");
    const struct mr_yaml *pools = mr_yaml_get(root, "pools");
    if (global != NULL && is_pool(global))
        global = NULL;
    if (pools != NULL && is_pool(pools))
        pools = NULL;
    config->meitu = pools != NULL;
    mr_config_set_defaults(r, MR_KEY_GLOBAL, config);
    if (config->meitu) {
        MR_CHECK(mr_config_set_default(r, MR_KEY_GLOBAL, "worker_processes", "0", config) == MR_OK);
        MR_CHECK(mr_config_set_default(r, MR_KEY_GLOBAL, "user", "nobody", config) == MR_OK);
    }
    if (global != NULL && (rc = mr_config_read_section(r, MR_KEY_GLOBAL, global, config)) != MR_OK)
        return rc;
    for (uint32_t i = 0; config->meitu && i < root->n; i++)
        if (root->children[i] != global && root->children[i] != pools)
            return mr_config_fail(
                r, root->children[i]->key,
                "unknown section \"%s\"; with \"pools:\" only \"global:\" may stand "
                "beside it",
                root->children[i]->key->text);
    rc = config->meitu ? read_pools(r, pools, NULL, max_key_bytes)
                       : read_pools(r, root, global, max_key_bytes);
    return rc == MR_OK ? mr_config_check_pools(r, root) : rc;
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
    const struct mr_config_reader r = {config, path, err};
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
