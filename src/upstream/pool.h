/*
 * pool.h - the servers of a pool as one worker sees them: routing, ejection, connections.
 *
 * Connections are shared by all clients. A call is answered exactly once, by on_reply with `done`
 * or by on_fail, and never from inside mr_server_send.
 */
#pragma once

#include "config/config.h"
#include "core/metrics.h"
#include "net/loop.h"
#include "upstream/lease.h"
#include "upstream/server.h"
#include "upstream/topology.h"

/** Its fields are private to src/upstream, but for what describes it. */
struct mr_pool {
    struct mr_loop *loop;
    const struct mr_pool_config *config;
    const struct mr_topology_ops *topology;
    void *map; /* the topology's own */
    struct mr_pool_metrics *metrics;
    struct mr_process_metrics *process;
    struct mr_lease_room *lease_room; /* borrowed; NULL: there is always room */
    struct mr_server *servers;
    uint32_t n_servers;
    uint64_t ring_changes; /* ejections and returns that are taken into account */
    uint32_t n_ejected;
    uint64_t retry_us; /* earliest time that an ejected server comes back unprobed */
    struct mr_timer probe_timer;
    struct mr_health *own_health;                /* where nobody shares any; NULL */
    bool closing;                                /* failures are ours: do not count them */
    bool lane_awaited;                           /* on_lane_known is to be called */
    void (*on_lane_known)(struct mr_pool *pool); /* see mr_pool_lane_state; or NULL */
};

/** What a pool needs from the worker; everything is borrowed and outlives the pool. */
struct mr_pool_setup {
    struct mr_loop *loop;
    const struct mr_pool_config *config;
    const struct mr_addr *addresses; /* resolved so far, one for each server; NULL for none */
    struct mr_pool_metrics *metrics;
    struct mr_server_metrics *server_metrics; /* one for each server */
    struct mr_health *health; /* one for each server, shared by all workers; NULL: of its own */
    struct mr_process_metrics *process;
    struct mr_lease_room *lease_room; /* NULL: there is always room */
};

/** Connects at once where the configuration says so. */
void mr_pool_init(struct mr_pool *pool, const struct mr_pool_setup *setup);

/** Closes every connection; open calls fail at the end of the turn. Then turn, then fini. */
void mr_pool_close(struct mr_pool *pool);
void mr_pool_fini(struct mr_pool *pool);

/** Connects again after mr_pool_close. Fine for one that is not closed. */
void mr_pool_reopen(struct mr_pool *pool);

/** True when no server owes a reply, not even one to a request that has timed out. */
bool mr_pool_quiet(const struct mr_pool *pool);

/** Takes note of what was ejected or came back, here or in another worker. */
void mr_pool_refresh(struct mr_pool *pool);

/** The server that takes a request, or why none does; see mr_topology_ops.route. */
static inline struct mr_target mr_pool_route(struct mr_pool *pool, struct mr_slice key,
                                             unsigned intent, const struct mr_server *avoid)
{
    if (MR_UNLIKELY(pool->n_ejected > 0 ||
                    mr_health_ring_changes(pool->servers[0].health) != pool->ring_changes))
        mr_pool_refresh(pool);
    return pool->topology->route(pool, key, intent, avoid);
}

/** What servers make of a lane; pool->on_lane_known is called once when UNKNOWN is over. */
enum mr_lane_state mr_pool_lane_state(struct mr_pool *pool, uint8_t lane);

/** A connection has been greeted, or has failed before that. */
void mr_pool_lane_known(struct mr_pool *pool);

/** Takes back ejected servers whose time it is, and lets the topology look at its servers. */
void mr_pool_look_around(struct mr_pool *pool);

/** A server's name has (another) address: new connections go there, old ones finish. */
void mr_pool_set_address(struct mr_pool *pool, uint32_t server, const struct mr_addr *addr);

/** What twemproxy tells clients for an errno; 0 is a connection that the server closed. */
const char *mr_pool_reason(int error);
