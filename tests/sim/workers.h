/*
 * workers.h - a sequence of real workers on the same listening socket. This acts as their master:
 * each new worker takes over the clients of the one before, and the map of keys may change.
 */
#pragma once

#include "kernel.h"

#include "proc/worker.h"

#define SIM_POOLS 2u /* at most */

struct sim_worker {
    struct sim_process *process;
    struct mr_metrics metrics;
    struct mr_runtime runtime;
    struct mr_worker_setup setup;
    uint32_t n_servers;
    int channel[2]; /* ours, the worker's */
    int way[2];     /* from the previous worker to this one; -1 for none */
    bool held[SIM_POOLS];
    bool ready, quiesced; /* as reported */
};

#define SIM_POOLS   2u /* at most */
#define SIM_WORKERS 8u

extern struct sim_worker sim_workers[SIM_WORKERS];
extern uint32_t sim_n_workers;

/** Starts the first worker. `max_clients` is per worker. */
void sim_workers_begin(const struct mr_config *config, int listener, uint32_t max_clients);

/** The worker that clients go to, or will. */
struct sim_worker *sim_worker_last(void);

/** Starts a handover from the last worker to a new one, unless one is in progress. */
void sim_workers_succeed(void);

/** True until the previous worker has ended. */
bool sim_workers_hand_over(void);

/** Tells the last worker to end. */
void sim_workers_stop(void);

bool sim_workers_are_over(void);

/** Checks that all have ended properly and that no counts are left. */
void sim_workers_check(void);
void sim_workers_end(void);
