/*
 * test_handover.c - clients moving between two services in one loop: whole, in pieces, and with
 * either side failing midway. Whatever happens to one client, the next one arrives.
 */
#include "net/fdpass.h"
#include "session/client.h"
#include "session/handover.h"
#include "unit/identity_filter.h"
#include "unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE 65536 /* maximum size of a message */

/* The wire format, repeated here: changing it requires a new version. */
struct wire {
    uint32_t magic;
    uint16_t version, reserved;
    uint32_t number, reserved2;
    uint64_t at, total;
    uint32_t flags, head_bytes, pool_bytes, name_bytes, in_bytes, out_bytes, skip, reserved3;
    uint64_t id, wrote_us;
    uint32_t user_bytes;
    uint8_t mute, reserved4[3];
    char pool[5];
};

#define WIRE_BYTES (offsetof(struct wire, pool) + 5)
#define HEAD_AT    offsetof(struct wire, flags)
#define FRESH      2u

/* One side, as a worker has it. */
struct side {
    struct mr_service service;
    struct mr_client_budget budget;
    struct mr_metrics metrics;
    uint64_t clients, ids;
};

static struct mr_loop loop;
static bool filtered; /* clients get an identity filter */
static struct mr_config *config;
static struct side old, new;
static struct mr_handover_sender sender;
static struct mr_handover_receiver receiver;
static int way, way_in; /* the sender's end, a copy of the receiver's */
static char big[400000];

static void open_side(struct side *side)
{
    static const int none = -1;
    struct mr_error err;

    assert_int_equal(mr_metrics_open(&side->metrics, 1, 1, &err), MR_OK);
    side->budget = (struct mr_client_budget){
        .max = 100, .first_id = 1, .ids = &side->ids, .clients = &side->clients};
    const struct mr_service_setup setup = {.pool = {.loop = &loop,
                                                    .config = &config->pools[0],
                                                    .metrics = side->metrics.pools,
                                                    .server_metrics = side->metrics.servers,
                                                    .process = &side->metrics.head->process},
                                           .budget = &side->budget,
                                           .all_metrics = &side->metrics,
                                           .n_metrics = 1,
                                           .listen_fds = &none};
    mr_service_init(&side->service, &setup);
}

static void close_side(struct side *side)
{
    mr_service_close(&side->service);
    mr_loop_settle(&loop);
    mr_service_fini(&side->service);
    assert_int_equal(side->budget.n, 0);
    assert_int_equal(side->metrics.pools[0].client_connections, 0);
    mr_metrics_close(&side->metrics);
}

static void receive(void)
{
    const int end = fcntl(way_in, F_DUPFD_CLOEXEC, 0);

    assert_true(end >= 0);
    mr_handover_receive(&receiver, &loop, end, &new.service, 1);
}

static int set_up(void **state)
{
    static const char YAML[] = "alpha:\n  listen: 127.0.0.1:1\n  redis: true\n"
                               "  client_idle_timeout: 1h\n  servers: ['127.0.0.1:1:1']\n";
    struct mr_error err;
    int ends[2];

    (void)state;
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(YAML), 1000, NULL, &err), MR_OK);
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    open_side(&old);
    open_side(&new);
    assert_int_equal(mr_handover_open(ends, &err), MR_OK);
    way = ends[0];
    way_in = ends[1];
    sender = (struct mr_handover_sender){0};
    receive();
    memset(big, 'x', sizeof(big));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mr_handover_stop(&receiver);
    close_side(&old);
    close_side(&new);
    assert_int_equal(loop.slab.used_bytes, 0);
    mr_loop_fini(&loop);
    mr_config_free(config);
    if (way >= 0)
        close(way);
    close(way_in);
    return 0;
}

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        mr_loop_turn(&loop, 5);
}

/* ---- clients ---- */

static int connect_to(struct side *side)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    mr_service_admit(&side->service, ends[1]);
    if (filtered)
        insert_identity(
            &MR_CONTAINER_OF(side->service.clients.prev, struct mr_client, link)->stream);
    return ends[0];
}

static void say(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        const ssize_t n = write(fd, bytes, len);
        assert_true(n > 0 || errno == EAGAIN);
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
        turns(1);
    }
    turns(2);
}

static bool is_closed(int fd)
{
    char byte;

    turns(2);
    const ssize_t n = recv(fd, &byte, 1, MSG_PEEK);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

static void is_served(int fd)
{
    char text[16] = "";

    say(fd, "PING\r\n", 6);
    assert_int_equal(read(fd, text, sizeof(text) - 1), 7);
    assert_string_equal(text, "+PONG\r\n");
}

/* Most of an ECHO of `big`. */
static void say_half(int fd)
{
    static const char HEAD[] = "*2\r\n$4\r\nECHO\r\n$400000\r\n";

    say(fd, HEAD, sizeof(HEAD) - 1);
    say(fd, big, 300000);
}

static void say_the_rest(int fd)
{
    static char reply[sizeof(big) + 20];
    size_t got = 0;

    say(fd, big, 100000);
    say(fd, "\r\n", 2);
    while (got < sizeof(big) + 11) {
        const ssize_t n = read(fd, reply + got, sizeof(reply) - got);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        got += n > 0 ? (size_t)n : 0;
        turns(1);
    }
    assert_memory_equal(reply, "$400000\r\nxxx", 12);
    assert_memory_equal(reply + got - 3, "x\r\n", 3);
}

static void hand_over(void)
{
    struct mr_error err;

    if (!old.service.held)
        mr_service_hold(&old.service, false);
    assert_int_equal(mr_handover_clients(&sender, &old.service, 1, way, &err), MR_OK);
}

static void hand_over_all(void)
{
    for (int i = 0; i < 100 && !mr_service_empty(&old.service); i++) {
        hand_over();
        turns(1);
    }
    assert_true(mr_service_empty(&old.service));
    turns(3);
}

static void nobody_takes(void)
{
    mr_handover_stop(&receiver);
}

/* The receiver does not read, until the channel is full with part of the n-th client. */
static void hand_over_until(uint32_t n)
{
    nobody_takes();
    for (int i = 0; i < 20 && (sender.number < n || sender.at == 0); i++) {
        hand_over();
        turns(1);
    }
    assert_int_equal(sender.number, n);
    assert_true(sender.at > 0 && sender.service == &old.service);
}

static void clients_go_on_where_they_were(void **state)
{
    (void)state;
    const int idle = connect_to(&old), half = connect_to(&old);
    say_half(half);
    say(idle, "CLIENT SETNAME me\r\n", 19);
    char text[64] = "";
    assert_int_equal(read(idle, text, sizeof(text)), 5);
    hand_over_all();
    assert_int_equal(new.budget.n, 2);
    assert_int_equal(old.metrics.pools[0].client_err + old.metrics.pools[0].client_eof, 0);
    say(idle, "CLIENT GETNAME\r\n", 16);
    assert_int_equal(read(idle, text, sizeof(text)), 8);
    assert_memory_equal(text, "$2\r\nme\r\n", 8);
    say_the_rest(half);
    close(idle);
    close(half);
}

/* What the receiver does not read waits and continues where it stopped; nothing else waits. */
static void a_full_way_is_gone_on_with(void **state)
{
    (void)state;
    const int half = connect_to(&old);
    say_half(half);
    hand_over_until(1);
    const size_t at = sender.at;
    for (int i = 0; i < 5; i++) {
        turns(1);
        hand_over(); /* returns at once, and starts nothing anew */
    }
    assert_true(sender.at == at && sender.number == 1);
    const int late = connect_to(&old);
    turns(2);
    hand_over();
    assert_false(mr_service_empty(&old.service));
    receive();
    hand_over_all();
    assert_int_equal(sender.number, 2);
    say_the_rest(half);
    is_served(late);
    close(half);
    close(late);
}

/* The successor of a receiver that died gets only the end of a client. */
static void a_receiver_that_dies_costs_one_client(void **state)
{
    (void)state;
    const int half = connect_to(&old), other = connect_to(&old);
    say_half(half);
    hand_over_until(1);
    receive();
    turns(1);
    assert_true(receiver.total > 0); /* a part of it */
    nobody_takes();
    receive();
    hand_over_all();
    assert_true(is_closed(half));
    is_served(other);
    assert_int_equal(new.budget.n, 1);
    close(half);
    close(other);
}

static void a_sender_that_dies_costs_one_client(void **state)
{
    (void)state;
    const int done = connect_to(&old), half = connect_to(&old);
    turns(1);
    say_half(half);
    hand_over_until(2);
    close(way); /* and its descriptors with it */
    way = -1;
    mr_service_close(&old.service);
    mr_loop_settle(&loop);
    assert_true(is_closed(half));
    receive();
    turns(5);
    assert_false(receiver.watch.active);
    is_served(done);
    assert_int_equal(new.budget.n, 1);
    close(done);
    close(half);
}

static void a_client_that_is_cut_under_way_is_given_up(void **state)
{
    (void)state;
    const int half = connect_to(&old);
    turns(1);
    say_half(half);
    hand_over_until(1);
    mr_client_cut(MR_CONTAINER_OF(old.service.travelling.next, struct mr_client, link), ENOMEM);
    receive();
    hand_over(); /* before it is gone */
    const int other = connect_to(&old), half_too = connect_to(&old);
    turns(2);
    assert_true(is_closed(half));
    hand_over_all();
    is_served(other);
    is_served(half_too);
    assert_int_equal(new.budget.n, 2);
    close(half);
    close(other);
    close(half_too);
}

static void a_client_that_leaves_under_way_is_no_trouble(void **state)
{
    (void)state;
    const int half = connect_to(&old);
    turns(1);
    say_half(half);
    hand_over_until(1);
    close(half);
    turns(2);
    receive();
    hand_over_all();
    turns(3);
    assert_int_equal(new.budget.n, 0);
    assert_int_equal(new.metrics.pools[0].client_eof + new.metrics.pools[0].client_err, 1);
}

static void idle_timeout(uint32_t ms)
{
    config->pools[0].client_idle_timeout_ms = ms;
    mr_loop_timer(&loop, &old.service.idle_timer, 1);
    mr_loop_timer(&loop, &new.service.idle_timer, 1);
}

/* The clock of every client was started again at `since_us` or later. */
static void assert_no_older(const struct side *side, uint64_t since_us)
{
    const uint32_t ms = (uint32_t)((loop.now_us - since_us) / 1000u) + 1;

    assert_true(side->budget.n > 0);
    for (struct mr_list *link = side->service.clients.next; link != &side->service.clients;
         link = link->next)
        assert_in_range(mr_stream_idle_ms(&MR_CONTAINER_OF(link, struct mr_client, link)->stream),
                        0, ms);
}

/* A held service does not read, so nobody counts as idle; the receiver starts the clock again. */
static void nobody_is_idle_on_the_way(void **state)
{
    (void)state;
    const int half = connect_to(&old), idle = connect_to(&old);
    turns(1);
    say_half(half);
    hand_over_until(1);
    idle_timeout(50);
    turns(20); /* of 5 ms */
    idle_timeout(3600000);
    const uint64_t since = loop.now_us;
    receive();
    hand_over_all();
    assert_no_older(&new, since);
    assert_int_equal(new.budget.n, 2);
    say_the_rest(half);
    is_served(idle);
    close(half);
    close(idle);
}

static void a_released_service_gives_its_clients_time(void **state)
{
    (void)state;
    const int client = connect_to(&old);
    turns(1);
    mr_service_hold(&old.service, false);
    idle_timeout(50);
    turns(20);
    idle_timeout(3600000);
    const uint64_t since = loop.now_us;
    mr_service_release(&old.service);
    turns(2);
    assert_no_older(&old, since);
    is_served(client);
    close(client);
}

static void over_the_limit_of_descriptors_clients_are_told(void **state)
{
    char text[64] = "";

    (void)state;
    new.budget.max = 1;
    const int first = connect_to(&old), second = connect_to(&old);
    hand_over_all();
    is_served(first);
    assert_int_equal(read(second, text, sizeof(text) - 1), 36);
    assert_string_equal(text, "-ERR max number of clients reached\r\n");
    assert_true(is_closed(second));
    assert_int_equal(new.metrics.pools[0].client_err, 1);
    assert_int_equal(new.budget.n, 1);
    close(first);
    close(second);
}

/* The configured limit is for new clients; clients that were admitted stay. */
static void the_limit_of_the_pool_is_for_new_clients(void **state)
{
    (void)state;
    const int first = connect_to(&old), second = connect_to(&old);
    config->pools[0].client_connections = 1;
    hand_over_all();
    is_served(first);
    is_served(second);
    const int third = connect_to(&new);
    assert_true(is_closed(third) || new.budget.n == 2);
    assert_int_equal(new.budget.n, 2);
    close(first);
    close(second);
    close(third);
}

/* The kernel drops a descriptor for lack of room, and the message arrives without it. */
static void without_descriptors_one_client_is_closed(void **state)
{
    struct rlimit limit, none;

    (void)state;
    const int first = connect_to(&old), second = connect_to(&old);
    turns(2);
    nobody_takes();
    for (int i = 0; i < 100 && !mr_service_empty(&old.service); i++) {
        hand_over();
        turns(1);
    }
    receive();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){3, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    turns(3);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(new.budget.n, 0);
    assert_true(is_closed(first) && is_closed(second));
    assert_true(receiver.watch.active);
    mr_service_release(&old.service);
    const int third = connect_to(&old);
    hand_over_all();
    is_served(third);
    close(first);
    close(second);
    close(third);
}

/* ---- malformed messages ---- */

static struct wire fresh(void)
{
    const size_t bytes = WIRE_BYTES - HEAD_AT;

    return (struct wire){.magic = 0x6d72636cu,
                         .version = 3,
                         .total = bytes,
                         .flags = FRESH,
                         .head_bytes = (uint32_t)(bytes - 5),
                         .pool_bytes = 5,
                         .pool = "alpha"};
}

/* Sends a message with a client's descriptor; returns the client's end. */
static int send_wire(const void *bytes, size_t len, bool with_fd)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(mr_send_fds(way, bytes, len, &ends[1], with_fd), len);
    close(ends[1]);
    turns(3);
    return ends[0];
}

static void the_next_one_arrives(void)
{
    const struct wire good = fresh();
    const int client = send_wire(&good, WIRE_BYTES, true);

    assert_true(receiver.watch.active);
    is_served(client);
    close(client);
}

/* A head without fields added later. */
static void an_earlier_version_is_understood(void **state)
{
    const size_t shorter = offsetof(struct wire, pool) - offsetof(struct wire, user_bytes);
    struct wire w = fresh();

    (void)state;
    char *bytes = (char *)&w;
    memmove(bytes + offsetof(struct wire, user_bytes), w.pool, sizeof(w.pool));
    w.head_bytes -= (uint32_t)shorter;
    w.total -= shorter;
    const int client = send_wire(&w, WIRE_BYTES - shorter, true);
    is_served(client);
    close(client);
}

static void is_refused(const struct wire *w, size_t len, bool with_fd)
{
    const int client = send_wire(w, len, with_fd);

    assert_true(is_closed(client));
    assert_int_equal(new.budget.n, 0);
    close(client);
    the_next_one_arrives();
}

static void bad_messages_are_refused_alone(void **state)
{
    struct wire w;

    (void)state;
#define REFUSED(change)                                                                            \
    w = fresh();                                                                                   \
    change;                                                                                        \
    is_refused(&w, WIRE_BYTES, true)
    REFUSED(w.magic++);
    REFUSED(w.version++);
    REFUSED(w.total++);
    REFUSED(w.total--);
    REFUSED(w.total = UINT64_MAX);
    REFUSED(w.total = 0);
    REFUSED(w.at = 1);
    REFUSED(w.at = UINT64_MAX);
    REFUSED(w.head_bytes--);
    REFUSED(w.head_bytes = UINT32_MAX);
    REFUSED(w.in_bytes = UINT32_MAX);
    REFUSED(w.user_bytes = 1);
    REFUSED(w.user_bytes = UINT32_MAX);
    REFUSED(w.out_bytes = 1);
    REFUSED(w.pool_bytes = 4);
    REFUSED(w.pool[0] = 'b'); /* of no pool */
    w = fresh();
    is_refused(&w, 1, true);
    is_refused(&w, HEAD_AT, true);
    is_refused(&w, WIRE_BYTES, false);
}

/* Pieces that do not belong together. */
static void a_gap_costs_one_client(void **state)
{
    struct wire first = fresh(), last = fresh();

    (void)state;
    const size_t half = HEAD_AT + 16;
    last.at = 16 + 1;
    memmove((char *)&last + HEAD_AT, (char *)&last + HEAD_AT + last.at, last.total - last.at);
    close(send_wire(&first, half, false));
    is_refused(&last, WIRE_BYTES - last.at, true);
    last = fresh();
    last.at = 16;
    last.number = 1;
    memmove((char *)&last + HEAD_AT, (char *)&last + HEAD_AT + last.at, last.total - last.at);
    close(send_wire(&first, half, false));
    is_refused(&last, WIRE_BYTES - last.at, true);
    last.number = 0;
    close(send_wire(&first, half, false));
    const int client = send_wire(&last, WIRE_BYTES - last.at, true);
    is_served(client);
    close(client);
}

static void what_is_due_is_counted_down(void **state)
{
    struct wire w = fresh();
    int64_t due = 3;

    (void)state;
    receiver.due = &due;
    close(send_wire(&w, WIRE_BYTES, true));
    assert_int_equal(due, 2);
    close(send_wire(&w, WIRE_BYTES, false)); /* as if the kernel had dropped it */
    assert_int_equal(due, 1);
    w.pool[0] = 'b';
    close(send_wire(&w, WIRE_BYTES, true));
    assert_int_equal(due, 0);
}

static void the_end_of_the_other_side_ends_it(void **state)
{
    (void)state;
    close(way);
    way = -1;
    turns(3);
    assert_false(receiver.watch.active);
}

static void a_way_without_a_reader_is_an_error(void **state)
{
    struct mr_error err;

    (void)state;
    const int client = connect_to(&old);
    mr_service_hold(&old.service, false);
    turns(1);
    mr_handover_stop(&receiver);
    close(way_in);
    enum mr_result rc = MR_OK;
    for (int i = 0; i < 5 && rc == MR_OK; i++, turns(1))
        rc = mr_handover_clients(&sender, &old.service, 1, way, &err);
    assert_int_equal(rc, MR_ESYS);
    way_in = open("/dev/null", O_RDONLY);
    close(client);
}

#define WITH(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static int filter_all(void **state)
{
    (void)state;
    filtered = true;
    return 0;
}

static int none_is_left(void **state)
{
    (void)state;
    assert_true(identity_bytes > sizeof(big));
    assert_int_equal(identities, 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {WITH(clients_go_on_where_they_were),
                                       WITH(a_full_way_is_gone_on_with),
                                       WITH(a_receiver_that_dies_costs_one_client),
                                       WITH(a_sender_that_dies_costs_one_client),
                                       WITH(a_client_that_is_cut_under_way_is_given_up),
                                       WITH(a_client_that_leaves_under_way_is_no_trouble),
                                       WITH(nobody_is_idle_on_the_way),
                                       WITH(a_released_service_gives_its_clients_time),
                                       WITH(over_the_limit_of_descriptors_clients_are_told),
                                       WITH(the_limit_of_the_pool_is_for_new_clients),
                                       WITH(without_descriptors_one_client_is_closed),
                                       WITH(an_earlier_version_is_understood),
                                       WITH(bad_messages_are_refused_alone),
                                       WITH(a_gap_costs_one_client),
                                       WITH(what_is_due_is_counted_down),
                                       WITH(the_end_of_the_other_side_ends_it),
                                       WITH(a_way_without_a_reader_is_an_error)};

    const int failed = cmocka_run_group_tests_name("plain", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("filtered", tests, filter_all, none_is_left);
}
