/* generation.c - one reading of the configuration and what belongs to it. */
#include "proc/generation.h"

#include "config/diff.h"
#include "core/clock.h"
#include "core/log.h"
#include "net/loop.h"
#include "proc/descriptors.h"
#include "proc/system.h"
#include "session/handover.h"
#include "upstream/health.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MBUF_HEADER 48u /* of twemproxy's chunks: what a key cannot use of them */

static size_t health_bytes(const struct mr_config *config)
{
    return (config->n_servers + 1) * sizeof(struct mr_health);
}

/* ---- loading ---- */

static enum mr_result choose_engine(struct mr_generation *g, const struct mr_options *options,
                                    struct mr_error *err)
{
    const char *setting = options->engine != NULL ? options->engine : g->config->engine;

    g->runtime.engine_auto = strcmp(setting, "auto") == 0;
    g->runtime.engine = mr_loop_choose_engine(setting, &g->engine_error);
    if (g->runtime.engine != NULL)
        return MR_OK;
    *err = g->engine_error;
    mr_error_prefix(err, "engine");
    return MR_ECONFIG;
}

enum mr_result mr_generation_load(struct mr_generation *g, const struct mr_options *options,
                                  const char *conf_file, struct mr_error *err)
{
    *g = (struct mr_generation){.number = 1};
    enum mr_result rc =
        mr_config_load(&g->config, conf_file, options->mbuf_size - MBUF_HEADER, err);

    if (rc == MR_OK)
        rc = mr_check_user(g->config->user, g->config->group, err);
    if (rc != MR_OK)
        mr_error_prefix(err, "conf");
    if (rc == MR_OK)
        rc = mr_choose_cpus(g->config->worker_cpu_affinity, &g->runtime.cpus, &g->runtime.n_cpus,
                            err);
    if (rc == MR_OK)
        rc = choose_engine(g, options, err);
    if (rc != MR_OK) {
        free(g->runtime.cpus);
        mr_config_free(g->config);
        g->config = NULL;
    }
    return rc;
}

void mr_generation_log_started(const struct mr_generation *g)
{
    mr_log(MR_LOG_NOTICE, "started workers=%u pools=%u servers=%u layout=%s clients_max=%llu",
           g->runtime.single ? 0 : g->runtime.n_slots, g->config->n_pools, g->config->n_servers,
           g->config->meitu ? "meitu" : "twemproxy",
           (unsigned long long)g->runtime.max_clients * g->runtime.n_slots);
}

/* ---- opening ---- */

static uint32_t worker_count(const struct mr_generation *g, const struct mr_options *options)
{
    const uint32_t configured = g->config->worker_processes;

    if (options->workers >= 0 && options->workers < MR_AUTO)
        return (uint32_t)options->workers;
    if (options->workers < 0 && configured != MR_AUTO)
        return configured;
    return mr_usable_cpus();
}

/* A server's host and port, and where its address is. */
struct place {
    const char *host;
    uint16_t port;
    uint32_t index;
};

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    return x->port != y->port ? (x->port < y->port ? -1 : 1) : strcmp(x->host, y->host);
}

/* Those of all servers that have a host, sorted; returned owned. */
static struct place *places_of(const struct mr_config *config, uint32_t *n)
{
    struct place *places = calloc(config->n_servers + 1, sizeof(*places));

    MR_CHECK(places != NULL);
    *n = 0;
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (uint32_t i = 0; i < config->pools[p].servers.n; i++) {
            const struct mr_server_config *s = &config->pools[p].servers.at[i];
            if (s->host != NULL)
                places[(*n)++] =
                    (struct place){s->host, s->port, config->pools[p].first_server + i};
        }
    qsort(places, *n, sizeof(*places), by_place);
    return places;
}

/* Names that were resolved need not be waited for again. */
static void keep_addresses(struct mr_generation *g, const struct mr_generation *previous)
{
    uint32_t n, n_old;
    struct place *places = places_of(g->config, &n), *old = places_of(previous->config, &n_old);

    for (uint32_t i = 0; i < n; i++) {
        const struct place *known = bsearch(&places[i], old, n_old, sizeof(*old), by_place);
        if (known != NULL)
            g->runtime.addresses[places[i].index] = previous->runtime.addresses[known->index];
    }
    free(places);
    free(old);
}

static enum mr_result open_slots(struct mr_generation *g, const struct mr_generation *previous,
                                 struct mr_error *err)
{
    struct mr_runtime *rt = &g->runtime;
    const uint32_t n_pools = g->config->n_pools, n_servers = g->config->n_servers;
    enum mr_result rc = MR_OK;

    rt->config = g->config;
    rt->generation = g->number;
    rt->accepts_shared = mr_listeners_shared(g->config);
    rt->started_us = previous != NULL ? previous->runtime.started_us : mr_clock_wall_us();
    rt->addresses = calloc(n_servers + 1, sizeof(*rt->addresses));
    rt->slots = calloc(rt->n_slots, sizeof(*rt->slots));
    rt->bases = calloc(rt->n_slots, sizeof(*rt->bases));
    rt->held = calloc(n_pools, sizeof(*rt->held));
    MR_CHECK(rt->addresses != NULL && rt->slots != NULL && rt->bases != NULL && rt->held != NULL);
    for (uint32_t i = 0; i < rt->n_slots && rc == MR_OK; i++) {
        rc = mr_metrics_open(&rt->slots[i], n_pools, n_servers, err);
        if (rc == MR_OK)
            rc = mr_metrics_open(&rt->bases[i], n_pools, n_servers, err);
    }
    if (rc == MR_OK && previous != NULL)
        keep_addresses(g, previous);
    return rc;
}

/* Zeroed memory that all processes of the generation write. */
static enum mr_result share(void *out, size_t bytes, struct mr_error *err)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        return mr_fail_sys(err, "%zu bytes of memory for all workers", bytes);
    memcpy(out, &at, sizeof(at));
    return MR_OK;
}

static enum mr_result open_turnstile(struct mr_generation *g, struct mr_error *err)
{
    if (strcmp(g->config->accept, "mutex") != 0)
        return MR_OK;
    return share(&g->runtime.accept_holder, sizeof(*g->runtime.accept_holder), err);
}

static enum mr_result share_reloads(struct mr_generation *g, const struct mr_generation *previous,
                                    struct mr_error *err)
{
    struct mr_runtime *rt = &g->runtime;

    if (previous != NULL && previous->runtime.reloads != NULL) {
        rt->reloads = previous->runtime.reloads;
        return MR_OK;
    }
    /* for as long as this program runs */
    return share(&rt->reloads, sizeof(*rt->reloads), err);
}

/* What probes have found of servers that stay: roles above all, so that writes find the master. */
static void keep_health(struct mr_generation *g, const struct mr_generation *previous)
{
    for (uint32_t p = 0; p < g->config->n_pools; p++) {
        const struct mr_pool_config *pool = &g->config->pools[p];
        const struct mr_pool_config *old = mr_config_pool(previous->config, pool->name);
        for (uint32_t i = 0; i < pool->servers.n && old != NULL; i++) {
            const struct mr_server_config *s = mr_config_server(old, pool->servers.at[i].name);
            if (s == NULL || strcmp(s->text, pool->servers.at[i].text) != 0)
                continue;
            struct mr_health *h = &g->runtime.health[pool->first_server + i];
            *h = previous->runtime.health[old->first_server + (s - old->servers.at)];
            h->prober = h->probe_us = h->failures = h->strikes = h->retry_us = 0;
        }
    }
}

enum mr_result mr_generation_share_health(struct mr_generation *g, struct mr_error *err)
{
    return share(&g->runtime.health, health_bytes(g->config), err);
}

/* Ways for connections from worker to worker. */
static enum mr_result open_balance(struct mr_generation *g, struct mr_error *err)
{
    struct mr_runtime *rt = &g->runtime;
    const size_t bytes = rt->n_slots * sizeof(int);

    if (rt->n_slots < 2 || !g->config->accept_balance)
        return MR_OK;
    rt->balance_in = malloc(bytes);
    rt->balance_out = malloc(bytes);
    MR_CHECK(rt->balance_in != NULL && rt->balance_out != NULL);
    memset(rt->balance_in, 0xff, bytes);
    memset(rt->balance_out, 0xff, bytes);
    for (uint32_t i = 0; i < rt->n_slots; i++) {
        int ends[2];
        const enum mr_result rc = mr_handover_open(ends, err);
        if (rc != MR_OK)
            return rc;
        rt->balance_in[i] = ends[0];
        rt->balance_out[i] = ends[1];
    }
    return MR_OK;
}

static bool moves_keys(const struct mr_pool_config *pool, const struct mr_config *before)
{
    const struct mr_pool_config *old = mr_config_pool(before, pool->name);

    return old != NULL &&
           mr_config_moves_keys(pool, old); /* else nobody wrote through another map */
}

enum mr_result mr_generation_open(struct mr_generation *g, const struct mr_options *options,
                                  const struct mr_generation *previous, struct mr_error *err)
{
    const struct mr_listeners *before = previous != NULL ? &previous->listeners : NULL;
    const uint32_t workers = worker_count(g, options);
    enum mr_result rc;

    if (previous != NULL)
        g->number = previous->number + 1;
    if (previous != NULL && mr_listeners_shared(g->config) != mr_listeners_shared(previous->config))
        return mr_fail(err, MR_ECONFIG, "a reload cannot change `accept`; restart for that");
    if (previous != NULL && workers == 0)
        return mr_fail(err, MR_ECONFIG,
                       "a reload cannot change to a single process "
                       "(worker_processes: 0); restart for that");
    g->runtime.single = workers == 0;
    g->runtime.n_slots = workers == 0 ? 1 : workers;
    if ((rc = mr_divide_descriptors(g, previous, err)) != MR_OK ||
        (rc = open_slots(g, previous, err)) != MR_OK ||
        (rc = share_reloads(g, previous, err)) != MR_OK ||
        (rc = mr_generation_share_health(g, err)) != MR_OK ||
        (rc = open_turnstile(g, err)) != MR_OK || (rc = open_balance(g, err)) != MR_OK)
        return rc;
    if (previous != NULL)
        keep_health(g, previous);
    if ((rc = mr_ports_open(&g->ports, g->config, options,
                            previous != NULL ? &previous->ports : NULL, err)) != MR_OK ||
        (rc = mr_listeners_open(&g->listeners, g->config, g->runtime.n_slots, before, err)) !=
            MR_OK)
        return rc;
    g->runtime.port_fds = g->ports.fds;
    g->runtime.n_ports = g->ports.n;
    for (uint32_t i = 0; previous != NULL && i < g->config->n_pools; i++)
        g->runtime.held[i] = moves_keys(&g->config->pools[i], previous->config);
    return MR_OK;
}

static void close_ways(int *ways, uint32_t n)
{
    for (uint32_t i = 0; i < n && ways != NULL; i++)
        if (ways[i] >= 0)
            (void)close(ways[i]);
    free(ways);
}

static void close_runtime(struct mr_runtime *rt)
{
    for (uint32_t i = 0; i < rt->n_slots && rt->slots != NULL; i++) {
        if (rt->slots[i].head != NULL)
            mr_metrics_close(&rt->slots[i]);
        if (rt->bases[i].head != NULL)
            mr_metrics_close(&rt->bases[i]);
    }
    if (rt->health != NULL)
        (void)munmap(rt->health, health_bytes(rt->config));
    if (rt->accept_holder != NULL)
        (void)munmap(rt->accept_holder, sizeof(*rt->accept_holder));
    close_ways(rt->balance_in, rt->n_slots);
    close_ways(rt->balance_out, rt->n_slots);
    free(rt->slots);
    free(rt->bases);
    free(rt->held);
    free(rt->cpus);
    free(rt->addresses);
}

void mr_generation_close(struct mr_generation *g, const struct mr_generation *heir)
{
    struct mr_runtime *rt = &g->runtime;

    if (g->listeners.fds != NULL)
        mr_listeners_close(&g->listeners, heir != NULL ? &heir->listeners : NULL);
    mr_ports_close(&g->ports, heir != NULL ? &heir->ports : NULL);
    close_runtime(rt);
    mr_config_free(g->config);
    *g = (struct mr_generation){0};
}

/* ---- two of them ---- */

/* Pools and servers are the same when their names are. */
static void add_pool(struct mr_metrics *to, const struct mr_config *config, uint32_t index,
                     const struct mr_metrics *from, const struct mr_config *before)
{
    const struct mr_pool_config *pool = &config->pools[index];
    const struct mr_pool_config *old = mr_config_pool(before, pool->name);

    if (old == NULL)
        return;
    mr_pool_metrics_add(&to->pools[index], &from->pools[old - before->pools]);
    for (uint32_t i = 0; i < pool->servers.n; i++) {
        const struct mr_server_config *s = mr_config_server(old, pool->servers.at[i].name);
        if (s != NULL)
            mr_server_metrics_add(&to->servers[pool->first_server + i],
                                  &from->servers[old->first_server + (s - old->servers.at)]);
    }
}

static void add_segment(struct mr_metrics *to, const struct mr_config *config,
                        const struct mr_metrics *from, const struct mr_config *before)
{
    to->head->deaths += from->head->deaths;
    mr_metrics_add((uint64_t *)&to->head->process, (const uint64_t *)&from->head->process,
                   MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
    for (uint32_t i = 0; i < config->n_pools; i++)
        add_pool(to, config, i, from, before);
}

void mr_generation_inherit_counters(struct mr_generation *g, const struct mr_generation *previous)
{
    struct mr_runtime *rt = &g->runtime;
    const struct mr_runtime *old = &previous->runtime;
    struct mr_metrics sum;

    mr_metrics_init(&sum, g->config->n_pools, g->config->n_servers);
    for (uint32_t i = 0; i < rt->n_slots; i++) {
        mr_metrics_clear(&sum);
        for (uint32_t j = i; j < old->n_slots; j += rt->n_slots) {
            add_segment(&sum, g->config, &old->slots[j], previous->config);
            add_segment(&sum, g->config, &old->bases[j], previous->config);
        }
        mr_metrics_reset_gauges(&sum); /* what was open is counted where it is now */
        mr_metrics_copy(&rt->bases[i], &sum);
    }
    mr_metrics_fini(&sum);
}
