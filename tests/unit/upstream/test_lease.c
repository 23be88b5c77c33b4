/* test_lease.c - dedicated connections: the queue for them, and what becomes of a returned one. */
#include "core/clock.h"
#include "unit/test.h"
#include "upstream/backend.h"
#include "upstream/lease.h"
#include "upstream/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct user {
    struct mr_lease lease;
    unsigned turns;
};

static struct mr_loop loop;
static struct mr_config *config;
static struct mr_metrics metrics;
static struct mr_pool pool;
static struct mr_server *server;
static struct user a, b, c;
static int listener;

static void on_turn(struct mr_lease *lease)
{
    MR_CONTAINER_OF(lease, struct user, lease)->turns++;
}

static int open_pool(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    struct mr_error err;
    char yaml[512];

    (void)state;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    snprintf(yaml, sizeof(yaml),
             "p:\n  listen: 127.0.0.1:1\n  redis: true\n  server_leases: 1\n"
             "  lease_timeout: 1h\n  servers: ['127.0.0.1:%d:1']\n",
             ntohs(at.sin_port));
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 1000, NULL, &err), MR_OK);
    assert_int_equal(mr_metrics_open(&metrics, 1, 1, &err), MR_OK);
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    const struct mr_pool_setup setup = {.loop = &loop,
                                        .config = &config->pools[0],
                                        .metrics = metrics.pools,
                                        .server_metrics = metrics.servers,
                                        .process = &metrics.head->process};
    mr_pool_init(&pool, &setup);
    server = &pool.servers[0];
    a = b = c = (struct user){.lease.on_turn = on_turn};
    return 0;
}

static int close_pool(void **state)
{
    (void)state;
    mr_pool_close(&pool);
    mr_loop_settle(&loop);
    assert_int_equal(server->leases.n, 0);
    assert_int_equal(metrics.servers[0].server_connections, 0);
    mr_pool_fini(&pool);
    assert_int_equal(loop.slab.used_bytes, 0);
    mr_loop_fini(&loop);
    mr_metrics_close(&metrics);
    mr_config_free(config);
    close(listener);
    return 0;
}

/* The server's end of the next connection, which has been greeted. */
static int accept_one(void)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0)
        mr_loop_turn(&loop, 5);
    return fd;
}

/* Waits for a request and answers it. */
static void answer(int fd, const char *reply)
{
    char got[256];
    ssize_t n;

    while ((n = read(fd, got, sizeof(got))) < 0)
        mr_loop_turn(&loop, 5);
    assert_true(n > 0);
    assert_int_equal(write(fd, reply, strlen(reply)), strlen(reply));
}

/* Turns until the user had its turn. */
static void await_turn(struct user *user)
{
    while (user->turns == 0)
        mr_loop_turn(&loop, 5);
    assert_int_equal(user->turns, 1);
    assert_false(mr_list_linked(&user->lease.waiting));
}

/* `a` has the only connection, which is ready. */
static int take_the_only_one(void)
{
    assert_true(mr_lease_take(&a.lease, server, 0));
    assert_true(mr_lease_holds(&a.lease));
    const int fd = accept_one();
    answer(fd, ":5\r\n");
    while (a.lease.backend->state != MR_BACKEND_READY)
        mr_loop_turn(&loop, 5);
    assert_false(mr_lease_take(&b.lease, server, 0));
    assert_false(mr_lease_take(&c.lease, server, 0));
    assert_int_equal(metrics.pools[0].lease_waits, 2);
    return fd;
}

static void end_both(void)
{
    mr_lease_end(&b.lease, MR_LEASE_CLEAN);
    mr_lease_end(&c.lease, MR_LEASE_CLEAN);
}

static void a_clean_one_goes_to_the_next(void **state)
{
    (void)state;
    const int fd = take_the_only_one();
    const struct mr_backend *only = a.lease.backend;
    mr_lease_end(&a.lease, MR_LEASE_CLEAN);
    assert_int_equal(b.turns, 1); /* in the order of arrival */
    assert_ptr_equal(b.lease.backend, only);
    assert_int_equal(c.turns, 0);
    mr_lease_end(&b.lease, MR_LEASE_CLEAN);
    assert_ptr_equal(c.lease.backend, only);
    mr_lease_end(&c.lease, MR_LEASE_CLEAN);
    assert_true(mr_lease_take(&a.lease, server, 0)); /* a spare one */
    assert_ptr_equal(a.lease.backend, only);
    assert_int_equal(server->leases.n, 1);
    mr_lease_end(&a.lease, MR_LEASE_CLEAN);
    close(fd);
}

static void a_used_one_is_reset_first(void **state)
{
    (void)state;
    const int fd = take_the_only_one();
    const struct mr_backend *only = a.lease.backend;
    mr_lease_end(&a.lease, MR_LEASE_USED);
    assert_int_equal(b.turns, 0);
    answer(fd, "+OK\r\n");
    await_turn(&b);
    assert_ptr_equal(b.lease.backend, only);
    end_both();
    close(fd);
}

static void without_a_reset_it_is_closed(void **state)
{
    (void)state;
    const int fd = take_the_only_one();
    mr_lease_end(&a.lease, MR_LEASE_USED);
    answer(fd, "-ERR no\r\n");
    await_turn(&b); /* with another connection */
    const int second = accept_one();
    assert_true(mr_lease_holds(&b.lease));
    assert_int_equal(server->leases.n, 1);
    end_both();
    close(fd);
    close(second);
}

static void a_spoilt_one_is_closed(void **state)
{
    char byte;

    (void)state;
    const int fd = take_the_only_one();
    mr_lease_end(&a.lease, MR_LEASE_SPOILT);
    await_turn(&b);
    const int second = accept_one();
    ssize_t n;
    while ((n = read(fd, &byte, 1)) != 0) {
        assert_true(n == 1 || errno == EAGAIN);
        mr_loop_turn(&loop, 5);
    }
    end_both();
    close(fd);
    close(second);
}

static void who_leaves_the_queue_gets_no_turn(void **state)
{
    (void)state;
    const int fd = take_the_only_one();
    mr_lease_end(&b.lease, MR_LEASE_CLEAN);
    mr_lease_end(&a.lease, MR_LEASE_CLEAN);
    assert_int_equal(b.turns, 0);
    assert_int_equal(c.turns, 1);
    mr_lease_end(&c.lease, MR_LEASE_CLEAN);
    close(fd);
}

/* Each from the moment it began to wait. */
static void the_wait_has_a_limit(void **state)
{
    (void)state;
    const int fd = take_the_only_one();
    b.lease.since_us -= 3600 * UINT64_C(1000000);
    mr_timer_cancel(&server->leases.timer);
    mr_loop_timer(&loop, &server->leases.timer, 0);
    await_turn(&b);
    assert_string_equal(b.lease.refusal, "no dedicated server connection is free");
    assert_false(mr_lease_holds(&b.lease));
    assert_int_equal(metrics.pools[0].lease_timeouts, 1);
    assert_int_equal(c.turns, 0);
    mr_lease_end(&b.lease, MR_LEASE_CLEAN);
    mr_lease_end(&a.lease, MR_LEASE_CLEAN);
    assert_int_equal(c.turns, 1);
    mr_lease_end(&c.lease, MR_LEASE_CLEAN);
    close(fd);
}

/* A spare connection of another lane makes room. */
static void a_spare_one_of_another_lane_is_replaced(void **state)
{
    (void)state;
    const int fd = take_the_only_one();
    end_both();
    mr_lease_end(&a.lease, MR_LEASE_CLEAN);
    assert_false(mr_lease_take(&b.lease, server, 1));
    await_turn(&b);
    assert_int_equal(b.lease.backend->lane, 1);
    assert_int_equal(server->leases.n, 1);
    mr_lease_end(&b.lease, MR_LEASE_CLEAN);
    close(fd);
}

static void all_who_wait_are_refused_when_the_pool_closes(void **state)
{
    (void)state;
    const int fd = take_the_only_one();
    mr_pool_close(&pool);
    assert_string_equal(b.lease.refusal, "Connection reset by peer");
    assert_int_equal(b.turns + c.turns, 2);
    mr_loop_settle(&loop);
    assert_false(mr_lease_holds(&a.lease));
    assert_string_equal(mr_lease_send(&a.lease, &(struct mr_call){0}, mr_slice_of("+a\r\n")),
                        "the client's server connection was lost");
    end_both();
    mr_lease_end(&a.lease, MR_LEASE_CLEAN);
    close(fd);
}

#define L(name) cmocka_unit_test_setup_teardown(name, open_pool, close_pool)
RUN(L(a_clean_one_goes_to_the_next), L(a_used_one_is_reset_first), L(without_a_reset_it_is_closed),
    L(a_spoilt_one_is_closed), L(who_leaves_the_queue_gets_no_turn), L(the_wait_has_a_limit),
    L(a_spare_one_of_another_lane_is_replaced), L(all_who_wait_are_refused_when_the_pool_closes))
