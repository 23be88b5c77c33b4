/* prober.h - probes the health of servers; private to src/upstream. */
#pragma once

struct mr_pool;

/** mr_pool_probe starts it. */
void mr_prober_init(struct mr_pool *pool);

void mr_prober_stop(struct mr_pool *pool);
