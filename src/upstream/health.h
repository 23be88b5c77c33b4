/*
 * health.h - the health of a server, shared by all workers.
 *
 * struct mr_health is in memory shared by all workers. Whoever learns something writes it with
 * plain atomic stores; correctness of the proxy never depends on the values. Times are the loop's,
 * in microseconds.
 */
#pragma once

#include "net/addr.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_LAG_SAMPLES 1024u

/** Kinds of failure. */
enum mr_failure {
    MR_FAILURE_SILENT,  /* connecting failed, or the connection never brought anything */
    MR_FAILURE_CUT,     /* a connection that had worked was closed */
    MR_FAILURE_TIMEOUT, /* a request was not answered in time */
};

enum mr_health_state { MR_HEALTH_UNKNOWN, MR_HEALTH_UP, MR_HEALTH_DOWN, MR_HEALTH_STATES };

/** "unknown", "up" or "down"; "unknown" for an invalid state. */
const char *mr_health_state_name(uint64_t state);

struct mr_lag_sample {
    uint64_t at_us;
    uint64_t offset;
};

/** State of a place for a discovered server, one that the configuration does not list. */
enum mr_node_state {
    MR_NODE_NONE,  /* free */
    MR_NODE_TAKEN, /* its address is being written */
    MR_NODE_KNOWN,
};

struct mr_health {
    uint64_t failures;     /* consecutive, over all workers; simultaneous ones count once */
    uint64_t strikes;      /* consecutive failures that count towards ejection */
    uint64_t ring_changes; /* in the pool's first server only: number of ejections and returns */
    uint64_t ejected_us;   /* when it was ejected; 0: it is not */
    uint64_t returned_us;  /* when it was last found well again */
    uint64_t retry_us;     /* while it fails: earliest time of the next connect */
    uint64_t cut_us;       /* when a cut connection was last counted */
    uint64_t late_us;      /* when a time-out was last counted */
    uint64_t error;        /* errno of the last failure */
    uint64_t prober;       /* pid of the worker that probes it */
    uint64_t probe_us;     /* when the next probe is due */
    uint64_t probed_us;    /* when the last probe ended; 0: never probed */
    uint64_t state;        /* enum mr_health_state, as of the last probe */
    uint64_t role;         /* enum mr_role */
    uint64_t link;         /* of a replica: it is connected to its master */
    uint64_t rtt_us;       /* of probes, smoothed */
    uint64_t lag_us;       /* of a replica: lower bound of its lag */
    uint64_t n_samples;    /* total number of samples taken of a master's offset */
    uint64_t node;         /* enum mr_node_state */
    struct mr_addr addr;   /* of a KNOWN node; never changes */
    struct mr_lag_sample samples[MR_LAG_SAMPLES];
};

/** Reads a field of struct mr_health. */
static inline uint64_t mr_health_load(const uint64_t *field)
{
    return __atomic_load_n(field, __ATOMIC_RELAXED);
}

/** Writes a field of struct mr_health. */
static inline void mr_health_store(uint64_t *field, uint64_t value)
{
    __atomic_store_n(field, value, __ATOMIC_RELAXED);
}

/** Replaces `seen` by `value`. Of several processes that try, only one succeeds. */
static inline bool mr_health_claim(uint64_t *field, uint64_t seen, uint64_t value)
{
    return __atomic_compare_exchange_n(field, &seen, value, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}

/**
 * Records a failed connection or request; all workers back off together. One event that hits many
 * connections or requests counts once: time-outs within `timeout_us` of each other are one event.
 * @return number of consecutive failures that count towards ejection
 */
uint64_t mr_health_failed(struct mr_health *h, uint64_t now_us, int error, enum mr_failure failure,
                          uint64_t timeout_us);

/** Records an answer. Only reads, unless there were failures. */
static inline void mr_health_answered(struct mr_health *h)
{
    if (__builtin_expect((mr_health_load(&h->failures) | mr_health_load(&h->strikes)) != 0, 0)) {
        mr_health_store(&h->failures, 0);
        mr_health_store(&h->strikes, 0);
    }
}

/** True if our own machine lacks descriptors, memory or ports; no server is to blame for that. */
bool mr_health_is_shortage(int error);

/**
 * Takes a server out of service for all workers, or puts it back. `first` is the health of the
 * pool's first server, which counts the changes. False if another worker did it first.
 */
bool mr_health_eject(struct mr_health *h, struct mr_health *first, uint64_t now_us);
bool mr_health_restore(struct mr_health *h, struct mr_health *first);

static inline bool mr_health_ejected(const struct mr_health *h)
{
    return mr_health_load(&h->ejected_us) != 0;
}

/** Tells all workers that the pool's servers, or what they serve, have changed. */
static inline void mr_health_changed(struct mr_health *first)
{
    (void)__atomic_add_fetch(&first->ring_changes, 1, __ATOMIC_RELEASE);
}

/** True for a server that was discovered. */
static inline bool mr_health_is_known(const struct mr_health *h)
{
    return __atomic_load_n(&h->node, __ATOMIC_ACQUIRE) == MR_NODE_KNOWN;
}

/** Number of ejections and returns in the pool so far. */
static inline uint64_t mr_health_ring_changes(const struct mr_health *first)
{
    return __atomic_load_n(&first->ring_changes, __ATOMIC_ACQUIRE);
}

/** True if nothing speaks against using the server: not ejected, not down, not in back-off. */
bool mr_health_is_well(const struct mr_health *h, uint64_t now_us);

/**
 * Whether to connect now. While a server fails, only one worker at a time tries.
 * @return 0, or the errno of the last failure
 */
int mr_health_may_connect(struct mr_health *h, uint64_t now_us);
