/* health.c - probing servers, and backing off from those that fail. */
#include "upstream/health.h"

#include "core/log.h"
#include "upstream/backend.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#define BACKOFF_FIRST_US 10000u
#define BACKOFF_MAX_US   1000000u
#define FAILING          2u /* failures from which on connects are held back */
#define TICKS            4u /* of the timer in the time between two probes */
#define TICK_MIN_MS      20u
#define CUT_US           100000u /* within which a restart cuts the connections of all workers */

static void store(uint64_t *at, uint64_t v)
{
    __atomic_store_n(at, v, __ATOMIC_RELAXED);
}

/* Only one of several processes succeeds. */
static bool claim(uint64_t *at, uint64_t seen, uint64_t v)
{
    return __atomic_compare_exchange_n(at, &seen, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static uint64_t now_us(const struct mr_server *server)
{
    return server->pool->loop->now_us;
}

/* ---- backing off ---- */

/* Of connects that follow one another. */
static uint64_t backoff_us(uint64_t failures)
{
    const uint64_t doublings = failures > 2 ? failures - 2 : 0;

    return doublings > 6 ? BACKOFF_MAX_US : BACKOFF_FIRST_US << doublings;
}

int mr_health_may_connect(struct mr_server *server)
{
    struct mr_health *h = server->health;
    const uint64_t failures = mr_health_load(&h->failures), retry = mr_health_load(&h->retry_us);
    const int error = (int)mr_health_load(&h->error);

    if (failures < FAILING)
        return 0;
    if (now_us(server) >= retry &&
        claim(&h->retry_us, retry, now_us(server) + backoff_us(failures + 1))) {
        store(&h->failures, failures + 1); /* until it answers */
        return 0;
    }
    return error != 0 ? error : ECONNREFUSED;
}

/* ---- probing ---- */

static bool wants_probes(const struct mr_server *server)
{
    const struct mr_pool_config *config = server->pool->config;

    if (config->health_checks == MR_HEALTH_OFF)
        return false;
    return config->health_checks == MR_HEALTH_ALWAYS || config->topology == MR_REPLICATED ||
           mr_health_ejected(server->health) || mr_health_load(&server->health->failures) > 0;
}

/* Whoever probes a server goes on with it; another takes over from one that has stopped. */
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
    if (!claim(&h->probe_us, due, now_us(server) + interval))
        return false;
    store(&h->prober, me);
    return true;
}

static void change_state(struct mr_server *server, enum mr_health_state state, const char *why)
{
    struct mr_health *h = server->health;
    const uint64_t before = mr_health_load(&h->state);

    store(&h->probed_us, now_us(server));
    if (before == state)
        return;
    store(&h->state, state);
    if (state == MR_HEALTH_DOWN)
        mr_log_limited(MR_LOG_WARN, "server_down pool=%s server=%s reason=\"%s\"",
                       server->pool->config->name, server->config->name, why);
    else if (before == MR_HEALTH_DOWN)
        mr_log_limited(MR_LOG_NOTICE, "server_up pool=%s server=%s", server->pool->config->name,
                       server->config->name);
}

static void probe_failed(struct mr_server *server, const char *why)
{
    store(&server->health->lag_us, 0);
    store(&server->health->role, MR_ROLE_UNKNOWN);
    change_state(server, MR_HEALTH_DOWN, why);
}

/* Where a master's stream of changes stood, at distances that make the samples reach far enough. */
static void take_sample(struct mr_server *server, uint64_t offset)
{
    struct mr_health *h = server->health;
    const uint64_t n = mr_health_load(&h->n_samples);
    const uint64_t apart = server->pool->config->max_replica_lag_ms * UINT64_C(1000) * 2;
    const struct mr_lag_sample *last = &h->samples[(n - 1) % MR_LAG_SAMPLES];

    if (n > 0 && now_us(server) - mr_health_load(&last->at_us) < apart / MR_LAG_SAMPLES)
        return;
    struct mr_lag_sample *next = &h->samples[n % MR_LAG_SAMPLES];
    store(&next->at_us, now_us(server));
    store(&next->offset, offset);
    store(&h->n_samples, n + 1);
}

/* How long ago the master had as much as the replica has now. */
static uint64_t lag_of(const struct mr_server *replica, uint64_t offset)
{
    const struct mr_pool *pool = replica->pool;
    uint64_t at = now_us(replica);

    if (pool->master == MR_NO_MASTER || replica == &pool->servers[pool->master])
        return 0;
    const struct mr_health *h = pool->servers[pool->master].health;
    const uint64_t n = mr_health_load(&h->n_samples);
    for (uint64_t i = 0; i < n && i < MR_LAG_SAMPLES; i++) {
        const struct mr_lag_sample *s = &h->samples[(n - 1 - i) % MR_LAG_SAMPLES];
        if (mr_health_load(&s->offset) <=
            offset) /* it had this; and if it is the last one, it has all */
            return i == 0 ? 0 : now_us(replica) - mr_health_load(&s->at_us);
        at = mr_health_load(&s->at_us);
    }
    return now_us(replica) - at;
}

/* What a server says of itself, against what the configuration says of it. */
static void check_role(struct mr_server *server, enum mr_role role)
{
    const struct mr_pool *pool = server->pool;
    const bool named = (uint32_t)(server - pool->servers) == pool->config->master;
    const enum mr_role wanted = named ? MR_ROLE_MASTER : MR_ROLE_REPLICA;

    if (role == mr_health_load(&server->health->role))
        return;
    store(&server->health->role, role);
    if (pool->config->topology == MR_REPLICATED && !pool->config->follow_roles &&
        role != MR_ROLE_UNKNOWN && role != wanted)
        mr_log(MR_LOG_ERR, "server_role_wrong pool=%s server=%s configured=%s found=%s",
               pool->config->name, server->config->name, mr_role_name(wanted), mr_role_name(role));
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_server *server = MR_CONTAINER_OF(call, struct mr_server, probe);
    struct mr_health *h = server->health;
    const uint64_t rtt = now_us(server) - server->probe_since_us, old = mr_health_load(&h->rtt_us);
    struct mr_probe found = {0};

    if (!done)
        return; /* more than a probe is answered with: it is taken by its end */
    server->probing = false;
    const char *wrong =
        server->pool->config->protocol->check_probe((struct mr_slice){bytes, len}, &found);
    if (wrong != NULL) {
        probe_failed(server, wrong);
        return;
    }
    store(&h->rtt_us, old == 0 ? rtt : (7 * old + rtt) / 8);
    check_role(server, found.role);
    store(&h->link, found.link);
    if (found.role == MR_ROLE_MASTER)
        take_sample(server, found.offset);
    store(&h->lag_us, found.role == MR_ROLE_REPLICA ? lag_of(server, found.offset) : 0);
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
                              : mr_backend_connect(&server->prober, server, server->lane, true);
        if (error != 0) {
            probe_failed(server, mr_pool_reason(error));
            return;
        }
    }
    server->probe = (struct mr_call){.ops = &CALL_OPS, .class = MR_CLASS_OTHER};
    server->probing = true;
    server->probe_since_us = now_us(server);
    config->protocol->probe(&config->options, server->lane, slab, &request);
    mr_backend_send(server->prober, &server->probe, mr_buf_slice(&request));
    mr_buf_clear(&request, slab);
}

static void look_at(struct mr_server *server)
{
    const uint64_t timeout_us = server->pool->config->health_check_timeout_ms * UINT64_C(1000);

    if (server->probing) {
        if (now_us(server) - server->probe_since_us >= timeout_us && server->prober != NULL)
            mr_backend_close(server->prober, ETIMEDOUT); /* the probe fails with it */
    } else if (wants_probes(server) && is_mine(server)) {
        begin_probe(server);
    } else if (server->prober != NULL &&
               (!wants_probes(server) ||
                mr_health_load(&server->health->prober) != (uint64_t)getpid())) {
        mr_backend_close(server->prober, 0);
    }
}

static uint32_t tick_ms(const struct mr_pool *pool)
{
    const uint32_t tick = pool->config->health_check_interval_ms / TICKS;

    return tick > TICK_MIN_MS ? tick : TICK_MIN_MS;
}

static void on_tick(struct mr_timer *timer)
{
    struct mr_pool *pool = MR_CONTAINER_OF(timer, struct mr_pool, health_timer);
    bool more = false;

    for (uint32_t i = 0; i < pool->n_servers; i++)
        look_at(&pool->servers[i]);
    mr_pool_look_around(pool);
    for (uint32_t i = 0; i < pool->n_servers && !more; i++)
        more = wants_probes(&pool->servers[i]) || pool->servers[i].prober != NULL;
    if (more) /* else the next failure sets it again */
        mr_loop_timer(pool->loop, timer, tick_ms(pool));
}

static void start_ticking(struct mr_pool *pool, uint32_t delay_ms)
{
    pool->health_timer.fire = on_tick;
    if (pool->config->health_checks != MR_HEALTH_OFF && !pool->closing &&
        !mr_timer_is_set(&pool->health_timer))
        mr_loop_timer(pool->loop, &pool->health_timer, delay_ms);
}

void mr_health_start(struct mr_pool *pool)
{
    start_ticking(pool, 0);
}

void mr_health_stop(struct mr_pool *pool)
{
    mr_timer_cancel(&pool->health_timer);
}

/* ---- failures and ejection ---- */

/* One event is one failure, however many requests and connections it hits. */
static bool is_another(const struct mr_server *server, enum mr_failure failure)
{
    struct mr_health *h = server->health;
    const uint64_t timeout_us = server->pool->config->timeout_ms * UINT64_C(1000);
    const uint64_t apart = failure == MR_FAILURE_TIMEOUT ? timeout_us : CUT_US;
    uint64_t *at = failure == MR_FAILURE_TIMEOUT ? &h->late_us : &h->cut_us;
    const uint64_t seen = mr_health_load(at), now = now_us(server);

    return failure == MR_FAILURE_SILENT || (now >= seen + apart && claim(at, seen, now));
}

uint64_t mr_health_failed(struct mr_server *server, int error, enum mr_failure failure)
{
    struct mr_health *h = server->health;
    const uint64_t failures = mr_health_load(&h->failures), now = now_us(server);

    store(&h->error, (uint64_t)error);
    if (failure == MR_FAILURE_SILENT &&
        failures < FAILING) { /* further ones are counted when they are tried */
        store(&h->retry_us, now + backoff_us(FAILING));
        store(&h->failures, FAILING);
    } else if (failures == 0) {
        store(&h->retry_us, now);
        store(&h->failures, 1);
    }
    start_ticking(server->pool, tick_ms(server->pool));
    return is_another(server, failure) ? __atomic_add_fetch(&h->strikes, 1, __ATOMIC_RELAXED)
                                       : mr_health_load(&h->strikes);
}

static void change_ring(const struct mr_server *server)
{
    (void)__atomic_add_fetch(&server->pool->servers[0].health->ring_changes, 1, __ATOMIC_RELEASE);
}

bool mr_health_eject(struct mr_server *server)
{
    if (!claim(&server->health->ejected_us, 0, now_us(server)))
        return false;
    change_ring(server);
    return true;
}

bool mr_health_restore(struct mr_server *server)
{
    const uint64_t since = mr_health_load(&server->health->ejected_us);

    if (since == 0 || !claim(&server->health->ejected_us, since, 0))
        return false;
    store(&server->health->strikes, 0);
    change_ring(server);
    return true;
}
