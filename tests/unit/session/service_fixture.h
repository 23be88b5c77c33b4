/*
 * service_fixture.h - a whole service in one loop, with scripted server and client on the same
 * thread, so that the order of events is exact.
 */
#pragma once

#include "session/client.h"
#include "session/inquiry.h"
#include "session/service.h"
#include "unit/test.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

static struct mr_loop loop;
static struct mr_config *config;
static struct mr_metrics metrics;
static struct mr_service service;
static struct mr_client_budget budget;
static struct mr_inquiries inquiries;
static struct {
    char text[4096];
    size_t len;
    uint32_t number;
    bool possible;
} asked = {.possible = true}; /* the last question to other workers */
static int listener, server_listener, client, server;
static struct sockaddr_in address;

static inline int listen_any(struct sockaddr_in *a)
{
    socklen_t len = sizeof(*a);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)a, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)a, &len), 0);
    return fd;
}

static inline void turns(int n)
{
    for (int i = 0; i < n; i++)
        mr_loop_turn(&loop, 5);
}

static inline int connect_client(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* The other workers' ends of inquiries are played by the test. */
static inline bool ask(void *arg, uint32_t number, struct mr_slice question)
{
    (void)arg;
    if (question.len > sizeof(asked.text))
        return false;
    memcpy(asked.text, question.at, question.len);
    asked.len = question.len;
    asked.number = number;
    return asked.possible;
}

/* `more`: further lines of the pool. */
static inline void start(const char *more)
{
    char yaml[512];
    struct mr_error err;
    struct sockaddr_in server_address;

    listener = listen_any(&address);
    server_listener = listen_any(&server_address);
    snprintf(yaml, sizeof(yaml),
             "p:\n  listen: 127.0.0.1:1\n  redis: true\n%s  servers: ['127.0.0.1:%d:1']\n", more,
             ntohs(server_address.sin_port));
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 1000, NULL, &err), MR_OK);
    assert_int_equal(mr_metrics_open(&metrics, 1, 1, &err), MR_OK);
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    static uint64_t clients, ids;
    ids = 0;
    budget = (struct mr_client_budget){.max = 100, .first_id = 1, .ids = &ids, .clients = &clients};
    mr_inquiries_init(&inquiries, &loop, ask, NULL);
    const struct mr_service_setup setup = {.pool = {.loop = &loop,
                                                    .config = &config->pools[0],
                                                    .metrics = metrics.pools,
                                                    .server_metrics = metrics.servers,
                                                    .process = &metrics.head->process},
                                           .budget = &budget,
                                           .all_metrics = &metrics,
                                           .n_metrics = 1,
                                           .listen_fds = &listener,
                                           .inquiries = &inquiries};
    mr_service_init(&service, &setup);
    server = -1;
    client = connect_client();
    turns(2);
    assert_int_equal(budget.n, 1);
}

static inline void stop(void)
{
    close(client);
    if (server >= 0)
        close(server);
    mr_service_close(&service);
    mr_inquiries_end(&inquiries, NULL);
    mr_loop_settle(&loop);
    mr_service_fini(&service);
    assert_int_equal(budget.n, 0);
    assert_int_equal(metrics.pools[0].client_connections, 0);
    assert_int_equal(metrics.head->process.curr_connections, 0);
    assert_int_equal(loop.slab.used_bytes, 0); /* every request, buffer and client was returned */
    mr_loop_fini(&loop);
    mr_metrics_close(&metrics);
    mr_config_free(config);
    close(listener);
    close(server_listener);
}

static inline void say(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    turns(3);
}

static inline const char *hear(int fd)
{
    static char text[65536];
    const ssize_t n = read(fd, text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static inline void accept_server(void)
{
    turns(3);
    server = accept(server_listener, NULL, NULL);
    assert_true(server >= 0);
    assert_int_equal(fcntl(server, F_SETFL, O_NONBLOCK), 0);
}
