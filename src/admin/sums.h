/* sums.h - the numbers of several workers as one. */
#pragma once

#include "session/runtime.h"

/** Slots whose numbers are summed. */
struct mr_sums {
    const struct mr_runtime *runtime;
    uint32_t first, n;
};

/** Each fills in *sum, with what was counted before this configuration. */
void mr_sum_process(const struct mr_sums *s, struct mr_process_metrics *sum);
void mr_sum_pool(const struct mr_sums *s, uint32_t pool, struct mr_pool_metrics *sum);
void mr_sum_server(const struct mr_sums *s, uint32_t server, struct mr_server_metrics *sum);

/** Each fills in its struct with what is so now. */
void mr_read_proxy(const struct mr_runtime *runtime, struct mr_proxy_metrics *m);
void mr_read_worker(const struct mr_runtime *runtime, uint32_t slot, struct mr_worker_metrics *m);
void mr_read_health(const struct mr_runtime *runtime, uint32_t server, struct mr_health_metrics *m);

/** "read", "write", "other". */
const char *mr_class_name(enum mr_class class);

/** "unknown", "up", "down". */
const char *mr_health_state_name(uint64_t state);

/** What a slot does, in a word. */
const char *mr_slot_state_name(uint64_t state);
