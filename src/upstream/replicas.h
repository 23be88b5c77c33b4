/* replicas.h - pools whose servers all have all keys: which one takes a request. */
#pragma once

#include "upstream/pool.h"

/** Index of the server for a request; -1 when there is none. Fits mr_pool_choose. */
int mr_replicas_choose(struct mr_pool *pool, struct mr_slice key, bool to_master);

/** Makes the server the master that says it is one, where roles are followed. */
void mr_replicas_follow(struct mr_pool *pool);
