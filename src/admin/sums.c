/* sums.c - the numbers of several workers as one. */
#include "admin/sums.h"

#include "core/check.h"

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

uint64_t mr_sum_deaths(const struct mr_runtime *rt, uint32_t slot)
{
    return rt->slots[slot].head->deaths + rt->bases[slot].head->deaths;
}

const char *mr_class_name(enum mr_class class)
{
    static const char *const NAMES[] = {"read", "write", "other"};

    return NAMES[class];
}

const char *mr_health_state_name(uint64_t state)
{
    static const char *const NAMES[] = {"unknown", "up", "down"};

    return NAMES[state < MR_COUNT(NAMES) ? state : 0];
}

const char *mr_slot_state_name(uint64_t state)
{
    static const char *const NAMES[] = {"down", "starting", "serving", "draining", "backoff"};

    return state < MR_COUNT(NAMES) ? NAMES[state] : "unknown";
}
