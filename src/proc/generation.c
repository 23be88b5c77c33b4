/* generation.c - a configuration in use, with its sockets and shared memory. */
#include "proc/generation.h"

#include "config/diff.h"
#include "core/clock.h"
#include "core/log.h"
#include "net/loop.h"
#include "proc/descriptors.h"
#include "proc/system.h"
#include "session/handover.h"
#include "session/logins.h"
#include "upstream/health.h"
#include "upstream/hosts.h"
#include "upstream/map.h"
#include "upstream/topology.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MBUF_HEADER 48u /* part of twemproxy's mbuf that a key cannot use */

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

/* Checks the configuration against this machine. */
static void check_machine(struct mr_generation *g, const struct mr_options *options,
                          const char *conf_file)
{
    const struct mr_config *config = g->config;
    struct mr_error why[3];
    const enum mr_result rc[] = {
        mr_check_user(config->user, config->group, &why[0]),
        mr_choose_cpus(config->worker_cpu_affinity, &g->runtime.cpus, &g->runtime.n_cpus, &why[1]),
        choose_engine(g, options, &why[2])};

    for (size_t i = 0; i < MR_COUNT(rc); i++)
        if (rc[i] != MR_OK)
            mr_findings_add(&g->findings, true, (struct mr_place){0}, "%s: %s", conf_file,
                            why[i].text);
}

enum mr_result mr_generation_load(struct mr_generation *g, const struct mr_options *options,
                                  const char *conf_file, struct mr_error *err)
{
    *g = (struct mr_generation){.number = 1};
    enum mr_result rc =
        mr_config_load(&g->config, conf_file, options->mbuf_size - MBUF_HEADER, &g->findings, err);

    if (rc == MR_OK)
        check_machine(g, options, conf_file);
    const uint32_t n = g->findings.n_errors;
    if (n > 0)
        rc = mr_fail(err, MR_ECONFIG, n > 1 ? "%s (and %u more)" : "%s",
                     mr_findings_first_error(&g->findings), n - 1);
    if (rc != MR_OK) {
        mr_error_prefix(err, "conf");
        free(g->runtime.cpus);
        mr_config_free(g->config);
        g->config = NULL;
    }
    return rc;
}

void mr_generation_log_findings(const struct mr_generation *g)
{
    for (uint32_t i = 0; i < g->findings.n; i++) {
        const struct mr_finding *f = &g->findings.list[i];
        mr_log(f->error ? MR_LOG_ERR : MR_LOG_WARN, "%s text=\"%s\"",
               f->error ? "conf_error" : "conf_warning", f->text);
    }
}

static uint32_t named_servers(const struct mr_config *config)
{
    uint32_t n = 0;

    for (uint32_t p = 0; p < config->n_pools; p++)
        n += config->pools[p].servers.named;
    return n;
}

void mr_generation_log_started(const struct mr_generation *g)
{
    mr_log(MR_LOG_NOTICE, "started workers=%u pools=%u servers=%u layout=%s clients_max=%llu",
           g->runtime.single ? 0 : g->runtime.n_slots, g->config->n_pools, named_servers(g->config),
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

/* A server's host and port, and its address. */
struct place {
    const char *host;
    uint16_t port;
    uint8_t service_place;
    uint32_t index;
};

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->port != y->port)
        return x->port < y->port ? -1 : 1;
    if (x->service_place != y->service_place)
        return x->service_place < y->service_place ? -1 : 1;
    return strcmp(x->host, y->host);
}

/* All servers with a host, sorted; returned owned. */
static struct place *places_of(const struct mr_config *config, uint32_t *n)
{
    struct place *places = calloc(config->n_servers + 1, sizeof(*places));

    MR_CHECK(places != NULL);
    *n = 0;
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (uint32_t i = 0; i < config->pools[p].servers.n; i++) {
            const struct mr_server_config *s = &config->pools[p].servers.at[i];
            if (s->host != NULL)
                places[(*n)++] = (struct place){s->host, s->port, s->service_place,
                                                config->pools[p].first_server + i};
        }
    qsort(places, *n, sizeof(*places), by_place);
    return places;
}

/* Takes over resolved addresses, so that nobody waits for them again. */
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

/* Allocates zeroed memory shared by all processes of the generation. */
static enum mr_result share(void *out, size_t bytes, struct mr_error *err)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        return mr_fail_sys(err, "allocate %zu bytes of shared memory", bytes);
    memcpy(out, &at, sizeof(at));
    return MR_OK;
}

static enum mr_result open_turnstile(struct mr_generation *g, struct mr_error *err)
{
    if (strcmp(g->config->accept, "mutex") != 0)
        return MR_OK;
    return share(&g->runtime.accept_holder, sizeof(*g->runtime.accept_holder), err);
}

/* Shared memory that lives as long as the program. */
static enum mr_result share_lasting(struct mr_generation *g, const struct mr_generation *previous,
                                    struct mr_error *err)
{
    struct mr_runtime *rt = &g->runtime;

    if (previous != NULL && previous->runtime.reloads != NULL) {
        rt->reloads = previous->runtime.reloads;
        rt->logins = previous->runtime.logins;
        return MR_OK;
    }
    enum mr_result rc = share(&rt->reloads, sizeof(*rt->reloads), err);
    if (rc == MR_OK)
        rc = share(&rt->logins, sizeof(*rt->logins), err);
    if (rc == MR_OK)
        mr_logins_init(rt->logins);
    return rc;
}

/* Takes over the health of servers that stay, in particular roles: writes must find the master. */
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

/* Nodes and maps of pools that stay. */
static void keep_nodes(struct mr_generation *g, const struct mr_generation *previous)
{
    const struct mr_runtime *now = &g->runtime, *before = &previous->runtime;

    for (uint32_t p = 0; p < g->config->n_pools; p++) {
        const struct mr_pool_config *pool = &g->config->pools[p];
        const struct mr_pool_config *old = mr_config_pool(previous->config, pool->name);
        const struct mr_node_map *map =
            old != NULL ? before->node_maps[old - previous->config->pools] : NULL;
        if (map != NULL && now->node_maps[p] != NULL)
            mr_node_map_keep(pool, now->node_maps[p], &now->health[pool->first_server], old, map,
                             &before->health[old->first_server]);
    }
}

enum mr_result mr_generation_share_health(struct mr_generation *g, struct mr_error *err)
{
    struct mr_runtime *rt = &g->runtime;
    enum mr_result rc = share(&rt->health, health_bytes(g->config), err);

    if (rc == MR_OK)
        rc = share(&rt->hosts, sizeof(*rt->hosts), err);
    rt->node_maps = calloc(g->config->n_pools + 1, sizeof(*rt->node_maps));
    MR_CHECK(rt->node_maps != NULL);
    for (uint32_t p = 0; p < g->config->n_pools && rc == MR_OK; p++)
        if (mr_topology_of(&g->config->pools[p])->redirected != NULL)
            rc = share(&rt->node_maps[p], mr_node_map_bytes(&g->config->pools[p]), err);
    return rc;
}

/* Channels between workers for new connections. */
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
           mr_config_moves_keys(pool, old); /* otherwise nothing is written through another map */
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
        return mr_fail(err, MR_ECONFIG, "a reload cannot change `accept`; restart instead");
    if (previous != NULL && workers == 0)
        return mr_fail(err, MR_ECONFIG,
                       "a reload cannot change to a single process "
                       "(worker_processes: 0); restart instead");
    g->runtime.single = workers == 0;
    g->runtime.n_slots = workers == 0 ? 1 : workers;
    if ((rc = mr_divide_descriptors(g, previous, err)) != MR_OK ||
        (rc = open_slots(g, previous, err)) != MR_OK ||
        (rc = share_lasting(g, previous, err)) != MR_OK ||
        (rc = mr_generation_share_health(g, err)) != MR_OK ||
        (rc = open_turnstile(g, err)) != MR_OK || (rc = open_balance(g, err)) != MR_OK)
        return rc;
    if (previous != NULL) {
        keep_health(g, previous);
        keep_nodes(g, previous);
        mr_hosts_keep(g->runtime.hosts, previous->runtime.hosts);
    }
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

void mr_generation_retire(const struct mr_generation *g, const struct mr_generation *heir)
{
    mr_listeners_retire(&g->listeners, &heir->listeners);
    mr_ports_retire(&g->ports, &heir->ports);
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
    for (uint32_t p = 0; rt->node_maps != NULL && p < rt->config->n_pools; p++)
        if (rt->node_maps[p] != NULL)
            (void)munmap(rt->node_maps[p], mr_node_map_bytes(&rt->config->pools[p]));
    free(rt->node_maps);
    if (rt->hosts != NULL)
        (void)munmap(rt->hosts, sizeof(*rt->hosts));
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
    mr_findings_fini(&g->findings);
    *g = (struct mr_generation){0};
}

/* ---- counters across generations ---- */

/* Pools and servers are matched by name. */
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
        mr_metrics_reset_gauges(&sum); /* open connections are counted by their new workers */
        mr_metrics_copy(&rt->bases[i], &sum);
    }
    mr_metrics_fini(&sum);
}
