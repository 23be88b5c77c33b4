/*
 * guests.h - connections to the proxy's own ports: how many, how much is kept for them, how long.
 *
 * Nobody is turned away. Beyond the limits the guest that came first has to go, and each has to go
 * when its time is over, however busy it seems. So any number of slow ones cannot keep out one that
 * asks and reads at once.
 */
#pragma once

#include "net/loop.h"

struct mr_guests;

/** Part of the owner's connection; zeroed. */
struct mr_guest {
    struct mr_list link; /* zeroed while it is no guest */
    struct mr_timer timer;
    struct mr_guests *of;
    uint64_t since_us;
    size_t bytes;
};

struct mr_guests {
    struct mr_loop *loop;
    struct mr_list list; /* by age */
    uint32_t n;
    size_t bytes;

    struct mr_timer trim; /* of those of one turn that were too many */

    uint32_t most; /* connections that there can be at all; half as many may stay */
    size_t max_bytes;
    uint32_t limit_ms;
    /** Ends the connection, not later than soon. The guest has left already. */
    void (*dismiss)(struct mr_guest *guest);
};

/** The limits and `dismiss` are set by the caller. */
void mr_guests_init(struct mr_guests *guests, struct mr_loop *loop);

static inline bool mr_guests_full(const struct mr_guests *guests)
{
    return guests->n >= guests->most;
}

/** A connection has come. Those of this turn are spared until the next: they could not read yet. */
void mr_guests_enter(struct mr_guests *guests, struct mr_guest *guest);

/** So many bytes wait in memory for a guest. Others are dismissed for them, it is not. */
void mr_guest_holds(struct mr_guest *guest, size_t bytes);

/** All have to go, and no timer is left. */
void mr_guests_dismiss_all(struct mr_guests *guests);

/** The connection is gone; fine for one that has left already. */
void mr_guest_leave(struct mr_guest *guest);
