/*
 * sim.h - a simulated run: a seed, a virtual clock, events, and a trace.
 *
 * Programs in this folder are `sim_NAME [SECONDS] [SEED]` and run one seed after the other.
 * Everything that differs between two runs comes from sim_rand, so a seed repeats exactly. Tracing
 * is off until a run fails; then the program runs the seed again with tracing.
 */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- randomness ---- */

uint64_t sim_rand(void);

/** 0 to n - 1; 0 for n 0. */
uint32_t sim_below(uint32_t n);

/** From lo to hi, inclusive. */
uint32_t sim_between(uint32_t lo, uint32_t hi);

/** True once in `n` times; never for 0. */
bool sim_once_in(uint32_t n);

/** Like sim_between, but each order of magnitude is equally likely. */
uint32_t sim_magnitude(uint32_t lo, uint32_t hi);

/* ---- time ---- */

extern uint64_t sim_now_us; /* monotonic */

/** An event; zeroed before first use, embedded by its owner. */
struct sim_event {
    uint64_t at_us;
    uint64_t order;
    void (*fire)(void *arg);
    void *arg;
    size_t place; /* index in the heap, from 1; 0: not set */
};

/** Sets or resets it. */
void sim_event_set(struct sim_event *e, uint64_t delay_us, void (*fire)(void *arg), void *arg);
void sim_event_cancel(struct sim_event *e);

/** When the next event is due; UINT64_MAX if there is none. */
uint64_t sim_next_event_us(void);

/** Fires one due event; false if there is none. */
bool sim_fire_event(void);

/* ---- memory that is freed at the end of the run ---- */

void *sim_alloc(size_t bytes); /* zeroed */
char *sim_text(const char *fmt, ...) MR_PRINTF(1, 2);

/* ---- trace and failure ---- */

extern bool sim_tracing;

/** Adds a line to the trace. */
#define sim_note(...)                                                                              \
    do {                                                                                           \
        if (sim_tracing)                                                                           \
            sim_trace(__VA_ARGS__);                                                                \
    } while (0)
void sim_trace(const char *fmt, ...) MR_PRINTF(1, 2);

/** Reports a failure with the end of the trace and how to repeat it, and exits. */
_Noreturn void sim_fail(const char *fmt, ...) MR_PRINTF(1, 2);

#define SIM_CHECK(cond, ...)                                                                       \
    do {                                                                                           \
        if (MR_UNLIKELY(!(cond)))                                                                  \
            sim_fail(__VA_ARGS__);                                                                 \
    } while (0)

/** Counts a step of the run; fails if there are too many. */
void sim_step(void);

/** Runs what the arguments ask for. Returns the exit status. */
int sim_main(int argc, char **argv, void (*run)(void));
