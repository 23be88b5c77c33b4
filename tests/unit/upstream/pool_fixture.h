/* pool_fixture.h - a pool with one scripted server, and calls that remember their replies. */
#pragma once

#include "core/clock.h"
#include "unit/test.h"
#include "upstream/pool.h"

#include <netinet/in.h>
#include <unistd.h>

struct result {
    struct mr_call call;
    char reply[256];
    size_t len;
    const char *failure;
    bool done;
};

static struct mr_loop loop;
static struct mr_config *config;
static struct mr_metrics metrics;
static struct mr_pool pool;
static int listener, port;

static inline void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct result *r = MR_CONTAINER_OF(call, struct result, call);

    assert_false(r->done);
    memcpy(r->reply + r->len, bytes, len);
    r->len += len;
    r->done = done;
}

static inline void on_fail(struct mr_call *call, const char *reason)
{
    struct result *r = MR_CONTAINER_OF(call, struct result, call);

    assert_false(r->done);
    r->failure = reason;
    r->done = true;
}

static const struct mr_call_ops OPS = {.on_reply = on_reply, .on_fail = on_fail};

/* `more`: further lines of the pool. */
static inline void open_pool(const char *more)
{
    static char yaml[1024];
    struct mr_error err;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);

    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    port = ntohs(a.sin_port);
    snprintf(yaml, sizeof(yaml),
             "p:\n  listen: 127.0.0.1:1\n  redis: true\n%s  servers:\n   - "
             "127.0.0.1:%d:1\n",
             more, port);
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 1000, NULL, &err), MR_OK);
    assert_int_equal(mr_metrics_open(&metrics, 1, 1, &err), MR_OK);
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    const struct mr_pool_setup setup = {.loop = &loop,
                                        .config = &config->pools[0],
                                        .metrics = metrics.pools,
                                        .server_metrics = metrics.servers,
                                        .process = &metrics.head->process};
    mr_pool_init(&pool, &setup);
}

static inline void close_pool(void)
{
    mr_pool_close(&pool);
    mr_loop_settle(&loop);
    mr_pool_fini(&pool);
    assert_int_equal(metrics.servers[0].server_connections, 0);
    assert_int_equal(metrics.servers[0].in_queue, 0);
    assert_int_equal(metrics.servers[0].out_queue, 0);
    assert_int_equal(metrics.servers[0].in_queue_bytes, 0);
    assert_int_equal(metrics.servers[0].out_queue_bytes, 0);
    assert_int_equal(loop.slab.used_bytes, 0);
    mr_loop_fini(&loop);
    mr_metrics_close(&metrics);
    mr_config_free(config);
    if (listener >= 0)
        close(listener);
}

static inline struct mr_target route(const char *key)
{
    return mr_pool_route(&pool, mr_slice_of(key), 0, NULL);
}

static inline const char *send_to(struct result *r, const char *text)
{
    *r = (struct result){.call = {.ops = &OPS}};
    const struct mr_target to = route("k");
    if (to.server == NULL)
        return to.reason;
    return mr_server_send(to.server, 0, 0, &r->call, mr_slice_of(text));
}

static inline void turns(unsigned ms)
{
    const uint64_t end = mr_clock_mono_us() + ms * 1000;

    do
        mr_loop_turn(&loop, 5);
    while (mr_clock_mono_us() < end);
}

static inline int accept_one(void)
{
    turns(20);
    const int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    return fd;
}
