/*
 * health.h - what is known of a server's health, by all workers together, and the probing of it.
 *
 * struct mr_health lies in memory that all workers share. Fields are written by whoever learns
 * something, with plain atomic stores; nothing here must be right for the proxy to be correct.
 */
#pragma once

#include "proto/proto.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_pool;
struct mr_server;

#define MR_LAG_SAMPLES 1024u

enum mr_health_state { MR_HEALTH_UNKNOWN, MR_HEALTH_UP, MR_HEALTH_DOWN };

struct mr_lag_sample {
    uint64_t at_us;
    uint64_t offset;
};

struct mr_health {
    uint64_t failures;  /* in a row, of all workers, those at the same time counted once */
    uint64_t retry_us;  /* while there are any: no connect before */
    uint64_t error;     /* errno of the last one */
    uint64_t prober;    /* pid of the worker that probes */
    uint64_t probe_us;  /* when the next probe is due */
    uint64_t probed_us; /* when the last one ended; 0: there was none */
    uint64_t state;     /* enum mr_health_state, as the last probe found it */
    uint64_t role;      /* enum mr_role */
    uint64_t link;      /* of a replica: it has its master */
    uint64_t rtt_us;    /* of probes, smoothed */
    uint64_t lag_us;    /* of a replica: at least this far behind */
    uint64_t n_samples; /* taken of a master's offset, ever */
    struct mr_lag_sample samples[MR_LAG_SAMPLES];
};

/** Begins to probe the pool's servers where the configuration wants it. */
void mr_health_start(struct mr_pool *pool);
void mr_health_stop(struct mr_pool *pool);

/**
 * A connection or a request has failed; workers back off together.
 * @param silent the connection could not be made, or nothing ever came over it: it is the server
 *               that fails, and not a connection alone
 */
void mr_health_failed(struct mr_server *server, int error, bool silent);

/** The server has answered. Only a look when nothing was wrong. */
static inline void mr_health_answered(struct mr_health *h)
{
    if (__builtin_expect(__atomic_load_n(&h->failures, __ATOMIC_RELAXED) != 0, 0))
        __atomic_store_n(&h->failures, 0, __ATOMIC_RELAXED);
}

/**
 * Says whether to connect now: while a server fails, one worker at a time tries.
 * @return 0, or the errno of the last failure
 */
int mr_health_may_connect(struct mr_server *server);
