/*
 * copy.h - `millrace copy`: copies the keys of one pool to another, as a client of the running
 * proxy.
 *
 * The proxy knows where keys are, follows redirects and failovers, and has a cursor over all
 * servers of a pool; so the same program copies between any two topologies. A key is read again
 * after it was stored, until nothing has changed, as in transfer/transfer.h: together with
 * `mirror_to`, nothing that clients write meanwhile is lost.
 */
#pragma once

#include "copy/link.h"
#include "copy/options.h"

#include <stdio.h>

/** What was done so far; kept in the state file. */
struct mr_copy_counts {
    uint64_t scanned;
    uint64_t copied;
    uint64_t kept;     /* the other pool had a value */
    uint64_t gone;     /* removed or expired before they were read */
    uint64_t unsteady; /* written so often that they were never read twice the same */
    uint64_t failed;
};

struct mr_copy {
    const struct mr_copy_options *options;
    struct mr_link from;
    struct mr_link to;
    struct mr_copy_counts counts;
    char cursor[32]; /* of the next SCAN; "0" at the beginning */
    bool finished;
    uint64_t total; /* number of keys, roughly; 0: unknown */
    uint64_t started_us;
    uint64_t scanned_before; /* by an earlier run */
    uint64_t shown_us;
    uint64_t saved_us;
    uint64_t trouble_us; /* since when something does not work; 0 */
};

/** True after SIGINT or SIGTERM. */
bool mr_copy_interrupted(void);

/**
 * Waits before another try. `reason` is shown at first.
 * @return false if that has gone on for too long, or after a signal
 */
bool mr_copy_try_again(struct mr_copy *copy, const char *reason);

/** What worked: ends the trouble. */
void mr_copy_works(struct mr_copy *copy);

/** Copies keys; frees nothing. False if it has to stop, see mr_copy_try_again. */
bool mr_copy_keys(struct mr_copy *copy, const redisReply *keys);

/** Prints a progress line if it is time, or in any case. */
void mr_copy_show(struct mr_copy *copy, bool now);

/** Writes the state file, atomically. */
enum mr_result mr_copy_save(const struct mr_copy *copy, const char *path,
                            struct mr_error *err) MR_MUST_USE;

/** Reads it. MR_AGAIN if there is none. */
enum mr_result mr_copy_load(struct mr_copy *copy, const char *path,
                            struct mr_error *err) MR_MUST_USE;

/**
 * Compares random keys. Returns the number of those that differ.
 * @param compared  becomes the number of keys that were compared
 */
uint64_t mr_copy_verify(struct mr_copy *copy, uint64_t n, uint64_t *compared);

/** The program. Returns its exit status: 0, 1 for an error, 2 if keys differ, 3 interrupted. */
int mr_copy_main(int argc, char **argv, const char *default_conf);
