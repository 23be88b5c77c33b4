/*
 * workers.h - one real worker after the other, over the same listening socket. This plays their
 * master: a new worker takes the clients of the one before it, whose map of keys may move.
 */
#pragma once

#include "kernel.h"

#include "proc/worker.h"

struct sim_worker {
    struct sim_process *process;
    struct mr_metrics metrics;
    struct mr_runtime runtime;
    struct mr_worker_setup setup;
    uint32_t n_servers;
    int channel[2]; /* ours, its own */
    int way[2];     /* out of the worker before it, into this one; -1 for none */
    bool held;
    bool ready, quiesced; /* it has said so */
};

#define SIM_WORKERS 8u

extern struct sim_worker sim_workers[SIM_WORKERS];
extern uint32_t sim_n_workers;

/** Starts the first one. `max_clients`: of each. */
void sim_workers_begin(const struct mr_config *config, int listener, uint32_t max_clients);

/** The one that clients come to, or will. */
struct sim_worker *sim_worker_last(void);

/** Begins a handover from the last one to a new one, unless one is under way. */
void sim_workers_succeed(void);

/** True until the worker before the last one has ended. */
bool sim_workers_hand_over(void);

/** Tells the last one to end. */
void sim_workers_stop(void);

bool sim_workers_are_over(void);

/** Checks that they have ended well, and that nothing is counted any more. */
void sim_workers_check(void);
void sim_workers_end(void);
