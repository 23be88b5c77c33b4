/*
 * sim_worker.c - a worker as it is, and those that it hands its clients over to, over scripted
 * clients and servers in a world that does its worst. What is checked: see docs/ARCHITECTURE.md,
 * "Tests".
 */
#include "client.h"
#include "server.h"
#include "workers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENTS_MAX 12u
#define SERVERS_MAX 4u
#define SERVER_PORT 7000u
#define MIRRORS     2u /* servers of the pool that gets what clients write */
#define MIRROR_PORT 7100u
#define SECOND_US   UINT64_C(1000000)
#define REST_US     (120 * SECOND_US) /* for everything to be answered */
#define LIMIT_MS    30000u            /* worker_shutdown_timeout */

static struct {
    struct mr_config *config;
    struct sim_server *servers[SERVERS_MAX];
    uint32_t n_servers;
    struct sim_server *mirrors[MIRRORS];
    bool is_mirrored;
    int listener;
    bool is_redis;      /* else memcached */
    bool is_old;        /* memcacheds without meta commands */
    bool is_replicated; /* a master and replicas */
    bool refused;       /* a worker ran out of something */
    uint32_t max_clients;
    bool slow_reader;    /* there is one; the worker must end while it reads its replies */
    bool huge;           /* some values may exceed a small output limit */
    uint64_t stopped_us; /* when the worker was told to end; 0: not yet */
    struct sim_event next, succession;
} w;

static const struct mr_pool_config *pool_config(void)
{
    return &w.config->pools[0];
}

/* ---- the configuration ---- */

static const char *one_of(const char *a, const char *b, const char *c)
{
    const char *const all[] = {a, b, c};

    return all[sim_below(3)];
}

static void configure_memcache(struct sim_bytes *text)
{
    if (sim_once_in(3))
        sim_bytes_addf(text, "  on_server_failure: miss\n");
    if (sim_once_in(3))
        sim_bytes_addf(text, "  max_item_size: %u\n", sim_magnitude(1024, 300000));
}

static void configure_replicas(struct sim_bytes *text)
{
    sim_bytes_addf(text,
                   "  topology: replicated\n  read_from: %s\n  read_fallback: %s\n"
                   "  follow_roles: %s\n  health_check_interval: %ums\n",
                   one_of("master", "prefer_replica", "nearest"),
                   one_of("master", "master", "none"), sim_once_in(2) ? "true" : "false",
                   sim_between(50, 1000));
    if (sim_once_in(3))
        sim_bytes_addf(text, "  stickiness: %ums\n", sim_between(1, 1000));
    if (sim_once_in(3))
        sim_bytes_addf(text, "  max_replica_lag: %ums\n", sim_between(500, 3000));
    if (sim_once_in(6))
        sim_bytes_addf(text, "  meitu_compat: true\n");
}

static void configure_mirror(struct sim_bytes *text, bool auth)
{
    sim_bytes_addf(text, "mirror:\n  listen: 127.0.0.1:2\n  redis: true\n  timeout: %u\n",
                   sim_once_in(2) ? 0 : sim_between(300, 3000));
    if (auth)
        sim_bytes_addf(text, "  redis_auth: secret\n");
    sim_bytes_addf(text, "  servers:\n");
    for (uint32_t i = 0; i < MIRRORS; i++)
        sim_bytes_addf(text, "   - 127.0.0.1:%u:1\n", MIRROR_PORT + i);
}

static void note_lines(struct mr_slice text)
{
    const char *end = text.at + text.len;

    for (const char *p = text.at, *nl; p < end; p = nl + 1) {
        nl = memchr(p, '\n', (size_t)(end - p));
        sim_note("%.*s", (int)(nl - p), p);
    }
}

static void configure(bool auth)
{
    static const char *const TIMEOUTS[] = {"0", "300", "2000", "10000"};
    struct sim_bytes text = {0};
    struct mr_error err;

    w.n_servers = sim_between(1 + w.is_replicated, SERVERS_MAX);
    sim_bytes_addf(&text,
                   "global: {worker_shutdown_timeout: %ums}\np:\n  listen: 127.0.0.1:1\n"
                   "  redis: %s\n  hash: murmur\n",
                   LIMIT_MS, w.is_redis ? "true" : "false");
    sim_bytes_addf(&text, "  distribution: %s\n  timeout: %s\n",
                   sim_once_in(2) ? "ketama" : "modula", TIMEOUTS[sim_below(MR_COUNT(TIMEOUTS))]);
    sim_bytes_addf(&text, "  coalesce: %s\n  server_connections: %u\n  preconnect: %s\n",
                   one_of("off", "auto", "500us"), sim_between(1, 2),
                   sim_once_in(2) ? "true" : "false");
    sim_bytes_addf(&text, "  max_pipeline: %u\n  client_output_limit: %u\n",
                   sim_once_in(2) ? 1024 : sim_between(2, 20),
                   sim_once_in(2) ? 67108864 : sim_between(65536, 300000));
    if (sim_once_in(4))
        sim_bytes_addf(&text,
                       "  auto_eject_hosts: true\n  server_failure_limit: %u\n"
                       "  server_retry_timeout: %u\n  health_checks: %s\n",
                       sim_between(1, 3), sim_between(200, 3000),
                       one_of("auto", w.is_replicated ? "auto" : "off", "always"));
    if (sim_once_in(8))
        sim_bytes_addf(&text, "  client_idle_timeout: %ums\n", sim_between(500, 5000));
    if (auth)
        sim_bytes_addf(&text, "  redis_auth: secret\n");
    if (!w.is_redis)
        configure_memcache(&text);
    if (w.is_replicated)
        configure_replicas(&text);
    if (w.is_mirrored)
        sim_bytes_addf(&text, "  mirror_to: mirror\n  mirror_buffer: %s\n",
                       one_of("64kb", "1mb", "64mb"));
    sim_bytes_addf(&text, "  servers:\n");
    for (uint32_t i = 0; i < w.n_servers; i++)
        sim_bytes_addf(&text, "   - 127.0.0.1:%u:1%s\n", SERVER_PORT + i,
                       i > 0 || !w.is_replicated ? "" : " master");
    if (w.is_mirrored)
        configure_mirror(&text, auth);
    note_lines(sim_bytes_slice(&text));
    SIM_CHECK(mr_config_parse(&w.config, "sim", sim_bytes_slice(&text), 1000, NULL, &err) == MR_OK,
              "%s", err.text);
}

/* ---- the world ---- */

static void set_environment(void)
{
    sim_env.latency_us = sim_magnitude(10, 20000);
    sim_env.cut_bytes = sim_once_in(2) ? 0 : sim_magnitude(1, 5000);
    sim_env.socket_bytes = sim_once_in(2) ? 65536 : sim_magnitude(1000, 200000);
    sim_env.partial = sim_once_in(2) ? 0 : sim_magnitude(2, 100);
    sim_env.interrupted = sim_once_in(4) ? sim_magnitude(2, 100) : 0;
    sim_env.no_descriptor = sim_once_in(8) ? sim_magnitude(3, 300) : 0;
    sim_env.no_memory = sim_once_in(8) ? sim_magnitude(2, 300) : 0;
    sim_env.ring_entries = sim_once_in(4) ? sim_magnitude(16, 512) : 8192;
}

static uint32_t rarely(uint32_t in)
{
    return sim_once_in(in) ? sim_magnitude(20, 3000) : 0;
}

static void set_habits(void)
{
    const bool times_out = pool_config()->timeout_ms > 0;

    sim_habits = (struct sim_server_habits){
        .delay_us = sim_magnitude(0, 20000),
        .slow = rarely(4),
        .silent = times_out ? rarely(6) : 0,
        .dies = rarely(4),
        .shuts = rarely(6),
        .wrong = rarely(4),
        .refuses = rarely(6),
        .unreachable = times_out ? rarely(10) : 0,
        .blocked = rarely(6),
    };
    if (w.is_mirrored) /* a connection that lags behind others would execute a write after all */
        sim_habits.slow = sim_habits.silent = sim_habits.blocked = 0;
    sim_aftermath_us = 5 * SECOND_US + 4000 * (uint64_t)pool_config()->timeout_ms +
                       1000 * (uint64_t)pool_config()->server_retry_timeout_ms;
    sim_strict = !pool_config()->auto_eject_hosts;
    sim_one_memory = w.is_replicated;
    if (w.is_replicated) /* a replica's replies may overtake writes to the master */
        sim_strict = pool_config()->read_from == MR_READ_MASTER && !pool_config()->meitu_compat &&
                     !pool_config()->follow_roles;
    sim_failure_is_miss = pool_config()->options.failure_is_miss;
}

static const struct sim_client_proto *some_proto(void)
{
    if (w.is_redis)
        return &SIM_CLIENT_RESP;
    return sim_once_in(2) ? &SIM_CLIENT_TEXT : &SIM_CLIENT_BINARY;
}

static struct sim_client_plan new_plan(bool auth)
{
    struct sim_client_plan plan = {
        .proto = some_proto(),
        .pool = pool_config(),
        .listener = w.listener,
        .n_requests = sim_magnitude(1, 400),
        .depth = sim_magnitude(1, 300),
        .burst = sim_magnitude(1, 300),
        .think_us = sim_magnitude(0, 50000),
        .size = sim_magnitude(0, 3000),
        .huge = sim_once_in(3) ? sim_magnitude(5, 200) : 0,
        .authorizes = auth,
        .meta = 8 * sim_below(3),
        .transacts = sim_once_in(3) ? sim_magnitude(2, 50) : 0,
        .publishes = sim_once_in(2) ? sim_magnitude(2, 30) : 0,
        .listens = w.is_redis && sim_once_in(4),
        .ending = (enum sim_ending)sim_below(SIM_END_RESET + 1),
    };

    w.huge |= plan.huge > 0;
    if (sim_once_in(3)) {
        plan.read_bytes = sim_magnitude(1, 20000);
        plan.read_us = sim_magnitude(0, 10000);
        plan.stops = sim_once_in(2) ? sim_magnitude(3, 100) : 0;
    }
    if (sim_once_in(20)) {
        sim_plan_slow_reader(&plan);
        w.slow_reader = true;
    }
    return plan;
}

static void change_master(struct sim_server *to)
{
    if (!w.is_replicated || !pool_config()->follow_roles)
        return;
    for (uint32_t i = 0; i < w.n_servers; i++)
        w.servers[i]->is_master = w.servers[i] == to;
    sim_trouble("%s is the master now", to->name);
}

static void change_world(void *arg)
{
    struct sim_server *s = w.is_mirrored && sim_once_in(4) ? w.mirrors[sim_below(MIRRORS)]
                                                           : w.servers[sim_below(w.n_servers)];

    (void)arg;
    switch (sim_below(5)) {
    case 0:
        sim_server_down(s);
        break;
    case 1:
        sim_server_up(s);
        break;
    case 2:
        change_master(w.servers[sim_below(w.n_servers)]);
        break;
    case 3:
        if (!sim_workers_are_over()) {
            const uint32_t us = sim_magnitude(1000, 3000000);
            sim_stall(sim_workers[sim_below(sim_n_workers)].process, us);
            if (us > 100000)
                sim_trouble("the worker stands still");
        }
        break;
    default:
        set_environment();
        break;
    }
    sim_event_set(&w.next, sim_magnitude(10000, 5000000), change_world, NULL);
}

/* ---- what may happen to clients ---- */

static void on_write(struct sim_server_conn *sc, struct mr_slice key)
{
    SIM_CHECK(!w.is_replicated || sc->server->is_master || sim_may_fail(sim_now_us),
              "%.*s is written at %s, which is a replica", (int)key.len, key.at, sc->server->name);
}

static void on_refusal(const char *what)
{
    sim_trouble("%s for the worker", what);
    w.refused = true;
}

static bool was_idle(struct sim_client *c)
{
    const uint64_t limit_us = pool_config()->client_idle_timeout_ms * UINT64_C(1000);

    return limit_us > 0 && sim_client_silence_us(c) >= limit_us * 3 / 4;
}

/* Everything received before the worker was told to end is answered, or its time is over. */
static bool may_be_ended(const struct sim_client *c)
{
    if (w.stopped_us == 0)
        return false;
    if (!c->conn->accepted)
        return true;
    const struct sim_expect *due = sim_client_due(c);
    return due == NULL || due->end > c->arrived_at_stop ||
           sim_now_us - w.stopped_us >= LIMIT_MS * UINT64_C(1000);
}

static const char *excuse(struct sim_client *c)
{
    const struct sim_expect *due = sim_client_due(c);

    if (may_be_ended(c))
        return "the worker ends";
    if (w.refused && (sim_n_workers > 1 || sim_may_fail(sim_now_us)))
        return "something was short"; /* in transit, or in the middle of a request */
    if (sim_may_refuse && (c->n_answered == 0 || sim_n_workers > 1))
        return "there are too many";
    if (was_idle(c))
        return "it was idle";
    if (due != NULL && (c->most_waiting_bytes >= pool_config()->client_output_limit / 2 ||
                        (w.huge && pool_config()->client_output_limit < 1000000)))
        return "it waits for more than may pile up";
    if (c->plan.listens && pool_config()->client_output_limit < 1000000)
        return "it may have heard more than may pile up";
    if (due != NULL && sim_may_fail(due->sent_us))
        return "trouble";
    return NULL;
}

static bool says(struct mr_slice reply, const char *text)
{
    return memmem(reply.at, reply.len, text, strlen(text)) != NULL;
}

/* A slow network or a long queue may delay a request. */
static bool is_late(const struct sim_expect *e)
{
    const uint64_t timeout_us = pool_config()->timeout_ms * UINT64_C(1000);

    return timeout_us > 0 && sim_now_us - e->sent_us >= timeout_us;
}

static bool may_have_failed(const struct sim_expect *e)
{
    return sim_may_fail(e->sent_us) || is_late(e);
}

static bool allows_error(const struct sim_expect *e, struct mr_slice reply)
{
    if (w.is_old && (says(reply, "ms needs a server") || says(reply, "does not know meta")))
        return true;
    if (w.stopped_us != 0 && says(reply, "UNBLOCKED"))
        return true;
    if (w.max_clients < CLIENTS_MAX && (says(reply, "no dedicated server connection is free") ||
                                        says(reply, "no descriptor is left for subscriptions")))
        return true; /* they count like clients */
    return sim_may_fail(e->sent_us) || (is_late(e) && says(reply, "timed out"));
}

/* ---- the worker and its successors ---- */

static void start_worker(void)
{
    w.listener = sim_listen(sim_once_in(4));
    sim_workers_begin(w.config, w.listener, w.max_clients);
    sim_run_until(sim_now_us + SECOND_US);
}

static void succeed(void *arg)
{
    (void)arg;
    if (w.stopped_us != 0)
        return;
    sim_workers_succeed();
    sim_env.refused = sim_worker_last()->process;
    sim_event_set(&w.succession, sim_magnitude(1000, 5000000), succeed, NULL);
}

static void stop_worker(void)
{
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next) {
        c->arrived_at_stop = sim_arrived(c->conn);
        if (sim_once_in(2))
            sim_client_stop_reading(c);
    }
    w.stopped_us = sim_now_us;
    sim_event_cancel(&w.succession);
    sim_workers_stop();
}

/* ---- the mirror ---- */

static uint64_t dropped(void)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < sim_n_workers; i++)
        n += sim_workers[i].metrics.pools[0].mirror_dropped;
    return n;
}

static const struct sim_stored *find_in(struct sim_server *const *servers, uint32_t n,
                                        struct mr_slice key)
{
    const struct sim_stored *it = NULL;

    for (uint32_t i = 0; i < n && it == NULL; i++)
        it = sim_server_find(servers[i], key);
    return it;
}

/* Everything that one side has, the other has, too. */
static void compare(struct sim_server *const *ours, uint32_t n, struct sim_server *const *theirs,
                    uint32_t m, const char *what)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t b = 0; b < SIM_STORED_BUCKETS; b++)
            for (const struct sim_stored *it = ours[i]->stored[b]; it != NULL; it = it->next) {
                const struct sim_stored *other = find_in(theirs, m, it->key);
                SIM_CHECK(other != NULL && mr_slice_eq(other->value, it->value), "key %.*s %s: %s",
                          (int)it->key.len, it->key.at, what,
                          other == NULL ? "it is missing" : "it has another value");
            }
}

/* After the workers have ended, unless they gave something up, or the keys' places changed. */
static void check_mirror(void)
{
    if (!w.is_mirrored || dropped() > 0 || pool_config()->auto_eject_hosts)
        return;
    compare(w.servers, w.n_servers, w.mirrors, MIRRORS, "was not mirrored");
    compare(w.mirrors, MIRRORS, w.servers, w.n_servers, "should not be in the mirror");
}

/* ---- a run ---- */

/* Without further trouble, everything is answered. */
static void come_to_rest(void)
{
    sim_event_cancel(&w.next);
    sim_event_cancel(&w.succession);
    sim_servers_calm();
    sim_env.no_descriptor = sim_env.no_memory = 0;
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next) {
        sim_client_finish(c);
        sim_client_hurry(c);
    }
    const uint64_t until = sim_now_us + REST_US;
    while (sim_now_us < until) {
        bool waits = false;
        for (const struct sim_client *c = sim_clients; c != NULL; c = c->next)
            waits |= !c->over && c->n_waiting > 0 && !may_be_ended(c);
        if (!waits)
            return;
        sim_run_until(sim_now_us + SECOND_US);
    }
    for (const struct sim_client *c = sim_clients; c != NULL; c = c->next)
        SIM_CHECK(c->over || c->n_waiting == 0 || may_be_ended(c),
                  "client %u: %u requests are never answered", c->id, c->n_waiting);
}

/* Whoever is subscribed has heard it all. */
static void check_heard(const struct sim_client *by)
{
    for (const struct sim_client *c = sim_clients; c != NULL; c = c->next)
        for (uint32_t i = 0; i < SIM_CHANNELS && !c->over && !c->failed_partly; i++)
            SIM_CHECK(!c->hears[i] || c->heard_of[i][by->id] == by->last_published[i],
                      "client %u has heard message %u of channel %u, but not %u", c->id,
                      c->heard_of[i][by->id], i, by->last_published[i]);
}

/* Long after the last trouble, nothing fails. */
static void check_well(bool auth)
{
    struct sim_client_plan plan = new_plan(auth);

    if (w.stopped_us != 0 || sim_once_in(2))
        return;
    sim_run_until(sim_now_us + sim_aftermath_us + SECOND_US);
    plan.n_requests = 20;
    plan.huge = plan.read_us = plan.stops = 0;
    plan.think_us = 10000;
    plan.ending = SIM_END_CLOSE;
    plan.publishes = w.is_redis && sim_once_in(2);
    const struct sim_client *c = sim_client_start(&plan);
    sim_run_until(sim_now_us + REST_US);
    SIM_CHECK(c->over, "client %u: %u requests are not answered, though all is well", c->id,
              c->n_waiting);
    check_heard(c);
}

/* Clients idle beyond the limit are closed. */
static void check_idle(void)
{
    const uint64_t limit_us = pool_config()->client_idle_timeout_ms * UINT64_C(1000);

    if (limit_us == 0 || w.stopped_us != 0)
        return;
    sim_run_until(sim_now_us + 2 * limit_us + 5 * SECOND_US);
    for (const struct sim_client *c = sim_clients; c != NULL; c = c->next)
        SIM_CHECK(c->over || c->plan.listens || !c->conn->accepted,
                  "client %u: idle, and still there", c->id);
}

static void end_worker(void)
{
    if (w.stopped_us == 0)
        stop_worker();
    sim_run_until(sim_now_us + (LIMIT_MS + 5000) * UINT64_C(1000));
    for (const struct sim_client *c = sim_clients; c != NULL && !sim_workers_are_over();
         c = c->next)
        if (!c->over)
            sim_note("client %u is still there: %u unanswered, said last %d, accepted %d", c->id,
                     c->n_waiting, c->said_last, c->conn->accepted);
    sim_workers_check();
    check_mirror();
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next)
        sim_client_close(c);
    sim_run_until(sim_now_us + SECOND_US);
}

static void run(void)
{
    w.is_redis = sim_once_in(2);
    w.is_old = sim_once_in(8);
    w.is_replicated = w.is_redis && sim_once_in(3);
    w.is_mirrored = w.is_redis && sim_once_in(3);
    sim_may_refuse = sim_once_in(6);
    w.max_clients = sim_may_refuse ? sim_between(1, CLIENTS_MAX - 1) : 100;
    const bool auth = w.is_redis && sim_once_in(6);

    sim_kernel_begin();
    sim_clients_begin();
    sim_trouble_begin();
    w.stopped_us = 0;
    w.huge = w.refused = w.slow_reader = false;
    configure(auth);
    for (uint32_t i = 0; i < w.n_servers; i++) {
        w.servers[i] = sim_server_new(w.is_redis ? &SIM_SERVER_RESP : &SIM_SERVER_MEMCACHE,
                                      (uint16_t)(SERVER_PORT + i));
        w.servers[i]->password = auth ? "secret" : NULL;
        w.servers[i]->is_old = w.is_old;
        w.servers[i]->is_master = i == 0;
        w.servers[i]->memory = w.is_replicated ? w.servers[0] : NULL;
    }
    for (uint32_t i = 0; i < MIRRORS && w.is_mirrored; i++) {
        w.mirrors[i] = sim_server_new(&SIM_SERVER_RESP, (uint16_t)(MIRROR_PORT + i));
        w.mirrors[i]->password = auth ? "secret" : NULL;
    }
    sim_on_connect = sim_server_connect;
    sim_on_write = on_write;
    sim_excuse = excuse;
    sim_allows_error = allows_error;
    sim_may_have_failed = may_have_failed;
    sim_habits = (struct sim_server_habits){0};
    start_worker();
    sim_on_refusal = on_refusal;
    set_environment();
    set_habits();
    const uint32_t n_clients = sim_between(1, CLIENTS_MAX);
    for (uint32_t i = 0; i < n_clients; i++) {
        const struct sim_client_plan plan = new_plan(auth);
        (void)sim_client_start(&plan);
        if (sim_once_in(2))
            sim_run_until(sim_now_us + sim_magnitude(1, 100000));
    }
    if (sim_once_in(2))
        sim_event_set(&w.next, sim_magnitude(1000, 3000000), change_world, NULL);
    if (sim_once_in(3))
        sim_event_set(&w.succession, sim_magnitude(1000, 3000000), succeed, NULL);
    sim_run_until(sim_now_us +
                  (w.slow_reader ? sim_between(100000, 5000000) : sim_magnitude(10000, 20000000)));
    if (w.slow_reader || sim_once_in(3)) {
        stop_worker();
        if (sim_once_in(2))
            sim_run_until(sim_now_us + sim_magnitude(1000, 20000000));
    }
    come_to_rest();
    check_well(auth);
    check_idle();
    end_worker();
    (void)close(w.listener);
    sim_kernel_end();
    sim_servers_end();
    sim_workers_end();
    mr_config_free(w.config);
}

int main(int argc, char **argv)
{
    return sim_main(argc, argv, run);
}
