/* server.c - one server of a pool: its connections. */
#include "upstream/server.h"

#include "core/log.h"
#include "upstream/backend.h"
#include "upstream/pool.h"

#include <errno.h>

#define LANE_IDLE_MS  60000u /* idle connections to on-demand databases are closed */
#define SHORT_WAIT_US 20000u /* delay after our own machine could not connect */

static const struct mr_backend_user SHARED = {.kind = MR_BACKEND_SHARED};

static bool is_unused(const struct mr_backend *b, uint64_t now)
{
    return b->state == MR_BACKEND_READY && mr_backend_idle(b) &&
           now - b->read_us >= LANE_IDLE_MS * UINT64_C(1000);
}

static void close_unused(struct mr_timer *timer)
{
    struct mr_lane *l = MR_CONTAINER_OF(timer, struct mr_lane, idle);
    const struct mr_pool *pool = l->server->pool;
    bool any = false;

    for (uint32_t i = 0; i < pool->config->server_connections; i++) {
        struct mr_backend *b = l->slots[i];
        if (b != NULL && is_unused(b, pool->loop->now_us))
            mr_backend_drop(b);
        any |= l->slots[i] != NULL;
    }
    if (any)
        mr_loop_timer(pool->loop, timer, LANE_IDLE_MS);
}

/* Why not to connect now, or NULL. */
static const char *why_not_now(struct mr_server *server)
{
    const struct mr_pool *pool = server->pool;

    if (MR_UNLIKELY(pool->loop->now_us < server->short_until_us))
        return mr_pool_reason(server->shortage);
    /* an ejection is its own back-off */
    const int error = mr_server_can_be_ejected(server)
                          ? 0
                          : mr_health_may_connect(server->health, pool->loop->now_us);
    if (error != 0)
        return mr_pool_reason(error);
    if (server->addr.len > 0)
        return NULL;
    mr_server_failed(server, EHOSTDOWN, MR_FAILURE_SILENT);
    return mr_pool_reason(EHOSTDOWN);
}

/* Connecting failed at once. Returns the reason. */
static const char *not_connected(struct mr_server *server, int error)
{
    const struct mr_pool *pool = server->pool;

    mr_log_limited(MR_LOG_WARN, "server_connect_failed pool=%s server=%s addr=%s reason=\"%s\"",
                   pool->config->name, server->name, server->addr.text, mr_pool_reason(error));
    server->metrics->server_err++;
    if (mr_health_is_shortage(error)) {
        server->shortage = error;
        server->short_until_us = pool->loop->now_us + SHORT_WAIT_US;
    }
    mr_server_failed(server, error, MR_FAILURE_SILENT);
    return mr_pool_reason(error);
}

const char *mr_server_dial(struct mr_server *server, struct mr_stream *s,
                           const struct mr_stream_ops *ops)
{
    struct mr_error err;

    if (server->pool->closing)
        return mr_pool_reason(ECONNREFUSED);
    const char *reason = why_not_now(server);
    if (reason != NULL)
        return reason;
    if (mr_stream_connect(s, server->pool->loop, ops, &server->addr, &err) != MR_OK)
        return not_connected(server, err.sys != 0 ? err.sys : EIO);
    return NULL;
}

const char *mr_server_connect(struct mr_server *server, struct mr_backend **home, uint8_t lane,
                              const struct mr_backend_user *user)
{
    const struct mr_pool *pool = server->pool;

    if (pool->closing)
        return mr_pool_reason(ECONNREFUSED);
    struct mr_lane *l = mr_server_lane(server, lane);
    if (MR_UNLIKELY(pool->loop->now_us < l->retry_us))
        return l->refusal;
    if (!mr_server_plans(server, lane) && !mr_pool_has_room(pool))
        return "no descriptor is left for a connection to this database";
    const char *reason = why_not_now(server);
    if (reason != NULL)
        return reason;
    const int error = mr_backend_connect(home, server, lane, user);
    if (error != 0)
        return not_connected(server, error);
    if (user == &SHARED && !mr_server_plans(server, lane) && !mr_timer_is_set(&l->idle)) {
        l->idle.fire = close_unused;
        mr_loop_timer(pool->loop, &l->idle, LANE_IDLE_MS);
    }
    return NULL;
}

const char *mr_server_connect_and_send(struct mr_server *server, uint8_t lane, uint64_t affinity,
                                       struct mr_call *call, struct mr_slice request)
{
    struct mr_lane *l = mr_server_lane(server, lane);
    struct mr_backend **slot = &l->slots[affinity % l->n_slots];

    server->lane = lane;
    if (server->pool->config->fail_fast_without_remap && mr_health_ejected(server->health))
        return mr_pool_reason((int)mr_health_load(&server->health->error));
    const char *error = mr_server_connect(server, slot, lane, &SHARED);
    return error != NULL ? error : mr_backend_send(*slot, call, request);
}

enum mr_lane_state mr_server_lane_state(struct mr_server *server, uint8_t lane)
{
    struct mr_lane *l = mr_server_lane(server, lane);
    const bool refused = l->refusal != NULL;

    if (l->spoken || (l->slots[0] != NULL && l->slots[0]->state == MR_BACKEND_READY))
        return MR_LANE_USABLE;
    if (l->slots[0] == NULL && !mr_health_ejected(server->health))
        (void)mr_server_connect(server, &l->slots[0], lane, &SHARED);
    if (refused)
        return MR_LANE_REFUSED;
    return l->slots[0] != NULL ? MR_LANE_UNKNOWN : MR_LANE_USABLE;
}

void mr_server_preconnect(struct mr_server *server)
{
    if (mr_proto_is_relayed(server->pool->config->protocol))
        return; /* a connection belongs to one client from its beginning */
    if (server->addr.len == 0)
        return; /* mr_server_set_address connects later */
    struct mr_backend **slots = mr_server_lane(server, 0)->slots;
    for (uint32_t i = 0; i < server->pool->config->server_connections; i++)
        if (slots[i] == NULL && mr_server_connect(server, &slots[i], 0, &SHARED) != NULL)
            return;
}

void mr_server_find_zone(struct mr_server *server)
{
    server->in_zone = mr_config_in_zone(server->pool->config, server->name,
                                        server->config->host != NULL && server->addr.len == 0
                                            ? server->config->host
                                            : server->addr.text);
}

void mr_server_disconnect(struct mr_server *server)
{
    struct mr_backend *b, *next;

    for (b = mr_backend_next(server, NULL); b != NULL; b = next) {
        next = mr_backend_next(server, b);
        mr_backend_retire(b);
    }
}

void mr_server_set_address(struct mr_server *server, const struct mr_addr *addr)
{
    if (mr_addr_eq(&server->addr, addr) || (server->addr.len == 0 && addr->len == 0))
        return;
    mr_log(MR_LOG_NOTICE, "server_address pool=%s server=%s old=%s new=%s",
           server->pool->config->name, server->name,
           server->addr.len > 0 ? server->addr.text : "none", addr->text);
    server->addr = *addr;
    mr_server_answered(server);
    mr_server_find_zone(server);
    mr_server_disconnect(server);
    if (server->pool->config->preconnect)
        mr_server_preconnect(server);
}
