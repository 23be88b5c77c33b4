/*
 * engine_uring.c - io_uring: multishot receive and accept, sends batched with the wait.
 *
 * A turn costs one system call, which submits what the last turn wrote and waits for completions.
 * Every stream has a multishot receive that takes buffers from one shared ring. A buffer returns to
 * the ring once the owner has seen the bytes, so idle connections own none. Sends are non-blocking,
 * so they are complete when the submitting call returns. Only failed or short sends post a
 * completion; otherwise every successful send would wake the loop.
 */
#include "core/clock.h"
#include "net/engine.h"
#include "net/loop.h"
#include "net/stream_engine.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef ENTRIES           /* smaller in tests */
#define ENTRIES     1024u /* submissions per call */
#define COMPLETIONS 8192u
#define BUFFERS     256u /* a power of two */
#endif
#define BUFFER_BYTES 16384u
#define HEADROOM     1024u /* before each buffer, for an unfinished remainder */
#define COLOUR_BYTES 64u   /* starts buffers at different cache sets */
#define COLOURS      16u
#define STRIDE       (HEADROOM + BUFFER_BYTES + COLOURS * COLOUR_BYTES)
#define GROUP        1
#define MIN_KERNEL   "6.1"
#define KIND_MASK    7u
#define MIN_ARRIVED  256u

/* Kind of a completion, in the low bits of its user data; the rest is a pointer. */
enum kind { NOTHING, RECV, POLL, SEND, WATCH, RECV_CANCEL, POLL_CANCEL, WATCH_CANCEL };

/* Our bits of stream->flags. */
enum {
    RECEIVING = 1 << MR_STREAM_ENGINE_SHIFT,
    RECV_CANCELLED = 1 << (MR_STREAM_ENGINE_SHIFT + 1),
    POLLING = 1 << (MR_STREAM_ENGINE_SHIFT + 2),
    POLL_CANCELLED = 1 << (MR_STREAM_ENGINE_SHIFT + 3),
    FOR_HANGUP = 1 << (MR_STREAM_ENGINE_SHIFT + 4), /* polls for a hang-up, not for output */
};

/*
 * Output being sent; the stream may queue more meanwhile. Lives until finish_sends, which runs
 * after every submission and after the ring was emptied, so no completion can refer to it any more.
 */
struct send_op {
    struct send_op *next; /* in submission order */
    struct mr_stream *stream;
    struct mr_buf bytes;
    int32_t res; /* bytes sent, or -errno */
};

/* Outlives a stopped watch until the kernel has finished its request. */
struct watch_op {
    struct mr_watch *watch;
    bool in_flight;
    bool cancelling;
};

struct completion {
    uint64_t data;
    int32_t res;
    uint32_t flags;
};

struct state {
    struct io_uring ring;
    struct io_uring_buf_ring *buffers;
    char *memory;
    struct send_op *sends; /* submitted since the last wait */
    struct send_op **last_send;
    struct completion *arrived; /* completions from the ring, in order; never sends */
    uint32_t n_arrived, arrived_cap;
    uint32_t delivered; /* how many of `arrived` */
};

static struct state *state_of(struct mr_loop *loop)
{
    return loop->engine_state;
}

static void *pointer_of(uint64_t data)
{
    return (void *)(uintptr_t)(data & ~(uint64_t)KIND_MASK);
}

static void put_arrived(struct state *st, const struct io_uring_cqe *cqe)
{
    if (MR_UNLIKELY(st->n_arrived == st->arrived_cap)) {
        st->arrived_cap = st->arrived_cap * 2 + MIN_ARRIVED;
        st->arrived = realloc(st->arrived, st->arrived_cap * sizeof(*st->arrived));
        MR_CHECK(st->arrived != NULL);
    }
    st->arrived[st->n_arrived++] = (struct completion){cqe->user_data, cqe->res, cqe->flags};
}

/*
 * The only place that takes completions from the ring. Failed sends are recorded at once, while
 * their send_op is certain to exist; all others are queued for delivery.
 */
static void empty_ring(struct state *st)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&st->ring, &cqe) == 0) {
        if ((cqe->user_data & KIND_MASK) == SEND)
            ((struct send_op *)pointer_of(cqe->user_data))->res = cqe->res;
        else
            put_arrived(st, cqe);
        io_uring_cqe_seen(&st->ring, cqe);
    }
}

/* Takes every completion, including those that overflowed the ring. */
static void take_all(struct state *st)
{
    empty_ring(st);
    while (MR_UNLIKELY(io_uring_cq_has_overflow(&st->ring))) {
        (void)io_uring_get_events(&st->ring);
        empty_ring(st);
    }
}

/* The kernel refuses submissions while completions overflow the ring, so make room. */
static void submit(struct state *st)
{
    const int rc = io_uring_submit(&st->ring);

    MR_CHECK(rc >= 0 || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN);
    if (rc < 0)
        take_all(st);
}

static struct io_uring_sqe *next_sqe(struct state *st)
{
    struct io_uring_sqe *sqe;

    while ((sqe = io_uring_get_sqe(&st->ring)) == NULL)
        submit(st);
    return sqe;
}

static void set_data(struct io_uring_sqe *sqe, void *ptr, enum kind kind)
{
    sqe->user_data = (uint64_t)(uintptr_t)ptr | kind;
}

/* ---- set-up ---- */

static char *buffer_at(const struct state *st, uint32_t id)
{
    return st->memory + (size_t)id * STRIDE + HEADROOM + (size_t)(id % COLOURS) * COLOUR_BYTES;
}

static void give_back(struct state *st, uint32_t id)
{
    io_uring_buf_ring_add(st->buffers, buffer_at(st, id), BUFFER_BYTES, (uint16_t)id,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(st->buffers, 1);
}

static void *map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

static size_t ring_bytes(void)
{
    return BUFFERS * sizeof(struct io_uring_buf);
}

static enum mr_result set_up_buffers(struct state *st, struct mr_error *err)
{
    st->buffers = map(ring_bytes());
    st->memory = map((size_t)BUFFERS * STRIDE);
    if (st->buffers == NULL || st->memory == NULL)
        return mr_fail_sys(err, "memory for the receive buffers of io_uring");
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)st->buffers, .ring_entries = BUFFERS, .bgid = GROUP};
    const int rc = io_uring_register_buf_ring(&st->ring, &reg, 0);
    if (rc < 0) {
        errno = -rc;
        return mr_fail_sys(err, "io_uring receive buffers");
    }
    io_uring_buf_ring_init(st->buffers);
    for (uint32_t i = 0; i < BUFFERS; i++)
        give_back(st, i);
    return MR_OK;
}

static void free_state(struct state *st)
{
    if (st->buffers != NULL)
        (void)munmap(st->buffers, ring_bytes());
    if (st->memory != NULL)
        (void)munmap(st->memory, (size_t)BUFFERS * STRIDE);
    free(st->arrived);
    free(st);
}

static enum mr_result init(struct mr_loop *loop, struct mr_error *err)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
                                              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP,
                                     .cq_entries = COMPLETIONS};
    struct state *st = calloc(1, sizeof(*st));

    MR_CHECK(st != NULL);
    st->last_send = &st->sends;
    const int rc = io_uring_queue_init_params(ENTRIES, &st->ring, &params);
    if (rc < 0) {
        free_state(st);
        errno = -rc;
        return rc == -EINVAL ? mr_fail(err, MR_ESYS, "io_uring needs Linux " MIN_KERNEL)
                             : mr_fail_sys(err, "io_uring_setup");
    }
    const enum mr_result done = set_up_buffers(st, err);
    if (done != MR_OK) {
        io_uring_queue_exit(&st->ring);
        free_state(st);
        return done;
    }
    loop->engine_state = st;
    return MR_OK;
}

static void fini(struct mr_loop *loop)
{
    struct state *st = state_of(loop);

    submit(st); /* sockets to be closed */
    io_uring_queue_exit(&st->ring);
    free_state(st);
}

/* ---- streams ---- */

static void start_receiving(struct state *st, struct mr_stream *s)
{
    struct io_uring_sqe *sqe = next_sqe(st);

    io_uring_prep_recv_multishot(sqe, s->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    set_data(sqe, s, RECV);
    s->flags |= RECEIVING;
}

static void start_polling(struct state *st, struct mr_stream *s, unsigned events)
{
    struct io_uring_sqe *sqe = next_sqe(st);

    io_uring_prep_poll_add(sqe, s->fd, events);
    set_data(sqe, s, POLL);
    s->flags |= events == 0 ? POLLING | FOR_HANGUP : POLLING;
}

/*
 * Requests a cancellation, whose result arrives with kind `outcome`. It may miss: a multishot
 * request that is just being served is briefly neither waiting nor done. The handler then tries
 * again; until it succeeds nothing may be freed.
 */
static void cancel(struct state *st, void *ptr, enum kind kind, enum kind outcome)
{
    struct io_uring_sqe *sqe = next_sqe(st);

    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)ptr | kind, 0);
    set_data(sqe, ptr, outcome);
}

static void stop_receiving(struct state *st, struct mr_stream *s)
{
    if ((s->flags & (RECEIVING | RECV_CANCELLED)) != RECEIVING)
        return;
    s->flags |= RECV_CANCELLED;
    cancel(st, s, RECV, RECV_CANCEL);
}

static void stop_polling(struct state *st, struct mr_stream *s)
{
    if ((s->flags & (POLLING | POLL_CANCELLED)) != POLLING)
        return;
    s->flags |= POLL_CANCELLED;
    cancel(st, s, POLL, POLL_CANCEL);
}

/* True for a paused stream without a pending request: nothing would report the peer's hang-up. */
static bool is_deaf(const struct mr_stream *s)
{
    return !(s->flags & (RECEIVING | RECV_CANCELLED | POLLING | POLL_CANCELLED)) &&
           !mr_stream_wants_read(s) && !mr_stream_has_ended(s) && !mr_stream_is_resting(s) &&
           !mr_stream_is_closed(s);
}

/*
 * Starts what the stream wants. Without interest in input it polls for a hang-up. A receive that is
 * no longer wanted is cancelled only when it next delivers, because most streams resume before
 * that.
 */
static void update(struct mr_loop *loop, struct mr_stream *s)
{
    struct state *st = state_of(loop);

    if (mr_stream_wants_read(s) && !(s->flags & (RECEIVING | RECV_CANCELLED)))
        start_receiving(st, s);
    if (mr_stream_wants_write(s) && !(s->flags & (POLLING | POLL_CANCELLED)))
        start_polling(st, s, POLLOUT);
    else if (mr_stream_wants_write(s) && s->flags & FOR_HANGUP)
        stop_polling(st, s); /* its completion starts the poll for output */
    else if (is_deaf(s))
        start_polling(st, s, 0);
}

static bool in_flight(const struct mr_stream *s)
{
    return s->flags & (RECEIVING | RECV_CANCELLED | POLLING | POLL_CANCELLED) || s->sending > 0;
}

static bool rest(struct mr_loop *loop, struct mr_stream *s, bool first)
{
    struct state *st = state_of(loop);

    if (first) { /* if a cancel misses, its handler repeats it */
        stop_receiving(st, s);
        stop_polling(st, s);
    }
    return !in_flight(s);
}

/* Releases a closed stream once the kernel has answered all its requests. */
static void let_go(struct state *st, struct mr_stream *s)
{
    if (in_flight(s) || s->fd < 0)
        return;
    struct io_uring_sqe *sqe = next_sqe(st);
    io_uring_prep_close(sqe, s->fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    set_data(sqe, NULL, NOTHING);
    mr_stream_released(s);
}

static void release(struct mr_loop *loop, struct mr_stream *s)
{
    struct state *st = state_of(loop);

    stop_receiving(st, s);
    stop_polling(st, s);
    let_go(st, s);
}

static void send_output(struct mr_loop *loop, struct mr_stream *s)
{
    struct state *st = state_of(loop);

    if (mr_stream_is_finishing(s)) { /* shutdown must follow the last byte in the same turn */
        mr_stream_send_now(s);
        if (mr_stream_wants_write(s))
            update(loop, s);
        return;
    }
    struct send_op *op = mr_slab_get(&loop->slab, sizeof(*op));
    op->next = NULL;
    op->stream = s;
    mr_stream_sending(s, &op->bytes);
    const struct mr_slice bytes = mr_buf_slice(&op->bytes);
    op->res = (int32_t)bytes.len;
    *st->last_send = op;
    st->last_send = &op->next;
    struct io_uring_sqe *sqe = next_sqe(st);
    /* with WAITALL a short send counts as a failure, and only failures post completions */
    io_uring_prep_send(sqe, s->fd, bytes.at, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_WAITALL);
    if (!mr_stream_awaits_sent(s)) /* otherwise its completion must end the wait */
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    set_data(sqe, op, SEND);
}

static void on_sent(struct mr_loop *loop, struct send_op *op)
{
    struct mr_stream *s = op->stream;

    mr_stream_sent(s, &op->bytes, op->res);
    if (mr_stream_is_closed(s))
        let_go(state_of(loop), s);
    else if (mr_stream_wants_write(s))
        update(loop, s);
}

/* Runs after everything was submitted and the ring was emptied, so every send is complete. */
static void finish_sends(struct mr_loop *loop)
{
    struct state *st = state_of(loop);

    while (st->sends != NULL) {
        struct send_op *op = st->sends;
        st->sends = op->next;
        on_sent(loop, op);
        mr_slab_put(&loop->slab, op, sizeof(*op));
    }
    st->last_send = &st->sends;
}

/* Only without interest in input; a receive reports pending bytes first, then the end. */
static bool tells_of_hangup(const struct mr_stream *s, int events)
{
    return events & (POLLERR | POLLHUP) /* also set for a half-close */
           && !mr_stream_wants_read(s);
}

static void on_polled(struct mr_loop *loop, struct mr_stream *s, int events)
{
    const bool for_hangup = s->flags & FOR_HANGUP;

    s->flags &= (uint32_t) ~(POLLING | FOR_HANGUP);
    if (!mr_stream_is_closed(s) && events > 0) {
        if (for_hangup && tells_of_hangup(s, events))
            mr_stream_hung_up(s);
        else if (!for_hangup && mr_stream_wants_write(s))
            mr_stream_writable(s);
    }
    if (mr_stream_is_closed(s))
        let_go(state_of(loop), s);
    else if (events <= 0 || for_hangup == mr_stream_wants_write(s))
        update(loop, s);
}

static void on_received(struct mr_loop *loop, struct mr_stream *s, const struct completion *c)
{
    struct state *st = state_of(loop);

    if (!(c->flags & IORING_CQE_F_MORE))
        s->flags &= (uint32_t)~RECEIVING;
    if (c->flags & IORING_CQE_F_BUFFER) {
        const uint32_t id = c->flags >> IORING_CQE_BUFFER_SHIFT;
        if (c->res > 0)
            mr_stream_deliver(s, buffer_at(st, id), (size_t)c->res, HEADROOM);
        give_back(st, id);
    }
    if (c->res == 0)
        mr_stream_peer_gone(s, 0);
    else if (c->res < 0 && c->res != -ENOBUFS && c->res != -ECANCELED && c->res != -EINTR &&
             c->res != -EAGAIN)
        mr_stream_peer_gone(s, -c->res);
    if (mr_stream_is_closed(s)) {
        let_go(st, s);
        return;
    }
    if (!mr_stream_wants_read(s))
        stop_receiving(st, s);
    update(loop, s);
}

/* Result of a cancel. A request still there and still unwanted is cancelled again. */
static void on_recv_cancel(struct mr_loop *loop, struct mr_stream *s, int res)
{
    struct state *st = state_of(loop);

    s->flags &= (uint32_t)~RECV_CANCELLED;
    if (res < 0 && !mr_stream_wants_read(s))
        stop_receiving(st, s);
    if (mr_stream_is_closed(s))
        let_go(st, s);
    else
        update(loop, s);
}

static void on_poll_cancel(struct mr_loop *loop, struct mr_stream *s, int res)
{
    struct state *st = state_of(loop);

    s->flags &= (uint32_t)~POLL_CANCELLED;
    if (res < 0 && (mr_stream_is_closed(s) || mr_stream_is_resting(s)))
        stop_polling(st, s);
    if (mr_stream_is_closed(s))
        let_go(st, s);
    else
        update(loop, s);
}

/* ---- watches ---- */

/*
 * A multishot accept stays first in the wait queue of a shared socket and would take every
 * connection; polls that are re-armed each time take turns.
 */
static bool accepts_itself(const struct mr_watch *w)
{
    return w->on_accept != NULL && !w->exclusive;
}

static void start_watching(struct state *st, struct watch_op *op)
{
    const struct mr_watch *w = op->watch;
    struct io_uring_sqe *sqe = next_sqe(st);

    if (accepts_itself(w))
        io_uring_prep_multishot_accept(sqe, w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    else
        io_uring_prep_poll_add(sqe, w->fd, POLLIN | (w->exclusive ? (unsigned)EPOLLEXCLUSIVE : 0));
    set_data(sqe, op, WATCH);
    op->in_flight = true;
}

static void watch(struct mr_loop *loop, struct mr_watch *w)
{
    struct watch_op *op = mr_slab_get(&loop->slab, sizeof(*op));

    op->watch = w;
    op->cancelling = false;
    w->engine_op = op;
    start_watching(state_of(loop), op);
}

static void on_watch(struct state *st, struct watch_op *op, const struct completion *c)
{
    struct mr_watch *w = op->watch;

    op->in_flight = c->flags & IORING_CQE_F_MORE;
    if (accepts_itself(w)) {
        if (c->res != -ECANCELED)
            w->on_accept(w, c->res);
    } else if (w->active) {
        w->on_ready(w);
    }
    if (w->active && w->engine_op == op && !op->in_flight)
        start_watching(st, op);
}

/* Handles a completion that belongs to `op`; false if it belongs to something else. */
static bool take_for(struct state *st, struct watch_op *op, const struct completion *c)
{
    if (c->data == ((uint64_t)(uintptr_t)op | WATCH))
        on_watch(st, op, c);
    else if (c->data == ((uint64_t)(uintptr_t)op | WATCH_CANCEL))
        op->cancelling = false;
    else
        return false;
    return true;
}

/* Handles all queued completions of `op`, in order. */
static void deliver_for(struct state *st, struct watch_op *op)
{
    for (uint32_t i = st->delivered; i < st->n_arrived; i++) {
        const struct completion c = st->arrived[i]; /* copied: the array may grow and move */
        if (take_for(st, op, &c))
            st->arrived[i].data = NOTHING;
    }
}

/*
 * Waits until the kernel is done with the watch. This is rare, and the owner frees it afterwards.
 */
static void unwatch(struct mr_loop *loop, struct mr_watch *w)
{
    struct state *st = state_of(loop);
    struct watch_op *op = w->engine_op;

    w->engine_op = NULL;
    deliver_for(st, op);
    while (op->in_flight || op->cancelling) {
        if (!op->cancelling)
            cancel(st, op, WATCH, WATCH_CANCEL);
        op->cancelling = true;
        (void)io_uring_submit_and_wait(&st->ring, 1);
        take_all(st);
        deliver_for(st, op);
    }
    mr_slab_put(&loop->slab, op, sizeof(*op));
}

/* ---- the turn ---- */

static void handle(struct mr_loop *loop, const struct completion *c)
{
    void *ptr = pointer_of(c->data);

    switch ((enum kind)(c->data & KIND_MASK)) {
    case NOTHING:
    case SEND: /* see empty_ring */
        break;
    case RECV:
        on_received(loop, ptr, c);
        break;
    case POLL:
        on_polled(loop, ptr, c->res);
        break;
    case WATCH:
        on_watch(state_of(loop), ptr, c);
        break;
    case WATCH_CANCEL: /* handled inside unwatch */
        break;
    case RECV_CANCEL:
        on_recv_cancel(loop, ptr, c->res);
        break;
    case POLL_CANCEL:
        on_poll_cancel(loop, ptr, c->res);
        break;
    }
}

static void submit_and_wait(struct state *st, int64_t timeout_us)
{
    struct __kernel_timespec ts = {.tv_sec = timeout_us / 1000000,
                                   .tv_nsec = timeout_us % 1000000 * 1000};
    struct io_uring_cqe *cqe;
    int rc;

    /*
     * If completions are ready, liburing would skip the system call, but completions of cancelled
     * requests need one.
     */
    if (timeout_us == 0 || io_uring_cq_ready(&st->ring) > 0)
        rc = io_uring_submit_and_get_events(&st->ring);
    else if (timeout_us < 0)
        rc = io_uring_submit_and_wait(&st->ring, 1);
    else
        rc = io_uring_submit_and_wait_timeout(&st->ring, &cqe, 1, &ts, NULL);
    MR_CHECK(rc >= 0 || rc == -EINTR || rc == -ETIME || rc == -EBUSY || rc == -EAGAIN);
    while (io_uring_sq_ready(&st->ring) > 0) /* interrupted, or the ring was full */
        submit(st);
    take_all(st);
}

/* Completions that arrive while this runs wait for the next turn, so that the turn ends. */
static void deliver(struct mr_loop *loop)
{
    struct state *st = state_of(loop);
    const uint32_t n = st->n_arrived;

    while (st->delivered < n) {
        const struct completion c = st->arrived[st->delivered++]; /* copied: the array may move */
        handle(loop, &c);
    }
    st->n_arrived -= n;
    if (MR_UNLIKELY(st->n_arrived > 0))
        memmove(st->arrived, st->arrived + n, st->n_arrived * sizeof(*st->arrived));
    st->delivered = 0;
}

static bool undelivered(const struct mr_loop *loop)
{
    const struct state *st = loop->engine_state;

    return st->n_arrived > st->delivered || io_uring_cq_ready(&st->ring) > 0;
}

static void wait_and_deliver(struct mr_loop *loop, int64_t timeout_us)
{
    struct state *st = state_of(loop);

    /* a closed stream may be waiting only for a send, and a successful send does not end a wait */
    const bool waits = st->n_arrived == 0 && loop->n_releasing == 0 && !loop->sends_matter;
    loop->sends_matter = false;
    submit_and_wait(st, waits ? timeout_us : 0);
    loop->now_us = mr_clock_mono_us();
    finish_sends(loop);
    loop->n_events = st->n_arrived;
    deliver(loop);
}

const struct mr_engine MR_ENGINE_URING = {
    .name = "io_uring",
    .init = init,
    .fini = fini,
    .add = update,
    .update = update,
    .release = release,
    .rest = rest,
    .send = send_output,
    .watch = watch,
    .unwatch = unwatch,
    .undelivered = undelivered,
    .wait = wait_and_deliver,
};
