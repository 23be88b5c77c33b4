/* json.c - statistics as JSON, summed over the workers or per worker. */
#include "admin/json.h"

#include "admin/sums.h"
#include "core/clock.h"
#include "core/version.h"
#include "upstream/health.h"
#include "upstream/topology.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(json_t *object, const char *key, json_t *value)
{
    MR_CHECK(json_object_set_new(object, key, value) == 0);
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)v);
}

/* Paths, host names and truncated sentences may not be UTF-8: their bytes above ASCII become `?`.
 */
static json_t *sanitized(const char *bytes)
{
    json_t *value = json_string(bytes);

    if (value != NULL)
        return value;
    char *ascii = strdup(bytes);
    MR_CHECK(ascii != NULL);
    for (char *c = ascii; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    value = json_string(ascii);
    free(ascii);
    return value;
}

/* Names and fields share an object. A name equal to a field is prefixed with its kind. */
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

static json_t *server_object(const struct mr_sums *s, uint32_t index)
{
    struct mr_server_metrics sum;
    json_t *object = json_object();

    mr_sum_server(s, index, &sum);
    put_metrics(object, (const uint64_t *)&sum, MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
    if (s->runtime->config->meitu)
        put(object, "server_latency", latency(&sum.server_latency));
    return object;
}

static json_t *pool_object(const struct mr_sums *s, uint32_t pool)
{
    const struct mr_config *config = s->runtime->config;
    struct mr_pool_metrics sum;
    json_t *object = json_object();
    json_t *servers = object;

    mr_sum_pool(s, pool, &sum);
    put_metrics(object, (const uint64_t *)&sum, MR_POOL_METRICS, MR_POOL_METRIC_COMMON);
    if (config->meitu) {
        put(object, "request_latency", latency(&sum.request_latency));
        servers = json_object();
    }
    for (uint32_t i = 0; i < config->pools[pool].servers.n; i++) {
        const char *name = mr_shown_server(s->runtime, &config->pools[pool], i);
        if (name != NULL)
            put_named(servers, "server", name,
                      server_object(s, config->pools[pool].first_server + i));
    }
    if (config->meitu)
        put(object, "servers", servers);
    return object;
}

static void put_process(json_t *object, const struct mr_sums *s)
{
    const struct mr_runtime *rt = s->runtime;
    struct mr_process_metrics sum;
    const uint64_t now = mr_clock_wall_us();
    char host[256] = "unknown";

    (void)gethostname(host, sizeof(host) - 1);
    mr_sum_process(s, &sum);
    put(object, "service", json_string("nutcracker")); /* collectors expect this name */
    put(object, "source", sanitized(host));
    put(object, "version", json_string(MR_VERSION));
    put(object, "uptime", number((now - rt->started_us) / 1000000u));
    put(object, "timestamp", number(now / 1000000u));
    if (rt->config->meitu)
        put(object, "pid", number(rt->slots[s->first].head->pid));
    if (rt->config->meitu && rt->slots[s->first].head->cpu_plus_1 > 0)
        put(object, "cpu", number(rt->slots[s->first].head->cpu_plus_1 - 1));
    put_metrics(object, (const uint64_t *)&sum, MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
}

static json_t *document(const struct mr_sums *s)
{
    const struct mr_config *config = s->runtime->config;
    json_t *object = json_object();
    json_t *pools = config->meitu ? json_object() : object;

    put_process(object, s);
    for (uint32_t i = 0; i < config->n_pools; i++)
        put_named(pools, "pool", config->pools[i].name, pool_object(s, i));
    if (config->meitu)
        put(object, "pools", pools);
    return object;
}

/* ---- our own format ---- */

static json_t *times(const struct mr_histogram *h)
{
    static const struct {
        const char *name;
        double q;
    } QUANTILES[] = {
        {"p50_us", 0.5}, {"p90_us", 0.9}, {"p99_us", 0.99}, {"p999_us", 0.999}, {"max_us", 1.0}};
    json_t *object = json_object();

    put(object, "count", number(mr_histogram_total(h)));
    put(object, "sum_us", number(h->sum_us));
    for (size_t i = 0; i < MR_COUNT(QUANTILES); i++)
        put(object, QUANTILES[i].name, number(mr_histogram_quantile(h, QUANTILES[i].q)));
    return object;
}

/* Each class separately, and all together. */
static json_t *classes(const struct mr_histogram times_of[MR_CLASSES])
{
    struct mr_histogram all = {0};
    json_t *object = json_object();

    for (unsigned c = 0; c < MR_CLASSES; c++) {
        mr_histogram_merge(&all, &times_of[c]);
        put(object, mr_class_name((enum mr_class)c), times(&times_of[c]));
    }
    put(object, "all", times(&all));
    return object;
}

/* As found by probes. */
static json_t *health(const struct mr_runtime *rt, const struct mr_pool_config *pool,
                      uint32_t server, uint32_t index)
{
    const struct mr_health *h = &rt->health[index];
    struct mr_health_metrics m;
    json_t *object = json_object();

    mr_read_health(rt, index, &m);
    put(object, "state", json_string(mr_health_state_name(h->state)));
    const struct mr_topology_ops *topology = mr_topology_of(pool);
    if (topology->configured_role != NULL) {
        put(object, "configured_role",
            json_string(mr_role_name(topology->configured_role(pool, server))));
    }
    if (topology->has_roles)
        put(object, "role", json_string(mr_role_name((enum mr_role)h->role)));
    put_metrics(object, (const uint64_t *)&m, MR_HEALTH_METRICS, MR_HEALTH_METRIC_COUNT);
    return object;
}

static json_t *own_server(const struct mr_sums *s, uint32_t pool, uint32_t server, uint32_t index)
{
    const struct mr_pool_config *of = &s->runtime->config->pools[pool];
    const struct mr_server_config *config = &of->servers.at[server];
    const char *name = mr_shown_server(s->runtime, of, server);
    struct mr_server_metrics sum;
    json_t *object = json_object();

    mr_sum_server(s, index, &sum);
    put(object, "name", sanitized(name));
    put(object, "address", sanitized(config->text[0] != '\0' ? config->text : name));
    put(object, "weight", number(config->weight));
    put_metrics(object, (const uint64_t *)&sum, MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
    put(object, "health", health(s->runtime, &s->runtime->config->pools[pool], server, index));
    put(object, "latency", classes(sum.server_times));
    return object;
}

static void put_discovery(json_t *object, const struct mr_runtime *rt, uint32_t pool)
{
    struct mr_discovery_metrics m;
    json_t *discovery;

    if (!mr_read_discovery(rt, pool, &m))
        return;
    discovery = json_object();
    put_metrics(discovery, (const uint64_t *)&m, MR_DISCOVERY_METRICS, MR_DISCOVERY_METRIC_COUNT);
    put(object, "discovery", discovery);
}

static json_t *own_pool(const struct mr_sums *s, uint32_t pool)
{
    const struct mr_pool_config *config = &s->runtime->config->pools[pool];
    struct mr_pool_metrics sum;
    json_t *object = json_object(), *servers = json_array(), *listens = json_array();

    mr_sum_pool(s, pool, &sum);
    put(object, "name", sanitized(config->name));
    put(object, "protocol", json_string(config->protocol->name));
    for (uint32_t i = 0; i < config->listens.n; i++)
        MR_CHECK(json_array_append_new(listens, sanitized(config->listens.at[i].text)) == 0);
    put(object, "topology", json_string(mr_topology_of(config)->name));
    put(object, "listen", listens);
    put_metrics(object, (const uint64_t *)&sum, MR_POOL_METRICS, MR_POOL_METRIC_COUNT);
    put(object, "latency", classes(sum.request_times));
    for (uint32_t i = 0; i < config->servers.n; i++)
        if (mr_shown_server(s->runtime, config, i) != NULL)
            MR_CHECK(json_array_append_new(servers,
                                           own_server(s, pool, i, config->first_server + i)) == 0);
    put_discovery(object, s->runtime, pool);
    put(object, "servers", servers);
    return object;
}

static json_t *own_worker(const struct mr_runtime *rt, uint32_t slot)
{
    const struct mr_metrics_head *head = rt->slots[slot].head;
    struct mr_worker_metrics m;
    json_t *object = json_object();

    mr_read_worker(rt, slot, &m);
    put(object, "worker", number(slot));
    put(object, "pid", number(head->pid));
    put(object, "state", json_string(mr_slot_state_name(head->state)));
    put_metrics(object, (const uint64_t *)&m, MR_WORKER_METRICS, MR_WORKER_METRIC_COUNT);
    put(object, "cpu", head->cpu_plus_1 > 0 ? number(head->cpu_plus_1 - 1) : json_null());
    return object;
}

char *mr_stats_json_own(const struct mr_runtime *rt)
{
    const struct mr_sums all = {rt, 0, rt->n_slots};
    json_t *root = json_object(), *workers = json_array(), *pools = json_array();
    struct mr_process_metrics sum;
    struct mr_proxy_metrics proxy;
    const uint64_t now = mr_clock_wall_us();

    mr_sum_process(&all, &sum);
    put(root, "service", json_string("millrace"));
    put(root, "version", json_string(MR_VERSION));
    put(root, "engine", json_string(rt->engine));
    put(root, "timestamp", number(now / 1000000u));
    put(root, "uptime", number((now - rt->started_us) / 1000000u));
    mr_read_proxy(rt, &proxy);
    put_metrics(root, (const uint64_t *)&proxy, MR_PROXY_METRICS, MR_PROXY_METRIC_COUNT);
    put(root, "last_reload_failure",
        proxy.reload_failures > 0 ? sanitized(rt->reloads->reason) : json_null());
    put(root, "last_reload_failure_at",
        proxy.reload_failures > 0 ? number(rt->reloads->failed_at_us) : json_null());
    put_metrics(root, (const uint64_t *)&sum, MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
    for (uint32_t i = 0; i < rt->n_slots; i++)
        MR_CHECK(json_array_append_new(workers, own_worker(rt, i)) == 0);
    put(root, "workers", workers);
    for (uint32_t i = 0; i < rt->config->n_pools; i++)
        MR_CHECK(json_array_append_new(pools, own_pool(&all, i)) == 0);
    put(root, "pools", pools);
    char *dumped = json_dumps(root, JSON_PRESERVE_ORDER | JSON_INDENT(1));
    MR_CHECK(dumped != NULL);
    json_decref(root);
    return dumped;
}

char *mr_stats_json(const struct mr_runtime *rt)
{
    const bool array = rt->config->meitu && !rt->single;
    json_t *root = array ? json_array() : document(&(struct mr_sums){rt, 0, rt->n_slots});
    char *text = NULL;

    for (uint32_t i = 0; array && i < rt->n_slots; i++)
        MR_CHECK(json_array_append_new(root, document(&(struct mr_sums){rt, i, 1})) == 0);
    /* compact: scripts search twemproxy's text for "name":value */
    char *dumped = json_dumps(root, JSON_PRESERVE_ORDER | JSON_COMPACT);
    MR_CHECK(dumped != NULL);
    MR_CHECK(asprintf(&text, "%s%s", dumped, array ? "" : "\n") >= 0);
    free(dumped);
    json_decref(root);
    return text;
}
