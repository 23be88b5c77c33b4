/*
 * sim_worker.c - workers as they are, over scripted clients and servers; this file plays the
 * master. What is checked: see docs/ARCHITECTURE.md, "Tests".
 */
#include "kernel.h"

#include "core/metrics.h"
#include "proc/channel.h"
#include "proc/worker.h"
#include "upstream/health.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct worker {
    struct mr_runtime runtime;
    struct mr_worker_setup setup;
    int channel[2];
    bool ready;
};

static void ready(void *arg)
{
    mr_channel_tell(*(int *)arg, MR_MSG_READY_TYPE);
}

static int body(void *arg)
{
    struct worker *w = arg;
    const int keep[] = {w->channel[1], w->setup.listen_fds[0]};

    sim_keep_fds(keep, 2);
    return mr_worker_run(&w->setup);
}

static void server_open(struct sim_conn *c)
{
    (void)c;
}

static void server_bytes(struct sim_conn *c)
{
    char b[1000];
    size_t n = sim_read(c, b, sizeof(b));
    if (n > 0)
        sim_write(c, "+v\r\n", 4);
    if (sim_at_end(c))
        sim_close(c);
}

static const struct sim_conn_ops SERVER = {server_open, server_bytes};

static enum sim_connect_outcome on_connect(struct sim_conn *c, const struct sockaddr *addr)
{
    (void)addr;
    c->ops = &SERVER;
    return SIM_CONNECTS;
}

static void client_open(struct sim_conn *c)
{
    sim_write(c, "PING\r\nGET a\r\n", 13);
}

static uint32_t got;

static void client_bytes(struct sim_conn *c)
{
    char b[1000];
    got += (uint32_t)sim_read(c, b, sizeof(b));
    if (sim_at_end(c) || got == 11)
        sim_close(c);
}

static const struct sim_conn_ops CLIENT = {client_open, client_bytes};

static void run(void)
{
    static struct mr_metrics m;
    static int listener;
    struct mr_error err;
    struct mr_config *config;
    bool held = false;
    struct mr_health *health = sim_alloc(sizeof(*health) * 2);

    sim_kernel_begin();
    sim_env.cut_bytes = sim_below(5);
    sim_on_connect = on_connect;
    got = 0;
    MR_CHECK(mr_config_parse(&config, "sim",
                             mr_slice_of("p:\n  listen: 127.0.0.1:1\n  redis: true\n"
                                         "  servers: ['127.0.0.1:2:1']\n"),
                             1000, &err) == MR_OK);
    MR_CHECK(mr_metrics_open(&m, 1, 1, &err) == MR_OK);
    listener = sim_listen(false);
    struct worker w = {.runtime = {.config = config,
                                   .generation = 1,
                                   .slots = &m,
                                   .n_slots = 1,
                                   .held = &held,
                                   .engine = sim_once_in(2) ? "epoll" : "io_uring",
                                   .max_clients = 100,
                                   .addresses = sim_alloc(sizeof(struct mr_addr)),
                                   .health = health}};
    MR_CHECK(mr_channel_open(w.channel, &err) == MR_OK);
    w.setup = (struct mr_worker_setup){.runtime = &w.runtime,
                                       .listen_fds = &listener,
                                       .channel = w.channel[1],
                                       .on_ready = ready,
                                       .on_ready_arg = &w.channel[1]};
    struct sim_process *p = sim_fork("worker", NULL, body, &w);
    (void)close(w.channel[1]);
    sim_run_until(sim_now_us + 100000);
    (void)sim_connect(listener, &CLIENT, NULL);
    sim_run_until(sim_now_us + 1000000);
    SIM_CHECK(got == 11, "got %u bytes", got);
    mr_channel_tell(w.channel[0], MR_MSG_TERMINATE_TYPE);
    sim_run_until(sim_now_us + 10000000);
    SIM_CHECK(sim_is_over(p) && sim_status(p) == 0, "the worker does not end");
    (void)close(w.channel[0]);
    (void)close(listener);
    sim_kernel_end();
    mr_metrics_close(&m);
    mr_config_free(config);
}

int main(int argc, char **argv)
{
    return sim_main(argc, argv, run);
}
