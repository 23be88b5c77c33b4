/* ways.h - the sockets for handovers between old and new workers. */
#pragma once

#include "core/result.h"

#include <stdint.h>

/** One end for each slot; -1 if closed. */
struct mr_ways {
    int *fds; /* NULL for none */
    uint32_t n;
};

/** Opens `n` pairs. On failure neither side owns anything. */
enum mr_result mr_ways_open(struct mr_ways *in, struct mr_ways *out, uint32_t n,
                            struct mr_error *err) MR_MUST_USE;

/** Closes one socket. Does nothing if it is closed. */
void mr_ways_close_one(struct mr_ways *ways, uint32_t i);

/** Closes all and frees the array. Does nothing if there are none. */
void mr_ways_close(struct mr_ways *ways);
