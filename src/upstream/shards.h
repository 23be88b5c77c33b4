/* shards.h - keys spread over servers by a hash and a ring; private to src/upstream. */
#pragma once

#include "upstream/pool.h"

struct mr_shards;

/** A ring over the pool's servers without `except`, which may be NULL. Returned owned. */
struct mr_shards *mr_shards_new(struct mr_pool *pool, const struct mr_server *except);
void mr_shards_free(struct mr_shards *shards);

/** Builds the ring again, of the servers that are not ejected, without `except`. */
void mr_shards_rebuild(struct mr_shards *shards, const struct mr_server *except);

/** The server of a key; NULL when all are ejected. */
struct mr_server *mr_shards_pick(struct mr_shards *shards, struct mr_slice key);
