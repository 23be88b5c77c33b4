/*
 * topology.h - how the servers of a pool share its keys: one const table for each way.
 *
 * Only the files of the tables know which topology a pool has; all others call through the table.
 */
#pragma once

#include "config/config.h"
#include "proto/proto.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_pool;
struct mr_server;

/** What a request wants of the server that takes it, as bits; 0: any server that has the key. */
enum mr_intent {
    MR_TO_MASTER = 1, /* no replica may take it */
};

/** Where a request goes. */
struct mr_target {
    struct mr_server *server; /* NULL: nowhere */
    const char *reason;       /* why there is none, for the client */
};

struct mr_topology_ops {
    const char *name;   /* as in `topology:` */
    bool keys_together; /* every server has all keys, so no request has keys on several servers */
    bool elsewhere;     /* a request that its server has not seen may go to another one */
    bool probes;        /* the choice depends on what probes find: they never pause */

    /** Makes and frees pool->map, the topology's own state. */
    void (*init)(struct mr_pool *pool);
    void (*fini)(struct mr_pool *pool);

    /**
     * Chooses the server of a request; runs for each. `key` is any key for a request that has
     * none, `intent` bits of enum mr_intent, `avoid` a server that has just failed to take the
     * request or NULL.
     */
    struct mr_target (*route)(struct mr_pool *pool, struct mr_slice key, unsigned intent,
                              const struct mr_server *avoid);

    /** Servers have been ejected or have come back, here or in another worker. */
    void (*changed)(struct mr_pool *pool);

    /** A probe has succeeded. NULL: nothing to learn from it. */
    void (*probed)(struct mr_server *server, const struct mr_probe *found);

    /** Between probes, all of them considered. NULL: nothing to do. */
    void (*look_around)(struct mr_pool *pool);

    /** Whether the pool can do without the server. */
    bool (*may_eject)(const struct mr_server *server);

    /** The role that the configuration gives a server; NULL where servers have none. */
    enum mr_role (*configured_role)(const struct mr_pool_config *config, uint32_t server);
};

extern const struct mr_topology_ops MR_TOPOLOGY_SHARDS;
extern const struct mr_topology_ops MR_TOPOLOGY_REPLICATED;

/** The table of a pool's topology. */
const struct mr_topology_ops *mr_topology_of(const struct mr_pool_config *config);
