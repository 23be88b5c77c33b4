/* prometheus.c - metrics in Prometheus's text format. */
#include "admin/prometheus.h"

#include "admin/sums.h"
#include "core/version.h"
#include "upstream/health.h"

#include <stdio.h>
#include <stdlib.h>

/* Histograms show bounds at powers of two, which are also bounds of ours. */
#define FIRST_BOUND 4  /* 2^4 = 16 us */
#define LAST_BOUND  25 /* 2^25 us = 33.6 s */

struct writer {
    FILE *out;
    const struct mr_runtime *rt;
    struct mr_sums all; /* all slots */
    struct mr_pool_metrics *pools;
    struct mr_server_metrics *servers;
};

static void head(const struct writer *w, const char *name, const char *type, const char *help)
{
    (void)fprintf(w->out, "# HELP millrace_%s %s\n# TYPE millrace_%s %s\n", name, help, name, type);
}

static void quoted(const struct writer *w, const char *text)
{
    (void)fputc('"', w->out);
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            (void)fputs("\\n", w->out);
        else if (*text == '"' || *text == '\\')
            (void)fprintf(w->out, "\\%c", *text);
        else
            (void)fputc(*text, w->out);
    }
    (void)fputc('"', w->out);
}

/* pool="...", and for a server also server="...". */
static void labels(const struct writer *w, const struct mr_pool_config *pool, int server)
{
    (void)fputs("pool=", w->out);
    quoted(w, pool->name);
    if (server >= 0) {
        (void)fputs(",server=", w->out);
        quoted(w, mr_shown_server(w->rt, pool, (uint32_t)server));
    }
}

static void value(const struct writer *w, const struct mr_metric_desc *d, uint64_t v)
{
    if (d->unit == MR_METRIC_MICROSECONDS)
        (void)fprintf(w->out, " %.6f\n", (double)v / 1e6);
    else
        (void)fprintf(w->out, " %llu\n", (unsigned long long)v);
}

static void describe(const struct writer *w, const struct mr_metric_desc *d)
{
    head(w, d->prometheus, d->kind == MR_METRIC_COUNTER ? "counter" : "gauge", d->help);
}

/* Metrics without labels. */
static void plain(const struct writer *w, const struct mr_metric_desc *desc, size_t n,
                  const uint64_t *values)
{
    for (size_t i = 0; i < n; i++) {
        describe(w, &desc[i]);
        (void)fprintf(w->out, "millrace_%s", desc[i].prometheus);
        value(w, &desc[i], values[i]);
    }
}

static void process(const struct writer *w)
{
    struct mr_proxy_metrics proxy;
    struct mr_process_metrics sum;

    head(w, "info", "gauge", "version and I/O engine");
    (void)fprintf(w->out, "millrace_info{version=\"%s\",engine=\"%s\"} 1\n", MR_VERSION,
                  w->rt->engine);
    mr_read_proxy(w->rt, &proxy);
    plain(w, MR_PROXY_METRICS, MR_PROXY_METRIC_COUNT, (const uint64_t *)&proxy);
    mr_sum_process(&w->all, &sum);
    plain(w, MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT, (const uint64_t *)&sum);
}

static void labelled(const struct writer *w, const struct mr_metric_desc *d,
                     const struct mr_pool_config *pool, int server, uint64_t v)
{
    (void)fprintf(w->out, "millrace_%s{", d->prometheus);
    labels(w, pool, server);
    (void)fputc('}', w->out);
    value(w, d, v);
}

static void pools(const struct writer *w)
{
    for (size_t i = 0; i < MR_POOL_METRIC_COUNT; i++) {
        describe(w, &MR_POOL_METRICS[i]);
        for (uint32_t p = 0; p < w->rt->config->n_pools; p++)
            labelled(w, &MR_POOL_METRICS[i], &w->rt->config->pools[p], -1,
                     ((const uint64_t *)&w->pools[p])[i]);
    }
}

static bool is_shown(const struct writer *w, uint32_t pool, uint32_t server)
{
    return mr_shown_server(w->rt, &w->rt->config->pools[pool], server) != NULL;
}

static void servers(const struct writer *w)
{
    for (size_t i = 0; i < MR_SERVER_METRIC_COUNT; i++) {
        describe(w, &MR_SERVER_METRICS[i]);
        for (uint32_t p = 0; p < w->rt->config->n_pools; p++)
            for (uint32_t s = 0; s < w->rt->config->pools[p].servers.n; s++)
                if (is_shown(w, p, s))
                    labelled(w, &MR_SERVER_METRICS[i], &w->rt->config->pools[p], (int)s,
                             ((const uint64_t *)&w
                                  ->servers[w->rt->config->pools[p].first_server + s])[i]);
    }
}

/* Servers that were probed, or that fail. */
static void healths(const struct writer *w)
{
    const struct mr_config *config = w->rt->config;
    struct mr_health_metrics m;

    for (size_t i = 0; i < MR_HEALTH_METRIC_COUNT; i++) {
        describe(w, &MR_HEALTH_METRICS[i]);
        for (uint32_t p = 0; p < config->n_pools; p++)
            for (uint32_t s = 0; s < config->pools[p].servers.n; s++) {
                const uint32_t index = config->pools[p].first_server + s;
                if (!is_shown(w, p, s))
                    continue;
                mr_read_health(w->rt, index, &m);
                if (w->rt->health[index].state != MR_HEALTH_UNKNOWN || m.failures > 0)
                    labelled(w, &MR_HEALTH_METRICS[i], &config->pools[p], (int)s,
                             ((const uint64_t *)&m)[i]);
            }
    }
}

/* Durations are truncated to microseconds, so those counted below a power of two really are. */
static void histogram(const struct writer *w, const char *name, const struct mr_pool_config *pool,
                      int server, enum mr_class class, const struct mr_histogram *h)
{
    const uint64_t total = mr_histogram_total(h);
    uint64_t below = 0;
    uint32_t i = 0;

    for (unsigned bound = FIRST_BOUND; bound <= LAST_BOUND; bound++) {
        for (; i < MR_HISTOGRAM_BUCKETS && mr_histogram_high(i) < UINT64_C(1) << bound; i++)
            below += h->counts[i];
        (void)fprintf(w->out, "millrace_%s_bucket{", name);
        labels(w, pool, server);
        (void)fprintf(w->out, ",class=\"%s\",le=\"%.6f\"} %llu\n", mr_class_name(class),
                      (double)(UINT64_C(1) << bound) / 1e6, (unsigned long long)below);
    }
    (void)fprintf(w->out, "millrace_%s_bucket{", name);
    labels(w, pool, server);
    (void)fprintf(w->out, ",class=\"%s\",le=\"+Inf\"} %llu\nmillrace_%s_sum{", mr_class_name(class),
                  (unsigned long long)total, name);
    labels(w, pool, server);
    (void)fprintf(w->out, ",class=\"%s\"} %.6f\nmillrace_%s_count{", mr_class_name(class),
                  (double)h->sum_us / 1e6, name);
    labels(w, pool, server);
    (void)fprintf(w->out, ",class=\"%s\"} %llu\n", mr_class_name(class), (unsigned long long)total);
}

static void latencies(const struct writer *w)
{
    const struct mr_config *config = w->rt->config;

    head(w, "request_duration_seconds", "histogram", "from request parsed to reply written");
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (unsigned c = 0; c < MR_CLASSES; c++)
            histogram(w, "request_duration_seconds", &config->pools[p], -1, (enum mr_class)c,
                      &w->pools[p].request_times[c]);
    head(w, "server_duration_seconds", "histogram",
         "from request queued for the server to reply parsed");
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (uint32_t s = 0; s < config->pools[p].servers.n; s++)
            for (unsigned c = 0; c < MR_CLASSES && is_shown(w, p, s); c++)
                histogram(w, "server_duration_seconds", &config->pools[p], (int)s, (enum mr_class)c,
                          &w->servers[config->pools[p].first_server + s].server_times[c]);
}

static void discoveries(const struct writer *w)
{
    const struct mr_config *config = w->rt->config;
    struct mr_discovery_metrics m;

    for (size_t i = 0; i < MR_DISCOVERY_METRIC_COUNT; i++) {
        describe(w, &MR_DISCOVERY_METRICS[i]);
        for (uint32_t p = 0; p < config->n_pools; p++)
            if (mr_read_discovery(w->rt, p, &m))
                labelled(w, &MR_DISCOVERY_METRICS[i], &config->pools[p], -1,
                         ((const uint64_t *)&m)[i]);
    }
}

static void workers(const struct writer *w)
{
    const struct mr_runtime *rt = w->rt;
    struct mr_worker_metrics m;

    for (size_t i = 0; i < MR_WORKER_METRIC_COUNT; i++) {
        describe(w, &MR_WORKER_METRICS[i]);
        for (uint32_t slot = 0; slot < rt->n_slots; slot++) {
            mr_read_worker(rt, slot, &m);
            (void)fprintf(w->out, "millrace_%s{worker=\"%u\"}", MR_WORKER_METRICS[i].prometheus,
                          slot);
            value(w, &MR_WORKER_METRICS[i], ((const uint64_t *)&m)[i]);
        }
    }
}

char *mr_prometheus_text(const struct mr_runtime *rt)
{
    struct writer w = {.rt = rt, .all = {rt, 0, rt->n_slots}};
    char *text = NULL;
    size_t len = 0;

    w.out = open_memstream(&text, &len);
    w.pools = malloc(rt->config->n_pools * sizeof(*w.pools));
    w.servers = malloc(rt->config->n_servers * sizeof(*w.servers));
    MR_CHECK(w.out != NULL && w.pools != NULL && w.servers != NULL);
    for (uint32_t i = 0; i < rt->config->n_pools; i++)
        mr_sum_pool(&w.all, i, &w.pools[i]);
    for (uint32_t p = 0; p < rt->config->n_pools; p++)
        for (uint32_t s = 0; s < rt->config->pools[p].servers.n; s++)
            if (is_shown(&w, p, s))
                mr_sum_server(&w.all, rt->config->pools[p].first_server + s,
                              &w.servers[rt->config->pools[p].first_server + s]);
    process(&w);
    workers(&w);
    pools(&w);
    servers(&w);
    healths(&w);
    discoveries(&w);
    latencies(&w);
    MR_CHECK(fclose(w.out) == 0);
    free(w.pools);
    free(w.servers);
    return text;
}
