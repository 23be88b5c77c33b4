/*
 * health.h - what all workers together know of a server's health.
 *
 * struct mr_health lies in memory that all workers share. Fields are written by whoever learns
 * something, with plain atomic stores; nothing here must be right for the proxy to be correct.
 * Times are the loop's, in microseconds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

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

/** Stores what was learned. */
static inline void mr_health_store(uint64_t *field, uint64_t value)
{
    __atomic_store_n(field, value, __ATOMIC_RELAXED);
}

/** Replaces `seen` by `value`: of several processes that try, one succeeds. */
static inline bool mr_health_claim(uint64_t *field, uint64_t seen, uint64_t value)
{
    return __atomic_compare_exchange_n(field, &seen, value, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}

/**
 * A connection or a request has failed; workers back off together. What one event does to many
 * connections and requests counts once: requests that time out within `timeout_us` of each other
 * are one event.
 * @return how many failures in a row count towards ejection
 */
uint64_t mr_health_failed(struct mr_health *h, uint64_t now_us, int error, enum mr_failure failure,
                          uint64_t timeout_us);

/** The server has answered. Only a look when nothing was wrong. */
static inline void mr_health_answered(struct mr_health *h)
{
    if (__builtin_expect((mr_health_load(&h->failures) | mr_health_load(&h->strikes)) != 0, 0)) {
        mr_health_store(&h->failures, 0);
        mr_health_store(&h->strikes, 0);
    }
}

/**
 * Takes a server out of service for all workers, or back. `first` is the health of the pool's
 * first server, which counts the changes. False when another worker was first.
 */
bool mr_health_eject(struct mr_health *h, struct mr_health *first, uint64_t now_us);
bool mr_health_restore(struct mr_health *h, struct mr_health *first);

static inline bool mr_health_ejected(const struct mr_health *h)
{
    return mr_health_load(&h->ejected_us) != 0;
}

/** Goes up with every ejection and return of one of the pool's servers. */
static inline uint64_t mr_health_ring_changes(const struct mr_health *first)
{
    return __atomic_load_n(&first->ring_changes, __ATOMIC_ACQUIRE);
}

/** True while nothing speaks against asking the server: not ejected, not down, not held back. */
bool mr_health_is_well(const struct mr_health *h, uint64_t now_us);

/**
 * Says whether to connect now: while a server fails, one worker at a time tries.
 * @return 0, or the errno of the last failure
 */
int mr_health_may_connect(struct mr_health *h, uint64_t now_us);
