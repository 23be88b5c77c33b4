/* sums.c - adds up the metrics of several workers. */
#include "admin/sums.h"

#include "core/check.h"
#include "core/clock.h"
#include "upstream/health.h"
#include "upstream/hosts.h"
#include "upstream/map.h"

#include <string.h>

void mr_sum_process(const struct mr_sums *s, struct mr_process_metrics *sum)
{
    const struct mr_runtime *rt = s->runtime;

    memset(sum, 0, sizeof(*sum));
    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        mr_metrics_add((uint64_t *)sum, (const uint64_t *)&rt->slots[i].head->process,
                       MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
        mr_metrics_add((uint64_t *)sum, (const uint64_t *)&rt->bases[i].head->process,
                       MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
    }
}

void mr_sum_pool(const struct mr_sums *s, uint32_t pool, struct mr_pool_metrics *sum)
{
    memset(sum, 0, sizeof(*sum));
    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        mr_pool_metrics_add(sum, &s->runtime->slots[i].pools[pool]);
        mr_pool_metrics_add(sum, &s->runtime->bases[i].pools[pool]);
    }
}

void mr_sum_server(const struct mr_sums *s, uint32_t server, struct mr_server_metrics *sum)
{
    memset(sum, 0, sizeof(*sum));
    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        mr_server_metrics_add(sum, &s->runtime->slots[i].servers[server]);
        mr_server_metrics_add(sum, &s->runtime->bases[i].servers[server]);
    }
}

void mr_read_proxy(const struct mr_runtime *rt, struct mr_proxy_metrics *m)
{
    *m = (struct mr_proxy_metrics){.started_at = rt->started_us,
                                   .generation = rt->generation,
                                   .reloads = rt->reloads->done,
                                   .reload_failures = rt->reloads->failed,
                                   .lookups = mr_health_load(&rt->hosts->lookups),
                                   .lookup_failures = mr_health_load(&rt->hosts->failures)};
}

void mr_read_worker(const struct mr_runtime *rt, uint32_t slot, struct mr_worker_metrics *m)
{
    const struct mr_metrics_head *head = rt->slots[slot].head;

    *m = (struct mr_worker_metrics){.serving = head->state == MR_SLOT_SERVING,
                                    .clients = head->clients,
                                    .deaths = head->deaths + rt->bases[slot].head->deaths};
}

void mr_read_health(const struct mr_runtime *rt, uint32_t server, struct mr_health_metrics *m)
{
    const struct mr_health *h = &rt->health[server];

    *m = (struct mr_health_metrics){.up = h->state == MR_HEALTH_UP,
                                    .probe_us = h->rtt_us,
                                    .failures = h->failures,
                                    .ejected = mr_health_ejected(h),
                                    .master = h->role == MR_ROLE_MASTER,
                                    .lag_us = h->lag_us};
}

static uint64_t nodes_of(const struct mr_node_table *table, uint32_t n_servers)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < n_servers; i++) {
        bool met = table->master_of[i] > 0;
        for (uint32_t slot = 0; slot < MR_SLOTS && !met; slot++)
            met = table->owner[slot] == i + 1;
        n += met;
    }
    return n;
}

bool mr_read_discovery(const struct mr_runtime *rt, uint32_t pool, struct mr_discovery_metrics *m)
{
    const struct mr_node_map *map = rt->node_maps[pool];

    if (map == NULL)
        return false;
    *m = (struct mr_discovery_metrics){
        .covered = map->covered,
        .nodes = nodes_of(&map->table, rt->config->pools[pool].servers.n),
        .nodes_without_room = map->no_room,
        .age_us = map->learned_us > 0 ? mr_clock_mono_us() - map->learned_us : 0,
        .refreshes = map->looks,
        .refresh_failures = map->failures,
        .changes = map->changes};
    return true;
}

const char *mr_shown_server(const struct mr_runtime *rt, const struct mr_pool_config *pool,
                            uint32_t server)
{
    const struct mr_health *h = &rt->health[pool->first_server + server];

    if (server < pool->servers.named)
        return pool->servers.at[server].name;
    return mr_health_is_known(h) ? h->addr.text : NULL;
}
