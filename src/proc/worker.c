/* worker.c - the process that serves clients. */
#include "proc/worker.h"

#include "core/log.h"
#include "proc/process.h"
#include "session/service.h"

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define DRAIN_TURN_MS 5 /* longest wait of a turn while draining */

struct worker {
    struct mr_process process;
    const struct mr_worker_setup *setup;
    struct mr_service *services; /* one for each pool */
    struct mr_client_budget budget;
    void *stats;
    uint64_t drain_until_us; /* 0: not draining; UINT64_MAX: without limit */
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

static void on_terminate(struct mr_process *p)
{
    struct worker *w = of_process(p);
    const uint64_t limit_us = (uint64_t)config_of(w)->worker_shutdown_timeout_ms * 1000u;

    if (w->drain_until_us != 0)
        return;
    w->drain_until_us = limit_us == 0 ? UINT64_MAX : p->loop.now_us + limit_us;
    mr_log(MR_LOG_NOTICE, "worker_draining clients=%u limit_ms=%u", w->budget.n,
           config_of(w)->worker_shutdown_timeout_ms);
    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_begin_drain(&w->services[i]);
}

static void on_quit(struct mr_process *p)
{
    struct worker *w = of_process(p);

    p->loop.stop = true;
    w->status = p->alone ? 1 : 0; /* twemproxy's status for an interrupt */
}

static void on_message(struct mr_process *p, const struct mr_message *msg)
{
    struct worker *w = of_process(p);
    const struct mr_config *config = config_of(w);

    if (msg->type != MR_MSG_ADDRESS_TYPE)
        return;
    uint32_t index = msg->body.ADDRESS.server;
    for (uint32_t i = 0; i < config->n_pools; i++) {
        const uint32_t n = config->pools[i].servers.n;
        if (index < n) {
            mr_pool_set_address(&w->services[i].pool, index, &msg->body.ADDRESS.addr);
            return;
        }
        index -= n;
    }
}

static void init_services(struct worker *w)
{
    const struct mr_worker_setup *s = w->setup;
    const struct mr_runtime *rt = s->runtime;
    const struct mr_config *config = rt->config;
    struct mr_metrics *mine = &rt->slots[s->slot];
    uint32_t listen = 0, server = 0;

    w->services = calloc(config->n_pools, sizeof(*w->services));
    MR_CHECK(w->services != NULL);
    for (uint32_t i = 0; i < config->n_pools; i++) {
        const struct mr_pool_config *pool = &config->pools[i];
        const struct mr_service_setup setup = {.pool = {.loop = &w->process.loop,
                                                        .config = pool,
                                                        .addresses = &rt->addresses[server],
                                                        .metrics = &mine->pools[i],
                                                        .server_metrics = &mine->servers[server],
                                                        .process = &mine->head->process},
                                               .budget = &w->budget,
                                               .all_metrics = config->meitu ? mine : rt->slots,
                                               .n_metrics = config->meitu ? 1 : rt->n_slots,
                                               .index = i,
                                               .listen_fds = &s->listen_fds[listen],
                                               .shared_unix = rt->n_slots > 1};
        mr_service_init(&w->services[i], &setup);
        listen += pool->listens.n;
        server += pool->servers.n;
    }
}

/* One step of draining; false when nothing is left to do, or the time is over. */
static bool drain(struct worker *w)
{
    bool empty = true;

    for (uint32_t i = 0; i < config_of(w)->n_pools; i++) {
        mr_service_drain(&w->services[i]);
        empty = empty && mr_service_empty(&w->services[i]);
    }
    if (!empty && w->process.loop.now_us >= w->drain_until_us) {
        mr_log(MR_LOG_WARN, "worker_drain_timeout clients=%u", w->budget.n);
        return false;
    }
    return !empty;
}

static void serve(struct worker *w)
{
    while (!w->process.loop.stop) {
        mr_loop_turn(&w->process.loop, w->drain_until_us != 0 ? DRAIN_TURN_MS : -1);
        if (w->drain_until_us != 0 && !drain(w))
            return;
    }
}

static void fini(struct worker *w)
{
    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_close(&w->services[i]);
    if (w->stats != NULL)
        w->setup->stats.detach(w->stats);
    mr_loop_settle(&w->process.loop);
    for (uint32_t i = 0; i < config_of(w)->n_pools; i++)
        mr_service_fini(&w->services[i]);
    free(w->services);
    mr_process_fini(&w->process);
}

/* What the master could have, a worker without its privileges may not. */
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

int mr_worker_run(const struct mr_worker_setup *setup)
{
    const struct mr_runtime *rt = setup->runtime;
    struct mr_metrics *mine = &rt->slots[setup->slot];
    struct worker w = {.setup = setup, .budget = {.max = rt->max_clients, .next_id = 1}};

    w.process.alone = rt->single;
    w.process.channel.fd = setup->channel;
    w.process.on_terminate = on_terminate;
    w.process.on_quit = on_quit;
    w.process.on_message = on_message;
    if (!init_process(&w))
        return 1;
    /* ids of different workers do not meet */
    w.budget.next_id = ((uint64_t)setup->slot << 40) + 1;
    mr_metrics_reset_gauges(mine);
    mine->head->pid = (uint64_t)getpid();
    init_services(&w);
    if (setup->stats.attach != NULL)
        w.stats = setup->stats.attach(&w.process.loop, rt);
    setup->on_ready(setup->on_ready_arg);
    serve(&w);
    fini(&w);
    mine->head->pid = 0;
    return w.status;
}
