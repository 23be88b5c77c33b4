/*
 * server.h - one server of a pool as one worker sees it; private to src/upstream but for its
 * fields that say who it is.
 */
#pragma once

#include "config/config.h"
#include "core/metrics.h"
#include "core/list.h"
#include "core/timer.h"
#include "upstream/call.h"
#include "upstream/health.h"

struct mr_backend;
struct mr_pool;

/** Connections of one kind to a server. */
struct mr_lane {
    bool spoken;         /* the server has answered on one */
    const char *refusal; /* why it does not speak it, as far as is known */
    uint64_t retry_us;   /* no connect before */
};

/** Connections that clients have for themselves, see lease.h. */
struct mr_leases {
    struct mr_list spare;   /* connections without a user */
    struct mr_list waiting; /* struct mr_lease, the first to come first */
    struct mr_timer timer;  /* of the first one that waits */
    uint32_t n;             /* connections in all */
};

struct mr_server {
    struct mr_pool *pool;
    const struct mr_server_config *config;
    struct mr_server_metrics *metrics;
    uint32_t index;            /* in the pool */
    struct mr_addr addr;       /* len 0 until the name is resolved */
    struct mr_backend **slots; /* server_connections for each lane; NULL where there is none */
    struct mr_list backends;   /* all connections, also those that only finish their work */
    struct mr_leases leases;
    struct mr_health *health;  /* what all workers know; shared */
    struct mr_backend *prober; /* NULL: not connected */
    struct mr_call probe;
    uint64_t probe_since_us;
    struct mr_lane lanes[MR_LANES_MAX];
    uint8_t lane; /* of the last request */
    bool probing; /* a probe is on its way */
};

/**
 * Queues a request on a connection of the lane, see mr_pool_send.
 * @return NULL, the call is on its way; or the reason why not, the call was not taken then
 */
const char *mr_server_send(struct mr_server *server, uint8_t lane, uint64_t affinity,
                           struct mr_call *call, struct mr_slice request);

/** Opens the connections that the configuration wants from the start. */
void mr_server_preconnect(struct mr_server *server);

/** The name has (another) address: new connections go there, old ones finish. */
void mr_server_set_address(struct mr_server *server, const struct mr_addr *addr);

/**
 * Counts a failure of the server: back-off, and ejection where it is configured. See
 * mr_health_failed.
 */
void mr_server_failed(struct mr_server *server, int error, enum mr_failure failure);

/** The server does not take connections of this lane, though others may be fine. */
void mr_server_refused(struct mr_server *server, uint8_t lane, const char *reason);

/** It has accepted the greeting of a connection of this lane. */
void mr_server_greeted(struct mr_server *server, uint8_t lane);

/** Connects unless that is known; a server that cannot be reached now counts as usable. */
enum mr_lane_state mr_server_lane_state(struct mr_server *server, uint8_t lane);

/** Which lane a health check takes. */
uint8_t mr_server_probe_lane(const struct mr_server *server);

/** Takes an ejected server back whose time it is, or which may not be ejected any more. */
void mr_server_restore(struct mr_server *server);

/** When an ejected server may come back. */
uint64_t mr_server_back_us(const struct mr_server *server);

/** The server has answered: it is well. */
static inline void mr_server_answered(struct mr_server *server)
{
    mr_health_answered(server->health);
}
