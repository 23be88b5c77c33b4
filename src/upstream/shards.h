/* shards.h - keys distributed over servers by hash and ring; private to src/upstream. */
#pragma once

#include "upstream/pool.h"

struct mr_shards;

/** A ring of the pool's servers without `except` (may be NULL). Returned owned. */
struct mr_shards *mr_shards_new(struct mr_pool *pool, const struct mr_server *except);
void mr_shards_free(struct mr_shards *shards);

/** Rebuilds the ring from the servers that are not ejected, without `except`. */
void mr_shards_rebuild(struct mr_shards *shards, const struct mr_server *except);

/** The server of a key, or NULL if all are ejected. */
struct mr_server *mr_shards_pick(struct mr_shards *shards, struct mr_slice key);
