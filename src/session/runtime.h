/* runtime.h - what all processes share: created by the master, inherited by fork. */
#pragma once

#include "config/config.h"
#include "core/metrics.h"

struct mr_health;
struct mr_hosts;
struct mr_logins;
struct mr_loop;

#define MR_REASON_BYTES 512u

/** Statistics of reloads, shared by all processes, written by the master. */
struct mr_reloads {
    uint64_t done;
    uint64_t failed;
    uint64_t failed_at_us; /* wall clock, of the last failure */
    char reason[MR_REASON_BYTES];
};

struct mr_runtime {
    const struct mr_config *config;
    uint32_t generation;      /* number of configurations so far */
    struct mr_metrics *slots; /* one metrics segment per worker */
    struct mr_metrics *bases; /* per slot: counts from before this configuration */
    uint32_t n_slots;
    bool accepts_shared;     /* workers share one socket per TCP listener */
    uint64_t *accept_holder; /* see mr_turnstile; NULL unless `accept: mutex` */
    int *balance_in;         /* per slot: where it receives connections from others; may be NULL */
    int *balance_out;        /* the other ends */
    bool *held;              /* per pool: its keys move, so it waits until the old map is idle */
    uint16_t *cpus;          /* assigned to the workers in turn */
    uint32_t n_cpus;         /* 0: not pinned */
    bool single;             /* one process, no master */
    const char *engine;      /* of the workers' loops */
    bool engine_auto;        /* chosen automatically, so a worker may fall back */
    uint32_t max_clients;    /* per worker */
    uint32_t accept_burst;   /* how many may wait in a worker's listen queues */
    struct mr_addr *addresses; /* per server, over all pools; len is 0 if unknown */
    uint64_t started_us;       /* wall clock */
    struct mr_reloads *reloads;
    struct mr_health *health;       /* per server, over all pools; shared by the workers */
    struct mr_node_map **node_maps; /* per pool, shared likewise; NULL unless it is a cluster */
    struct mr_hosts *hosts;         /* that servers name; shared by workers and resolver */
    struct mr_logins *logins;       /* failed logins; shared by the workers */
    const int *port_fds;            /* listening sockets: statistics first, then HTTP */
    uint32_t n_ports;
    uint32_t port_connections; /* limit per socket */
};

/** What the admin interface may ask for. */
struct mr_admin_control {
    void (*reload)(void *arg); /* NULL if there is no master */
    void *arg;
};

/**
 * Serves runtime->port_fds on a loop. Set by main, so that src/proc does not depend on src/admin.
 */
struct mr_admin_hook {
    void *(*attach)(struct mr_loop *loop, const struct mr_runtime *runtime,
                    const struct mr_admin_control *control);
    void (*finish)(void *server); /* answers requests already received, within a moment */
    void (*detach)(void *server); /* turn the loop once afterwards */
};
