/*
 * topology.h - how a pool's servers share its keys; each topology is a const vtable.
 *
 * Only the topologies themselves know which one a pool has; everybody else calls the vtable.
 */
#pragma once

#include "config/config.h"
#include "proto/proto.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_pool;
struct mr_server;
struct mr_walk;

/** Requirements of a request, as bits; 0: any server that has the key. */
enum mr_intent {
    MR_TO_MASTER = 1, /* must go to the master */
};

/** Destination of a request. */
struct mr_target {
    struct mr_server *server; /* NULL: none */
    union {
        const char *reason; /* without a server: why, for the client */
        uint32_t group;     /* with one, unless keys_together: group of the key, see below */
    };
};

struct mr_topology_ops {
    const char *name;   /* as in `topology:` */
    bool keys_together; /* every server has all keys, so no request spans servers */
    bool elsewhere;     /* a request that its server has not seen may be sent to another */
    bool has_roles;     /* servers are masters and replicas */
    bool probes;        /* routing depends on probes, so probing never pauses */

    /** Creates and frees pool->map, the topology's state. */
    void (*init)(struct mr_pool *pool);
    void (*fini)(struct mr_pool *pool);

    /**
     * Selects the server for each request. Requests without a key pass any key. `intent` has bits
     * of enum mr_intent; `avoid` is a server that just failed to take the request, or NULL.
     */
    struct mr_target (*route)(struct mr_pool *pool, struct mr_slice key, unsigned intent,
                              const struct mr_server *avoid);

    /** The pool starts or stops making connections. May be NULL. */
    void (*start)(struct mr_pool *pool);
    void (*stop)(struct mr_pool *pool);

    /**
     * The group of a key, below pool->n_groups; all keys of a request must be in one group. NULL:
     * the keys of a server form a group.
     */
    uint32_t (*group)(struct mr_pool *pool, struct mr_slice key);

    /**
     * Stores the indexes of servers that together have all keys. Returns their number; 0 if
     * unknown. NULL: all servers.
     */
    uint32_t (*holders)(struct mr_pool *pool, uint32_t *servers);

    /**
     * Adds these servers to an empty walk. NULL: all servers, at positions derived from their
     * names.
     */
    void (*plan_walk)(struct mr_pool *pool, struct mr_walk *walk);

    /**
     * Returns the target of a request that a server redirected, and updates the map. No target: it
     * is not known yet. NULL: servers do not redirect.
     */
    struct mr_target (*redirected)(struct mr_server *by, const struct mr_redirect *redirect);

    /** A server failed. May be NULL. */
    void (*failed)(struct mr_server *server);

    /** Servers were ejected or returned, or the shared map changed, in any worker. */
    void (*changed)(struct mr_pool *pool);

    /** A probe succeeded. May be NULL. */
    void (*probed)(struct mr_server *server, const struct mr_probe *found);

    /** Called between probes. May be NULL. */
    void (*look_around)(struct mr_pool *pool);

    /** Whether the server may be ejected. */
    bool (*may_eject)(const struct mr_server *server);

    /** The configured role of a server. NULL if servers have no roles. */
    enum mr_role (*configured_role)(const struct mr_pool_config *config, uint32_t server);
};

extern const struct mr_topology_ops MR_TOPOLOGY_SHARDS;
extern const struct mr_topology_ops MR_TOPOLOGY_REPLICATED;
extern const struct mr_topology_ops MR_TOPOLOGY_CLUSTER;
extern const struct mr_topology_ops MR_TOPOLOGY_SENTINEL;
extern const struct mr_topology_ops MR_TOPOLOGY_BALANCED; /* of protocols without keys */

/** The topology of a pool. */
const struct mr_topology_ops *mr_topology_of(const struct mr_pool_config *config);
