/* fiber.h - a stack of its own for each simulated process, so that real code can block. */
#pragma once

struct sim_fiber;

/** Makes one that will run body(arg) when it is first switched to. */
struct sim_fiber *sim_fiber_new(void (*body)(void *arg), void *arg);

/** Frees one whose body has returned, or that never began. */
void sim_fiber_free(struct sim_fiber *f);

/** From the scheduler: goes on with the fiber until it yields or its body returns. */
void sim_fiber_run(struct sim_fiber *f);

/** From inside: back to the scheduler. */
void sim_fiber_yield(struct sim_fiber *f);
