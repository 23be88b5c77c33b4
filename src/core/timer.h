/*
 * timer.h - a hierarchical timer wheel with one-millisecond ticks.
 *
 * Setting, cancelling and expiry are O(1). A timer never fires early, and at most one tick late
 * plus the length of a loop turn. Delays above MR_TIMER_MAX_MS are cut to it.
 */
#pragma once

#include "core/list.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_TIMER_BITS   6u
#define MR_TIMER_SLOTS  (1u << MR_TIMER_BITS)
#define MR_TIMER_LEVELS 5u
#define MR_TIMER_MAX_MS ((1u << (MR_TIMER_BITS * MR_TIMER_LEVELS)) - MR_TIMER_SLOTS)

struct mr_timer {
    struct mr_list link; /* zeroed while not set */
    void (*fire)(struct mr_timer *timer);
    uint64_t due_ms;
};

struct mr_timers {
    struct mr_list slots[MR_TIMER_LEVELS][MR_TIMER_SLOTS];
    uint64_t occupied[MR_TIMER_LEVELS]; /* one bit per slot that may hold timers */
    uint64_t now_ms;                    /* all timers due up to this time have fired */
};

void mr_timers_init(struct mr_timers *timers, uint64_t now_us);

/** Sets or resets a timer to call timer->fire in `delay_ms`, counted from `now_us`. */
void mr_timer_set(struct mr_timers *timers, struct mr_timer *timer, uint64_t now_us,
                  uint64_t delay_ms);

static inline bool mr_timer_is_set(const struct mr_timer *timer)
{
    return mr_list_linked(&timer->link);
}

/** Cancels a timer; does nothing if it is not set. */
void mr_timer_cancel(struct mr_timer *timer);

/**
 * Fires every timer due at `now_us`. Callbacks may set and cancel any timer, including their own.
 */
void mr_timers_run(struct mr_timers *timers, uint64_t now_us);

/** Milliseconds until mr_timers_run must be called again, at most `max_ms`. */
int mr_timers_wait_ms(const struct mr_timers *timers, uint64_t now_us, int max_ms);
