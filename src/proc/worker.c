/* worker.c - the process that serves clients. */
#include "proc/worker.h"

#include "core/log.h"
#include "proc/lifecycle.h"
#include "proc/process.h"
#include "proc/question.h"
#include "session/balance.h"
#include "session/handover.h"
#include "session/mirror.h"
#include "session/turnstile.h"
#include "upstream/health.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HANDOVER_TURN_MS 1
#define RETRY_ACCEPT_MS  100 /* a worker that may not accept retries after this time */
#define DRAIN_TURN_MS    5   /* longest wait in a turn while draining */

struct worker {
    struct mr_process process;
    const struct mr_worker_setup *setup;
    struct mr_service *services; /* one per pool */
    struct mr_client_budget budget;
    void *admin;
    struct mr_handover_receiver *receivers; /* one per handover socket */
    struct mr_handover_receiver newcomers;  /* connections accepted by other workers */
    struct mr_turnstile turnstile;          /* unused if holder is NULL */
    struct mr_balance balance;              /* unused if ways is NULL */
    struct mr_inquiries inquiries;          /* unused if alone */
    struct mr_lifecycle life;
    int way_out; /* where clients go; -1 unless they leave */
    struct mr_handover_sender sender;
    bool *moves; /* during a handover: pools whose keys move */
    int status;
};

static struct worker *of_process(struct mr_process *p)
{
    return MR_CONTAINER_OF(p, struct worker, process);
}

static const struct mr_config *config_of(const struct worker *w)
{
    return w->setup->runtime->config;
}

/* ---- lifecycle callbacks ---- */

/* Clients leave from now on. New workers accept instead, except for a slot that is removed. */
static void begin_handover(void *arg, const struct mr_handover_payload *terms, int way)
{
    struct worker *w = arg;
    const uint32_t n_pools = config_of(w)->n_pools;

    w->way_out = way;
    w->moves = calloc(n_pools, sizeof(*w->moves));
    MR_CHECK(w->moves != NULL);
    for (uint32_t i = 0; i < n_pools; i++) {
        w->moves[i] = i >= MR_HANDOVER_POOLS || terms->moves[i / 8] & 1u << (i % 8);
        mr_service_hold(&w->services[i], terms->retired);
    }
    mr_log(MR_LOG_INFO, "handover_begins clients=%u", w->budget.n);
}

static void end_handover(struct worker *w)
{
    if (w->way_out >= 0)
        (void)close(w->way_out);
    w->way_out = -1;
    w->sender = (struct mr_handover_sender){0};
    free(w->moves);
    w->moves = NULL;
}

static void release(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_release(&w->services[i]);
}

static void resume(void *arg)
{
    end_handover(arg);
    release(arg);
}

static void stop_accepting(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_begin_drain(&w->services[i]);
}

static void abort_requests(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        if (w->moves[i])
            mr_service_abort(&w->services[i]);
}

static bool send_clients(void *arg)
{
    struct worker *w = arg;
    struct mr_error err;

    if (mr_handover_clients(&w->sender, w->services, config_of(w)->n_pools, w->way_out, &err) ==
        MR_OK)
        return true;
    mr_log_limited(MR_LOG_WARN, "handover_failed clients=%u error=\"%s\"", w->budget.n, err.text);
    return err.sys != EPIPE && err.sys != ECONNRESET;
}

static void end_clients(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_drain(&w->services[i]);
}

static void shed_clients(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_shed(&w->services[i]);
}

static bool quiesced(const void *arg)
{
    const struct worker *w = arg;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++) {
        const uint32_t to = config_of(w)->pools[i].mirror;
        if (w->moves[i] && !mr_service_quiet(&w->services[i]))
            return false;
        if (to != MR_NO_MIRROR && (w->moves[i] || w->moves[to]) &&
            !mr_mirror_settled(&w->services[i]))
            return false; /* what was written must arrive where keys are now */
    }
    return true;
}

static bool empty(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        if (!mr_service_empty(&w->services[i]))
            return false;
    return !mr_handover_waiting(&w->newcomers);
}

static bool expects_clients(const void *arg)
{
    const struct worker *w = arg;

    for (uint32_t i = 0; i < w->setup->n_ways; i++)
        if (!mr_handover_ended(&w->receivers[i]))
            return true;
    return false;
}

static void tell_quiesced(void *arg, uint32_t transition)
{
    const struct worker *w = arg;
    struct mr_message msg = {.type = MR_MSG_QUIESCED_TYPE};
    struct mr_error err;

    msg.body.QUIESCED.transition = transition;
    if (mr_channel_send(w->process.channel.fd, &msg, -1, &err) != MR_OK)
        mr_log(MR_LOG_ERR, "channel_send_failed error=\"%s\"", err.text);
}

static const struct mr_lifecycle_ops LIFE = {.hand_over = begin_handover,
                                             .resume = resume,
                                             .release = release,
                                             .stop_accepting = stop_accepting,
                                             .abort = abort_requests,
                                             .send_clients = send_clients,
                                             .end_clients = end_clients,
                                             .shed_clients = shed_clients,
                                             .quiesced = quiesced,
                                             .empty = empty,
                                             .expects_clients = expects_clients,
                                             .tell_quiesced = tell_quiesced};

static void init_life(struct worker *w)
{
    const struct mr_runtime *rt = w->setup->runtime;
    bool held = false;

    for (uint32_t i = 0; i < rt->config->n_pools; i++)
        held = held || rt->held[i];
    mr_lifecycle_init(&w->life, &LIFE, w, rt->config->worker_shutdown_timeout_ms, held);
}

/* ---- messages ---- */

/* A server belongs to the last pool whose first server has the same or a lower number. */
static void set_address(struct worker *w, const struct mr_message *msg)
{
    const struct mr_config *config = config_of(w);
    const uint32_t server = msg->body.ADDRESS.server;
    uint32_t pool = config->n_pools;

    while (pool-- > 0)
        if (config->pools[pool].first_server <= server) {
            mr_pool_set_address(&w->services[pool].pool, server - config->pools[pool].first_server,
                                &msg->body.ADDRESS.addr);
            return;
        }
}

static void init_budget(struct worker *w)
{
    const struct mr_runtime *rt = w->setup->runtime;
    const uint64_t slot = w->setup->slot, generation = rt->generation & 0xfffu;

    w->budget = (struct mr_client_budget){.clients = &rt->slots[slot].head->clients,
                                          .max = rt->max_clients,
                                          .burst = rt->accept_burst,
                                          .first_id = (slot << 40) + (generation << 28) + 1,
                                          .ids = &rt->slots[slot].head->client_ids};
    mr_budget_init(&w->budget);
}

static void open_services(struct worker *w)
{
    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_unlock(&w->services[i]);
}

static void on_message(struct mr_process *p, const struct mr_message *msg)
{
    struct worker *w = of_process(p);
    uint64_t *state = &w->setup->runtime->slots[w->setup->slot].head->state;

    if (msg->type == MR_MSG_OPEN_TYPE) {
        open_services(w);
        return;
    }
    if (msg->type == MR_MSG_ADDRESS_TYPE) {
        set_address(w, msg);
        return;
    }
    if (mr_question_message(p->channel.fd, msg, &w->inquiries, w->services, config_of(w)->n_pools))
        return;
    if (!mr_lifecycle_message(&w->life, msg, p->loop.now_us) && msg->fd >= 0)
        (void)close(msg->fd);
    __atomic_store_n(state, mr_lifecycle_ending(&w->life) ? MR_SLOT_DRAINING : MR_SLOT_SERVING,
                     __ATOMIC_SEQ_CST); /* see mr_balance_pass */
}

static void on_terminate(struct mr_process *p)
{
    struct worker *w = of_process(p);
    const struct mr_message msg = {.type = MR_MSG_TERMINATE_TYPE, .fd = -1};

    if (!mr_lifecycle_ending(&w->life))
        mr_log(mr_lifecycle_handing_over(&w->life) ? MR_LOG_INFO : MR_LOG_NOTICE,
               "worker_draining clients=%u limit_ms=%u", w->budget.n, w->life.limit_ms);
    on_message(p, &msg);
}

static void on_quit(struct mr_process *p)
{
    struct worker *w = of_process(p);

    p->loop.stop = true;
    w->status = p->alone ? 1 : 0; /* twemproxy's status after an interrupt */
}

/* ---- serving ---- */

static bool ask_others(void *arg, uint32_t number, struct mr_slice question)
{
    const struct worker *w = arg;

    return mr_question_send(w->process.channel.fd, number, question);
}

static void init_services(struct worker *w)
{
    const struct mr_worker_setup *s = w->setup;
    const struct mr_runtime *rt = s->runtime;
    const struct mr_config *config = rt->config;
    struct mr_metrics *mine = &rt->slots[s->slot];
    uint32_t listen = 0;

    w->services = calloc(config->n_pools, sizeof(*w->services));
    MR_CHECK(w->services != NULL);
    for (uint32_t i = 0; i < config->n_pools; i++) {
        const struct mr_pool_config *pool = &config->pools[i];
        const struct mr_service_setup setup = {
            .pool = {.loop = &w->process.loop,
                     .config = pool,
                     .addresses = &rt->addresses[pool->first_server],
                     .metrics = &mine->pools[i],
                     .server_metrics = &mine->servers[pool->first_server],
                     .health = &rt->health[pool->first_server],
                     .nodes = rt->node_maps[i],
                     .hosts = rt->hosts,
                     .process = &mine->head->process,
                     .extra_room = &w->budget.extra},
            .budget = &w->budget,
            .all_metrics = config->meitu ? mine : rt->slots,
            .n_metrics = config->meitu ? 1 : rt->n_slots,
            .index = i,
            .started_us = rt->started_us,
            .logins = rt->logins,
            .inquiries = rt->single ? NULL : &w->inquiries,
            .listen_fds = &s->listen_fds[listen],
            .balance = w->balance.ways != NULL ? &w->balance : NULL,
            .shared_tcp = w->setup->runtime->accepts_shared,
            .by_turns = w->turnstile.holder != NULL,
            .shared_unix = true,
            .locked = s->closed,
            .held = rt->held[i]};
        mr_service_init(&w->services[i], &setup);
        listen += pool->listens.n;
    }
    for (uint32_t i = 0; i < config->n_pools; i++)
        if (config->pools[i].mirror != MR_NO_MIRROR)
            mr_mirror_open(&w->services[i], &w->services[config->pools[i].mirror].pool);
    w->budget.services = w->services;
    w->budget.n_services = config->n_pools;
}

static void take_clients_in(struct worker *w)
{
    const struct mr_worker_setup *s = w->setup;

    if (s->runtime->balance_in != NULL) {
        mr_handover_receive(&w->newcomers, &w->process.loop, s->runtime->balance_in[s->slot],
                            w->services, config_of(w)->n_pools);
        w->newcomers.due = &s->runtime->slots[s->slot].head->clients_due;
    }
    w->receivers = calloc(s->n_ways + 1, sizeof(*w->receivers));
    MR_CHECK(w->receivers != NULL);
    for (uint32_t i = s->slot; i < s->n_ways; i += s->runtime->n_slots)
        if (s->ways_in[i] >= 0)
            mr_handover_receive(&w->receivers[i], &w->process.loop, s->ways_in[i], w->services,
                                config_of(w)->n_pools);
}

/* Runs one turn of the loop. If workers take turns accepting, tries to get the turn first. */
static void turn(struct worker *w, int max_wait_ms)
{
    bool mine;

    if (w->turnstile.holder == NULL) {
        mr_loop_turn(&w->process.loop, max_wait_ms);
        return;
    }
    mine = mr_turnstile_enter(&w->turnstile, w->services, config_of(w)->n_pools);
    if (!mine && (max_wait_ms < 0 || max_wait_ms > RETRY_ACCEPT_MS))
        max_wait_ms = RETRY_ACCEPT_MS;
    mr_loop_turn(&w->process.loop, max_wait_ms);
    if (mine)
        mr_turnstile_leave(&w->turnstile);
}

static int longest_wait_ms(const struct worker *w)
{
    if (mr_lifecycle_handing_over(&w->life))
        return HANDOVER_TURN_MS;
    return mr_lifecycle_ending(&w->life) ? DRAIN_TURN_MS : -1;
}

static void serve(struct worker *w)
{
    do
        turn(w, longest_wait_ms(w));
    while (!w->process.loop.stop && mr_lifecycle_turn(&w->life, w->process.loop.now_us));
}

static void fini(struct worker *w)
{
    mr_handover_stop(&w->newcomers);
    for (uint32_t i = 0; i < w->setup->n_ways; i++)
        mr_handover_stop(&w->receivers[i]);
    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_close(&w->services[i]);
    mr_inquiries_end(&w->inquiries, NULL);
    if (w->admin != NULL)
        w->setup->admin.detach(w->admin);
    mr_loop_settle(&w->process.loop);
    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_fini(&w->services[i]);
    free(w->services);
    free(w->receivers);
    end_handover(w);
    mr_process_fini(&w->process);
}

/* An engine that works for the master may be unavailable to an unprivileged worker. */
static bool init_process(struct worker *w)
{
    const struct mr_runtime *rt = w->setup->runtime;
    struct mr_error err;

    if (mr_process_init(&w->process, rt->engine, &err) == MR_OK)
        return true;
    if (rt->engine_auto) {
        mr_log(MR_LOG_WARN, "engine_fallback engine=epoll reason=\"%s\"", err.text);
        if (mr_process_init(&w->process, "epoll", &err) == MR_OK)
            return true;
    }
    mr_log(MR_LOG_EMERG, "worker_failed error=\"%s\"", err.text);
    return false;
}

static uint32_t accept_threshold(const struct mr_runtime *rt)
{
    const uint32_t configured = rt->config->accept_threshold;

    return configured != MR_AUTO ? configured : rt->max_clients - rt->max_clients / 8;
}

/* Sets up what the generation's workers share. */
static void join_others(struct worker *w)
{
    const struct mr_runtime *rt = w->setup->runtime;
    const struct mr_slots slots = {.at = rt->slots, .n = rt->n_slots, .mine = w->setup->slot};

    if (rt->balance_out != NULL)
        w->balance = (struct mr_balance){.slots = slots, .ways = rt->balance_out};
    if (rt->accept_holder != NULL)
        w->turnstile = (struct mr_turnstile){.holder = rt->accept_holder,
                                             .pid = (uint64_t)getpid(),
                                             .slots = slots,
                                             .threshold = accept_threshold(rt)};
}

static int renew_channel(struct mr_process *p)
{
    const struct mr_worker_setup *setup = of_process(p)->setup;

    return setup->start_resolver(setup->arg);
}

int mr_worker_run(const struct mr_worker_setup *setup)
{
    const struct mr_runtime *rt = setup->runtime;
    struct mr_metrics *mine = &rt->slots[setup->slot];
    struct worker w = {.setup = setup, .way_out = -1};

    w.process.alone = rt->single;
    w.process.channel.fd = setup->channel;
    w.process.on_terminate = on_terminate;
    w.process.on_quit = on_quit;
    w.process.on_message = on_message;
    w.process.renew_channel = renew_channel;
    if (!init_process(&w))
        return 1;
    mr_metrics_reset_gauges(mine);
    mine->head->pid = (uint64_t)getpid();
    mine->head->state = MR_SLOT_STARTING;
    init_budget(&w);
    join_others(&w);
    mr_inquiries_init(&w.inquiries, &w.process.loop, ask_others, &w);
    init_services(&w);
    init_life(&w);
    take_clients_in(&w);
    if (setup->admin.attach != NULL)
        w.admin = setup->admin.attach(&w.process.loop, rt, &(struct mr_admin_control){0});
    mine->head->state = MR_SLOT_SERVING;
    setup->on_ready(setup->arg);
    serve(&w);
    fini(&w);
    mine->head->pid = 0;
    mine->head->state = MR_SLOT_DOWN;
    return w.status;
}
