/*
 * test_service.c - a whole service in one loop: scripted server and client on the same thread, so
 * that the order of events is exact.
 */
#include "session/client.h"
#include "session/service.h"
#include "unit/test.h"

#include <fcntl.h>
#include <unistd.h>

static struct mr_loop loop;
static struct mr_config *config;
static struct mr_metrics metrics;
static struct mr_service service;
static struct mr_client_budget budget;
static int listener, server_listener, client, server;
static struct sockaddr_in address;

static int listen_any(struct sockaddr_in *a)
{
    socklen_t len = sizeof(*a);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)a, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)a, &len), 0);
    return fd;
}

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        mr_loop_turn(&loop, 5);
}

static int connect_client(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void start(const char *more)
{
    char yaml[512];
    struct mr_error err;
    struct sockaddr_in server_address;

    listener = listen_any(&address);
    server_listener = listen_any(&server_address);
    snprintf(yaml, sizeof(yaml),
             "p:\n  listen: 127.0.0.1:1\n  redis: true\n%s  servers: ['127.0.0.1:%d:1']\n", more,
             ntohs(server_address.sin_port));
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 1000, &err), MR_OK);
    assert_int_equal(mr_metrics_open(&metrics, 1, 1, &err), MR_OK);
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    static uint64_t clients;
    budget = (struct mr_client_budget){.max = 100, .next_id = 1, .clients = &clients};
    const struct mr_service_setup setup = {.pool = {.loop = &loop,
                                                    .config = &config->pools[0],
                                                    .metrics = metrics.pools,
                                                    .server_metrics = metrics.servers,
                                                    .process = &metrics.head->process},
                                           .budget = &budget,
                                           .all_metrics = &metrics,
                                           .n_metrics = 1,
                                           .listen_fds = &listener};
    mr_service_init(&service, &setup);
    client = connect_client();
    turns(2);
    assert_int_equal(budget.n, 1);
}

static void stop(void)
{
    close(client);
    if (server >= 0)
        close(server);
    mr_service_close(&service);
    mr_loop_settle(&loop);
    mr_service_fini(&service);
    assert_int_equal(budget.n, 0);
    assert_int_equal(metrics.pools[0].client_connections, 0);
    assert_int_equal(metrics.head->process.curr_connections, 0);
    assert_int_equal(loop.slab.used_bytes, 0); /* every request, buffer and client is back */
    mr_loop_fini(&loop);
    mr_metrics_close(&metrics);
    mr_config_free(config);
    close(listener);
    close(server_listener);
}

static void say(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    turns(3);
}

static const char *hear(int fd)
{
    static char text[65536];
    const ssize_t n = read(fd, text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void accept_server(void)
{
    turns(3);
    server = accept(server_listener, NULL, NULL);
    assert_true(server >= 0);
    assert_int_equal(fcntl(server, F_SETFL, O_NONBLOCK), 0);
}

static void local_replies_wait_for_their_turn(void **state)
{
    (void)state;
    start("");
    say(client, "GET a\r\nPING\r\nNOSUCH\r\nGET b\r\n");
    accept_server();
    turns(2);
    assert_string_equal(hear(client), "");
    say(server, "+1\r\n");
    assert_string_equal(hear(client), "+1\r\n+PONG\r\n-ERR unknown command 'NOSUCH', with args "
                                      "beginning with: \r\n");
    say(server, "+2\r\n");
    assert_string_equal(hear(client), "+2\r\n");
    stop();
}

static void a_client_that_leaves_takes_its_replies_along(void **state)
{
    (void)state;
    start("");
    say(client, "GET a\r\nPING\r\nMGET a b\r\nGET c\r\n");
    accept_server();
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
    close(client);
    turns(3);
    assert_int_equal(budget.n, 0);
    client = connect_client();
    say(client, "GET d\r\n");
    say(server, "+a\r\n*2\r\n+a\r\n+b\r\n+c\r\n+mine\r\n");
    assert_string_equal(hear(client), "+mine\r\n");
    stop();
}

static void reading_pauses_at_the_pipeline_limit(void **state)
{
    (void)state;
    start("  max_pipeline: 4\n");
    say(client, "GET 1\r\nGET 2\r\nGET 3\r\nGET 4\r\nGET 5\r\nGET 6\r\n");
    accept_server();
    turns(3);
    assert_int_equal(metrics.servers[0].requests, 4);
    say(server, "+1\r\n");
    assert_int_equal(metrics.servers[0].requests, 4);
    say(server, "+2\r\n"); /* half of the limit: on it goes */
    assert_int_equal(metrics.servers[0].requests, 6);
    say(server, "+3\r\n+4\r\n+5\r\n+6\r\n");
    assert_string_equal(hear(client), "+1\r\n+2\r\n+3\r\n+4\r\n+5\r\n+6\r\n");
    stop();
}

static void quit_ends_after_earlier_replies(void **state)
{
    (void)state;
    start("");
    say(client, "GET a\r\nQUIT\r\nGET never\r\n");
    accept_server();
    turns(2);
    assert_int_equal(metrics.servers[0].requests, 1);
    say(server, "+a\r\n");
    assert_string_equal(hear(client), "+a\r\n+OK\r\n");
    char byte;
    assert_int_equal(read(client, &byte, 1), 0);
    close(client);
    turns(3);
    assert_int_equal(metrics.pools[0].client_eof, 1);
    client = connect_client();
    stop();
}

static void draining_waits_for_replies_only(void **state)
{
    (void)state;
    start("");
    const int idle = connect_client(), half = connect_client();
    turns(2);
    say(client, "GET a\r\n");
    say(half, "GET unfinish");
    accept_server();
    mr_service_begin_drain(&service);
    for (int i = 0; i < 3; i++) { /* what has left its socket may show a turn later */
        mr_service_drain(&service);
        turns(1);
    }
    assert_int_equal(budget.n, 2); /* the idle one is gone, half a request gets a moment */
    assert_false(mr_service_empty(&service));
    say(half, "ed\r\n");
    say(server, "+a\r\n+b\r\n");
    mr_service_drain(&service);
    turns(2);
    assert_string_equal(hear(client), "+a\r\n");
    assert_string_equal(hear(half), "+b\r\n");
    assert_true(mr_service_empty(&service));
    close(idle);
    close(half);
    stop();
}

static void over_the_budget_clients_are_told(void **state)
{
    (void)state;
    start("");
    budget.max = 1;
    const int second = connect_client();
    turns(2);
    assert_string_equal(hear(second), "-ERR max number of clients reached\r\n");
    assert_int_equal(budget.n, 1);
    close(second);
    server = -1;
    stop();
}

static void a_dead_server_answers_with_the_reason(void **state)
{
    (void)state;
    start("");
    say(client, "GET a\r\nMGET a b\r\n");
    accept_server();
    (void)hear(server);
    close(server);
    server = -1;
    turns(3);
    assert_string_equal(hear(client), "-ERR unknown\r\n-ERR unknown\r\n");
    assert_int_equal(metrics.pools[0].forward_error, 2);
    stop();
}

/* Half a reply cannot be made whole: its client is cut, nobody else. */
static void half_a_reply_cuts_its_client_only(void **state)
{
    static char piece[40000];

    (void)state;
    start("  server_connections: 1\n");
    say(client, "GET first\r\n");
    accept_server();
    /* a second client's request is behind the first one's on the same connection */
    const int other = connect_client();
    turns(2);
    say(other, "GET a\r\n");
    say(other, "GET b\r\n");
    memset(piece, 'x', sizeof(piece));
    memcpy(piece, "+1\r\n+a\r\n$90000\r\n", 16);
    assert_int_equal(write(server, piece, sizeof(piece)), sizeof(piece));
    turns(3);
    assert_string_equal(hear(client), "+1\r\n");
    assert_memory_equal(hear(other), "+a\r\n$90000\r\nxxx", 15);
    close(server); /* in the middle of b, of which a part has been written: the client is cut */
    server = -1;
    turns(5);
    assert_int_equal(budget.n, 1);
    close(other);
    say(client, "PING\r\n");
    assert_string_equal(hear(client), "+PONG\r\n");
    stop();
}

/* ---- pauses ---- */

/* The client of the longest connection. */
static struct mr_client *first_client(void)
{
    assert_false(mr_list_empty(&service.clients));
    return MR_CONTAINER_OF(service.clients.next, struct mr_client, link);
}

static void fill(char *to, const char *text, int n)
{
    for (*to = '\0'; n > 0; n--)
        to = stpcpy(to, text);
}

/* Nothing is in flight, and the output leaves without being held up. */
static void a_pause_for_local_replies_ends(void **state)
{
    static char flood[6000 * 6 + 1];
    size_t n = 0;

    (void)state;
    start("  client_output_limit: 65536\n");
    server = -1;
    fill(flood, "PING\r\n", 6000);
    assert_int_equal(write(client, flood, strlen(flood)), strlen(flood));
    for (int i = 0; i < 100 && n < 6000 * 7; i++) {
        turns(1);
        n += strlen(hear(client));
    }
    assert_int_equal(n, 6000 * 7);
    assert_int_equal(first_client()->pauses, 0);
    stop();
}

/* The last reply of those that were waited for is still on its way out when the queue is empty. */
static void a_pause_for_large_replies_ends(void **state)
{
    static char requests[100 * 7 + 1], replies[64 * 500 + 1], reply[501];
    static const uint32_t ASKED[] = {64, 97, 100}; /* by then; 33 of 500 bytes are expected */
    uint32_t answered = 0;

    (void)state;
    start("  client_output_limit: 65536\n  server_connections: 1\n");
    fill(requests, "GET k\r\n", 100);
    memset(reply, 'v', 500);
    memcpy(reply, "$492\r\n", 6);
    memcpy(reply + 498, "\r\n", 2);
    say(client, requests);
    accept_server();
    for (size_t i = 0; i < MR_COUNT(ASKED); i++) {
        assert_int_equal(metrics.servers[0].requests, ASKED[i]);
        assert_int_equal(first_client()->pauses, ASKED[i] < 100 ? MR_PAUSE_REPLY_BYTES : 0);
        fill(replies, reply, (int)(ASKED[i] - answered));
        answered = ASKED[i];
        say(server, replies);
        assert_int_equal(strlen(hear(client)), strlen(replies));
    }
    stop();
}

static void names_of(unsigned pauses, char *to)
{
    static const char *const NAMES[] = {
#define X(name, text) text,
        MR_PAUSES(X)
#undef X
    };

    *to = '\0';
    for (size_t i = 0; i < MR_COUNT(NAMES); i++)
        if (pauses & 1u << i)
            to += sprintf(to, "%s ", NAMES[i]);
}

/* Every reason by itself: it begins, is named, and its event ends it. */
static void every_pause_has_its_end(void **state)
{
    static char bytes[300000];
    char names[100];
    struct mr_client *c;

    (void)state;
    start("  max_pipeline: 2\n  client_output_limit: 262144\n  server_connections: 1\n");
    c = first_client();
    say(client, "GET 1\r\n");
    accept_server();
    say(client, "GET 2\r\nGET 3\r\nGET 4\r\n");
    names_of(c->pauses, names);
    assert_string_equal(names, "pipeline ");
    say(server, "+1\r\n");
    assert_int_equal(c->pauses, MR_PAUSE_PIPELINE); /* the third one has taken the place */
    say(server, "+2\r\n+3\r\n");
    assert_int_equal(c->pauses, 0);
    say(server, "+4\r\n");
    assert_string_equal(hear(client), "+1\r\n+2\r\n+3\r\n+4\r\n");

    mr_service_hold(&service, true);
    say(client, "GET 5\r\n");
    names_of(c->pauses, names);
    assert_string_equal(names, "held ");
    assert_int_equal(metrics.servers[0].requests, 4);
    mr_service_release(&service);
    turns(3);
    assert_int_equal(c->pauses, 0);
    assert_int_equal(metrics.servers[0].requests, 5);
    say(server, "+5\r\n");
    assert_string_equal(hear(client), "+5\r\n");

    memset(bytes, 'x', sizeof(bytes));
    memcpy(bytes, "$260000\r\n", 9);
    memcpy(bytes + 260009, "\r\n", 2);
    const int small = 4096;
    assert_int_equal(setsockopt(c->stream.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    say(client, "GET 6\r\n");
    for (size_t sent = 0; sent < 260011;) {
        const ssize_t n = write(server, bytes + sent, 260011 - sent);
        sent += n > 0 ? (size_t)n : 0;
        turns(1);
    }
    turns(3);
    mr_service_hold(&service, true); /* two reasons: both have to end */
    say(client, "PING\r\n");
    assert_int_equal(c->pauses, MR_PAUSE_HELD | MR_PAUSE_OUTPUT);
    for (size_t n = 0; n < 260011;) {
        const ssize_t got = read(client, bytes, sizeof(bytes));
        n += got > 0 ? (size_t)got : 0;
        turns(1);
    }
    turns(2);
    assert_int_equal(c->pauses, MR_PAUSE_HELD);
    mr_service_release(&service);
    const char *got = "";
    for (int i = 0; i < 200 && *got == '\0'; i++) { /* acknowledgements may be delayed */
        turns(1);
        got = hear(client);
    }
    assert_string_equal(got, "+PONG\r\n");
    stop();
}

static void nothing_is_run_after_quit(void **state)
{
    (void)state;
    start("");
    say(client, "GET a\r\nQUIT\r\n");
    accept_server();
    say(client, "GET never\r\n"); /* in a packet of its own */
    assert_int_equal(metrics.servers[0].requests, 1);
    say(server, "+a\r\n");
    assert_string_equal(hear(client), "+a\r\n+OK\r\n");
    stop();
}

/* ---- ends ---- */

/* What a slow reader has asked before is answered, however long that takes. */
static void draining_waits_for_a_paused_client(void **state)
{
    static char flood[20000 * 6 + 1];
    size_t n = 0;

    (void)state;
    start("  client_output_limit: 65536\n");
    server = -1;
    fill(flood, "PING\r\n", 20000);
    const struct mr_client *c = first_client();
    const int small = 4096;
    assert_int_equal(setsockopt(c->stream.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    assert_int_equal(write(client, flood, strlen(flood)), strlen(flood));
    turns(10);
    assert_int_equal(c->pauses, MR_PAUSE_OUTPUT);
    mr_service_begin_drain(&service);
    while (n < 20000 * 7) {
        if (!mr_list_empty(&service.clients))
            first_client()->stream.active_ms -= 60000;
        mr_service_drain(&service);
        turns(1);
        char some[1000];
        const ssize_t got = read(client, some, sizeof(some));
        assert_int_not_equal(got, 0);
        n += got > 0 ? (size_t)got : 0;
    }
    mr_service_drain(&service);
    turns(2);
    assert_true(mr_list_empty(&service.clients));
    stop();
}

/* Pieces of a large value are activity, though no request is complete. */
static void a_client_that_sends_a_large_value_is_not_idle(void **state)
{
    static char piece[50000];
    struct mr_client *c;

    (void)state;
    start("  client_idle_timeout: 60s\n");
    server = -1;
    c = first_client();
    say(client, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n");
    memset(piece, 'x', sizeof(piece));
    for (int i = 0; i < 3; i++) {
        c->stream.active_ms -= 60000;
        assert_int_equal(write(client, piece, sizeof(piece)), sizeof(piece));
        turns(3);
        service.idle_timer.fire(&service.idle_timer);
        mr_service_drain(&service); /* it has the same clock */
        turns(2);
        assert_int_equal(budget.n, 1);
        assert_false(c->lingering);
    }
    c->stream.active_ms -= 60000;
    service.idle_timer.fire(&service.idle_timer);
    turns(2);
    assert_true(c->lingering);
    stop();
}

RUN(T(a_pause_for_local_replies_ends), T(a_pause_for_large_replies_ends),
    T(every_pause_has_its_end), T(nothing_is_run_after_quit), T(draining_waits_for_a_paused_client),
    T(a_client_that_sends_a_large_value_is_not_idle), T(half_a_reply_cuts_its_client_only),
    T(local_replies_wait_for_their_turn), T(a_client_that_leaves_takes_its_replies_along),
    T(reading_pauses_at_the_pipeline_limit), T(quit_ends_after_earlier_replies),
    T(draining_waits_for_replies_only), T(over_the_budget_clients_are_told),
    T(a_dead_server_answers_with_the_reason))
