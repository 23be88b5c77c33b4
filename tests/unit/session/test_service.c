/* test_service.c - orders of events between clients, a service and its server. */
#include "session/handover.h"
#include "session/pin.h"
#include "unit/session/service_fixture.h"

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
    say(server, "+2\r\n"); /* half of the limit: continues */
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
    for (int i = 0; i < 3; i++) { /* output that has left may show only a turn later */
        mr_service_drain(&service);
        turns(1);
    }
    assert_int_equal(budget.n, 2); /* the idle one is closed; half a request gets a moment */
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

/* Half a reply cannot be completed: its client is cut, but nobody else. */
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
    close(server); /* in the middle of b, partly written already: that client is cut */
    server = -1;
    turns(5);
    assert_int_equal(budget.n, 1);
    close(other);
    say(client, "PING\r\n");
    assert_string_equal(hear(client), "+PONG\r\n");
    stop();
}

/* ---- pauses ---- */

/* The client of the oldest connection. */
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

/* Nothing is in flight, and the output is sent without being held up. */
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

/* The queue is empty while the last expected reply is still being sent. */
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

/* Each reason alone: it begins, has its name, and its event ends it. */
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
    assert_int_equal(c->pauses, MR_PAUSE_PIPELINE); /* the third one has taken its place */
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
    mr_service_hold(&service, true); /* two reasons: both must end */
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

/* ---- dedicated connections ---- */

/* Accepts a leased connection and tells it its number at the server. */
static int accept_lease(const char *id)
{
    turns(3);
    const int fd = accept(server_listener, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_string_equal(hear(fd), "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n");
    say(fd, id);
    return fd;
}

/* Turns until the peer has sent something or closed. */
static const char *await(int fd)
{
    const char *text = hear(fd);

    for (int i = 0; i < 400 && *text == '\0'; i++) {
        turns(1);
        text = hear(fd);
    }
    return text;
}

static bool is_cut(int fd)
{
    char byte;

    return read(fd, &byte, 1) == 0;
}

#define BLOCKS "*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n"

/* A client may begin to block when the worker already drains. */
static void draining_ends_what_blocks_later(void **state)
{
    (void)state;
    start("");
    say(client, "GET a\r\nBLPOP q 0\r\n");
    accept_server();
    (void)hear(server);
    mr_service_begin_drain(&service);
    turns(3);
    say(server, "$-1\r\n");
    const int lease = accept_lease(":77\r\n");
    assert_string_equal(hear(lease), BLOCKS);
    assert_string_equal(await(server), "*4\r\n$6\r\nCLIENT\r\n$7\r\nUNBLOCK\r\n$2\r\n77\r\n$5\r\n"
                                       "ERROR\r\n");
    say(lease, "-UNBLOCKED x\r\n");
    assert_string_equal(hear(client), "$-1\r\n-UNBLOCKED x\r\n");
    close(lease);
    stop();
}

static void watched_keys_that_are_lost_can_be_forgotten(void **state)
{
    (void)state;
    start("");
    server = -1;
    say(client, "WATCH k\r\n");
    const int lease = accept_lease(":1\r\n");
    say(lease, "+OK\r\n");
    close(lease);
    turns(3);
    say(client, "UNWATCH\r\n");
    assert_string_equal(hear(client), "+OK\r\n+OK\r\n");
    assert_null(first_client()->pin);
    stop();
}

/* Another client must not be hit by an unblock that the server executes late. */
static void an_unblocked_connection_gets_no_other_client(void **state)
{
    (void)state;
    start("");
    const int other = connect_client();
    say(client, "BLPOP q 0\r\n");
    const int lease = accept_lease(":7\r\n");
    assert_string_equal(hear(lease), BLOCKS);
    say(other, "CLIENT UNBLOCK 1\r\n");
    assert_string_equal(hear(other), ":1\r\n");
    accept_server();
    say(lease, "*-1\r\n"); /* meanwhile it is over anyway */
    assert_string_equal(hear(client), "*-1\r\n");
    say(other, "BLPOP q 0\r\n");
    assert_string_equal(hear(lease), "");
    assert_true(is_cut(lease));
    const int second = accept_lease(":8\r\n");
    assert_string_equal(hear(second), BLOCKS);
    close(second);
    close(lease);
    close(other);
    stop();
}

/* It could take data that nobody would get. */
static void a_client_that_leaves_the_queue_does_not_block(void **state)
{
    (void)state;
    start("  server_leases: 1\n");
    server = -1;
    const int other = connect_client();
    say(client, "BLPOP q 0\r\n");
    const int lease = accept_lease(":7\r\n");
    assert_string_equal(hear(lease), BLOCKS);
    say(other, "BLPOP q 0\r\n");
    close(other);
    turns(3);
    say(lease, "*-1\r\n");
    turns(5);
    assert_string_equal(hear(client), "*-1\r\n");
    assert_string_equal(hear(lease), "");
    assert_int_equal(budget.n, 1);
    close(lease);
    stop();
}

/* After a pause the proxy must notice again that a client leaves which blocks. */
static void a_client_that_blocks_is_read_after_a_hold(void **state)
{
    (void)state;
    start("");
    server = -1;
    say(client, "BLPOP q 0\r\n");
    const int lease = accept_lease("-ERR unknown command\r\n"); /* it cannot be unblocked */
    assert_string_equal(hear(lease), BLOCKS);
    mr_service_hold(&service, true);
    say(client, "PING\r\n");
    assert_true(mr_stream_is_paused(&first_client()->stream));
    mr_service_release(&service);
    turns(3);
    close(client);
    turns(5);
    assert_int_equal(budget.n, 0);
    assert_true(is_cut(lease));
    close(lease);
    client = connect_client();
    stop();
}

/* Half a request cannot become whole, so nothing would ever close the connection. */
static void a_client_that_leaves_half_a_request_in_the_queue_is_closed(void **state)
{
    char got;

    (void)state;
    start("  server_leases: 1\n  lease_timeout: 30ms\n");
    server = -1;
    const int other = connect_client();
    say(client, "BLPOP q 0\r\n");
    const int lease = accept_lease(":7\r\n");
    say(other, "WATCH k\r\n*2\r\n$3\r\n");
    assert_int_equal(shutdown(other, SHUT_WR), 0);
    turns(5);
    assert_memory_equal(await(other), "-ERR no dedicated server connection is free\r\n", 45);
    for (int i = 0; i < 20 && budget.n > 1; i++)
        turns(1);
    turns(2); /* io_uring closes with its next call */
    assert_int_equal(read(other, &got, 1), 0);
    assert_int_equal(budget.n, 1);
    close(lease);
    close(other);
    stop();
}

/* ---- moving ---- */

static int adopt(const char *in, uint32_t n_queued)
{
    const struct mr_session session = {.id = 9};
    const struct mr_pin_luggage luggage = {.n_queued = n_queued};
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    mr_service_adopt(&service, ends[0], &session, &luggage, 0, mr_slice_of(in), mr_slice_of(""));
    turns(3);
    return ends[1];
}

/* What another process has answered is neither answered again nor executed. */
static void a_transaction_ends_with_the_right_to_it(void **state)
{
    (void)state;
    start("  redis_auth: secret\n");
    server = -1;
    const int moved = adopt("MULTI\r\nSET k v\r\nSET k w\r\n", 3);
    assert_string_equal(hear(moved), "");
    say(moved, "PING\r\n");
    assert_string_equal(hear(moved), "-NOAUTH Authentication required.\r\n");
    say(moved, "AUTH secret\r\nEXEC\r\n");
    assert_string_equal(hear(moved), "+OK\r\n-ERR EXEC without MULTI\r\n");
    assert_int_equal(metrics.servers[0].requests, 0);
    close(moved);
    stop();
}

/* The client waits to hear which protocol servers speak, and that is known while it is being sent.
 */
static void a_client_that_is_taken_back_asks_again(void **state)
{
    struct mr_handover_sender sender = {0};
    struct mr_error err;
    int ends[2];

    (void)state;
    start("");
    say(client, "HELLO 3\r\n");
    accept_server();
    assert_string_equal(hear(client), "");
    assert_int_equal(first_client()->pauses, MR_PAUSE_LANE);
    mr_service_hold(&service, true);
    assert_int_equal(mr_handover_open(ends, &err), MR_OK);
    while (write(ends[0], "full", 4) == 4)
        ;
    for (int i = 0; i < 20 && mr_list_empty(&service.travelling); i++) {
        assert_int_equal(mr_handover_clients(&sender, &service, 1, ends[0], &err), MR_OK);
        turns(1);
    }
    assert_false(mr_list_empty(&service.travelling));
    say(server, "%1\r\n+proto\r\n:3\r\n");
    mr_service_release(&service);
    turns(3);
    assert_memory_equal(hear(client), "%7\r\n", 4);
    close(ends[0]);
    close(ends[1]);
    stop();
}

/* ---- ends ---- */

/* Requests of a slow reader are answered, however long that takes. */
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

/* Pieces of a large value are activity, although no request is complete. */
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
        mr_service_drain(&service); /* uses the same clock */
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

RUN(T(draining_ends_what_blocks_later), T(watched_keys_that_are_lost_can_be_forgotten),
    T(an_unblocked_connection_gets_no_other_client),
    T(a_client_that_leaves_the_queue_does_not_block),
    T(a_client_that_leaves_half_a_request_in_the_queue_is_closed),
    T(a_transaction_ends_with_the_right_to_it), T(a_client_that_is_taken_back_asks_again),
    T(a_client_that_blocks_is_read_after_a_hold), T(a_pause_for_local_replies_ends),
    T(a_pause_for_large_replies_ends), T(every_pause_has_its_end), T(nothing_is_run_after_quit),
    T(draining_waits_for_a_paused_client), T(a_client_that_sends_a_large_value_is_not_idle),
    T(half_a_reply_cuts_its_client_only), T(local_replies_wait_for_their_turn),
    T(a_client_that_leaves_takes_its_replies_along), T(reading_pauses_at_the_pipeline_limit),
    T(quit_ends_after_earlier_replies), T(draining_waits_for_replies_only),
    T(over_the_budget_clients_are_told), T(a_dead_server_answers_with_the_reason))
