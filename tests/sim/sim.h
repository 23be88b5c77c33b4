/*
 * sim.h - one simulated run: a seed, a virtual clock, events, and a trace of what happened.
 *
 * A program of this folder is `sim_NAME [SECONDS] [SEED]`: it plays one seed after the other. All
 * that differs between two runs comes from sim_rand, so a seed repeats to the byte. Tracing is off
 * until something is found; then the program plays the seed again with the trace on.
 */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- chance ---- */

uint64_t sim_rand(void);

/** 0 to n - 1; 0 for n 0. */
uint32_t sim_below(uint32_t n);

/** From lo to hi, both possible. */
uint32_t sim_between(uint32_t lo, uint32_t hi);

/** True once in `n` times; never for 0. */
bool sim_once_in(uint32_t n);

/** As sim_between, but each order of magnitude is as likely as the others. */
uint32_t sim_magnitude(uint32_t lo, uint32_t hi);

/* ---- time ---- */

extern uint64_t sim_now_us; /* of the monotonic clock */

/** Something that will happen; zeroed before the first use, embedded by its owner. */
struct sim_event {
    uint64_t at_us;
    uint64_t order;
    void (*fire)(void *arg);
    void *arg;
    size_t place; /* in the heap, from 1; 0: not set */
};

/** Sets, or sets anew. */
void sim_event_set(struct sim_event *e, uint64_t delay_us, void (*fire)(void *arg), void *arg);
void sim_event_cancel(struct sim_event *e);

/** When the next event is due; UINT64_MAX without any. */
uint64_t sim_next_event_us(void);

/** Fires one event that is due; false when none is. */
bool sim_fire_event(void);

/* ---- memory of the run: freed when it ends ---- */

void *sim_alloc(size_t bytes); /* zeroed */
char *sim_text(const char *fmt, ...) MR_PRINTF(1, 2);

/* ---- what has happened ---- */

extern bool sim_tracing;

/** One line of the trace. */
#define sim_note(...)                                                                              \
    do {                                                                                           \
        if (sim_tracing)                                                                           \
            sim_trace(__VA_ARGS__);                                                                \
    } while (0)
void sim_trace(const char *fmt, ...) MR_PRINTF(1, 2);

/** The run has found a fault: prints it, the end of the trace and how to repeat it; ends. */
_Noreturn void sim_fail(const char *fmt, ...) MR_PRINTF(1, 2);

#define SIM_CHECK(cond, ...)                                                                       \
    do {                                                                                           \
        if (MR_UNLIKELY(!(cond)))                                                                  \
            sim_fail(__VA_ARGS__);                                                                 \
    } while (0)

/** Counts one step of the run; a run of too many fails. */
void sim_step(void);

/** Plays runs as the arguments say. Returns the exit status. */
int sim_main(int argc, char **argv, void (*run)(void));
