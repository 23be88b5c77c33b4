/* master.h - the process that owns the sockets and keeps the others running. */
#pragma once

#include "proc/generation.h"

struct mr_master_setup {
    struct mr_generation *generation; /* taken */
    const struct mr_options *options; /* of the command line, for reloads */
    const char *conf_file;
    struct mr_stats_hook stats;
    void (*on_ready)(void *arg); /* all workers are up for the first time */
    void (*in_child)(void *arg); /* in every new child: give back what only the master may hold */
    void *arg;
};

/** Runs until it is told to stop. Returns the exit status of the process. */
int mr_master_run(const struct mr_master_setup *setup);
