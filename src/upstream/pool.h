/*
 * pool.h - a pool's servers as seen by one worker: routing, ejection, connections.
 *
 * All clients share the connections. A call is answered exactly once, by on_reply with `done` or by
 * on_fail, and never from inside mr_server_send.
 */
#pragma once

#include "config/config.h"
#include "core/metrics.h"
#include "net/loop.h"
#include "upstream/feed.h"
#include "upstream/lease.h"
#include "upstream/server.h"
#include "upstream/topology.h"
#include "upstream/walk.h"

#include <string.h>

/** The message that twemproxy gives clients for an errno; 0: the server closed the connection. */
static inline const char *mr_pool_reason(int error)
{
    const char *text = error == 0 ? NULL : strerrordesc_np(error);

    return text != NULL ? text : "unknown";
}

/** Fields are private to src/upstream, except those that describe the pool. */
struct mr_pool {
    struct mr_loop *loop;
    const struct mr_pool_config *config;
    const struct mr_topology_ops *topology;
    void *map;                 /* state of the topology */
    struct mr_node_map *nodes; /* of a cluster, shared by all workers; borrowed; or NULL */
    struct mr_hosts *hosts;    /* shared likewise; borrowed; NULL: nobody looks names up */
    uint32_t n_groups;         /* see mr_topology_ops.group */
    uint32_t map_changes;      /* changes that may route a key to another server */
    struct mr_list waiting;    /* struct mr_again: calls delayed before a retry */
    struct mr_timer waiting_timer;
    struct mr_pool_metrics *metrics;
    struct mr_process_metrics *process;
    struct mr_extra_room *extra_room; /* borrowed; NULL: unlimited */
    const struct mr_metrics *slots;   /* of all workers; borrowed */
    uint32_t n_slots;
    struct mr_server *servers;
    uint32_t n_servers;
    struct mr_hub hub;     /* subscriptions */
    struct mr_walk walk;   /* through all servers */
    uint32_t n_lanes;      /* including those opened on demand */
    uint64_t ring_changes; /* ejections and returns taken into account so far */
    uint32_t n_ejected;
    uint64_t retry_us; /* earliest time that an ejected server returns unprobed */
    struct mr_timer probe_timer;
    struct mr_health *own_health;   /* if it is not shared; else NULL */
    bool closing;                   /* we are closing the connections: not failures */
    bool lane_awaited;              /* on_lane_known must be called */
    char version[MR_VERSION_BYTES]; /* a server's version from its greeting; may be empty */
    void (*on_lane_known)(struct mr_pool *pool); /* see mr_pool_lane_state; may be NULL */
};

/** What a pool needs from the worker. Everything is borrowed and outlives the pool. */
struct mr_pool_setup {
    struct mr_loop *loop;
    const struct mr_pool_config *config;
    const struct mr_addr *addresses; /* resolved addresses, one per server; NULL for none */
    struct mr_pool_metrics *metrics;
    struct mr_server_metrics *server_metrics; /* one per server */
    struct mr_health *health;  /* one per server, shared by all workers; NULL: private */
    struct mr_node_map *nodes; /* shared by all workers; NULL: private */
    struct mr_hosts *hosts;    /* shared by all workers; NULL: none */
    struct mr_process_metrics *process;
    struct mr_extra_room *extra_room; /* NULL: unlimited */
};

/** Connects at once if `preconnect` is set. */
void mr_pool_init(struct mr_pool *pool, const struct mr_pool_setup *setup);

/** Closes every connection. Open calls fail at the end of the turn; run it before mr_pool_fini. */
void mr_pool_close(struct mr_pool *pool);
void mr_pool_fini(struct mr_pool *pool);

/** Whether there is a descriptor for a leased or on-demand connection. */
static inline bool mr_pool_has_room(const struct mr_pool *pool)
{
    return pool->extra_room == NULL || pool->extra_room->is_left(pool->extra_room);
}

/** Reopens after mr_pool_close. Does nothing if the pool is open. */
void mr_pool_reopen(struct mr_pool *pool);

/** True if no reply is outstanding, not even to a timed-out request. */
bool mr_pool_quiet(const struct mr_pool *pool);

/** Takes over ejections and returns, including those by other workers. */
void mr_pool_refresh(struct mr_pool *pool);

/** The server for a request, or the reason why there is none; see mr_topology_ops.route. */
static inline struct mr_target mr_pool_route(struct mr_pool *pool, struct mr_slice key,
                                             unsigned intent, const struct mr_server *avoid)
{
    if (MR_UNLIKELY(pool->n_ejected > 0 ||
                    mr_health_ring_changes(pool->servers[0].health) != pool->ring_changes))
        mr_pool_refresh(pool);
    return pool->topology->route(pool, key, intent, avoid);
}

/** Group of a key that is on this server, see mr_topology_ops.group. */
static inline uint32_t mr_pool_group(struct mr_pool *pool, struct mr_slice key,
                                     const struct mr_server *server)
{
    return pool->topology->group == NULL ? server->index : pool->topology->group(pool, key);
}

/** Reply to an unsplittable request whose keys are in several groups. */
static inline struct mr_slice mr_pool_apart(const struct mr_pool *pool)
{
    const struct mr_proto *proto = pool->config->protocol;

    return mr_slice_of(pool->n_groups == MR_SLOTS ? proto->cluster.cross_slot
                                                  : proto->keys.cross_server);
}

/** True if all keys of a message are in one group. */
bool mr_pool_keeps_together(struct mr_pool *pool, const struct mr_msg *msg);

/** Rebuilds pool->walk after the set of servers with keys has changed. */
void mr_pool_plan_walk(struct mr_pool *pool);

/** See mr_topology_ops.holders; `servers` has room for all of the pool. */
uint32_t mr_pool_holders(struct mr_pool *pool, uint32_t *servers);

/** Whether servers speak a lane. If UNKNOWN, pool->on_lane_known is called once it is known. */
enum mr_lane_state mr_pool_lane_state(struct mr_pool *pool, uint8_t lane);

/** The same for one of the servers: its greeting tells the version. */
enum mr_lane_state mr_pool_any_lane_state(struct mr_pool *pool, uint8_t lane);

/** A connection was greeted, or failed before that. */
void mr_pool_lane_known(struct mr_pool *pool);

/** Returns ejected servers that are due, and lets the topology act on what probes found. */
void mr_pool_look_around(struct mr_pool *pool);

/** The address of a server changed: new connections use it, old ones finish. */
void mr_pool_set_address(struct mr_pool *pool, uint32_t server, const struct mr_addr *addr);

/* ---- for the rest of upstream/ ---- */

/** Counts ejected servers, and notes when the first of them is due. */
void mr_pool_count_ejected(struct mr_pool *pool);

/**
 * Starts probing as configured, at once or with the next tick. Does nothing if it is running, or if
 * the pool is closed.
 */
void mr_pool_probe(struct mr_pool *pool, bool at_once);
