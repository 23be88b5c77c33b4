/* ejection.c - which servers are in service: failures, ejections and returns. */
#include "core/clock.h"
#include "core/log.h"
#include "upstream/pool.h"

#define TICKS       4u /* timer ticks per interval between probes */
#define TICK_MIN_MS 20u

void mr_pool_probe(struct mr_pool *pool, bool at_once)
{
    const uint32_t tick = pool->config->health_check_interval_ms / TICKS;

    if (pool->config->health_checks != MR_HEALTH_OFF && !pool->closing &&
        !mr_timer_is_set(&pool->probe_timer))
        mr_loop_timer(pool->loop, &pool->probe_timer,
                      at_once              ? 0
                      : tick > TICK_MIN_MS ? tick
                                           : TICK_MIN_MS);
}

/* ---- one server ---- */

bool mr_server_can_be_ejected(const struct mr_server *server)
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
                   server->name, pool->config->server_retry_timeout_ms);
    mr_pool_refresh(pool);
}

void mr_server_failed(struct mr_server *server, int error, enum mr_failure failure)
{
    struct mr_pool *pool = server->pool;
    const struct mr_pool_config *config = pool->config;
    const uint32_t limit = config->server_failure_limit > 0 ? config->server_failure_limit : 1;

    if (pool->closing || mr_health_is_shortage(error))
        return;
    const uint64_t strikes = mr_health_failed(server->health, pool->loop->now_us, error, failure,
                                              config->timeout_ms * UINT64_C(1000));
    mr_pool_probe(pool, false);
    if (pool->topology->failed != NULL)
        pool->topology->failed(server);
    if (strikes >= limit && mr_server_can_be_ejected(server))
        eject(server);
}

uint64_t mr_server_back_us(const struct mr_server *server)
{
    return mr_health_load(&server->health->ejected_us) +
           server->pool->config->server_retry_timeout_ms * UINT64_C(1000);
}

/*
 * Whether a probe has succeeded since the ejection. If no probe ran for long after its time was
 * over, the worker that ejected it is gone and nobody else used the server; then it is tried
 * without one.
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

/* Its time is over, and a probe has succeeded if servers are probed. */
static bool may_return(const struct mr_server *server)
{
    const struct mr_health *h = server->health;

    if (!mr_health_ejected(h))
        return false;
    if (!mr_server_can_be_ejected(server)) /* the configuration changed, or it is the master now */
        return true;
    if (mr_server_back_us(server) >= server->pool->loop->now_us)
        return false;
    return server->pool->config->health_checks == MR_HEALTH_OFF || is_found_well(server);
}

void mr_server_restore(struct mr_server *server)
{
    if (!may_return(server) || !mr_health_restore(server->health, first_of(server)))
        return;
    mr_health_store(&server->health->returned_us, server->pool->loop->now_us);
    mr_log_limited(MR_LOG_NOTICE, "server_restored pool=%s server=%s", server->pool->config->name,
                   server->name);
}

/* ---- all of them ---- */

void mr_pool_count_ejected(struct mr_pool *pool)
{
    pool->ring_changes = mr_health_ring_changes(pool->servers[0].health);
    pool->n_ejected = 0;
    pool->retry_us = UINT64_MAX;
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        const struct mr_server *s = &pool->servers[i];
        if (!mr_health_ejected(s->health))
            continue;
        pool->n_ejected++;
        /* with health checks on, the prober's ticks do this instead of each request */
        if (pool->config->health_checks == MR_HEALTH_OFF && mr_server_back_us(s) < pool->retry_us)
            pool->retry_us = mr_server_back_us(s);
    }
    if (pool->n_ejected > 0)
        mr_pool_probe(pool, true); /* the worker that ejected it may die before it returns */
}

/* Takes over ejections and returns from other workers. True if there were any. */
static bool follow_changes(struct mr_pool *pool)
{
    if (MR_LIKELY(mr_health_ring_changes(pool->servers[0].health) == pool->ring_changes))
        return false;
    mr_pool_count_ejected(pool);
    pool->topology->changed(pool);
    return true;
}

static void restore(struct mr_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_servers; i++)
        mr_server_restore(&pool->servers[i]);
    (void)follow_changes(pool);
}

void mr_pool_refresh(struct mr_pool *pool)
{
    const bool news = follow_changes(pool); /* possibly old ones, if this worker had no requests */

    if (MR_UNLIKELY(pool->n_ejected > 0) && (news || pool->loop->now_us > pool->retry_us))
        restore(pool);
}

void mr_pool_look_around(struct mr_pool *pool)
{
    (void)follow_changes(pool);
    if (pool->n_ejected > 0)
        restore(pool);
    if (pool->topology->look_around != NULL)
        pool->topology->look_around(pool);
}
