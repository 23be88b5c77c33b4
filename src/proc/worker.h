/* worker.h - the process that serves clients: one thread, one loop. */
#pragma once

#include "session/runtime.h"

#include <stdbool.h>

struct mr_worker_setup {
    const struct mr_runtime *runtime;
    uint32_t slot;
    const int *listen_fds; /* of this slot, over all pools in order; borrowed */
    const int *ways_in;    /* clients from earlier workers; -1 for none. Takes this slot's */
    uint32_t n_ways;
    bool closed; /* does not accept before OPEN: if the others fail to start, no client may be lost
                  */
    int channel; /* taken; to the master, or to the resolver of a single process */
    int (*start_resolver)(void *arg); /* in a single process: another one, returns its channel */
    struct mr_admin_hook admin;       /* in a single process: admin interface to serve here */
    void (*on_ready)(void *arg);      /* called once everything is up */
    void *arg;                        /* of the callbacks */
};

/** Serves until told to stop. Returns the exit status of the process. */
int mr_worker_run(const struct mr_worker_setup *setup);
