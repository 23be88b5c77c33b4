/* replicas.h - pools whose servers all have all keys: which one takes a request. */
#pragma once

#include "upstream/pool.h"

/**
 * Chooses the server for a request.
 * @param avoid index of a server that has just failed it, -1 for none
 * @return its index; -1 when there is none
 */
int mr_replicas_choose(struct mr_pool *pool, struct mr_slice key, bool to_master, int avoid);

/** Makes the server the master that says it is one, where roles are followed. */
void mr_replicas_follow(struct mr_pool *pool);
