/* runtime.h - what every process of a running proxy shares: made by the master, inherited by fork.
 */
#pragma once

#include "config/config.h"
#include "core/metrics.h"

struct mr_health;
struct mr_loop;

#define MR_REASON_BYTES 512u

/** How reloads went; shared by all processes, written by the master. */
struct mr_reloads {
    uint64_t done;
    uint64_t failed;
    uint64_t failed_at_us; /* wall clock, of the last one */
    char reason[MR_REASON_BYTES];
};

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
    uint32_t accept_burst;     /* most that may wait in the listening sockets of one */
    struct mr_addr *addresses; /* of each server, over all pools; len 0 where not known */
    uint64_t started_us;       /* wall clock */
    struct mr_reloads *reloads;
    struct mr_health *health; /* of each server, over all pools; shared by the workers */
    const int *port_fds;      /* listening sockets: the statistics, then those that speak HTTP */
    uint32_t n_ports;
    uint32_t port_connections; /* most at a time, of each of them */
};

/** What the admin interface can ask for. */
struct mr_admin_control {
    void (*reload)(void *arg); /* NULL where there is no master */
    void *arg;
};

/** Serves runtime->port_fds on a loop; filled in by main: src/proc needs nothing of src/admin. */
struct mr_admin_hook {
    void *(*attach)(struct mr_loop *loop, const struct mr_runtime *runtime,
                    const struct mr_admin_control *control);
    void (*finish)(void *server); /* answers what has come already, for a moment at most */
    void (*detach)(void *server); /* then turn the loop once */
};
