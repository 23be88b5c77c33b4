/*
 * metrics.h - counters in shared memory: one segment per slot, written by one worker with plain
 * stores, readable by any process. A segment outlives its worker, so counters survive crashes.
 *
 * Layout: struct mr_metrics_head, then the pools, then the servers of all pools in order.
 */
#pragma once

#include "core/histogram.h"
#include "core/result.h"

#include <stddef.h>
#include <stdint.h>

struct mr_process_metrics {
#define X_PROCESS(name, kind, unit, prometheus, help) uint64_t name;
#include "core/metrics.def"
};

/** Classes of requests, for latencies. */
enum mr_class { MR_CLASS_READ, MR_CLASS_WRITE, MR_CLASS_OTHER, MR_CLASSES };

/** "read", "write", "other". */
const char *mr_class_name(enum mr_class class);

struct mr_proxy_metrics {
#define X_PROXY(name, kind, unit, prometheus, help) uint64_t name;
#include "core/metrics.def"
};

struct mr_worker_metrics {
#define X_WORKER(name, kind, unit, prometheus, help) uint64_t name;
#include "core/metrics.def"
};

struct mr_discovery_metrics {
#define X_DISCOVERY(name, kind, unit, prometheus, help) uint64_t name;
#include "core/metrics.def"
};

struct mr_health_metrics {
#define X_HEALTH(name, kind, unit, prometheus, help) uint64_t name;
#include "core/metrics.def"
};

#define MR_LATENCY_BUCKETS 11

/** Meitu's buckets: durations up to 1, 10, 20, 50 ... 3000 ms, and above. */
struct mr_latency {
    uint64_t counts[MR_LATENCY_BUCKETS];
};

struct mr_pool_metrics {
#define X_POOL(name, kind, unit, prometheus, help) uint64_t name;
#include "core/metrics.def"
    struct mr_latency request_latency;             /* from request parsed to reply written */
    struct mr_histogram request_times[MR_CLASSES]; /* the same interval */
};

struct mr_server_metrics {
#define X_SERVER(name, kind, unit, prometheus, help) uint64_t name;
#include "core/metrics.def"
    struct mr_latency server_latency;             /* from request queued to reply parsed */
    struct mr_histogram server_times[MR_CLASSES]; /* the same interval */
};

static inline void mr_latency_add(struct mr_latency *l, uint64_t us)
{
    static const uint32_t BOUNDS_MS[] = {1, 10, 20, 50, 100, 200, 500, 1000, 2000, 3000};
    unsigned i = 0;

    while (i < MR_LATENCY_BUCKETS - 1 && us > BOUNDS_MS[i] * UINT64_C(1000))
        i++;
    l->counts[i]++;
}

enum mr_metric_kind { MR_METRIC_COUNTER, MR_METRIC_GAUGE, MR_METRIC_TIMESTAMP };
enum mr_metric_unit { MR_METRIC_NONE, MR_METRIC_BYTES, MR_METRIC_MICROSECONDS };

/** One row of metrics.def. A level's values are uint64_t members in row order. */
struct mr_metric_desc {
    const char *name;
    enum mr_metric_kind kind;
    enum mr_metric_unit unit;
    const char *prometheus; /* without the common prefix */
    const char *help;
};

extern const struct mr_metric_desc MR_PROXY_METRICS[];
extern const struct mr_metric_desc MR_WORKER_METRICS[];
extern const struct mr_metric_desc MR_DISCOVERY_METRICS[];
extern const struct mr_metric_desc MR_HEALTH_METRICS[];
extern const struct mr_metric_desc MR_PROCESS_METRICS[];
extern const struct mr_metric_desc MR_POOL_METRICS[];
extern const struct mr_metric_desc MR_SERVER_METRICS[];

#define MR_PROXY_METRIC_COUNT     (sizeof(struct mr_proxy_metrics) / sizeof(uint64_t))
#define MR_WORKER_METRIC_COUNT    (sizeof(struct mr_worker_metrics) / sizeof(uint64_t))
#define MR_DISCOVERY_METRIC_COUNT (sizeof(struct mr_discovery_metrics) / sizeof(uint64_t))
#define MR_HEALTH_METRIC_COUNT    (sizeof(struct mr_health_metrics) / sizeof(uint64_t))
#define MR_PROCESS_METRIC_COUNT   (sizeof(struct mr_process_metrics) / sizeof(uint64_t))
/** Those that twemproxy has too come first; `fragments` is the last of them. */
#define MR_POOL_METRIC_COMMON (offsetof(struct mr_pool_metrics, fragments) / sizeof(uint64_t) + 1)
#define MR_POOL_METRIC_COUNT  (offsetof(struct mr_pool_metrics, request_latency) / sizeof(uint64_t))
#define MR_SERVER_METRIC_COUNT                                                                     \
    (offsetof(struct mr_server_metrics, server_latency) / sizeof(uint64_t))

/** What a slot's worker is doing. Set by the worker, or by the master while there is no worker. */
enum mr_slot_state {
    MR_SLOT_DOWN,
    MR_SLOT_STARTING,
    MR_SLOT_SERVING,
    MR_SLOT_DRAINING,
    MR_SLOT_BACKOFF, /* keeps dying; restarted after a delay */
    MR_SLOT_STATES,
};

/** "down", "starting" and so on; "unknown" for an invalid state. */
const char *mr_slot_state_name(uint64_t state);

struct mr_metrics_head {
    uint32_t magic;
    uint32_t version;
    uint32_t n_pools;
    uint32_t n_servers;  /* all pools together */
    uint64_t pid;        /* of the worker that writes here; 0: none */
    uint64_t cpu_plus_1; /* CPU the worker is pinned to, plus 1; 0: not pinned */
    uint64_t state;      /* enum mr_slot_state */
    uint64_t deaths;     /* workers of this slot that died unexpectedly */
    uint64_t clients;    /* currently connected */
    int64_t clients_due; /* being handed over to this worker; other workers add to it atomically */
    uint64_t client_ids; /* given by workers of this slot so far; added to atomically */
    struct mr_process_metrics process;
};

/** A mapped segment. */
struct mr_metrics {
    int fd; /* memfd, owned by the master */
    size_t size;
    struct mr_metrics_head *head;
    struct mr_pool_metrics *pools;
    struct mr_server_metrics *servers;
};

/** Creates a zeroed segment in a memfd and maps it shared. Children inherit the mapping. */
enum mr_result mr_metrics_open(struct mr_metrics *m, uint32_t n_pools, uint32_t n_servers,
                               struct mr_error *err) MR_MUST_USE;

/** Maps a segment created by another process of this program. Takes the fd unless it fails. */
enum mr_result mr_metrics_attach(struct mr_metrics *m, int fd, uint32_t n_pools, uint32_t n_servers,
                                 struct mr_error *err) MR_MUST_USE;

void mr_metrics_close(struct mr_metrics *m);

/** A zeroed segment in private memory, for sums. */
void mr_metrics_init(struct mr_metrics *m, uint32_t n_pools, uint32_t n_servers);
void mr_metrics_fini(struct mr_metrics *m);

/** Sets every value to zero. */
void mr_metrics_clear(struct mr_metrics *m);

/**
 * Copies every value. Both segments must have the same shape. Concurrent readers see either the old
 * value or the new one.
 */
void mr_metrics_copy(struct mr_metrics *to, const struct mr_metrics *from);

/** For a new worker in the slot: resets gauges, keeps counters. */
void mr_metrics_reset_gauges(struct mr_metrics *m);

/** Adds `n` values of `from` to `sum`. Of a TIMESTAMP it keeps the later one. */
void mr_metrics_add(uint64_t *sum, const uint64_t *from, const struct mr_metric_desc *desc,
                    size_t n);

/** Adds a pool's or a server's values, including latencies. */
void mr_pool_metrics_add(struct mr_pool_metrics *sum, const struct mr_pool_metrics *from);
void mr_server_metrics_add(struct mr_server_metrics *sum, const struct mr_server_metrics *from);
