/* runtime.h - what every process of a running proxy shares: made by the master, inherited by fork.
 */
#pragma once

#include "config/config.h"
#include "core/metrics.h"

struct mr_loop;

struct mr_runtime {
    const struct mr_config *config;
    uint32_t generation;      /* counts the configurations that were in force */
    struct mr_metrics *slots; /* a metrics segment for each worker */
    struct mr_metrics *bases; /* what was counted in each slot before this configuration */
    uint32_t n_slots;
    bool accepts_shared;       /* TCP listeners are one socket for all workers */
    uint64_t *accept_holder;   /* see mr_turnstile; NULL unless `accept: mutex` */
    int *balance_in;           /* where each slot gets connections from other workers; or NULL */
    int *balance_out;          /* the other ends */
    bool *held;                /* pools whose keys move: they wait until the old map is at rest */
    uint16_t *cpus;            /* the workers take them in turn */
    uint32_t n_cpus;           /* 0: they run where the kernel puts them */
    bool single;               /* one process, no master */
    const char *engine;        /* of the workers' loops */
    bool engine_auto;          /* it was not asked for: a worker may fall back */
    uint32_t max_clients;      /* of each worker */
    struct mr_addr *addresses; /* of each server, over all pools; len 0 where not known */
    uint64_t started_us;       /* wall clock */
    int stats_fd;              /* listening socket of the statistics */
};

/** Serves the statistics on a loop; filled in by main, so that src/proc needs nothing of src/admin.
 */
struct mr_stats_hook {
    void *(*attach)(struct mr_loop *loop, const struct mr_runtime *runtime);
    void (*detach)(void *server); /* then turn the loop once */
};
