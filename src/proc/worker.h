/* worker.h - the process that serves clients: one thread, one loop. */
#pragma once

#include "session/runtime.h"

#include <stdbool.h>

struct mr_worker_setup {
    const struct mr_runtime *runtime;
    uint32_t slot;
    const int *listen_fds; /* this slot's, over all pools in order; borrowed */
    const int *ways_in;    /* of clients from earlier slots; -1 for none. This one's are taken */
    uint32_t n_ways;
    bool closed; /* accepts nothing before OPEN: nobody may be lost when the others fail to start */
    int channel; /* taken; to the master, or to the resolver of a single process */
    struct mr_admin_hook admin;  /* served here when attach is set (single process) */
    void (*on_ready)(void *arg); /* called once everything is up */
    void *on_ready_arg;
};

/** Serves until it is told to stop. Returns the exit status of the process. */
int mr_worker_run(const struct mr_worker_setup *setup);
