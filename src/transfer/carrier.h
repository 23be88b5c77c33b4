/*
 * carrier.h - transfers many keys at a time: keeps them in order, bounds their number and memory,
 * and repeats what failed.
 *
 * A key that is added while it waits is transferred once; one that is added during its transfer is
 * transferred again. So the memory depends on the number of keys, not on how often they are
 * written, and a pool that is slow or gone costs no more than that.
 */
#pragma once

#include "core/list.h"
#include "core/table.h"
#include "transfer/transfer.h"

struct mr_cargo;

/** Where a carrier counts. */
struct mr_carrier_counts {
    uint64_t *carried;
    uint64_t *errors;  /* transfers that failed, and are repeated or given up */
    uint64_t *dropped; /* keys given up */
    uint64_t *pending; /* keys that wait or are being transferred */
};

struct mr_carrier_setup {
    struct mr_loop *loop;
    struct mr_pool *from; /* borrowed */
    struct mr_pool *to;
    size_t max_bytes; /* of keys that wait, and as much again of values */
    uint32_t max_active;
    uint32_t tries;                  /* how often a server may refuse a key before it is given up */
    struct mr_carrier_counts counts; /* borrowed */
};

struct mr_carrier {
    struct mr_carrier_setup setup;
    struct mr_transfer_road road;
    struct mr_table cargo; /* all keys */
    struct mr_list ready;  /* in order of arrival */
    struct mr_list
        later; /* by time: after a failure, or because they are large and often written */
    struct mr_timer timer;  /* the first of `later`, or the end of a pause */
    struct mr_cargo *alone; /* a value that needs all of the allowance; NULL */
    size_t bytes;           /* of all cargo */
    uint32_t n_active;
    uint32_t failures;  /* transfers without a reply, in a row */
    uint64_t resume_us; /* after so many failures: no transfer starts before; 0 */
    uint64_t moved_us;  /* loop time of the last success */
    bool stopped;
};

/** A key to transfer. */
struct mr_carrier_key {
    struct mr_slice key; /* borrowed for the call */
    uint64_t affinity;   /* see mr_server_send */
    uint8_t from_lane;
    uint8_t to_lane;
    bool doubtful; /* it may still change a moment later without anybody telling */
};

void mr_carrier_init(struct mr_carrier *carrier, const struct mr_carrier_setup *setup);

/** The pools must be closed and the loop settled: no transfer is active. Drops what is left. */
void mr_carrier_fini(struct mr_carrier *carrier);

/** Adds a key. If there is no room, it is dropped. */
void mr_carrier_add(struct mr_carrier *carrier, const struct mr_carrier_key *key);

/** Counts a key that cannot be added as dropped. */
void mr_carrier_drop(struct mr_carrier *carrier, const char *reason);

/** No transfer makes progress: no key is left, the other pool does not answer, or it is stopped. */
bool mr_carrier_settled(const struct mr_carrier *carrier);

/** Starts no more transfers. */
void mr_carrier_stop(struct mr_carrier *carrier);
