/* prober.h - asks servers whether they are well; private to src/upstream. */
#pragma once

struct mr_pool;

/** Begins to probe the pool's servers where the configuration wants it. Fine while it probes. */
void mr_prober_start(struct mr_pool *pool);

/** A server has failed: probing begins, where it is wanted, with the next tick. */
void mr_prober_wake(struct mr_pool *pool);

void mr_prober_stop(struct mr_pool *pool);
