/* test_pool.c - routing, ejection and time-outs against a scripted server. */
#include "unit/upstream/pool_fixture.h"
#include "upstream/backend.h"
#include "upstream/lease.h"
#include "upstream/health.h"
#include "upstream/pool.h"
#include "upstream/prober.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define AT_ONCE "  coalesce: off\n"

static void replies_go_to_their_calls_in_order(void **state)
{
    struct result r[3];
    char got[256];

    (void)state;
    open_pool(AT_ONCE);
    assert_null(send_to(&r[0], "+a\r\n"));
    assert_null(send_to(&r[1], "+b\r\n"));
    const int fd = accept_one();
    assert_null(send_to(&r[2], "+c\r\n"));
    turns(10);
    assert_int_equal(read(fd, got, sizeof(got)), 12);
    assert_int_equal(metrics.servers[0].out_queue, 3);
    assert_int_equal(write(fd, "+1\r\n$3\r\nt", 9), 9);
    turns(10);
    assert_true(r[0].done && !r[1].done);
    assert_int_equal(write(fd, "wo\r\n:3\r\n", 8), 8);
    turns(10);
    assert_true(r[1].done && r[2].done);
    assert_memory_equal(r[1].reply, "$3\r\ntwo\r\n", 9);
    assert_memory_equal(r[2].reply, ":3\r\n", 4);
    assert_int_equal(metrics.servers[0].responses, 3);
    close(fd);
    turns(10);
    assert_int_equal(metrics.servers[0].server_eof, 1);
    close_pool();
}

/* A late request fails alone: its late reply goes nowhere, and other requests are served. */
static void a_timeout_spares_the_neighbours(void **state)
{
    struct result a, b;
    char got[64];

    (void)state;
    open_pool(AT_ONCE "  timeout: 600\n");
    assert_null(send_to(&a, "+a\r\n"));
    const int fd = accept_one();
    turns(300);
    assert_null(send_to(&b, "+b\r\n"));
    turns(360);
    assert_true(a.done);
    assert_string_equal(a.failure, "Connection timed out");
    assert_false(b.done);
    assert_int_equal(read(fd, got, sizeof(got)), 8);
    assert_int_equal(write(fd, "+late\r\n+mine\r\n", 14), 14);
    turns(20);
    assert_true(b.done);
    assert_memory_equal(b.reply, "+mine\r\n", 7);
    assert_int_equal(metrics.servers[0].server_timedout, 1);
    close(fd);
    close_pool();
}

static void a_silent_server_loses_the_connection(void **state)
{
    struct result a, b;

    (void)state;
    open_pool(AT_ONCE "  timeout: 50\n");
    assert_null(send_to(&a, "+a\r\n"));
    const int fd = accept_one();
    turns(200);
    assert_true(a.done);
    assert_int_equal(metrics.servers[0].server_connections, 0);
    assert_null(send_to(&b, "+b\r\n")); /* another connection */
    const int second = accept_one();
    close(fd);
    close(second);
    close_pool();
}

/* An idle worker hears of an ejection after the worker that watched it is gone. */
static void an_ejection_that_nobody_watches_ends(void **state)
{
    (void)state;
    open_pool(AT_ONCE "  auto_eject_hosts: true\n  server_retry_timeout: 100\n"
                      "  health_check_interval: 50ms\n  health_check_timeout: 50ms\n");
    turns(5); /* the prober has nothing to do */
    struct mr_health *h = pool.servers[0].health;
    assert_true(mr_health_eject(h, h, loop.now_us));
    assert_null(route("k").server);
    assert_non_null(route("k").reason);
    mr_prober_stop(&pool);
    h->ring_changes++; /* as if it heard of it only now */
    loop.now_us += 199000;
    assert_null(route("k").server);
    h->ring_changes++;
    loop.now_us += 2000;
    assert_non_null(route("k").server);
    assert_false(mr_health_ejected(h));
    close_pool();
}

static void ejects_after_the_limit_and_comes_back(void **state)
{
    struct result r;

    (void)state;
    open_pool(AT_ONCE "  auto_eject_hosts: true\n  server_failure_limit: 2\n"
                      "  server_retry_timeout: 1000\n  health_checks: off\n");
    close(listener);
    listener = -1;
    for (int i = 0; i < 2; i++) {
        if (send_to(&r, "+a\r\n") == NULL) {
            turns(20);
            assert_string_equal(r.failure, "Connection refused");
        }
    }
    assert_int_equal(metrics.pools[0].server_ejects, 1);
    assert_true(metrics.servers[0].server_ejected_at > 0);
    assert_null(route("k").server);
    turns(1100);
    assert_ptr_equal(route("k").server, &pool.servers[0]);
    close_pool();
}

/* Nor does it make the server's other users back off; it is tried again shortly after. */
static void a_shortage_of_descriptors_ejects_no_server(void **state)
{
    struct rlimit limit, none;
    struct result r;

    (void)state;
    open_pool(AT_ONCE "  auto_eject_hosts: true\n  server_failure_limit: 1\n"
                      "  health_checks: always\n  health_check_interval: 50ms\n");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){3, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < 3; i++) { /* requests and probes */
        assert_string_equal(send_to(&r, "+a\r\n"), "Too many open files");
        turns(60);
    }
    const uint64_t errors = metrics.servers[0].server_err;
    for (int i = 0; i < 3; i++) /* not one attempt for each request */
        assert_string_equal(send_to(&r, "+a\r\n"), "Too many open files");
    assert_true(metrics.servers[0].server_err <= errors + 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(metrics.pools[0].server_ejects, 0);
    assert_int_equal(pool.servers[0].health->failures, 0);
    assert_int_not_equal(pool.servers[0].health->state, MR_HEALTH_DOWN);
    turns(30);
    assert_null(send_to(&r, "+a\r\n"));
    close_pool();
}

static void an_idle_close_is_no_failure(void **state)
{
    struct result r;
    char got[16];

    (void)state;
    open_pool(AT_ONCE "  auto_eject_hosts: true\n  server_failure_limit: 1\n");
    assert_null(send_to(&r, "+a\r\n"));
    int fd = accept_one();
    assert_int_equal(read(fd, got, sizeof(got)), 4);
    assert_int_equal(write(fd, "+x\r\n", 4), 4);
    turns(10);
    close(fd);
    turns(10);
    assert_int_equal(metrics.pools[0].server_ejects, 0);
    assert_null(send_to(&r, "+a\r\n"));
    fd = accept_one();
    assert_int_equal(read(fd, got, sizeof(got)), 4);
    close(fd); /* with a request in flight, it counts as a failure */
    turns(10);
    assert_string_equal(r.failure, "unknown");
    assert_int_equal(metrics.pools[0].server_ejects, 1);
    close_pool();
}

static void backs_off_from_a_dead_server(void **state)
{
    struct result r;
    unsigned refused_at_once = 0;

    (void)state;
    open_pool(AT_ONCE);
    close(listener);
    listener = -1;
    for (int i = 0; i < 50; i++) {
        if (send_to(&r, "+a\r\n") != NULL)
            refused_at_once++;
        turns(2);
    }
    assert_true(refused_at_once > 30); /* most fail without a connect */
    close_pool();
}

static void a_reply_that_nobody_asked_for_closes(void **state)
{
    struct result r;
    char got[16];

    (void)state;
    open_pool(AT_ONCE);
    assert_null(send_to(&r, "+a\r\n"));
    const int fd = accept_one();
    assert_int_equal(read(fd, got, sizeof(got)), 4);
    assert_int_equal(write(fd, "+1\r\n+2\r\n", 8), 8);
    turns(20);
    assert_true(r.done && r.failure == NULL);
    assert_int_equal(read(fd, got, sizeof(got)), 0);
    close(fd);
    close_pool();
}

static void garbage_fails_what_is_in_flight(void **state)
{
    struct result a, b;

    (void)state;
    open_pool(AT_ONCE);
    assert_null(send_to(&a, "+a\r\n"));
    assert_null(send_to(&b, "+b\r\n"));
    const int fd = accept_one();
    assert_int_equal(write(fd, "garbage\r\n", 9), 9);
    turns(20);
    assert_string_equal(a.failure, "Invalid argument");
    assert_string_equal(b.failure, "Invalid argument");
    close(fd);
    close_pool();
}

/* Until the server accepts the greeting, nothing else is sent. */
static void waits_for_the_hello(void **state)
{
    static const char HELLO[] = "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n";
    struct result r;
    char got[256];

    (void)state;
    open_pool(AT_ONCE "  redis_auth: pw\n  redis_db: 3\n");
    assert_null(send_to(&r, "+a\r\n"));
    int fd = accept_one();
    turns(20);
    assert_int_equal(read(fd, got, sizeof(got)), strlen(HELLO));
    assert_memory_equal(got, HELLO, strlen(HELLO));
    assert_int_equal(metrics.servers[0].in_queue, 1);
    assert_int_equal(write(fd, "+OK\r\n+OK\r\n", 10), 10);
    turns(20);
    assert_int_equal(metrics.servers[0].in_queue, 0);
    assert_int_equal(read(fd, got, sizeof(got)), 4);
    close(fd);
    turns(20);
    assert_null(send_to(&r, "+a\r\n"));
    fd = accept_one();
    assert_int_equal(write(fd, "+OK\r\n-ERR DB index is out of range\r\n", 36), 36);
    turns(20);
    assert_string_equal(r.failure, "server refused the database of the pool");
    close(fd);
    close_pool();
}

static void a_new_address_lets_old_work_finish(void **state)
{
    struct result a, b;
    char got[16];
    struct mr_addr other = {.len = sizeof(other.sa)};
    const int second = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    open_pool(AT_ONCE);
    assert_null(send_to(&a, "+a\r\n"));
    const int fd = accept_one();
    assert_true(mr_addr_numeric(&other, mr_slice_of("127.0.0.1"), 0));
    assert_int_equal(bind(second, &other.sa.any, other.len), 0);
    assert_int_equal(listen(second, 4), 0);
    other.len = sizeof(other.sa.in);
    assert_int_equal(getsockname(second, &other.sa.any, &other.len), 0);
    mr_pool_set_address(&pool, 0, &other);
    assert_null(send_to(&b, "+b\r\n"));
    turns(10);
    const int fd2 = accept(second, NULL, NULL);
    assert_true(fd2 >= 0);
    assert_int_equal(write(fd, "+old\r\n", 6), 6);
    assert_int_equal(write(fd2, "+new\r\n", 6), 6);
    turns(20);
    assert_memory_equal(a.reply, "+old\r\n", 6);
    assert_memory_equal(b.reply, "+new\r\n", 6);
    assert_int_equal(read(fd, got, sizeof(got)), 4);
    assert_int_equal(read(fd, got, sizeof(got)), 0); /* retired, because it was idle */
    close(fd);
    close(fd2);
    close(second);
    close_pool();
}

/* A closed connection does not refer to its lease any more, which may be freed. */
static void a_lost_connection_forgets_its_lease(void **state)
{
    struct mr_lease lease = {0};

    (void)state;
    open_pool(AT_ONCE);
    assert_true(mr_lease_take(&lease, &pool.servers[0], 0));
    struct mr_backend *b = lease.backend;
    assert_non_null(b);
    mr_backend_close(b, ECONNRESET);
    assert_false(mr_lease_holds(&lease));
    mr_lease_end(&lease, MR_LEASE_CLEAN);
    lease.backend = b; /* whatever is in that memory now */
    turns(10);
    assert_ptr_equal(lease.backend, b);
    close_pool();
}

/* Takes a lease whose connection is ready. Returns the server's end. */
static int take_ready(struct mr_lease *lease)
{
    char got[64];

    assert_true(mr_lease_take(lease, &pool.servers[0], 0));
    const int fd = accept_one();
    assert_true(read(fd, got, sizeof(got)) > 0);
    assert_int_equal(write(fd, ":5\r\n", 4), 4);
    turns(20);
    return fd;
}

/* A blocking call may take any time, but a reply that has begun may not. */
static void a_blocking_call_is_late_once_its_reply_begins(void **state)
{
    struct result r = {.call = {.ops = &OPS, .marks = MR_CALL_PATIENT}};
    struct mr_lease lease = {0};

    (void)state;
    open_pool(AT_ONCE "  timeout: 50\n");
    const int fd = take_ready(&lease);
    assert_null(mr_backend_send(lease.backend, &r.call, mr_slice_of("+a\r\n")));
    turns(200);
    assert_false(r.done);
    assert_int_equal(write(fd, "*2\r\n$1\r\nk", 9), 9);
    for (int i = 0; i < 1000 && !r.done; i++)
        turns(10);
    assert_true(r.done);
    assert_string_equal(r.failure, "Connection timed out");
    mr_lease_end(&lease, MR_LEASE_SPOILT);
    close(fd);
    close_pool();
}

static bool is_over(int fd)
{
    char got[256];
    ssize_t n;

    turns(20);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    do
        n = read(fd, got, sizeof(got));
    while (n > 0);
    return n == 0;
}

/* Until the end of the turn a closed connection is still in the list. */
static void a_closed_connection_is_no_spare(void **state)
{
    struct mr_lease lease = {0}, next = {0};

    (void)state;
    open_pool(AT_ONCE);
    const int fd = take_ready(&lease);
    struct mr_backend *b = lease.backend;
    mr_lease_end(&lease, MR_LEASE_CLEAN);
    mr_stream_close(&b->stream, ECONNRESET);
    assert_true(mr_lease_take(&next, &pool.servers[0], 0));
    assert_ptr_not_equal(next.backend, b);
    turns(10);
    assert_true(mr_lease_holds(&next));
    mr_lease_end(&next, MR_LEASE_CLEAN);
    close(fd);
    close_pool();
}

/* Nobody would ever use the connection, or count it as closed. */
static void a_late_reset_ends_the_lease(void **state)
{
    struct mr_lease lease = {0};

    (void)state;
    open_pool(AT_ONCE "  timeout: 30\n");
    const int fd = take_ready(&lease);
    mr_lease_end(&lease, MR_LEASE_USED);
    turns(50);
    (void)!write(fd, "+OK\r\n", 5);
    assert_true(is_over(fd));
    assert_int_equal(pool.servers[0].leases.n, 0);
    close(fd);
    close_pool();
}

/* Otherwise the server could give something to a client that is gone. */
static void a_new_address_leaves_the_lease_to_its_client(void **state)
{
    struct mr_lease lease = {0};
    struct result r = {.call = {.ops = &OPS, .marks = MR_CALL_PATIENT}};
    struct mr_addr other = {.len = sizeof(other.sa)};

    (void)state;
    open_pool(AT_ONCE);
    const int fd = take_ready(&lease);
    assert_null(mr_lease_send(&lease, &r.call, mr_slice_of("+a\r\n")));
    turns(10);
    assert_true(mr_addr_numeric(&other, mr_slice_of("127.0.0.2"), 1));
    mr_pool_set_address(&pool, 0, &other);
    turns(10);
    assert_true(mr_lease_holds(&lease));
    assert_false(mr_lease_unblock(&lease, true)); /* the other server knows nothing of it */
    assert_false(r.done);
    mr_lease_end(&lease, MR_LEASE_SPOILT);
    assert_true(is_over(fd));
    assert_true(r.done);
    close(fd);
    close_pool();
}

/* The host that had the old address may be gone without a word, with a probe on its way. */
static void probes_go_on_at_a_new_address(void **state)
{
    struct mr_addr other = {.len = sizeof(other.sa)};
    const int second = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    (void)state;
    open_pool(AT_ONCE "  health_checks: always\n  health_check_interval: 50ms\n"
                      "  health_check_timeout: 50ms\n");
    const int fd = accept_one();
    assert_true(pool.servers[0].probing);
    assert_true(mr_addr_numeric(&other, mr_slice_of("127.0.0.1"), 0));
    assert_int_equal(bind(second, &other.sa.any, other.len), 0);
    assert_int_equal(listen(second, 4), 0);
    other.len = sizeof(other.sa.in);
    assert_int_equal(getsockname(second, &other.sa.any, &other.len), 0);
    mr_pool_set_address(&pool, 0, &other);
    int fd2 = -1;
    for (int i = 0; i < 400 && fd2 < 0; i++) {
        turns(5);
        fd2 = accept(second, NULL, NULL);
    }
    assert_true(fd2 >= 0);
    close(fd2);
    close(fd);
    close(second);
    close_pool();
}

/* A server that is replaced by an older one is well, if not for all clients. */
static void probes_use_a_lane_that_the_server_speaks(void **state)
{
    static const char PING[] = "*1\r\n$4\r\nPING\r\n", OLD[] = "-ERR unknown command\r\n";
    struct result r = {.call = {.ops = &OPS}};
    char got[256] = "";

    (void)state;
    open_pool(AT_ONCE "  health_checks: always\n  health_check_interval: 50ms\n");
    assert_int_equal(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    int fd = accept_one();
    assert_null(mr_server_send(&pool.servers[0], 1, 0, &r.call, mr_slice_of("+a\r\n")));
    const int client = accept_one();
    assert_int_equal(write(client, "%0\r\n_\r\n", 7), 7);
    turns(20);
    assert_true(r.done);
    assert_null(r.failure);
    close(client);
    for (int i = 0; i < 100 && strcmp(got, PING) != 0; i++) {
        close(fd);
        do {
            turns(10);
            fd = accept(listener, NULL, NULL);
        } while (fd < 0);
        turns(10);
        assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
        const ssize_t n = read(fd, got, sizeof(got) - 1);
        got[n > 0 ? n : 0] = '\0';
        if (i == 0)
            assert_memory_equal(got, "*2\r\n$5\r\nHELLO", 13);
        (void)!write(fd, OLD, strlen(OLD));
        turns(10);
    }
    assert_string_equal(got, PING);
    close(fd);
    close_pool();
}

static bool is_left(const struct mr_extra_room *r)
{
    return r->n < 1;
}

/* For databases that clients select: connections take room, and return it when unused. */
static void connections_that_are_not_planned(void **state)
{
    static const char SELECTED[] = "*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n+a\r\n";
    struct mr_extra_room room = {.is_left = is_left};
    struct result r = {.call = {.ops = &OPS}}, other = r;
    char got[64];

    (void)state;
    open_pool(AT_ONCE);
    pool.extra_room = &room;
    struct mr_server *server = &pool.servers[0];
    assert_null(send_to(&other, "+b\r\n"));
    const int first = accept_one();
    assert_int_equal(room.n, 0);
    assert_null(mr_server_send(server, 4, 0, &r.call, mr_slice_of("+a\r\n")));
    assert_int_equal(room.n, 1);
    assert_non_null(mr_server_send(server, 6, 0, &r.call, mr_slice_of("+a\r\n")));
    const int second = accept_one();
    assert_int_equal(write(second, "+OK\r\n+x\r\n", 9), 9);
    turns(20);
    assert_true(r.done);
    assert_int_equal(read(second, got, sizeof(got)), strlen(SELECTED));
    assert_memory_equal(got, SELECTED, strlen(SELECTED));

    struct mr_lane *lane = server->lanes[4];
    assert_true(mr_timer_is_set(&lane->idle));
    lane->idle.fire(&lane->idle);
    assert_non_null(lane->slots[0]); /* just used */
    lane->slots[0]->read_us -= 60000000;
    lane->idle.fire(&lane->idle);
    assert_null(lane->slots[0]);
    turns(20);
    assert_int_equal(room.n, 0);
    assert_int_equal(metrics.servers[0].server_connections, 1);
    close(first);
    close(second);
    close_pool();
}

RUN(T(replies_go_to_their_calls_in_order), T(a_timeout_spares_the_neighbours),
    T(a_silent_server_loses_the_connection), T(ejects_after_the_limit_and_comes_back),
    T(a_shortage_of_descriptors_ejects_no_server), T(an_ejection_that_nobody_watches_ends),
    T(an_idle_close_is_no_failure), T(backs_off_from_a_dead_server),
    T(a_reply_that_nobody_asked_for_closes), T(garbage_fails_what_is_in_flight),
    T(waits_for_the_hello), T(a_new_address_lets_old_work_finish),
    T(a_blocking_call_is_late_once_its_reply_begins), T(a_lost_connection_forgets_its_lease),
    T(a_closed_connection_is_no_spare), T(a_late_reset_ends_the_lease),
    T(a_new_address_leaves_the_lease_to_its_client), T(probes_go_on_at_a_new_address),
    T(probes_use_a_lane_that_the_server_speaks), T(connections_that_are_not_planned))
