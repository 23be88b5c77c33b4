/*
 * timer.h - a hierarchical timer wheel with a tick of one millisecond.
 *
 * Set, cancel and expiry are O(1). A timer never fires early and at most one tick late, plus
 * whatever the loop turn takes. The largest delay is MR_TIMER_MAX_MS; longer ones are cut to it.
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
    struct mr_list link; /* zeroed while the timer is not set */
    void (*fire)(struct mr_timer *timer);
    uint64_t due_ms;
};

struct mr_timers {
    struct mr_list slots[MR_TIMER_LEVELS][MR_TIMER_SLOTS];
    uint64_t occupied[MR_TIMER_LEVELS]; /* a bit for each slot that may hold timers */
    uint64_t now_ms;                    /* every timer due up to here has fired */
};

void mr_timers_init(struct mr_timers *timers, uint64_t now_us);

/** Sets (or sets anew) a timer to call timer->fire in `delay_ms`, counted from `now_us`. */
void mr_timer_set(struct mr_timers *timers, struct mr_timer *timer, uint64_t now_us,
                  uint64_t delay_ms);

static inline bool mr_timer_is_set(const struct mr_timer *timer)
{
    return mr_list_linked(&timer->link);
}

/** Cancels; fine for a timer that is not set. */
void mr_timer_cancel(struct mr_timer *timer);

/** Fires everything due at `now_us`. A callback may set and cancel any timer, its own too. */
void mr_timers_run(struct mr_timers *timers, uint64_t now_us);

/** Milliseconds until the wheel wants to be run again, at most `max_ms`. */
int mr_timers_wait_ms(const struct mr_timers *timers, uint64_t now_us, int max_ms);
