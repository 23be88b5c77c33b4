/* prometheus.c - the metrics in the text format of Prometheus. */
#include "admin/prometheus.h"

#include "admin/sums.h"
#include "core/clock.h"
#include "core/version.h"
#include "upstream/health.h"

#include <stdio.h>
#include <stdlib.h>

/* Bounds of the histograms shown: powers of two, which are bounds of ours too. */
#define FIRST_BOUND 4  /* 2^4 = 16 us */
#define LAST_BOUND  25 /* 2^25 us = 33.6 s */

struct writer {
    FILE *out;
    const struct mr_runtime *rt;
    struct mr_sums all; /* every slot */
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

/* pool="...", and server="..." where there is one. */
static void labels(const struct writer *w, const struct mr_pool_config *pool, int server)
{
    (void)fputs("pool=", w->out);
    quoted(w, pool->name);
    if (server >= 0) {
        (void)fputs(",server=", w->out);
        quoted(w, pool->servers.at[server].name);
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
    const bool seconds = d->unit == MR_METRIC_MICROSECONDS;

    head(w, d->prometheus, d->kind == MR_METRIC_COUNTER ? "counter" : "gauge",
         seconds ? "when the server was last ejected, seconds since 1970" : d->help);
}

static void process(const struct writer *w)
{
    struct mr_process_metrics sum;

    mr_sum_process(&w->all, &sum);
    for (size_t i = 0; i < MR_PROCESS_METRIC_COUNT; i++) {
        describe(w, &MR_PROCESS_METRICS[i]);
        (void)fprintf(w->out, "millrace_%s", MR_PROCESS_METRICS[i].prometheus);
        value(w, &MR_PROCESS_METRICS[i], ((const uint64_t *)&sum)[i]);
    }
}

static void pools(const struct writer *w)
{
    for (size_t i = 0; i < MR_POOL_METRIC_COUNT; i++) {
        describe(w, &MR_POOL_METRICS[i]);
        for (uint32_t p = 0; p < w->rt->config->n_pools; p++) {
            (void)fprintf(w->out, "millrace_%s{", MR_POOL_METRICS[i].prometheus);
            labels(w, &w->rt->config->pools[p], -1);
            (void)fputc('}', w->out);
            value(w, &MR_POOL_METRICS[i], ((const uint64_t *)&w->pools[p])[i]);
        }
    }
}

static void servers(const struct writer *w)
{
    for (size_t i = 0; i < MR_SERVER_METRIC_COUNT; i++) {
        uint32_t index = 0;
        describe(w, &MR_SERVER_METRICS[i]);
        for (uint32_t p = 0; p < w->rt->config->n_pools; p++)
            for (uint32_t s = 0; s < w->rt->config->pools[p].servers.n; s++) {
                (void)fprintf(w->out, "millrace_%s{", MR_SERVER_METRICS[i].prometheus);
                labels(w, &w->rt->config->pools[p], (int)s);
                (void)fputc('}', w->out);
                value(w, &MR_SERVER_METRICS[i], ((const uint64_t *)&w->servers[index++])[i]);
            }
    }
}

/* What probes have found: one line for each server, from a number in its health. */
static void probed(const struct writer *w, const char *name, const char *help,
                   double (*read)(const struct mr_health *h), bool replicated_only)
{
    const struct mr_config *config = w->rt->config;
    uint32_t index = 0;

    head(w, name, "gauge", help);
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (uint32_t s = 0; s < config->pools[p].servers.n; s++, index++) {
            const struct mr_health *h = &w->rt->health[index];
            if (h->state == MR_HEALTH_UNKNOWN ||
                (replicated_only && config->pools[p].topology != MR_REPLICATED))
                continue; /* nothing was found */
            (void)fprintf(w->out, "millrace_%s{", name);
            labels(w, &config->pools[p], (int)s);
            (void)fprintf(w->out, "} %.6f\n", read(h));
        }
}

static double is_up(const struct mr_health *h)
{
    return h->state == MR_HEALTH_UP;
}

static double is_master(const struct mr_health *h)
{
    return h->role == MR_ROLE_MASTER;
}

static double lag(const struct mr_health *h)
{
    return (double)h->lag_us / 1e6;
}

static double rtt(const struct mr_health *h)
{
    return (double)h->rtt_us / 1e6;
}

static void healths(const struct writer *w)
{
    probed(w, "server_up", "1 when the last probe was answered", is_up, false);
    probed(w, "server_probe_duration_seconds", "time that probes take, smoothed", rtt, false);
    probed(w, "server_master", "1 when the server says that it is a master", is_master, true);
    probed(w, "server_replica_lag_seconds", "how far a replica is behind, at least", lag, true);
}

/* Whole microseconds are rounded down, so what is below a power of two is below it in truth. */
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
                  mr_histogram_sum_us(h) / 1e6, name);
    labels(w, pool, server);
    (void)fprintf(w->out, ",class=\"%s\"} %llu\n", mr_class_name(class), (unsigned long long)total);
}

static void latencies(const struct writer *w)
{
    const struct mr_config *config = w->rt->config;
    uint32_t index = 0;

    head(w, "request_duration_seconds", "histogram",
         "from a request that was parsed to its reply written");
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (unsigned c = 0; c < MR_CLASSES; c++)
            histogram(w, "request_duration_seconds", &config->pools[p], -1, (enum mr_class)c,
                      &w->pools[p].request_times[c]);
    head(w, "server_duration_seconds", "histogram",
         "from a request queued for a server to its reply parsed");
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (uint32_t s = 0; s < config->pools[p].servers.n; s++, index++)
            for (unsigned c = 0; c < MR_CLASSES; c++)
                histogram(w, "server_duration_seconds", &config->pools[p], (int)s, (enum mr_class)c,
                          &w->servers[index].server_times[c]);
}

static void workers(const struct writer *w)
{
    const struct mr_runtime *rt = w->rt;

    head(w, "worker_state", "gauge", "1 for the state that the worker is in");
    for (uint32_t i = 0; i < rt->n_slots; i++)
        for (unsigned s = 0; s < MR_SLOT_STATES; s++)
            (void)fprintf(w->out, "millrace_worker_state{worker=\"%u\",state=\"%s\"} %d\n", i,
                          mr_slot_state_name(s), rt->slots[i].head->state == s);
    head(w, "worker_clients", "gauge", "clients connected to the worker");
    for (uint32_t i = 0; i < rt->n_slots; i++)
        (void)fprintf(w->out, "millrace_worker_clients{worker=\"%u\"} %llu\n", i,
                      (unsigned long long)rt->slots[i].head->clients);
    head(w, "worker_deaths_total", "counter", "times that the worker ended unasked");
    for (uint32_t i = 0; i < rt->n_slots; i++)
        (void)fprintf(w->out, "millrace_worker_deaths_total{worker=\"%u\"} %llu\n", i,
                      (unsigned long long)mr_sum_deaths(rt, i));
}

static void about(const struct writer *w)
{
    const struct mr_runtime *rt = w->rt;

    head(w, "info", "gauge", "what runs");
    (void)fprintf(w->out, "millrace_info{version=\"%s\",engine=\"%s\"} 1\n", MR_VERSION,
                  rt->engine);
    head(w, "start_time_seconds", "gauge", "when the proxy was started, seconds since 1970");
    (void)fprintf(w->out, "millrace_start_time_seconds %.6f\n", (double)rt->started_us / 1e6);
    head(w, "config_generation", "gauge", "counts the configurations that were in force");
    (void)fprintf(w->out, "millrace_config_generation %u\n", rt->generation);
    head(w, "reloads_total", "counter", "reloads that succeeded");
    (void)fprintf(w->out, "millrace_reloads_total %llu\n", (unsigned long long)rt->reloads->done);
    head(w, "reload_failures_total", "counter", "reloads that changed nothing since they failed");
    (void)fprintf(w->out, "millrace_reload_failures_total %llu\n",
                  (unsigned long long)rt->reloads->failed);
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
    for (uint32_t i = 0; i < rt->config->n_servers; i++)
        mr_sum_server(&w.all, i, &w.servers[i]);
    about(&w);
    workers(&w);
    process(&w);
    pools(&w);
    servers(&w);
    healths(&w);
    latencies(&w);
    MR_CHECK(fclose(w.out) == 0);
    free(w.pools);
    free(w.servers);
    return text;
}
