/* server.c - one server of a pool: its connections, failures and ejection. */
#include "upstream/server.h"

#include "core/clock.h"
#include "core/log.h"
#include "upstream/backend.h"
#include "upstream/pool.h"
#include "upstream/prober.h"

#include <errno.h>

#define REFUSED_WAIT_US 200000u /* before a dialect that a server did not speak is tried again */

/* ---- failures ---- */

static bool can_be_ejected(const struct mr_server *server)
{
    const struct mr_pool *pool = server->pool;

    return pool->config->auto_eject_hosts && pool->topology->may_eject(server);
}

static struct mr_health *first_of(const struct mr_server *server)
{
    return server->pool->servers[0].health;
}

static void eject(struct mr_server *server)
{
    struct mr_pool *pool = server->pool;

    if (!mr_health_eject(server->health, first_of(server), pool->loop->now_us))
        return;
    server->metrics->server_ejected_at = mr_clock_wall_us();
    pool->metrics->server_ejects++;
    mr_log_limited(MR_LOG_WARN, "server_ejected pool=%s server=%s for_ms=%u", pool->config->name,
                   server->config->name, pool->config->server_retry_timeout_ms);
    mr_pool_refresh(pool);
}

void mr_server_failed(struct mr_server *server, int error, enum mr_failure failure)
{
    struct mr_pool *pool = server->pool;
    const struct mr_pool_config *config = pool->config;
    const uint32_t limit = config->server_failure_limit > 0 ? config->server_failure_limit : 1;

    if (pool->closing)
        return;
    const uint64_t strikes = mr_health_failed(server->health, pool->loop->now_us, error, failure,
                                              config->timeout_ms * UINT64_C(1000));
    mr_prober_wake(pool);
    if (strikes >= limit && can_be_ejected(server))
        eject(server);
}

uint64_t mr_server_back_us(const struct mr_server *server)
{
    return mr_health_load(&server->health->ejected_us) +
           server->pool->config->server_retry_timeout_ms * UINT64_C(1000);
}

/*
 * Whether a probe has found it well since. That none was sent for so long means that the worker
 * that ejected it has ended, and no other has had to do with it: then it is tried.
 */
static bool is_found_well(const struct mr_server *server)
{
    const struct mr_pool_config *config = server->pool->config;
    const struct mr_health *h = server->health;
    const uint64_t probe_us =
        (config->health_check_interval_ms + config->health_check_timeout_ms) * UINT64_C(1000);

    if (mr_health_load(&h->probed_us) > mr_health_load(&h->ejected_us))
        return mr_health_load(&h->state) == MR_HEALTH_UP;
    return server->pool->loop->now_us >= mr_server_back_us(server) + probe_us;
}

/* Its time is over, and where servers are probed, it is found well. */
static bool may_return(const struct mr_server *server)
{
    const struct mr_health *h = server->health;

    if (!mr_health_ejected(h))
        return false;
    if (!can_be_ejected(server)) /* the configuration has changed, or it is the master now */
        return true;
    if (mr_server_back_us(server) >= server->pool->loop->now_us)
        return false;
    return server->pool->config->health_checks == MR_HEALTH_OFF || is_found_well(server);
}

void mr_server_restore(struct mr_server *server)
{
    if (may_return(server) && mr_health_restore(server->health, first_of(server)))
        mr_log_limited(MR_LOG_NOTICE, "server_restored pool=%s server=%s",
                       server->pool->config->name, server->config->name);
}

void mr_server_refused(struct mr_server *server, uint8_t lane, const char *reason)
{
    server->lanes[lane].spoken = false;
    server->lanes[lane].refusal = reason;
    server->lanes[lane].retry_us = server->pool->loop->now_us + REFUSED_WAIT_US;
}

void mr_server_greeted(struct mr_server *server, uint8_t lane)
{
    server->lanes[lane] = (struct mr_lane){.spoken = true};
    mr_pool_lane_known(server->pool);
}

/* ---- connections ---- */

const char *mr_server_connect(struct mr_server *server, struct mr_backend **home, uint8_t lane,
                              enum mr_backend_kind kind)
{
    const struct mr_pool *pool = server->pool;

    if (pool->closing)
        return mr_pool_reason(ECONNREFUSED);
    if (MR_UNLIKELY(pool->loop->now_us < server->lanes[lane].retry_us))
        return server->lanes[lane].refusal;
    /* being ejected is back-off enough */
    int error =
        can_be_ejected(server) ? 0 : mr_health_may_connect(server->health, pool->loop->now_us);
    if (error != 0)
        return mr_pool_reason(error);
    if (server->addr.len == 0) {
        mr_server_failed(server, EHOSTDOWN, MR_FAILURE_SILENT);
        return mr_pool_reason(EHOSTDOWN);
    }
    error = mr_backend_connect(home, server, lane, kind);
    if (error == 0)
        return NULL;
    mr_log_limited(MR_LOG_WARN, "server_connect_failed pool=%s server=%s addr=%s reason=\"%s\"",
                   pool->config->name, server->config->name, server->addr.text,
                   mr_pool_reason(error));
    server->metrics->server_err++;
    mr_server_failed(server, error, MR_FAILURE_SILENT);
    return mr_pool_reason(error);
}

static const char *connect_slot(struct mr_server *server, uint32_t slot)
{
    const uint8_t lane = (uint8_t)(slot / server->pool->config->server_connections);

    return mr_server_connect(server, &server->slots[slot], lane, MR_BACKEND_SHARED);
}

const char *mr_server_send(struct mr_server *server, uint8_t lane, uint64_t affinity,
                           struct mr_call *call, struct mr_slice request)
{
    const uint32_t n = server->pool->config->server_connections;
    const uint32_t slot = lane * n + (n == 1 ? 0 : (uint32_t)(affinity % n));

    server->lane = lane;
    if (MR_UNLIKELY(server->slots[slot] == NULL)) {
        const char *error = connect_slot(server, slot);
        if (error != NULL)
            return error;
    }
    return mr_backend_send(server->slots[slot], call, request);
}

enum mr_lane_state mr_server_lane_state(struct mr_server *server, uint8_t lane)
{
    const struct mr_lane *l = &server->lanes[lane];
    const uint32_t slot = lane * server->pool->config->server_connections;
    const bool refused = l->refusal != NULL;

    if (l->spoken)
        return MR_LANE_USABLE;
    if (server->slots[slot] == NULL)
        (void)connect_slot(server, slot);
    if (refused)
        return MR_LANE_REFUSED;
    return server->slots[slot] != NULL ? MR_LANE_UNKNOWN : MR_LANE_USABLE;
}

uint8_t mr_server_probe_lane(const struct mr_server *server)
{
    return server->lanes[server->lane].refusal == NULL ? server->lane : 0;
}

void mr_server_preconnect(struct mr_server *server)
{
    if (server->addr.len == 0)
        return; /* mr_server_set_address comes back to it */
    for (uint32_t slot = 0; slot < server->pool->config->server_connections; slot++)
        if (server->slots[slot] == NULL && connect_slot(server, slot) != NULL)
            return;
}

void mr_server_set_address(struct mr_server *server, const struct mr_addr *addr)
{
    struct mr_backend *b, *next;

    if (mr_addr_eq(&server->addr, addr))
        return;
    mr_log(MR_LOG_NOTICE, "server_address pool=%s server=%s old=%s new=%s",
           server->pool->config->name, server->config->name,
           server->addr.len > 0 ? server->addr.text : "none", addr->text);
    server->addr = *addr;
    mr_server_answered(server);
    for (b = mr_backend_next(server, NULL); b != NULL; b = next) {
        next = mr_backend_next(server, b);
        mr_backend_retire(b);
    }
    if (server->pool->config->preconnect)
        mr_server_preconnect(server);
}
