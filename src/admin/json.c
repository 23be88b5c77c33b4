/* json.c - the statistics as JSON, summed over the workers or one object for each. */
#include "admin/json.h"

#include "core/clock.h"
#include "core/version.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The workers whose numbers make one object. */
struct source {
    const struct mr_runtime *rt;
    uint32_t first, n;
};

static void put(json_t *object, const char *key, json_t *value)
{
    MR_CHECK(json_object_set_new(object, key, value) == 0);
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)v);
}

/* Names stand beside fields: one that would hide a field is told apart by its kind. */
static void put_named(json_t *object, const char *kind, const char *name, json_t *value)
{
    char apart[300];

    if (json_object_get(object, name) != NULL) {
        (void)snprintf(apart, sizeof(apart), "%s:%s", kind, name);
        name = apart;
    }
    if (json_object_set(object, name, value) != 0) /* not UTF-8 */
        (void)json_object_set_nocheck(object, "?", value);
    json_decref(value);
}

static void put_metrics(json_t *object, const uint64_t *values, const struct mr_metric_desc *desc,
                        size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(object, desc[i].name, number(values[i]));
}

static json_t *latency(const struct mr_latency *l)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < MR_LATENCY_BUCKETS; i++)
        MR_CHECK(json_array_append_new(array, number(l->counts[i])) == 0);
    return array;
}

static json_t *server_object(const struct source *s, uint32_t index)
{
    struct mr_server_metrics sum = {0};
    json_t *object = json_object();

    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        mr_server_metrics_add(&sum, &s->rt->slots[i].servers[index]);
        mr_server_metrics_add(&sum, &s->rt->bases[i].servers[index]);
    }
    put_metrics(object, (const uint64_t *)&sum, MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
    if (s->rt->config->meitu)
        put(object, "server_latency", latency(&sum.server_latency));
    return object;
}

static json_t *pool_object(const struct source *s, uint32_t pool, uint32_t first_server)
{
    const struct mr_config *config = s->rt->config;
    struct mr_pool_metrics sum = {0};
    json_t *object = json_object();
    json_t *servers = object;

    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        mr_pool_metrics_add(&sum, &s->rt->slots[i].pools[pool]);
        mr_pool_metrics_add(&sum, &s->rt->bases[i].pools[pool]);
    }
    put_metrics(object, (const uint64_t *)&sum, MR_POOL_METRICS, MR_POOL_METRIC_COUNT);
    if (config->meitu) {
        put(object, "request_latency", latency(&sum.request_latency));
        servers = json_object();
    }
    for (uint32_t i = 0; i < config->pools[pool].servers.n; i++)
        put_named(servers, "server", config->pools[pool].servers.at[i].name,
                  server_object(s, first_server + i));
    if (config->meitu)
        put(object, "servers", servers);
    return object;
}

static void put_process(json_t *object, const struct source *s)
{
    const struct mr_runtime *rt = s->rt;
    struct mr_process_metrics sum = {0};
    const uint64_t now = mr_clock_wall_us();
    char host[256] = "unknown";

    (void)gethostname(host, sizeof(host) - 1);
    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        mr_metrics_add((uint64_t *)&sum, (const uint64_t *)&rt->slots[i].head->process,
                       MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
        mr_metrics_add((uint64_t *)&sum, (const uint64_t *)&rt->bases[i].head->process,
                       MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
    }
    put(object, "service", json_string("nutcracker")); /* collectors look for this name */
    put(object, "source", json_string(host));
    put(object, "version", json_string(MR_VERSION));
    put(object, "uptime", number((now - rt->started_us) / 1000000u));
    put(object, "timestamp", number(now / 1000000u));
    if (rt->config->meitu)
        put(object, "pid", number(rt->slots[s->first].head->pid));
    if (rt->config->meitu && rt->slots[s->first].head->cpu_plus_1 > 0)
        put(object, "cpu", number(rt->slots[s->first].head->cpu_plus_1 - 1));
    put_metrics(object, (const uint64_t *)&sum, MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
}

static json_t *document(const struct source *s)
{
    const struct mr_config *config = s->rt->config;
    json_t *object = json_object();
    json_t *pools = config->meitu ? json_object() : object;
    uint32_t server = 0;

    put_process(object, s);
    for (uint32_t i = 0; i < config->n_pools; i++) {
        put_named(pools, "pool", config->pools[i].name, pool_object(s, i, server));
        server += config->pools[i].servers.n;
    }
    if (config->meitu)
        put(object, "pools", pools);
    return object;
}

char *mr_stats_json(const struct mr_runtime *rt)
{
    const bool array = rt->config->meitu && !rt->single;
    json_t *root = array ? json_array() : document(&(struct source){rt, 0, rt->n_slots});
    char *text = NULL;

    for (uint32_t i = 0; array && i < rt->n_slots; i++)
        MR_CHECK(json_array_append_new(root, document(&(struct source){rt, i, 1})) == 0);
    /* compact: scripts cut twemproxy's text at "name":value */
    char *dumped = json_dumps(root, JSON_PRESERVE_ORDER | JSON_COMPACT);
    MR_CHECK(dumped != NULL);
    MR_CHECK(asprintf(&text, "%s%s", dumped, array ? "" : "\n") >= 0);
    free(dumped);
    json_decref(root);
    return text;
}
