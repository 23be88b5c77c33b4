/* fiber.h - a fiber per simulated process, so that real code can block. */
#pragma once

struct sim_fiber;

/** Creates a fiber that runs body(arg) when first switched to. */
struct sim_fiber *sim_fiber_new(void (*body)(void *arg), void *arg);

/** Frees a fiber that has finished or never started. */
void sim_fiber_free(struct sim_fiber *f);

/** From the scheduler: runs the fiber until it yields or finishes. */
void sim_fiber_run(struct sim_fiber *f);

/** From the fiber: returns to the scheduler. */
void sim_fiber_yield(struct sim_fiber *f);
