/* test_handover.c - what a receiver of clients makes of messages that are not what they should be.
 */
#include "net/fdpass.h"
#include "session/handover.h"
#include "unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The wire format, written down again: a change of it must be a change of the version. */
struct wire {
    uint32_t magic;
    uint16_t version, flags;
    uint32_t head_bytes, pool_bytes, name_bytes, in_bytes, out_bytes, reserved;
    uint64_t id;
    uint64_t wrote_us;
};

static struct mr_loop loop;
static struct mr_handover_receiver receiver;
static int way;
static int client[2]; /* its socket and the other end */

static struct wire good(void)
{
    return (struct wire){
        .magic = 0x6d72636cu, .version = 1, .head_bytes = sizeof(struct wire), .pool_bytes = 4};
}

static int set_up(void **state)
{
    struct mr_error err;
    int ends[2];

    (void)state;
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    assert_int_equal(mr_handover_open(ends, &err), MR_OK);
    way = ends[0];
    mr_handover_receive(&receiver, &loop, ends[1], NULL, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, client), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mr_handover_stop(&receiver);
    assert_int_equal(loop.slab.used_bytes, 0);
    mr_loop_fini(&loop);
    close(way);
    close(client[1]);
    if (client[0] >= 0)
        close(client[0]);
    return 0;
}

static void send_bytes(const void *bytes, size_t len, int fd)
{
    assert_int_equal(mr_send_fds(way, bytes, len, &fd, fd >= 0), len);
}

static void turn(void)
{
    for (int i = 0; i < 3; i++)
        mr_loop_turn(&loop, 10);
}

/* Our copy goes; then the other end tells whether anybody holds one. */
static bool client_is_closed(void)
{
    char byte;

    close(client[0]);
    client[0] = -1;
    return recv(client[1], &byte, 1, 0) == 0;
}

static void a_client_of_no_pool_is_closed(void **state)
{
    struct {
        struct wire head;
        char pool[4];
    } m = {good(), "gone"};

    (void)state;
    send_bytes(&m, sizeof(m.head) + 4, client[0]);
    turn();
    assert_true(receiver.watch.active);
    assert_true(client_is_closed());
}

static void a_client_comes_in_pieces(void **state)
{
    struct wire head = good();
    char piece[1000] = {0};

    (void)state;
    head.in_bytes = 1996;
    send_bytes(&head, sizeof(head), client[0]);
    send_bytes(piece, 1000, -1);
    turn();
    assert_true(receiver.fd >= 0); /* not whole yet */
    send_bytes(piece, 1000, -1);
    turn();
    assert_int_equal(receiver.fd, -1);
    assert_true(receiver.watch.active);
    assert_true(client_is_closed());
}

static void refuses(const struct wire *head, size_t len, bool with_fd)
{
    send_bytes(head, len, with_fd ? client[0] : -1);
    turn();
    assert_false(receiver.watch.active);
    assert_true(client_is_closed());
}

static void another_magic_is_refused(void **state)
{
    struct wire head = good();

    (void)state;
    head.magic++;
    refuses(&head, sizeof(head), true);
}

static void another_version_is_refused(void **state)
{
    struct wire head = good();

    (void)state;
    head.version++;
    refuses(&head, sizeof(head), true);
}

static void a_short_head_is_refused(void **state)
{
    const struct wire head = good();

    (void)state;
    refuses(&head, sizeof(head) - 1, true);
}

static void a_giant_length_is_refused(void **state)
{
    struct wire head = good();

    (void)state;
    head.in_bytes = UINT32_MAX;
    refuses(&head, sizeof(head), true);
}

static void a_client_without_a_descriptor_is_refused(void **state)
{
    const struct wire head = good();

    (void)state;
    refuses(&head, sizeof(head), false);
}

static void more_than_was_announced_is_refused(void **state)
{
    struct {
        struct wire head;
        char pool[6];
    } m = {good(), "gone!"};

    (void)state;
    refuses(&m.head, sizeof(m.head) + 6, true);
}

static void a_second_descriptor_is_refused(void **state)
{
    struct wire head = good();
    char piece[4] = {0};

    (void)state;
    send_bytes(&head, sizeof(head), client[0]);
    turn();
    send_bytes(piece, sizeof(piece), client[0]);
    turn();
    assert_false(receiver.watch.active);
    assert_true(client_is_closed());
}

static void the_end_of_the_other_side_ends_it(void **state)
{
    (void)state;
    close(way);
    way = -1;
    turn();
    assert_false(receiver.watch.active);
    assert_true(client_is_closed());
}

#define WITH(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

RUN(WITH(a_client_of_no_pool_is_closed), WITH(a_client_comes_in_pieces),
    WITH(another_magic_is_refused), WITH(another_version_is_refused), WITH(a_short_head_is_refused),
    WITH(a_giant_length_is_refused), WITH(a_client_without_a_descriptor_is_refused),
    WITH(more_than_was_announced_is_refused), WITH(a_second_descriptor_is_refused),
    WITH(the_end_of_the_other_side_ends_it))
