/*
 * guests.h - limits connections to the proxy's own ports: number, memory and duration.
 *
 * Nobody is refused. Beyond the limits the oldest connection is closed, and each is closed when its
 * time is over, however busy. So slow peers cannot keep out one that reads promptly.
 */
#pragma once

#include "net/loop.h"

struct mr_guests;

/** Embedded in the owner's connection; zeroed. */
struct mr_guest {
    struct mr_list link; /* zeroed while not in use */
    struct mr_timer timer;
    struct mr_guests *of;
    uint64_t since_us;
    size_t bytes;
};

struct mr_guests {
    struct mr_loop *loop;
    struct mr_list list; /* in order of arrival */
    uint32_t n;
    size_t bytes;

    struct mr_timer trim; /* removes those beyond the limit after a turn */

    uint32_t most; /* hard limit on connections; half as many may stay */
    size_t max_bytes;
    uint32_t limit_ms;
    /** Closes the connection, soon at the latest. The guest was already removed. */
    void (*dismiss)(struct mr_guest *guest);
};

/** The caller sets the limits and `dismiss`. */
void mr_guests_init(struct mr_guests *guests, struct mr_loop *loop);

static inline bool mr_guests_full(const struct mr_guests *guests)
{
    return guests->n >= guests->most;
}

/**
 * Adds a connection. Those of the current turn are spared until the next, because they could not
 * read yet.
 */
void mr_guests_enter(struct mr_guests *guests, struct mr_guest *guest);

/** Accounts for bytes held in memory for a guest. Other guests are dismissed to make room. */
void mr_guest_holds(struct mr_guest *guest, size_t bytes);

/** Dismisses all guests and stops the timers. */
void mr_guests_dismiss_all(struct mr_guests *guests);

/** Removes a closed connection. Does nothing if it was already removed. */
void mr_guest_leave(struct mr_guest *guest);
