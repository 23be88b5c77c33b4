/* prober.c - probes servers; each server is probed by one worker. */
#include "upstream/prober.h"

#include "core/log.h"
#include "upstream/backend.h"
#include "upstream/pool.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

static const struct mr_backend_user PROBER = {.kind = MR_BACKEND_PROBE};

static uint64_t now_us(const struct mr_server *server)
{
    return server->pool->loop->now_us;
}

static bool wants_probes(const struct mr_server *server)
{
    const struct mr_pool_config *config = server->pool->config;

    if (config->health_checks == MR_HEALTH_OFF || !mr_server_is_known(server) ||
        (server->config->service_place > 0 && server->addr.len == 0)) /* a free place is not down */
        return false;
    return config->health_checks == MR_HEALTH_ALWAYS || server->pool->topology->probes ||
           config->read_from == MR_READ_NEAREST || mr_health_ejected(server->health) ||
           mr_health_load(&server->health->failures) > 0;
}

/* A server's prober keeps probing it. Another worker takes over when it stops. */
static bool is_mine(struct mr_server *server)
{
    struct mr_health *h = server->health;
    const uint64_t interval = server->pool->config->health_check_interval_ms * UINT64_C(1000);
    const uint64_t due = mr_health_load(&h->probe_us), prober = mr_health_load(&h->prober),
                   me = (uint64_t)getpid();

    if (now_us(server) < due)
        return false;
    if (prober != 0 && prober != me && now_us(server) < due + 2 * interval)
        return false;
    if (!mr_health_claim(&h->probe_us, due, now_us(server) + interval))
        return false;
    mr_health_store(&h->prober, me);
    return true;
}

static void change_state(struct mr_server *server, enum mr_health_state state, const char *why)
{
    struct mr_health *h = server->health;
    const uint64_t before = mr_health_load(&h->state);

    mr_health_store(&h->probed_us, now_us(server));
    if (before == state)
        return;
    mr_health_store(&h->state, state);
    if (state == MR_HEALTH_DOWN)
        mr_log_limited(MR_LOG_WARN, "server_down pool=%s server=%s reason=\"%s\"",
                       server->pool->config->name, server->name, why);
    else if (before == MR_HEALTH_DOWN)
        mr_health_store(&h->returned_us, now_us(server));
    if (state == MR_HEALTH_UP && before == MR_HEALTH_DOWN)
        mr_log_limited(MR_LOG_NOTICE, "server_up pool=%s server=%s", server->pool->config->name,
                       server->name);
}

static void probe_failed(struct mr_server *server, const char *why)
{
    mr_health_store(&server->health->lag_us, 0);
    mr_health_store(&server->health->role, MR_ROLE_UNKNOWN);
    change_state(server, MR_HEALTH_DOWN, why);
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_server *server = MR_CONTAINER_OF(call, struct mr_server, probe);
    const struct mr_pool *pool = server->pool;
    struct mr_health *h = server->health;
    const uint64_t rtt = now_us(server) - server->probe_since_us, old = mr_health_load(&h->rtt_us);
    struct mr_probe found = {0};

    if (!done)
        return; /* replies to probes are short; of a longer one only the end is checked */
    server->probing = false;
    const struct mr_proto_server *proto = &pool->config->protocol->server;
    const char *wrong =
        proto->probe == NULL ? NULL : proto->check_probe((struct mr_slice){bytes, len}, &found);
    if (wrong != NULL) {
        probe_failed(server, wrong);
        return;
    }
    mr_health_store(&h->rtt_us, old == 0 ? rtt : (7 * old + rtt) / 8);
    if (pool->topology->probed != NULL)
        pool->topology->probed(server, &found);
    change_state(server, MR_HEALTH_UP, NULL);
    mr_health_answered(h);
}

static void on_fail(struct mr_call *call, const char *reason)
{
    struct mr_server *server = MR_CONTAINER_OF(call, struct mr_server, probe);

    server->probing = false;
    if (!server->pool->closing)
        probe_failed(server, reason);
}

static const struct mr_call_ops CALL_OPS = {.on_reply = on_reply, .on_fail = on_fail};

static void begin_probe(struct mr_server *server)
{
    const struct mr_pool_config *config = server->pool->config;
    struct mr_slab *slab = &server->pool->loop->slab;
    struct mr_buf request = {0};

    if (server->prober == NULL) {
        const int error = server->addr.len == 0
                              ? EHOSTDOWN
                              : mr_backend_connect(&server->prober, server,
                                                   mr_server_probe_lane(server), &PROBER);
        if (error != 0) {
            if (!mr_health_is_shortage(error)) /* else the next probe finds out */
                probe_failed(server, mr_pool_reason(error));
            return;
        }
    }
    server->probe = (struct mr_call){.ops = &CALL_OPS, .class = MR_CLASS_OTHER};
    server->probing = true;
    server->probe_since_us = now_us(server);
    /* in this connection's dialect, which may differ from the clients' */
    if (config->protocol->server.probe != NULL)
        config->protocol->server.probe(server->options, server->prober->lane, slab, &request);
    (void)mr_backend_send(server->prober, &server->probe, mr_buf_slice(&request));
    mr_buf_clear(&request, slab);
}

static void look_at(struct mr_server *server)
{
    const uint64_t timeout_us = server->pool->config->health_check_timeout_ms * UINT64_C(1000);

    if (server->probing) {
        if (now_us(server) - server->probe_since_us >= timeout_us && server->prober != NULL)
            mr_backend_close(server->prober, ETIMEDOUT); /* the probe fails with the connection */
    } else if (wants_probes(server) && is_mine(server)) {
        begin_probe(server);
    } else if (server->prober != NULL &&
               (!wants_probes(server) ||
                mr_health_load(&server->health->prober) != (uint64_t)getpid())) {
        mr_backend_close(server->prober, 0);
    }
}

static void on_tick(struct mr_timer *timer)
{
    struct mr_pool *pool = MR_CONTAINER_OF(timer, struct mr_pool, probe_timer);
    bool more = false;

    for (uint32_t i = 0; i < pool->n_servers; i++)
        look_at(&pool->servers[i]);
    mr_pool_look_around(pool);
    for (uint32_t i = 0; i < pool->n_servers && !more; i++)
        more = wants_probes(&pool->servers[i]) || pool->servers[i].prober != NULL;
    if (more) /* otherwise the next failure starts it again */
        mr_pool_probe(pool, false);
}

void mr_prober_init(struct mr_pool *pool)
{
    pool->probe_timer.fire = on_tick;
}

void mr_prober_stop(struct mr_pool *pool)
{
    mr_timer_cancel(&pool->probe_timer);
}
