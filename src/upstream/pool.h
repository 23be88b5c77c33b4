/*
 * pool.h - the servers of a pool as one worker sees them: routing, ejection, connections.
 *
 * Connections are shared by all clients. A call is answered exactly once, by on_reply with `done`
 * or by on_fail, and never from inside mr_pool_send.
 */
#pragma once

#include "config/config.h"
#include "core/metrics.h"
#include "net/loop.h"
#include "upstream/call.h"

struct mr_backend;
struct mr_pool;

/** Connections of one kind to a server. */
struct mr_lane {
    bool spoken;         /* the server has answered on one */
    const char *refusal; /* why it does not speak it, as far as is known */
    uint64_t retry_us;   /* no connect before */
};

struct mr_server {
    struct mr_pool *pool;
    const struct mr_server_config *config;
    struct mr_server_metrics *metrics;
    struct mr_addr addr;       /* len 0 until the name is resolved */
    struct mr_backend **slots; /* server_connections for each lane; NULL where there is none */
    struct mr_list backends;   /* all connections, also those that only finish their work */
    struct mr_health *health;  /* what all workers know; shared */
    struct mr_backend *prober; /* NULL: not connected */
    struct mr_call probe;
    uint64_t probe_since_us;
    struct mr_lane lanes[MR_LANES_MAX];
    uint8_t lane; /* of the last request */
    bool probing; /* a probe is on its way */
};

struct mr_pool {
    struct mr_loop *loop;
    const struct mr_pool_config *config;
    struct mr_pool_metrics *metrics;
    struct mr_process_metrics *process;
    struct mr_server *servers;
    uint32_t n_servers;
    uint64_t ring_changes; /* that the ring knows of */
    uint32_t n_ejected;
    uint32_t n_live;   /* on the ring */
    uint32_t master;   /* of a replicated pool, MR_NO_MASTER while none is known */
    uint32_t turn;     /* where the choice among equals goes on */
    uint64_t retry_us; /* earliest time that an ejected server comes back unprobed */
    struct mr_timer health_timer;
    struct mr_health *own_health; /* where nobody shares any; NULL */
    mr_hash_fn hash;
    struct mr_ring ring;
    struct mr_ring_member *members;
    uint32_t random;
    bool closing; /* failures are ours: do not count them */
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
};

/** Connects at once where the configuration says so. */
void mr_pool_init(struct mr_pool *pool, const struct mr_pool_setup *setup);

/** Closes every connection; open calls fail at the end of the turn. Then turn, then fini. */
void mr_pool_close(struct mr_pool *pool);
void mr_pool_fini(struct mr_pool *pool);

/** True when no server owes a reply, not even one to a request that has timed out. */
bool mr_pool_quiet(const struct mr_pool *pool);

/** Index of the key's server, or -1 when all servers are ejected. */
int mr_pool_route(struct mr_pool *pool, struct mr_slice key);

/** Index of a server for a request without a key, as mr_pool_route. */
int mr_pool_route_anywhere(struct mr_pool *pool);

/** Why mr_pool_route has found none, for clients. */
const char *mr_pool_no_route(const struct mr_pool *pool);

/** Before each choice of a server: what was ejected or came back, here or in another worker. */
void mr_pool_refresh(struct mr_pool *pool);

/** Takes back ejected servers whose time it is, and follows roles. For health checks. */
void mr_pool_look_around(struct mr_pool *pool);

/**
 * Queues a request on a connection of the lane. `affinity` picks the connection where there are
 * several: equal values keep their order.
 * @return NULL, the call is on its way; or the reason why not, the call was not taken then
 */
const char *mr_pool_send(struct mr_pool *pool, uint32_t server, uint8_t lane, uint64_t affinity,
                         struct mr_call *call, struct mr_slice request);

/** A server's name has (another) address: new connections go there, old ones finish. */
void mr_pool_set_address(struct mr_pool *pool, uint32_t server, const struct mr_addr *addr);

/** What twemproxy tells clients for an errno; 0 is a connection that the server closed. */
const char *mr_pool_reason(int error);
