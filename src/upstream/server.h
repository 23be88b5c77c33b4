/*
 * server.h - one server of a pool, as seen by one worker. Private to src/upstream, except the
 * fields that identify it.
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

/** Descriptor budget for connections beyond the planned ones, shared by all pools of a worker. */
struct mr_extra_room {
    uint32_t n; /* leased connections, and those to databases other than the first */
    bool (*is_left)(const struct mr_extra_room *room);
};

/** A server's connections of one lane. */
struct mr_lane {
    struct mr_server *server;
    struct mr_timer idle;       /* of an on-demand lane: closes unused connections */
    bool spoken;                /* the server has answered in it */
    const char *refusal;        /* why the server refused it, if it did */
    uint64_t retry_us;          /* earliest time to connect again */
    uint32_t n_slots;           /* server_connections */
    struct mr_backend *slots[]; /* unconnected ones are NULL */
};

/** Connections dedicated to clients, see lease.h. */
struct mr_leases {
    struct mr_list spare;   /* unused connections */
    struct mr_list waiting; /* struct mr_lease, in order of arrival */
    struct mr_timer timer;  /* expiry of the first in the queue */
    uint32_t n;             /* total number of connections */
};

struct mr_server {
    struct mr_pool *pool;
    const struct mr_server_config *config;
    const char *name; /* for messages and statistics */
    const struct mr_proto_options *options;
    struct mr_server_metrics *metrics;
    uint32_t index;          /* in the pool */
    struct mr_addr addr;     /* len is 0 until the name is resolved */
    struct mr_lane **lanes;  /* n_lanes of the pool; NULL until used */
    struct mr_list backends; /* all connections, including retired ones */
    struct mr_leases leases;
    struct mr_health *health;  /* shared by all workers */
    struct mr_backend *prober; /* NULL: not connected */
    struct mr_call probe;
    uint64_t probe_since_us;
    uint64_t short_until_us; /* no connect before, for lack of what `shortage` names */
    int shortage;            /* errno */
    uint8_t lane;            /* of the latest request */
    bool probing;            /* a probe is outstanding */
    bool in_zone;            /* of the proxy */
    uint8_t turn;            /* of requests that it might get during its slow start */
};

/** mr_server_send over a connection that must be opened first. */
const char *mr_server_connect_and_send(struct mr_server *server, uint8_t lane, uint64_t affinity,
                                       struct mr_call *call, struct mr_slice request);

/**
 * Queues a request behind those already queued.
 * @return NULL, or why the server cannot serve the request; the call was then not taken
 */
const char *mr_backend_send(struct mr_backend *b, struct mr_call *call, struct mr_slice request);

/**
 * Queues a request on a connection of the lane; requests of the same affinity use the same one.
 * Inlined, since it runs for each.
 * @return NULL if the call was queued, or the reason why it was not taken
 */
static inline const char *mr_server_send(struct mr_server *server, uint8_t lane, uint64_t affinity,
                                         struct mr_call *call, struct mr_slice request)
{
    const struct mr_lane *l = server->lanes[lane];
    struct mr_backend *b = NULL;

    if (MR_LIKELY(l != NULL))
        b = l->slots[l->n_slots == 1 ? 0 : affinity % l->n_slots];
    if (MR_UNLIKELY(b == NULL))
        return mr_server_connect_and_send(server, lane, affinity, call, request);
    server->lane = lane;
    return mr_backend_send(b, call, request);
}

struct mr_stream;
struct mr_stream_ops;

/**
 * Connects a stream of the caller's own, unless the server is in back-off. The caller reports what
 * comes of it with mr_server_answered or mr_server_failed.
 * @return NULL, or the reason for not connecting; nothing was started then
 */
const char *mr_server_dial(struct mr_server *server, struct mr_stream *s,
                           const struct mr_stream_ops *ops);

/** The lane, created on first use; lane 0 always exists. */
struct mr_lane *mr_server_lane(struct mr_server *server, uint8_t lane);

/** True for a lane whose descriptors are reserved. */
bool mr_server_plans(const struct mr_server *server, uint8_t lane);

/** Opens connections in advance, as configured. */
void mr_server_preconnect(struct mr_server *server);

/** The address changed: new connections use it, old ones finish. len may be 0: it has none now. */
void mr_server_set_address(struct mr_server *server, const struct mr_addr *addr);

/** False if the request should go elsewhere, because the server has come back only now. */
static inline bool mr_server_takes_share(struct mr_server *server, uint64_t slow_start_us,
                                         uint64_t now_us)
{
    const uint64_t since = now_us - mr_health_load(&server->health->returned_us);

    if (MR_LIKELY(since >= slow_start_us))
        return true;
    server->turn = (uint8_t)(server->turn + 157u); /* takes all values, spread evenly */
    return server->turn < since * 256u / slow_start_us;
}

/**
 * What it costs to read there: below any other for servers of the own zone, by their requests in
 * flight; else by the duration of probes. Servers never probed come last.
 */
static inline uint64_t mr_server_distance(const struct mr_server *server)
{
    const uint64_t rtt_us = mr_health_load(&server->health->rtt_us);

    if (server->in_zone)
        return server->metrics->in_queue + server->metrics->out_queue;
    return rtt_us > 0 ? UINT64_MAX / 2 + rtt_us : UINT64_MAX - 1;
}

/** Notes whether it is in the proxy's zone. Call it when its name or address is known. */
void mr_server_find_zone(struct mr_server *server);

/** Fails its requests at once, until it returns: without a connection they are refused. */
void mr_server_disconnect(struct mr_server *server);

/** False for a free place of a server that is yet to be discovered. */
static inline bool mr_server_is_known(const struct mr_server *server)
{
    return server->name[0] != '\0';
}

/**
 * Counts a failure: back-off, and ejection if configured. See mr_health_failed. A shortage of our
 * own machine is none.
 */
void mr_server_failed(struct mr_server *server, int error, enum mr_failure failure);

/** The server refused a connection of this lane; other lanes may work. */
void mr_server_refused(struct mr_server *server, uint8_t lane, const char *reason);

/** A connection of this lane is ready; `answered`: the server accepted a greeting on it. */
void mr_server_greeted(struct mr_server *server, uint8_t lane, bool answered);

/** Connects if the answer is not known yet. An unreachable server counts as usable. */
enum mr_lane_state mr_server_lane_state(struct mr_server *server, uint8_t lane);

/** The lane that health checks use. */
uint8_t mr_server_probe_lane(const struct mr_server *server);

/** True if the configuration and the topology allow to eject it. */
bool mr_server_can_be_ejected(const struct mr_server *server);

/** Returns an ejected server that is due, or that may no longer be ejected. */
void mr_server_restore(struct mr_server *server);

/** When an ejected server may return. */
uint64_t mr_server_back_us(const struct mr_server *server);

/** Records an answer from the server. */
static inline void mr_server_answered(struct mr_server *server)
{
    mr_health_answered(server->health);
}
