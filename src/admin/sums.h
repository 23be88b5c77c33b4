/* sums.h - adds up the metrics of several workers. */
#pragma once

#include "session/runtime.h"

/** Slots to add up. */
struct mr_sums {
    const struct mr_runtime *runtime;
    uint32_t first, n;
};

/** Fill *sum, including counts from before this configuration. */
void mr_sum_process(const struct mr_sums *s, struct mr_process_metrics *sum);
void mr_sum_pool(const struct mr_sums *s, uint32_t pool, struct mr_pool_metrics *sum);
void mr_sum_server(const struct mr_sums *s, uint32_t server, struct mr_server_metrics *sum);

/** Fill their struct with the current values. */
void mr_read_proxy(const struct mr_runtime *runtime, struct mr_proxy_metrics *m);
void mr_read_worker(const struct mr_runtime *runtime, uint32_t slot, struct mr_worker_metrics *m);
void mr_read_health(const struct mr_runtime *runtime, uint32_t server, struct mr_health_metrics *m);

/** False if the servers of the pool are not discovered. */
bool mr_read_discovery(const struct mr_runtime *runtime, uint32_t pool,
                       struct mr_discovery_metrics *m);

/** Name of a pool's server as shown; NULL for a place whose server is yet to be discovered. */
const char *mr_shown_server(const struct mr_runtime *runtime, const struct mr_pool_config *pool,
                            uint32_t server);
