/* pool.c - the servers of a pool: routing, ejection, back-off. */
#include "upstream/pool.h"

#include "core/clock.h"
#include "core/log.h"
#include "upstream/backend.h"
#include "upstream/health.h"
#include "upstream/replicas.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REFUSED_WAIT_US 200000u /* before a dialect that a server did not speak is tried again */
#define KEYLESS         "placeholder" /* twemproxy's key for requests that have none */

const char *mr_pool_reason(int error)
{
    const char *text = error == 0 ? "unknown" : strerrordesc_np(error);

    return text != NULL ? text : "unknown";
}

/* When an ejected server may come back. */
static uint64_t back_us(const struct mr_server *s)
{
    return mr_health_load(&s->health->ejected_us) +
           s->pool->config->server_retry_timeout_ms * UINT64_C(1000);
}

/* With every server ejected the old ring stays, but mr_pool_route does not use it. */
static void rebuild(struct mr_pool *pool)
{
    struct mr_ring ring;
    struct mr_error err;

    pool->ring_changes = mr_health_ring_changes(pool->servers[0].health);
    pool->n_ejected = 0;
    pool->n_live = 0;
    pool->retry_us = UINT64_MAX;
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        const struct mr_server *s = &pool->servers[i];
        const bool ejected = mr_health_ejected(s->health);
        pool->members[i].live = !ejected && i != pool->config->master;
        pool->n_live += pool->members[i].live;
        pool->n_ejected += ejected;
        /* where servers are probed, the ticks of the prober look, and not each request */
        if (ejected && pool->config->health_checks == MR_HEALTH_OFF && back_us(s) < pool->retry_us)
            pool->retry_us = back_us(s);
    }
    if (pool->n_ejected > 0)
        mr_health_start(pool); /* whoever ejected it may be gone before it is back */
    if (pool->n_live == 0)
        return;
    /* a subset of what the configuration check has built cannot fail */
    MR_CHECK(mr_ring_build(&ring, pool->config->distribution, pool->members, pool->n_servers,
                           &err) == MR_OK);
    mr_ring_free(&pool->ring);
    pool->ring = ring;
}

/* Its time is over, and where servers are probed, a probe has found it well since. */
static bool may_return(const struct mr_server *s)
{
    if (!mr_health_ejected(s->health) || back_us(s) >= s->pool->loop->now_us)
        return false;
    return s->pool->config->health_checks == MR_HEALTH_OFF ||
           (s->health->state == MR_HEALTH_UP && s->health->probed_us > s->health->ejected_us);
}

/* What any worker has ejected or taken back. */
static void follow_ring(struct mr_pool *pool)
{
    if (MR_UNLIKELY(mr_health_ring_changes(pool->servers[0].health) != pool->ring_changes))
        rebuild(pool);
}

static void restore(struct mr_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_server *s = &pool->servers[i];
        if (may_return(s) && mr_health_restore(s))
            mr_log_limited(MR_LOG_NOTICE, "server_restored pool=%s server=%s", pool->config->name,
                           s->config->name);
    }
    follow_ring(pool);
}

void mr_pool_refresh(struct mr_pool *pool)
{
    follow_ring(pool);
    if (MR_UNLIKELY(pool->n_ejected > 0) && pool->loop->now_us > pool->retry_us)
        restore(pool);
}

void mr_pool_look_around(struct mr_pool *pool)
{
    follow_ring(pool);
    if (pool->n_ejected > 0)
        restore(pool);
    if (pool->config->follow_roles)
        mr_replicas_follow(pool);
}

static void eject(struct mr_server *server)
{
    struct mr_pool *pool = server->pool;

    if (!mr_health_eject(server))
        return;
    server->metrics->server_ejected_at = mr_clock_wall_us();
    pool->metrics->server_ejects++;
    mr_log_limited(MR_LOG_WARN, "server_ejected pool=%s server=%s for_ms=%u", pool->config->name,
                   server->config->name, pool->config->server_retry_timeout_ms);
    rebuild(pool);
}

/* A master cannot be replaced by another server, so it is never ejected. */
static bool can_be_ejected(const struct mr_server *server)
{
    const struct mr_pool *pool = server->pool;

    return pool->config->auto_eject_hosts &&
           (pool->master == MR_NO_MASTER || server != &pool->servers[pool->master]);
}

void mr_server_failed(struct mr_server *server, int error, enum mr_failure failure)
{
    const struct mr_pool_config *config = server->pool->config;
    const uint32_t limit = config->server_failure_limit > 0 ? config->server_failure_limit : 1;

    if (server->pool->closing)
        return;
    if (mr_health_failed(server, error, failure) >= limit && can_be_ejected(server))
        eject(server);
}

static uint32_t next_random(struct mr_pool *pool)
{
    pool->random ^= pool->random << 13; /* xorshift32 */
    pool->random ^= pool->random >> 17;
    pool->random ^= pool->random << 5;
    return pool->random;
}

int mr_pool_route(struct mr_pool *pool, struct mr_slice key)
{
    const struct mr_pool_config *config = pool->config;

    mr_pool_refresh(pool);
    if (MR_UNLIKELY(pool->n_ejected > 0) && pool->n_live == 0)
        return -1;
    if (pool->n_servers == 1)
        return 0;
    if (config->distribution == MR_DIST_RANDOM)
        return (int)mr_ring_pick(&pool->ring, 0, next_random(pool));
    if (config->has_hash_tag)
        key = mr_hash_tag(key, config->hash_tag);
    return (int)mr_ring_pick(&pool->ring, key.len > 0 ? pool->hash(key.at, key.len) : 0, 0);
}

int mr_pool_route_anywhere(struct mr_pool *pool)
{
    return mr_pool_route(pool, mr_slice_of(KEYLESS));
}

const char *mr_pool_no_route(const struct mr_pool *pool)
{
    if (pool->config->topology == MR_REPLICATED && pool->master == MR_NO_MASTER)
        return "no master is known";
    return mr_pool_reason(ECONNREFUSED);
}

void mr_server_refused(struct mr_server *server, uint8_t lane, const char *reason)
{
    server->lanes[lane].refusal = reason;
    server->lanes[lane].retry_us = server->pool->loop->now_us + REFUSED_WAIT_US;
}

/* Returns NULL with the slot filled, or why it is not. */
static const char *connect_slot(struct mr_server *server, uint32_t slot)
{
    const uint8_t lane = (uint8_t)(slot / server->pool->config->server_connections);

    if (server->pool->closing)
        return mr_pool_reason(ECONNREFUSED);
    if (MR_UNLIKELY(server->pool->loop->now_us < server->lanes[lane].retry_us))
        return server->lanes[lane].refusal;
    /* being ejected is back-off enough */
    int error = can_be_ejected(server) ? 0 : mr_health_may_connect(server);
    if (error != 0)
        return mr_pool_reason(error);
    if (server->addr.len == 0) {
        mr_server_failed(server, EHOSTDOWN, MR_FAILURE_SILENT);
        return mr_pool_reason(EHOSTDOWN);
    }
    error = mr_backend_connect(&server->slots[slot], server, lane, false);
    if (error == 0)
        return NULL;
    mr_log_limited(MR_LOG_WARN, "server_connect_failed pool=%s server=%s addr=%s reason=\"%s\"",
                   server->pool->config->name, server->config->name, server->addr.text,
                   mr_pool_reason(error));
    server->metrics->server_err++;
    mr_server_failed(server, error, MR_FAILURE_SILENT);
    return mr_pool_reason(error);
}

const char *mr_pool_send(struct mr_pool *pool, uint32_t index, uint8_t lane, uint64_t affinity,
                         struct mr_call *call, struct mr_slice request)
{
    struct mr_server *server = &pool->servers[index];
    const uint32_t n = pool->config->server_connections;
    const uint32_t slot = lane * n + (n == 1 ? 0 : (uint32_t)(affinity % n));

    server->lane = lane;
    if (MR_UNLIKELY(server->slots[slot] == NULL)) {
        const char *error = connect_slot(server, slot);
        if (error != NULL)
            return error;
    }
    mr_backend_send(server->slots[slot], call, request);
    return NULL;
}

static void preconnect(struct mr_server *server)
{
    if (server->addr.len == 0)
        return; /* mr_pool_set_address comes back to it */
    for (uint32_t slot = 0; slot < server->pool->config->server_connections; slot++)
        if (server->slots[slot] == NULL && connect_slot(server, slot) != NULL)
            return;
}

static void init_server(struct mr_pool *pool, uint32_t i, const struct mr_pool_setup *setup)
{
    struct mr_server *s = &pool->servers[i];

    s->pool = pool;
    s->config = &pool->config->servers.at[i];
    s->metrics = &setup->server_metrics[i];
    s->health = setup->health != NULL ? &setup->health[i] : &pool->own_health[i];
    s->addr = s->config->addr;
    if (s->addr.len == 0 && setup->addresses != NULL)
        s->addr = setup->addresses[i];
    mr_list_init(&s->backends);
    s->slots = calloc((size_t)pool->config->server_connections * pool->config->protocol->lanes,
                      sizeof(struct mr_backend *));
    MR_CHECK(s->slots != NULL);
}

void mr_pool_init(struct mr_pool *pool, const struct mr_pool_setup *setup)
{
    *pool = (struct mr_pool){.loop = setup->loop,
                             .config = setup->config,
                             .metrics = setup->metrics,
                             .process = setup->process,
                             .n_servers = setup->config->servers.n,
                             .master = setup->config->master,
                             .hash = mr_hash_function(setup->config->hash),
                             .random = (uint32_t)mr_clock_wall_us() | 1u};
    pool->servers = calloc(pool->n_servers, sizeof(*pool->servers));
    MR_CHECK(pool->servers != NULL);
    if (setup->health == NULL)
        pool->own_health = calloc(pool->n_servers, sizeof(*pool->own_health));
    MR_CHECK(setup->health != NULL || pool->own_health != NULL);
    pool->members = mr_config_ring_members(pool->config);
    for (uint32_t i = 0; i < pool->n_servers; i++)
        init_server(pool, i, setup);
    rebuild(pool);
    for (uint32_t i = 0; i < pool->n_servers && pool->config->preconnect; i++)
        preconnect(&pool->servers[i]);
    mr_health_start(pool);
    mr_pool_look_around(pool); /* what others know already */
}

void mr_pool_close(struct mr_pool *pool)
{
    pool->closing = true;
    mr_health_stop(pool);
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_backend *b = NULL;
        while ((b = mr_backend_next(&pool->servers[i], b)) != NULL)
            mr_backend_close(b, ECONNRESET);
    }
}

bool mr_pool_quiet(const struct mr_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        struct mr_backend *b = NULL;
        while ((b = mr_backend_next(&pool->servers[i], b)) != NULL)
            if (mr_backend_serves(b) && !mr_backend_idle(b))
                return false;
    }
    return true;
}

void mr_pool_fini(struct mr_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        MR_CHECK(mr_list_empty(&pool->servers[i].backends));
        free(pool->servers[i].slots);
    }
    mr_ring_free(&pool->ring);
    free(pool->members);
    free(pool->own_health);
    free(pool->servers);
}

void mr_pool_set_address(struct mr_pool *pool, uint32_t index, const struct mr_addr *addr)
{
    struct mr_server *server = &pool->servers[index];
    struct mr_backend *b, *next;

    if (mr_addr_eq(&server->addr, addr))
        return;
    mr_log(MR_LOG_NOTICE, "server_address pool=%s server=%s old=%s new=%s", pool->config->name,
           server->config->name, server->addr.len > 0 ? server->addr.text : "none", addr->text);
    server->addr = *addr;
    mr_health_answered(server->health);
    for (b = mr_backend_next(server, NULL); b != NULL; b = next) {
        next = mr_backend_next(server, b);
        mr_backend_retire(b);
    }
    if (pool->config->preconnect)
        preconnect(server);
}
