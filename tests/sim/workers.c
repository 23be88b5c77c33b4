/* workers.c - a sequence of real workers. */
#include "workers.h"

#include "core/metrics.h"
#include "proc/channel.h"
#include "session/handover.h"
#include "upstream/health.h"

#include <errno.h>

#include <string.h>
#include <unistd.h>

#define LOOK_US 20000u /* maximum time between checks of workers' messages */
#define WAIT_US 50000u /* maximum time before the master continues */

struct sim_worker sim_workers[SIM_WORKERS];
uint32_t sim_n_workers;

static struct {
    const struct mr_config *config;
    int listener;
    int listen_fds[SIM_POOLS]; /* the second pool has no clients of its own */
    uint32_t max_clients;
    struct mr_addr *addresses;
    struct mr_health *health;
    struct mr_node_map **node_maps; /* none */
    struct sim_event look;
    bool told; /* HANDOVER was sent to the old one */
    bool go;   /* GO was sent to the new one */
    bool moves;
} all;

struct sim_worker *sim_worker_last(void)
{
    return &sim_workers[sim_n_workers - 1];
}

static struct sim_worker *before_last(void)
{
    return &sim_workers[sim_n_workers - 2];
}

/* ---- the process ---- */

static void ready(void *arg)
{
    mr_channel_tell(*(int *)arg, MR_MSG_READY_TYPE);
}

static int body(void *arg)
{
    struct sim_worker *w = arg;
    const int keep[] = {w->channel[1], all.listener, w->way[1]};

    sim_keep_fds(keep, MR_COUNT(keep));
    return mr_worker_run(&w->setup);
}

static void start(bool held, bool takes_clients)
{
    struct sim_worker *w = &sim_workers[sim_n_workers++];
    const struct mr_config *config = all.config;
    struct mr_error err;

    *w = (struct sim_worker){.n_servers = config->n_servers, .held = {held, held}, .way = {-1, -1}};
    MR_CHECK(mr_metrics_open(&w->metrics, config->n_pools, config->n_servers, &err) == MR_OK);
    MR_CHECK(mr_channel_open(w->channel, &err) == MR_OK);
    if (takes_clients)
        MR_CHECK(mr_handover_open(w->way, &err) == MR_OK);
    w->runtime = (struct mr_runtime){
        .config = all.config,
        .generation = sim_n_workers,
        .slots = &w->metrics,
        .n_slots = 1,
        .held = w->held,
        .accepts_shared = true,
        .engine = sim_once_in(2) ? "epoll" : "io_uring",
        .max_clients = all.max_clients,
        .accept_burst = 10,
        .addresses = all.addresses,
        .health = all.health,
        .node_maps = all.node_maps,
    };
    w->setup = (struct mr_worker_setup){.runtime = &w->runtime,
                                        .listen_fds = all.listen_fds,
                                        .ways_in = &w->way[1],
                                        .n_ways = takes_clients,
                                        .channel = w->channel[1],
                                        .on_ready = ready,
                                        .arg = &w->channel[1]};
    w->process = sim_fork(sim_text("worker %u", sim_n_workers), NULL, body, w);
    (void)close(w->channel[1]);
    if (takes_clients)
        (void)close(w->way[1]);
}

/* ---- the master ---- */

static void tell(const struct sim_worker *w, struct mr_message *msg, int fd)
{
    struct mr_error err;

    while (mr_channel_send(w->channel[0], msg, fd, &err) != MR_OK)
        SIM_CHECK(sim_is_over(w->process) || err.sys != EPIPE, "%s", err.text);
}

static void tell_type(const struct sim_worker *w, enum mr_message_type type)
{
    struct mr_message msg = {.type = (uint16_t)type};

    if (sim_is_over(w->process))
        return;
    sim_note("master: %s to %s", mr_message_name(type), sim_name(w->process));
    tell(w, &msg, -1);
}

static void hear(struct sim_worker *w)
{
    struct mr_message msg;
    struct mr_error err;

    while (mr_channel_recv(w->channel[0], &msg, &err) == MR_OK) {
        w->ready |= msg.type == MR_MSG_READY_TYPE;
        w->quiesced |= msg.type == MR_MSG_QUIESCED_TYPE;
    }
}

static void hand_over(const struct sim_worker *from, struct sim_worker *to)
{
    struct mr_message msg = {.type = MR_MSG_HANDOVER_TYPE};

    msg.body.HANDOVER.transition = sim_n_workers;
    memset(msg.body.HANDOVER.moves, all.moves ? 0xff : 0, sizeof(msg.body.HANDOVER.moves));
    sim_note("master: HANDOVER to %s, keys move %d", sim_name(from->process), all.moves);
    tell(from, &msg, to->way[0]);
    (void)close(to->way[0]);
    to->way[0] = -1;
    all.told = true;
}

static void look(void *arg)
{
    struct sim_worker *from = before_last(), *to = sim_worker_last();

    (void)arg;
    hear(from);
    hear(to);
    if (!all.told && to->ready) {
        hand_over(from, to);
    } else if (all.told && !all.go && from->quiesced) {
        tell_type(to, MR_MSG_GO_TYPE);
        all.go = true;
    } else if (all.go) {
        tell_type(from, MR_MSG_TERMINATE_TYPE);
        return;
    }
    sim_event_set(&all.look, sim_between(1, all.go ? WAIT_US : LOOK_US), look, NULL);
}

bool sim_workers_hand_over(void)
{
    return sim_n_workers > 1 && !sim_is_over(before_last()->process);
}

void sim_workers_succeed(void)
{
    if (sim_workers_hand_over() || sim_n_workers == SIM_WORKERS)
        return;
    all.told = all.go = false;
    all.moves = sim_once_in(2);
    start(all.moves, true);
    sim_event_set(&all.look, sim_between(1, LOOK_US), look, NULL);
}

void sim_workers_stop(void)
{
    tell_type(sim_worker_last(), MR_MSG_TERMINATE_TYPE);
}

void sim_workers_begin(const struct mr_config *config, int listener, uint32_t max_clients)
{
    const uint32_t n = config->n_servers;

    memset(&all, 0, sizeof(all));
    all.config = config;
    all.listener = all.listen_fds[0] = listener;
    all.listen_fds[1] = -1;
    all.max_clients = max_clients;
    all.addresses = sim_alloc(n * sizeof(struct mr_addr));
    all.health = sim_alloc(n * sizeof(struct mr_health));
    all.node_maps = sim_alloc((config->n_pools + 1) * sizeof(*all.node_maps));
    sim_n_workers = 0;
    start(false, false);
}

/* ---- the end ---- */

bool sim_workers_are_over(void)
{
    for (uint32_t i = 0; i < sim_n_workers; i++)
        if (!sim_is_over(sim_workers[i].process))
            return false;
    return true;
}

static void check(const struct sim_worker *w)
{
    const char *name = sim_name(w->process);

    SIM_CHECK(sim_is_over(w->process), "%s does not end: waiting %d, turns %llu, clients %llu",
              name, sim_is_waiting(w->process), (unsigned long long)sim_turns(w->process),
              (unsigned long long)w->metrics.head->clients);
    SIM_CHECK(sim_status(w->process) == 0, "%s ends with status %d", name, sim_status(w->process));
    SIM_CHECK(w->metrics.head->clients == 0, "%s counts clients when there is none", name);
    SIM_CHECK(w->metrics.pools[0].subscriptions == 0, "%s counts subscriptions of nobody", name);
    for (uint32_t i = 0; i < w->n_servers; i++)
        SIM_CHECK(w->metrics.servers[i].in_queue == 0 && w->metrics.servers[i].out_queue == 0 &&
                      w->metrics.servers[i].server_connections == 0,
                  "%s counts requests or connections of server %u when there is none", name, i);
}

void sim_workers_check(void)
{
    for (uint32_t i = 0; i < sim_n_workers; i++)
        check(&sim_workers[i]);
}

void sim_workers_end(void)
{
    for (uint32_t i = 0; i < sim_n_workers; i++)
        mr_metrics_close(&sim_workers[i].metrics);
}
