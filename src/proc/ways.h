/* ways.h - sockets on which workers hand clients to the workers that follow them. */
#pragma once

#include "core/result.h"

#include <stdint.h>

/** One end of the way of each slot; -1 where it is closed. */
struct mr_ways {
    int *fds; /* NULL for none */
    uint32_t n;
};

/** Opens `n` of them. On failure neither end owns anything. */
enum mr_result mr_ways_open(struct mr_ways *in, struct mr_ways *out, uint32_t n,
                            struct mr_error *err) MR_MUST_USE;

/** Closes one end; fine when it is closed. */
void mr_ways_close_one(struct mr_ways *ways, uint32_t i);

/** Closes all and frees the array; fine for none. */
void mr_ways_close(struct mr_ways *ways);
