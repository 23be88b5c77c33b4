/* test_stream.c - the stream contract, over socket pairs, without and with a filter. */
#include "net/filter.h"
#include "net/loop.h"
#include "net/stream.h"
#include "net/stream_engine.h"
#include "unit/identity_filter.h"
#include "unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEEN_MAX (8u << 20)

static struct mr_loop loop;
static bool filtered; /* streams get an identity filter */

/* A stream whose owner records events and consumes by a rule. */
struct owner {
    struct mr_stream stream;
    char *seen; /* bytes consumed */
    size_t n_seen;
    size_t take; /* consume in multiples of this */
    size_t want; /* wait for this many before the next delivery */
    unsigned deliveries, eofs, closes, drains, rooms, opens;
    bool pause_after; /* pause in every on_data */
    bool in_callback;
    int error;
    int peer;
};

static struct owner *of(struct mr_stream *s)
{
    return MR_CONTAINER_OF(s, struct owner, stream);
}

static size_t on_data(struct mr_stream *s, const char *bytes, size_t len)
{
    struct owner *o = of(s);

    assert_false(o->in_callback);
    o->in_callback = true;
    o->deliveries++;
    const size_t used = len / o->take * o->take;
    memcpy(o->seen + o->n_seen, bytes, used);
    o->n_seen += used;
    if (o->pause_after)
        mr_stream_pause(s);
    if (o->want > 0)
        mr_stream_want(s, o->want);
    o->in_callback = false;
    return used;
}

static void on_eof(struct mr_stream *s)
{
    of(s)->eofs++;
}

static void on_drain(struct mr_stream *s)
{
    of(s)->drains++;
}

static void on_room(struct mr_stream *s)
{
    of(s)->rooms++;
}

static void on_open(struct mr_stream *s)
{
    of(s)->opens++;
}

static void on_close(struct mr_stream *s, int error)
{
    of(s)->closes++;
    of(s)->error = error;
}

static const struct mr_stream_ops OPS = {
    .on_open = on_open,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_room = on_room,
    .on_close = on_close,
};

static struct owner *open_owner(size_t take)
{
    struct owner *o = calloc(1, sizeof(*o));
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    o->seen = malloc(SEEN_MAX);
    o->take = take;
    o->peer = ends[1];
    mr_stream_open(&o->stream, &loop, &OPS, ends[0]);
    if (filtered)
        insert_identity(&o->stream);
    return o;
}

static void free_owner(struct owner *o)
{
    if (!mr_stream_is_closed(&o->stream)) {
        mr_stream_close(&o->stream, 0);
        mr_loop_settle(&loop);
    }
    assert_int_equal(o->closes, 1);
    if (o->peer >= 0)
        close(o->peer);
    free(o->seen);
    free(o);
}

static void peer_writes(struct owner *o, const char *bytes, size_t n)
{
    assert_int_equal(write(o->peer, bytes, n), n);
}

/* Enough turns for any engine to handle what is ready. */
static void settle(void)
{
    for (int i = 0; i < 4; i++)
        mr_loop_turn(&loop, 10);
}

static void keeps_the_remainder(void **state)
{
    struct owner *o = open_owner(4);

    (void)state;
    peer_writes(o, "abcdef", 6);
    mr_loop_turn(&loop, 1000);
    assert_int_equal(o->n_seen, 4);
    assert_true(mr_stream_has_remainder(&o->stream));
    peer_writes(o, "gh", 2);
    mr_loop_turn(&loop, 1000);
    assert_int_equal(o->n_seen, 8);
    assert_memory_equal(o->seen, "abcdefgh", 8);
    assert_false(mr_stream_has_remainder(&o->stream));
    assert_null(o->stream.in.mem); /* an idle stream owns no buffer */
    free_owner(o);
}

/* Remainders smaller and larger than the headroom yield the same bytes. */
static void any_remainder_comes_again(void **state)
{
    static const size_t TAKES[] = {1, 7, 1000, 5000, 70001, 300000};
    static char bytes[1000000];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 7 + i / 251);
    for (size_t t = 0; t < MR_COUNT(TAKES); t++) {
        struct owner *o = open_owner(TAKES[t]);
        const size_t total = sizeof(bytes) / TAKES[t] * TAKES[t];
        for (size_t sent = 0; sent < total;) {
            const size_t piece = total - sent < 9973 ? total - sent : 9973;
            peer_writes(o, bytes + sent, piece);
            sent += piece;
            mr_loop_turn(&loop, 1000);
        }
        assert_int_equal(o->n_seen, total);
        assert_memory_equal(o->seen, bytes, total);
        free_owner(o);
    }
}

static void waits_for_what_is_wanted(void **state)
{
    struct owner *o = open_owner(100);

    (void)state;
    o->want = 100;
    peer_writes(o, "x", 1);
    mr_loop_turn(&loop, 1000);
    assert_int_equal(o->deliveries, 1);
    for (int i = 0; i < 98; i++) {
        peer_writes(o, "x", 1);
        mr_loop_turn(&loop, 1000);
    }
    assert_int_equal(o->deliveries, 1);
    o->want = 0;
    peer_writes(o, "x", 1);
    mr_loop_turn(&loop, 1000);
    assert_int_equal(o->deliveries, 2);
    assert_int_equal(o->n_seen, 100);
    free_owner(o);
}

static void pauses_and_resumes(void **state)
{
    struct owner *o = open_owner(1000);

    (void)state;
    o->pause_after = true;
    peer_writes(o, "abc", 3);
    mr_loop_turn(&loop, 1000);
    assert_int_equal(o->deliveries, 1);
    peer_writes(o, "def", 3);
    mr_loop_turn(&loop, 10);
    assert_int_equal(o->deliveries, 1); /* nothing arrives while paused */
    o->take = 3;
    o->pause_after = false;
    mr_stream_resume(&o->stream);
    assert_int_equal(o->deliveries, 1); /* not inside our call */
    mr_loop_turn(&loop, 1000);
    mr_loop_turn(&loop, 10);
    assert_int_equal(o->n_seen, 6);
    assert_memory_equal(o->seen, "abcdef", 6);
    free_owner(o);
}

static size_t peer_reads(struct owner *o, char *at, size_t max)
{
    const ssize_t n = read(o->peer, at, max);

    return n > 0 ? (size_t)n : 0;
}

static void writes_in_order_whatever_the_size(void **state)
{
    static char all[3000000], got[3000000];
    struct owner *o = open_owner(1);
    size_t n = 0, read_so_far = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (char)(i * 13 + i / 509);
    for (size_t size = 1; n + size <= sizeof(all); size = size * 3 + 1) {
        mr_stream_write(&o->stream, all + n, size);
        n += size;
        if (size > 100000)
            size = 5;
    }
    assert_true(mr_stream_pending(&o->stream) > 0);
    while (read_so_far < n) {
        mr_loop_turn(&loop, 10);
        read_so_far += peer_reads(o, got + read_so_far, 50000);
    }
    mr_loop_turn(&loop, 10);
    assert_memory_equal(all, got, n);
    assert_true(o->drains >= 1);
    assert_false(mr_stream_is_blocked(&o->stream));
    assert_int_equal(mr_stream_pending(&o->stream), 0);
    assert_null(o->stream.out.mem);
    free_owner(o);
}

static void takes_over_what_it_is_given(void **state)
{
    static char big[20000], got[sizeof(big) + 10];
    struct owner *o = open_owner(1);
    struct mr_buf bytes = {0};
    size_t n = 0;

    (void)state;
    memset(big, 'b', sizeof(big));
    mr_buf_put(&bytes, &loop.slab, "first", 5);
    const char *mem = bytes.mem;
    mr_stream_give(&o->stream, &bytes);
    if (!filtered)                                /* a filter may have to change the bytes */
        assert_ptr_equal(o->stream.out.mem, mem); /* without a copy */
    assert_null(bytes.mem);
    mr_buf_put(&bytes, &loop.slab, "later", 5);
    mr_stream_give(&o->stream, &bytes); /* behind other output */
    assert_null(bytes.mem);
    mr_loop_turn(&loop, 10);
    mr_buf_put(&bytes, &loop.slab, big, sizeof(big));
    mr_stream_give(&o->stream, &bytes);
    assert_null(bytes.mem);
    while (n < sizeof(got)) {
        mr_loop_turn(&loop, 10);
        n += peer_reads(o, got + n, sizeof(got) - n);
    }
    assert_memory_equal(got, "firstlater", 10);
    assert_memory_equal(got + 10, big, sizeof(big));
    mr_stream_close(&o->stream, 0);
    mr_buf_put(&bytes, &loop.slab, "x", 1);
    mr_stream_give(&o->stream, &bytes); /* ignored, but not leaked */
    assert_null(bytes.mem);
    mr_loop_settle(&loop);
    free_owner(o);
}

static void room_is_told_of_however_output_leaves(void **state)
{
    static char big[2000000], got[100000];
    struct owner *o = open_owner(1);
    size_t n = 0;

    (void)state;
    assert_false(mr_stream_await_room(&o->stream, 0)); /* nothing is pending */
    mr_stream_write(&o->stream, big, 100);
    assert_false(mr_stream_await_room(&o->stream, 100));
    assert_true(mr_stream_await_room(&o->stream, 99));
    settle();
    assert_int_equal(o->rooms, 1); /* sent at once */
    assert_int_equal(o->drains, 0);
    mr_stream_write(&o->stream, big, sizeof(big));
    assert_true(mr_stream_await_room(&o->stream, 1000000));
    while (n < sizeof(big) + 100) {
        const size_t pending = mr_stream_pending(&o->stream);
        assert_int_equal(o->rooms, pending > 1000000 ? 1 : 2);
        mr_loop_turn(&loop, 10);
        n += peer_reads(o, got, sizeof(got));
    }
    settle();
    assert_int_equal(o->rooms, 2); /* once per request */
    assert_int_equal(o->drains, 1);
    free_owner(o);
}

static void every_byte_counts_as_activity(void **state)
{
    static char big[2000000], got[100000];
    struct owner *o = open_owner(100);

    (void)state;
    o->want = 100;
    peer_writes(o, "x", 1);
    mr_loop_turn(&loop, 1000);
    o->stream.active_ms -= 5000;
    assert_true(mr_stream_idle_ms(&o->stream) >= 5000);
    peer_writes(o, "x", 1); /* not delivered until there is more */
    mr_loop_turn(&loop, 1000);
    assert_int_equal(o->deliveries, 1);
    assert_true(mr_stream_idle_ms(&o->stream) < 5000);
    mr_stream_write(&o->stream, big, sizeof(big));
    settle();
    assert_true(mr_stream_is_blocked(&o->stream));
    o->stream.active_ms -= 5000;
    const size_t untaken = mr_stream_untaken(&o->stream);
    assert_true(untaken > mr_stream_pending(&o->stream));
    while (mr_stream_untaken(&o->stream) == untaken)
        assert_true(peer_reads(o, got, sizeof(got)) > 0);
    for (size_t pending = mr_stream_pending(&o->stream);
         mr_stream_pending(&o->stream) == pending;) {
        peer_reads(o, got, sizeof(got));
        mr_loop_turn(&loop, 10);
    }
    assert_true(mr_stream_idle_ms(&o->stream) < 5000);
    free_owner(o);
}

static void rest(struct owner *o)
{
    while (!mr_stream_rest(&o->stream))
        mr_loop_turn(&loop, 10);
}

/* Whatever it is asked meanwhile, a resting stream does not change until it wakes. */
static void rests_and_wakes(void **state)
{
    struct owner *o = open_owner(4);
    char got[16];

    (void)state;
    peer_writes(o, "ab", 2);
    settle();
    rest(o);
    mr_stream_pause(&o->stream);
    mr_stream_resume(&o->stream);
    mr_stream_write(&o->stream, "out", 3);
    peer_writes(o, "cd", 2);
    settle();
    assert_int_equal(o->n_seen, 0);
    assert_int_equal(peer_reads(o, got, sizeof(got)), 0);
    mr_stream_wake(&o->stream);
    settle();
    assert_memory_equal(o->seen, "abcd", 4);
    assert_int_equal(peer_reads(o, got, sizeof(got)), 3);
    rest(o);
    mr_stream_finish(&o->stream); /* stays here after all */
    close(o->peer);
    o->peer = -1;
    settle();
    assert_int_equal(o->closes, 1);
    free_owner(o);
}

/* ---- a watch is stopped in the turn in which another stream's send fails ---- */

static struct owner *slow, *quick;
static struct mr_watch stopped_watch;
static char some_output[15000];

/* The first message queues output that cannot be sent; the second comes in the same turn. */
static void on_message(struct mr_watch *w)
{
    char c;

    if (recv(w->fd, &c, 1, MSG_DONTWAIT) != 1)
        return;
    if (c == '1') {
        mr_stream_write(&slow->stream, some_output, sizeof(some_output));
        return;
    }
    mr_watch_stop(&loop, &stopped_watch);
    mr_stream_write(&quick->stream, "hello", 5);
}

static void never(struct mr_watch *w)
{
    (void)w;
    fail();
}

static void a_failed_send_is_told_once(void **state)
{
    struct mr_watch messages = {.on_ready = on_message};
    int channel[2], silent[2];
    char got[32];
    size_t n = 0;

    (void)state;
    slow = open_owner(1);
    quick = open_owner(1);
    while (send(slow->stream.fd, some_output, sizeof(some_output), MSG_DONTWAIT) > 0)
        ;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, channel), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, silent), 0);
    messages.fd = channel[1];
    stopped_watch = (struct mr_watch){.on_ready = never, .fd = silent[1]};
    mr_watch_start(&loop, &messages);
    mr_watch_start(&loop, &stopped_watch);
    mr_loop_turn(&loop, 0);
    assert_int_equal(write(channel[0], "1", 1), 1);
    mr_loop_turn(&loop, 100);
    assert_int_equal(write(channel[0], "2", 1), 1);
    for (int i = 0; i < 10; i++) {
        mr_loop_turn(&loop, 5);
        n += peer_reads(quick, got + n, sizeof(got) - n);
    }
    assert_int_equal(n, 5);
    assert_memory_equal(got, "hello", 5);
    assert_true(mr_stream_is_blocked(&slow->stream));
    assert_false(mr_stream_is_blocked(&quick->stream));
    mr_watch_stop(&loop, &messages);
    for (int i = 0; i < 2; i++) {
        close(channel[i]);
        close(silent[i]);
    }
    free_owner(slow);
    free_owner(quick);
}

static void eof_then_writing_still_works(void **state)
{
    struct owner *o = open_owner(1);
    char got[8];

    (void)state;
    peer_writes(o, "req", 3);
    assert_int_equal(shutdown(o->peer, SHUT_WR), 0);
    settle();
    assert_int_equal(o->n_seen, 3);
    assert_int_equal(o->eofs, 1);
    assert_int_equal(o->closes, 0);
    mr_stream_write(&o->stream, "reply", 5);
    mr_stream_finish(&o->stream);
    settle();
    assert_int_equal(peer_reads(o, got, sizeof(got)), 5);
    assert_int_equal(o->closes, 1);
    assert_int_equal(o->error, 0);
    free_owner(o);
}

/* Each side ends its own direction, in either order. */
static void an_end_leaves_the_other_direction_open(void **state)
{
    static char big[2000000], got[100000];

    (void)state;
    for (int peer_first = 0; peer_first < 2; peer_first++) {
        struct owner *o = open_owner(1);
        size_t n = 0;
        mr_stream_write(&o->stream, big, sizeof(big));
        if (peer_first) {
            assert_int_equal(shutdown(o->peer, SHUT_WR), 0);
            settle();
            assert_int_equal(o->eofs, 1);
            assert_int_equal(o->closes, 0);
        }
        mr_stream_end(&o->stream);
        while (n < sizeof(big)) {
            mr_loop_turn(&loop, 10);
            n += peer_reads(o, got, sizeof(got));
        }
        settle();
        assert_int_equal(n, sizeof(big));
        assert_int_equal(read(o->peer, got, 1), 0);
        if (!peer_first) {
            assert_int_equal(o->closes, 0);
            peer_writes(o, "later", 5);
            assert_int_equal(shutdown(o->peer, SHUT_WR), 0);
            settle();
            assert_int_equal(o->n_seen, 5);
        }
        assert_int_equal(o->eofs, 1);
        assert_int_equal(o->closes, 1);
        assert_int_equal(o->error, 0);
        free_owner(o);
    }
}

static void a_hang_up_waits_for_what_is_unread(void **state)
{
    static char big[50000];

    (void)state;
    for (int ended = 0; ended < 2; ended++) {
        struct owner *o = open_owner(1);
        mr_stream_read_all(&o->stream);
        mr_stream_pause(&o->stream);
        if (ended)
            mr_stream_end(&o->stream);
        settle();
        peer_writes(o, big, sizeof(big));
        close(o->peer);
        o->peer = -1;
        settle();
        assert_int_equal(o->closes, 0);
        mr_stream_resume(&o->stream);
        settle();
        assert_int_equal(o->n_seen, sizeof(big));
        assert_int_equal(o->eofs, 1);
        assert_int_equal(o->error, 0);
        if (ended)
            assert_int_equal(o->closes, 1);
        free_owner(o);
    }
}

static void finish_flushes_and_waits_for_the_peer(void **state)
{
    static char big[2000000], got[100000];
    struct owner *o = open_owner(1);
    size_t n = 0;

    (void)state;
    mr_stream_write(&o->stream, big, sizeof(big));
    mr_stream_finish(&o->stream);
    peer_writes(o, "ignored", 7);
    while (n < sizeof(big)) {
        mr_loop_turn(&loop, 10);
        n += peer_reads(o, got, sizeof(got));
    }
    mr_loop_turn(&loop, 10);
    assert_int_equal(n, sizeof(big));
    assert_int_equal(read(o->peer, got, 1), 0); /* our side is shut */
    assert_int_equal(o->closes, 0);
    assert_int_equal(o->n_seen, 0);
    close(o->peer);
    o->peer = -1;
    settle();
    assert_int_equal(o->closes, 1);
    free_owner(o);
}

static void a_dead_peer_closes_once(void **state)
{
    struct owner *o = open_owner(1);

    (void)state;
    close(o->peer);
    o->peer = -1;
    mr_stream_write(&o->stream, "x", 1);
    mr_stream_write(&o->stream, "y", 1);
    settle();
    assert_int_equal(o->closes, 1);
    if (strcmp(test_engine(), "epoll") == 0) /* io_uring may report the end of input first */
        assert_int_equal(o->error, EPIPE);
    mr_loop_turn(&loop, 0);
    assert_int_equal(o->closes, 1);
    free_owner(o);
}

static void a_paused_stream_notices_a_dead_peer(void **state)
{
    struct owner *o = open_owner(1);

    (void)state;
    mr_stream_pause(&o->stream);
    close(o->peer);
    o->peer = -1;
    settle();
    assert_int_equal(o->closes, 1);
    free_owner(o);
}

static void closes_peer(struct owner *o)
{
    close(o->peer);
    o->peer = -1;
    for (int i = 0; i < 10 && o->closes == 0; i++)
        mr_loop_turn(&loop, 20);
}

/* Whatever happened before, a paused stream still notices a hang-up. */
static void a_paused_stream_stays_listened_to(void **state)
{
    static char big[2000000], got[100000];
    size_t n = 0;

    (void)state;
    struct owner *woken = open_owner(1);
    mr_stream_pause(&woken->stream);
    rest(woken);
    mr_stream_wake(&woken->stream);
    settle();
    closes_peer(woken);
    assert_int_equal(woken->closes, 1);
    free_owner(woken);

    struct owner *drained = open_owner(1);
    mr_stream_pause(&drained->stream);
    peer_writes(drained, "x", 1);
    settle();
    mr_stream_write(&drained->stream, big, sizeof(big));
    while (n < sizeof(big)) {
        mr_loop_turn(&loop, 10);
        n += peer_reads(drained, got, sizeof(got));
    }
    settle();
    closes_peer(drained);
    assert_int_equal(drained->closes, 1);
    free_owner(drained);
}

/* Blocked, then corked: the room that the peer makes neither wakes the loop nor ends the wait. */
static struct owner *corked_with_room(void)
{
    static char big[2000000], got[100000];
    struct owner *o = open_owner(1);

    mr_stream_write(&o->stream, big, sizeof(big));
    settle();
    assert_true(mr_stream_is_blocked(&o->stream));
    mr_stream_pause(&o->stream);
    mr_stream_cork(&o->stream);
    assert_false(mr_stream_wants_write(&o->stream));
    while (peer_reads(o, got, sizeof(got)) > 0)
        continue;
    settle();
    return o;
}

static void a_corked_stream_waits_for_no_room(void **state)
{
    static char got[100000];

    (void)state;
    struct owner *left = corked_with_room();
    closes_peer(left);
    assert_int_equal(left->closes, 1);
    free_owner(left);

    struct owner *uncorked = corked_with_room();
    mr_stream_uncork(&uncorked->stream);
    while (mr_stream_pending(&uncorked->stream) > 0) {
        mr_loop_turn(&loop, 10);
        while (peer_reads(uncorked, got, sizeof(got)) > 0)
            continue;
    }
    assert_int_equal(uncorked->drains, 1);
    closes_peer(uncorked);
    assert_int_equal(uncorked->closes, 1);
    free_owner(uncorked);
}

/* The peer closes, orderly or with an error, after the owner paused and resumed. */
static void what_came_before_the_end_is_presented(void **state)
{
    static char big[100000];

    (void)state;
    for (int unread = 0; unread < 2; unread++) {
        struct owner *o = open_owner(1);
        const size_t more = unread ? 1 : sizeof(big);
        if (unread) /* causes a reset when the peer closes */
            mr_stream_write(&o->stream, "x", 1);
        mr_stream_pause(&o->stream);
        peer_writes(o, "ab", 2);
        settle();
        assert_int_equal(o->n_seen, 0);
        mr_stream_resume(&o->stream);
        peer_writes(o, big, more);
        close(o->peer);
        o->peer = -1;
        for (int i = 0; i < 10 && o->n_seen < 2 + more; i++)
            mr_loop_turn(&loop, 20);
        assert_int_equal(o->n_seen, 2 + more);
        free_owner(o);
    }
}

static void refused_connects_are_told(void **state)
{
    struct owner *o = calloc(1, sizeof(*o));
    struct mr_addr addr;
    struct mr_error err;
    struct mr_addr bound = {.len = sizeof(bound.sa)};

    (void)state;
    /* a port that was just free */
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(mr_addr_numeric(&addr, mr_slice_of("127.0.0.1"), 0));
    assert_int_equal(bind(fd, &addr.sa.any, addr.len), 0);
    assert_int_equal(getsockname(fd, &bound.sa.any, &bound.len), 0);
    o->peer = -1;
    if (mr_stream_connect(&o->stream, &loop, &OPS, &bound, &err) == MR_OK) {
        if (filtered)
            insert_identity(&o->stream);
        mr_stream_write(&o->stream, "queued", 6);
        for (int i = 0; i < 10 && o->closes == 0; i++)
            mr_loop_turn(&loop, 100);
        assert_int_equal(o->closes, 1);
        assert_int_equal(o->error, ECONNREFUSED);
    } else {
        assert_int_equal(err.sys, ECONNREFUSED);
    }
    assert_int_equal(o->opens, 0);
    close(fd);
    free(o);
}

static void connects_and_sends_what_waited(void **state)
{
    struct owner *o = calloc(1, sizeof(*o));
    struct mr_addr addr, bound = {.len = sizeof(bound.sa)};
    struct mr_error err;
    char got[8];

    (void)state;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(mr_addr_numeric(&addr, mr_slice_of("127.0.0.1"), 0));
    assert_int_equal(bind(listener, &addr.sa.any, addr.len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, &bound.sa.any, &bound.len), 0);
    o->take = 1;
    o->seen = malloc(16);
    assert_int_equal(mr_stream_connect(&o->stream, &loop, &OPS, &bound, &err), MR_OK);
    if (filtered)
        insert_identity(&o->stream);
    assert_false(mr_stream_is_open(&o->stream));
    mr_stream_write(&o->stream, "early", 5);
    o->peer = accept(listener, NULL, NULL);
    for (int i = 0; i < 10 && o->opens == 0; i++)
        mr_loop_turn(&loop, 100);
    assert_int_equal(o->opens, 1);
    settle();
    assert_int_equal(read(o->peer, got, sizeof(got)), 5);
    assert_memory_equal(got, "early", 5);
    close(listener);
    free_owner(o);
}

/* ---- a filter that changes the bytes ---- */

/*
 * Input comes as a digit and that many bytes, masked; output is masked. `/` ends the filter: what
 * follows passes as it is.
 */
struct masking {
    struct mr_filter filter;
    char held[16];
    size_t n_held;
    bool released;
};

static struct masking masking;

static void mask(char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] ^= 0x20;
}

static void masking_on_connect(struct mr_filter *f, struct mr_stream *s)
{
    (void)f;
    mr_filter_send(s, "hello?", 6);
}

static void masking_on_receive(struct mr_filter *f, struct mr_stream *s, char *bytes, size_t len,
                               size_t headroom)
{
    struct masking *m = MR_CONTAINER_OF(f, struct masking, filter);

    for (size_t i = 0; i < len; i++) {
        if (m->n_held == 0 && bytes[i] == '/') {
            mr_filter_remove(f, s);
            mr_filter_deliver(s, bytes + i + 1, len - i - 1, headroom);
            return;
        }
        if (m->n_held == 0 && bytes[i] == '!') {
            mr_filter_opened(s);
            continue;
        }
        m->held[m->n_held++] = bytes[i];
        if (m->n_held < (size_t)(m->held[0] - '0') + 1)
            continue;
        mask(m->held + 1, m->n_held - 1);
        mr_filter_deliver(s, m->held + 1, m->n_held - 1, 1);
        m->n_held = 0;
    }
}

static void masking_on_write(struct mr_filter *f, struct mr_stream *s, const char *bytes,
                             size_t len)
{
    char *copy = malloc(len);

    (void)f;
    memcpy(copy, bytes, len);
    mask(copy, len);
    mr_filter_send(s, copy, len);
    free(copy);
}

static void masking_on_finish(struct mr_filter *f, struct mr_stream *s)
{
    (void)f;
    mr_filter_send(s, "bye", 3);
}

static bool masking_is_tied(const struct mr_filter *f)
{
    return MR_CONTAINER_OF(f, struct masking, filter)->n_held > 0;
}

static void masking_on_release(struct mr_filter *f, struct mr_stream *s)
{
    struct masking *m = MR_CONTAINER_OF(f, struct masking, filter);

    (void)s;
    assert_false(m->released);
    m->released = true;
}

static const struct mr_filter_ops MASKING = {.on_connect = masking_on_connect,
                                             .on_receive = masking_on_receive,
                                             .on_write = masking_on_write,
                                             .on_finish = masking_on_finish,
                                             .is_tied = masking_is_tied,
                                             .on_release = masking_on_release};

static void insert_masking(struct owner *o)
{
    masking = (struct masking){0};
    mr_filter_insert(&masking.filter, &MASKING, &o->stream);
}

static void a_filter_changes_bytes_both_ways(void **state)
{
    static char big[100000], got[sizeof(big) + 8];
    size_t n = 0;

    (void)state;
    filtered = false;
    struct owner *o = open_owner(2);
    insert_masking(o);
    peer_writes(o, "3AB", 3);
    settle();
    assert_int_equal(o->n_seen, 0);
    assert_true(mr_stream_is_tied(&o->stream));
    peer_writes(o, "C1D2E", 5);
    settle();
    assert_int_equal(o->n_seen, 4); /* the owner's remainder is joined as ever */
    assert_memory_equal(o->seen, "abcd", 4);
    peer_writes(o, "F", 1);
    settle();
    assert_false(mr_stream_is_tied(&o->stream));
    assert_memory_equal(o->seen, "abcdef", 6);
    memset(big, 'x', sizeof(big));
    mr_stream_write(&o->stream, big, sizeof(big));
    mr_stream_finish(&o->stream);
    for (int i = 0; i < 100 && n < sizeof(big) + 3; i++) {
        mr_loop_turn(&loop, 10);
        n += peer_reads(o, got + n, sizeof(got) - n);
    }
    mask(big, sizeof(big));
    assert_int_equal(n, sizeof(big) + 3);
    assert_memory_equal(got, big, sizeof(big));
    assert_memory_equal(got + sizeof(big), "bye", 3);
    assert_false(masking.released);
    free_owner(o);
    assert_true(masking.released);
}

static void output_from_another_process_has_passed_the_filter(void **state)
{
    char got[16];

    (void)state;
    filtered = false;
    struct owner *o = open_owner(1);
    insert_masking(o);
    mr_stream_restore(&o->stream, mr_slice_of("ab"), mr_slice_of("XY"));
    settle();
    assert_memory_equal(o->seen, "ab", 2);
    assert_int_equal(peer_reads(o, got, sizeof(got)), 2);
    assert_memory_equal(got, "XY", 2);
    free_owner(o);
}

static void a_filter_may_end(void **state)
{
    char got[4];

    (void)state;
    filtered = false;
    struct owner *o = open_owner(1);
    insert_masking(o);
    peer_writes(o, "1A/BC", 5);
    settle();
    assert_true(masking.released);
    assert_int_equal(o->n_seen, 3);
    assert_memory_equal(o->seen, "aBC", 3);
    mr_stream_write(&o->stream, "D", 1);
    settle();
    assert_int_equal(peer_reads(o, got, sizeof(got)), 1);
    assert_memory_equal(got, "D", 1);
    free_owner(o);
}

/* As a handshake does. */
static void a_filter_says_when_the_stream_is_open(void **state)
{
    struct owner *o = calloc(1, sizeof(*o));
    struct mr_addr addr, bound = {.len = sizeof(bound.sa)};
    struct mr_error err;
    char got[8];

    (void)state;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(mr_addr_numeric(&addr, mr_slice_of("127.0.0.1"), 0));
    assert_int_equal(bind(listener, &addr.sa.any, addr.len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, &bound.sa.any, &bound.len), 0);
    o->take = 1;
    o->seen = malloc(16);
    assert_int_equal(mr_stream_connect(&o->stream, &loop, &OPS, &bound, &err), MR_OK);
    insert_masking(o);
    o->peer = accept(listener, NULL, NULL);
    settle();
    assert_int_equal(read(o->peer, got, sizeof(got)), 6);
    assert_memory_equal(got, "hello?", 6);
    assert_int_equal(o->opens, 0);
    peer_writes(o, "!", 1);
    settle();
    assert_int_equal(o->opens, 1);
    close(listener);
    free_owner(o);
}

static int setup(void **state)
{
    struct mr_error err;

    (void)state;
    return mr_loop_init(&loop, test_engine(), &err) == MR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(loop.slab.used_bytes, 0);
    mr_loop_fini(&loop);
    return 0;
}

static int setup_filtered(void **state)
{
    filtered = true;
    return setup(state);
}

/* Every byte went through filters, and every filter is gone. */
static int teardown_filtered(void **state)
{
    assert_true(identity_bytes > 1000000);
    assert_int_equal(identities, 0);
    return teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(keeps_the_remainder),
        T(any_remainder_comes_again),
        T(waits_for_what_is_wanted),
        T(pauses_and_resumes),
        T(writes_in_order_whatever_the_size),
        T(takes_over_what_it_is_given),
        T(room_is_told_of_however_output_leaves),
        T(every_byte_counts_as_activity),
        T(rests_and_wakes),
        T(a_failed_send_is_told_once),
        T(eof_then_writing_still_works),
        T(an_end_leaves_the_other_direction_open),
        T(a_hang_up_waits_for_what_is_unread),
        T(finish_flushes_and_waits_for_the_peer),
        T(a_dead_peer_closes_once),
        T(a_paused_stream_notices_a_dead_peer),
        T(a_paused_stream_stays_listened_to),
        T(a_corked_stream_waits_for_no_room),
        T(what_came_before_the_end_is_presented),
        T(refused_connects_are_told),
        T(connects_and_sends_what_waited),
    };
    const struct CMUnitTest filters[] = {
        T(a_filter_changes_bytes_both_ways),
        T(output_from_another_process_has_passed_the_filter),
        T(a_filter_may_end),
        T(a_filter_says_when_the_stream_is_open),
    };
    int failed = cmocka_run_group_tests_name("plain", tests, setup, teardown);
    failed += cmocka_run_group_tests_name("filtered", tests, setup_filtered, teardown_filtered);
    return failed + cmocka_run_group_tests_name("filters", filters, setup, teardown);
}
