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

/** What has failed. */
enum mr_failure {
    MR_FAILURE_SILENT,  /* the connection: it was not made, or nothing ever came over it */
    MR_FAILURE_CUT,     /* a connection that had worked */
    MR_FAILURE_TIMEOUT, /* a request */
};

enum mr_health_state { MR_HEALTH_UNKNOWN, MR_HEALTH_UP, MR_HEALTH_DOWN };

struct mr_lag_sample {
    uint64_t at_us;
    uint64_t offset;
};

struct mr_health {
    uint64_t failures;     /* in a row, of all workers, those at the same time counted once */
    uint64_t strikes;      /* the same, each one that counts towards ejection */
    uint64_t ring_changes; /* the pool's first server's: how often a server left or came back */
    uint64_t ejected_us;   /* when it was; 0: it is not */
    uint64_t retry_us;     /* while it fails: no connect before */
    uint64_t cut_us;       /* when a cut connection was last counted */
    uint64_t late_us;      /* when a time-out was last counted */
    uint64_t error;        /* errno of the last one */
    uint64_t prober;       /* pid of the worker that probes */
    uint64_t probe_us;     /* when the next probe is due */
    uint64_t probed_us;    /* when the last one ended; 0: there was none */
    uint64_t state;        /* enum mr_health_state, as the last probe found it */
    uint64_t role;         /* enum mr_role */
    uint64_t link;         /* of a replica: it has its master */
    uint64_t rtt_us;       /* of probes, smoothed */
    uint64_t lag_us;       /* of a replica: at least this far behind */
    uint64_t n_samples;    /* taken of a master's offset, ever */
    struct mr_lag_sample samples[MR_LAG_SAMPLES];
};

/** What a field of struct mr_health holds now. */
static inline uint64_t mr_health_load(const uint64_t *field)
{
    return __atomic_load_n(field, __ATOMIC_RELAXED);
}

/** Begins to probe the pool's servers where the configuration wants it; may be called again. */
void mr_health_start(struct mr_pool *pool);
void mr_health_stop(struct mr_pool *pool);

/**
 * A connection or a request has failed; workers back off together.
 * @return how many failures in a row count towards ejection. What one event does to many
 *         connections and requests counts once.
 */
uint64_t mr_health_failed(struct mr_server *server, int error, enum mr_failure failure);

/** The server has answered. Only a look when nothing was wrong. */
static inline void mr_health_answered(struct mr_health *h)
{
    if (__builtin_expect((mr_health_load(&h->failures) | mr_health_load(&h->strikes)) != 0, 0)) {
        __atomic_store_n(&h->failures, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&h->strikes, 0, __ATOMIC_RELAXED);
    }
}

/** Takes a server off the rings of all workers, or back. False when another worker was first. */
bool mr_health_eject(struct mr_server *server);
bool mr_health_restore(struct mr_server *server);

static inline bool mr_health_ejected(const struct mr_health *h)
{
    return mr_health_load(&h->ejected_us) != 0;
}

/** Goes up with every ejection and return of one of the pool's servers. */
static inline uint64_t mr_health_ring_changes(const struct mr_health *first)
{
    return __atomic_load_n(&first->ring_changes, __ATOMIC_ACQUIRE);
}

/**
 * Says whether to connect now: while a server fails, one worker at a time tries.
 * @return 0, or the errno of the last failure
 */
int mr_health_may_connect(struct mr_server *server);
