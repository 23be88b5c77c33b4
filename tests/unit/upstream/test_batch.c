/* test_batch.c - how long requests are held back, and that they always leave. */
#include "unit/upstream/pool_fixture.h"
#include "upstream/backend.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>

#define ONE "+request\r\n" /* stands for a request, the server only counts bytes */

static struct result results[8];
static struct mr_watch traffic; /* while it is readable, every turn has an event */
static struct mr_backend *backend;
static int server_fd;

static bool lone; /* an event is one request, and nothing follows it */

static void set_traffic(bool on)
{
    uint64_t n = 1;

    if (on)
        assert_int_equal(write(traffic.fd, &n, sizeof(n)), sizeof(n));
    else
        assert_int_equal(read(traffic.fd, &n, sizeof(n)), sizeof(n));
}

static void send_some(unsigned first, unsigned n)
{
    for (unsigned i = first; i < first + n; i++)
        assert_null(send_to(&results[i], ONE));
}

static void on_traffic(struct mr_watch *watch)
{
    (void)watch;
    if (!lone)
        return;
    set_traffic(false);
    send_some(1, 1);
}

static void take_connection(void)
{
    const int on = 1;

    server_fd = accept_one();
    assert_int_equal(setsockopt(server_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
}

/* A pool whose server is near and has answered once. */
static void open_near(const char *coalesce)
{
    char got[64];

    open_pool(coalesce);
    assert_null(send_to(&results[0], ONE));
    take_connection();
    turns(50);
    assert_int_equal(read(server_fd, got, sizeof(got)), strlen(ONE));
    assert_int_equal(write(server_fd, "+1\r\n", 4), 4);
    turns(10);
    assert_true(results[0].done);
    assert_int_equal(fcntl(server_fd, F_SETFL, O_NONBLOCK), 0);
    backend = mr_backend_next(&pool.servers[0], NULL);
    backend->near = true; /* by the clock it may not be, on a busy machine */
    loop.luck = 200;
    traffic =
        (struct mr_watch){.on_ready = on_traffic, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    mr_watch_start(&loop, &traffic);
    turns(5);
}

static void close_near(void)
{
    mr_watch_stop(&loop, &traffic);
    close(traffic.fd);
    close(server_fd);
    close_pool();
}

/* Requests that have come in since the last call. */
static size_t arrived(void)
{
    char got[32768];
    const ssize_t n = read(server_fd, got, sizeof(got));

    return n < 0 ? 0 : (size_t)n / strlen(ONE);
}

static void reply(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(write(server_fd, "+1\r\n", 4), 4);
}

static void requests_wait_while_others_come_in(void **state)
{
    (void)state;
    open_near("");
    set_traffic(true);
    send_some(0, 1);
    for (unsigned i = 1; i < 4; i++) {
        mr_loop_turn(&loop, 100);
        send_some(i, 1);
    }
    assert_int_equal(arrived(), 0);
    set_traffic(false);
    turns(5);
    assert_int_equal(arrived(), 4);
    close_near();
}

static void traffic_without_end_holds_nothing_for_ever(void **state)
{
    (void)state;
    open_near("");
    set_traffic(true);
    send_some(0, 1);
    for (unsigned i = 0; i < 2 * MR_LULL_TURNS; i++)
        mr_loop_turn(&loop, 100);
    assert_int_equal(arrived(), 1);
    close_near();
}

/* A lone client does not pay for polls that bring nothing. */
static void lulls_are_not_sought_where_none_would_help(void **state)
{
    (void)state;
    open_near("");
    loop.luck = 0;
    loop.n_lulls = 0; /* the next is not the one in eight */
    set_traffic(true);
    send_some(0, 1);
    mr_loop_turn(&loop, 100);
    mr_loop_turn(&loop, 100); /* io_uring sends in the next turn */
    assert_int_equal(arrived(), 1);
    close_near();
}

static void luck_is_learned(void **state)
{
    (void)state;
    open_near("");
    loop.luck = 0;
    set_traffic(true);
    for (unsigned i = 0; i < 200; i++) {
        send_some(1, 1);
        do
            mr_loop_turn(&loop, 100);
        while (arrived() == 0);
        reply(1);
        do
            mr_loop_turn(&loop, 100);
        while (!results[1].done);
    }
    assert_true(loop.luck > 100);
    set_traffic(false);
    lone = true;
    for (unsigned i = 0; i < 200; i++) {
        set_traffic(true);
        do
            mr_loop_turn(&loop, 1);
        while (arrived() == 0);
        reply(1);
        do
            mr_loop_turn(&loop, 1);
        while (!results[1].done);
    }
    lone = false;
    assert_true(loop.luck < 32);
    close_near();
}

static void requests_wait_for_the_reply_on_its_way(void **state)
{
    (void)state;
    open_near("");
    send_some(0, 1);
    turns(10);
    assert_int_equal(arrived(), 1);
    send_some(1, 2);
    turns(10);
    assert_int_equal(arrived(), 0);
    set_traffic(true); /* no lull is needed: two are more than the one that is answered */
    reply(1);
    while (!results[0].done)
        mr_loop_turn(&loop, 100);
    mr_loop_turn(&loop, 100);
    assert_int_equal(arrived(), 2);
    assert_true(results[0].done && !results[1].done);
    close_near();
}

static void a_smaller_batch_waits_for_a_lull(void **state)
{
    (void)state;
    open_near("");
    send_some(0, 3);
    turns(10);
    assert_int_equal(arrived(), 3);
    send_some(3, 1);
    reply(3);
    set_traffic(true);
    while (!results[2].done)
        mr_loop_turn(&loop, 100);
    mr_loop_turn(&loop, 100);
    assert_int_equal(arrived(), 0);
    send_some(4, 2); /* of the clients that have their replies */
    set_traffic(false);
    turns(5);
    assert_int_equal(arrived(), 3);
    close_near();
}

/* memcached answers a batch one by one. */
static void a_busy_server_is_left_alone(void **state)
{
    (void)state;
    open_near("");
    send_some(0, 4);
    turns(10);
    assert_int_equal(arrived(), 4);
    send_some(4, 1);
    reply(1);
    turns(10);
    assert_true(results[0].done);
    assert_int_equal(arrived(), 0);
    reply(2);
    turns(10);
    assert_true(results[2].done);
    assert_false(results[3].done);
    assert_int_equal(arrived(), 1);
    close_near();
}

static void a_large_batch_leaves_at_once(void **state)
{
    static char large[20000];
    struct result r;

    (void)state;
    open_near("");
    memset(large, 'x', sizeof(large) - 1);
    send_some(0, 1);
    turns(10);
    assert_int_equal(arrived(), 1);
    send_some(1, 1);
    turns(10);
    assert_int_equal(arrived(), 0);
    assert_null(send_to(&r, large));
    turns(10);
    assert_int_equal(arrived(), (sizeof(large) - 1 + strlen(ONE)) / strlen(ONE));
    close_near();
}

static void a_configured_time_ends_by_itself_or_by_a_reply(void **state)
{
    (void)state;
    open_near("  coalesce: 10000us\n");
    send_some(0, 1);
    mr_loop_turn(&loop, 0);
    mr_loop_turn(&loop, 0);
    assert_int_equal(arrived(), 0);
    turns(50);
    assert_int_equal(arrived(), 1);
    send_some(1, 1);
    reply(1);
    while (!results[0].done)
        mr_loop_turn(&loop, 100);
    turns(1);
    assert_int_equal(arrived(), 1);
    close_near();
}

/* What is held fails with the connection, and nothing is awaited any more. */
static void a_closing_connection_holds_nothing(void **state)
{
    (void)state;
    open_near("");
    send_some(0, 1);
    turns(10);
    send_some(1, 1); /* held for the reply */
    close(server_fd);
    turns(20);
    assert_true(results[0].done && results[0].failure != NULL);
    assert_true(results[1].done && results[1].failure != NULL);
    send_some(2, 1);
    take_connection();
    assert_int_equal(fcntl(server_fd, F_SETFL, O_NONBLOCK), 0);
    turns(10);
    assert_int_equal(arrived(), 1);
    reply(1);
    turns(10);
    set_traffic(true);
    mr_backend_next(&pool.servers[0], NULL)->near = true;
    send_some(3, 1); /* held for a lull */
    mr_backend_close(mr_backend_next(&pool.servers[0], NULL), 0);
    turns(10);
    assert_true(results[3].done && results[3].failure != NULL);
    assert_true(mr_list_empty(&loop.lulls));
    close_near();
}

static void far_servers_and_coalesce_off_hold_nothing(void **state)
{
    (void)state;
    open_near("");
    backend->near = false;
    set_traffic(true);
    send_some(0, 1);
    mr_loop_turn(&loop, 100);
    mr_loop_turn(&loop, 100);
    assert_int_equal(arrived(), 1);
    send_some(1, 1);
    mr_loop_turn(&loop, 100);
    mr_loop_turn(&loop, 100);
    assert_int_equal(arrived(), 1);
    close_near();
    open_near("  coalesce: off\n");
    set_traffic(true);
    send_some(0, 1);
    mr_loop_turn(&loop, 100);
    mr_loop_turn(&loop, 100);
    assert_int_equal(arrived(), 1);
    close_near();
}

RUN(T(requests_wait_while_others_come_in), T(traffic_without_end_holds_nothing_for_ever),
    T(lulls_are_not_sought_where_none_would_help), T(luck_is_learned),
    T(requests_wait_for_the_reply_on_its_way), T(a_smaller_batch_waits_for_a_lull),
    T(a_busy_server_is_left_alone), T(a_large_batch_leaves_at_once),
    T(a_configured_time_ends_by_itself_or_by_a_reply), T(a_closing_connection_holds_nothing),
    T(far_servers_and_coalesce_off_hold_nothing))
