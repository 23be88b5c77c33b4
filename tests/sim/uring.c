/*
 * uring.c - io_uring over simulated files, as far as the engine uses it.
 *
 * Kernel rules that matter: requests start in the order of submission. With DEFER_TASKRUN, waiting
 * requests are served only when the process enters the kernel to get completions. A multishot
 * request may end at any time. A cancel may come too late, or meet a request that is just being
 * served and is not found. A close drops the descriptor while requests still hold the file.
 * Completions without room in the ring arrive with a later call.
 */
#include "fake/liburing.h"
#include "kernel_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RINGS       64u
#define BURST       8u /* maximum consecutive pieces from a multishot request */
#define BUFFERS_MAX 1024u
#define END_SHOT    24u /* a multishot request ends once in this many completions */
#define MISSED      3u  /* one in this many cancels misses a request that is ready */
#define SQ_MAX      1024u

struct request {
    struct request *next;
    uint8_t op;
    struct sim_file *file;
    uint64_t data;
    uint32_t events; /* for a poll */
    bool exclusive, announced;
};

struct sim_ring {
    struct io_uring_sqe sq[SQ_MAX];
    uint32_t sq_head, sq_tail, sq_size;
    struct io_uring_cqe *cq; /* those that are ready, then the overflow */
    uint32_t cq_at, cq_n, cq_room, cq_size;
    struct request *requests; /* waiting requests */
    struct io_uring_buf buffers[BUFFERS_MAX];
    uint32_t buf_head, buf_added, buf_tail; /* the kernel's between head and tail */
    uint32_t buf_mask;
    const struct io_uring_buf_ring *buf_ring;
    uint32_t visible; /* number in the ring; the rest overflowed */
    uint32_t process;
    bool dead;
};

static struct sim_ring *all[RINGS];
static uint32_t n_all;

/* ---- completions ---- */

/* What is in the ring stays; the overflow waits for the next call. */
static void flush_overflow(struct sim_ring *r)
{
    const uint32_t n = r->cq_n - r->cq_at;

    r->visible = n < r->cq_size ? n : r->cq_size;
}

static void complete(struct sim_ring *r, uint64_t data, int32_t res, uint32_t flags)
{
    if (r->cq_n == r->cq_room) {
        if (r->cq_at > 0) {
            memmove(r->cq, r->cq + r->cq_at, (r->cq_n - r->cq_at) * sizeof(*r->cq));
            r->cq_n -= r->cq_at;
            r->cq_at = 0;
        } else {
            r->cq_room = r->cq_room * 2 + 64;
            r->cq = realloc(r->cq, r->cq_room * sizeof(*r->cq));
            MR_CHECK(r->cq != NULL);
        }
    }
    const bool overflown = r->visible < r->cq_n - r->cq_at;
    struct io_uring_cqe *cqe = &r->cq[r->cq_n++];
    cqe->user_data = data;
    cqe->res = res;
    cqe->flags = flags;
    if (!overflown && r->visible < r->cq_size)
        r->visible++;
}

unsigned io_uring_cq_ready(const struct io_uring *ring)
{
    return ring->ring->visible;
}

bool io_uring_cq_has_overflow(const struct io_uring *ring)
{
    return ring->ring->cq_n - ring->ring->cq_at > ring->ring->visible;
}

struct io_uring_cqe *sim_ring_cqe(const struct io_uring *ring, unsigned i)
{
    const struct sim_ring *r = ring->ring;

    return i < r->visible ? &r->cq[r->cq_at + i] : NULL;
}

int io_uring_peek_cqe(struct io_uring *ring, struct io_uring_cqe **cqe)
{
    *cqe = sim_ring_cqe(ring, 0);
    return *cqe != NULL ? 0 : -EAGAIN;
}

void io_uring_cqe_seen(struct io_uring *ring, struct io_uring_cqe *cqe)
{
    (void)cqe;
    ring->ring->cq_at++;
    ring->ring->visible--;
}

/* ---- buffers ---- */

int io_uring_register_buf_ring(struct io_uring *ring, struct io_uring_buf_reg *reg, unsigned flags)
{
    (void)flags;
    MR_CHECK(reg->ring_entries <= BUFFERS_MAX);
    ring->ring->buf_mask = reg->ring_entries - 1;
    memcpy(&ring->ring->buf_ring, &reg->ring_addr, sizeof(ring->ring->buf_ring));
    return 0;
}

static struct sim_ring *ring_of(const struct io_uring_buf_ring *br)
{
    for (uint32_t i = 0; i < n_all; i++)
        if (all[i]->buf_ring == br)
            return all[i];
    MR_BUG("buffers of no ring");
}

void io_uring_buf_ring_init(struct io_uring_buf_ring *br)
{
    struct sim_ring *r = ring_of(br);

    r->buf_head = r->buf_tail = 0;
}

int io_uring_buf_ring_mask(uint32_t entries)
{
    return (int)entries - 1;
}

void io_uring_buf_ring_add(struct io_uring_buf_ring *br, void *at, unsigned len, uint16_t id,
                           int mask, int offset)
{
    struct sim_ring *r = ring_of(br);
    struct io_uring_buf *buf = &r->buffers[(r->buf_tail + (uint32_t)offset) & (uint32_t)mask];

    buf->addr = (uint64_t)(uintptr_t)at;
    buf->len = len;
    buf->bid = id;
}

void io_uring_buf_ring_advance(struct io_uring_buf_ring *br, int n)
{
    struct sim_ring *r = ring_of(br);

    r->buf_tail += (uint32_t)n;
    SIM_CHECK(r->buf_tail - r->buf_head <= r->buf_mask + 1, "a buffer was given back twice");
}

/* ---- serving requests ---- */

/* Receives one piece; false if the request must wait. *over: it ends. */
static bool receive(struct sim_ring *r, struct request *q, bool *over)
{
    const struct io_uring_buf *buf = &r->buffers[r->buf_head & r->buf_mask];

    if (!(sim_file_events(q->file) & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        return false;
    if (r->buf_head == r->buf_tail) {
        complete(r, q->data, -ENOBUFS, 0);
        *over = true;
        return true;
    }
    ssize_t n = 0;
    if (q->file->kind == SIM_STREAM)
        do /* only blocking calls are interrupted */
            n = sim_stream_recv(q->file->object, (void *)(uintptr_t)buf->addr, buf->len);
        while (n == -EINTR);
    if (n == -EAGAIN)
        return false;
    *over = n <= 0 || sim_once_in(END_SHOT);
    uint32_t flags = *over ? 0 : IORING_CQE_F_MORE;
    if (n > 0) {
        flags |= IORING_CQE_F_BUFFER | (uint32_t)buf->bid << IORING_CQE_BUFFER_SHIFT;
        r->buf_head++;
    }
    complete(r, q->data, (int32_t)n, flags);
    return true;
}

static bool accept_one(struct sim_ring *r, struct request *q, bool *over)
{
    int fd;

    do
        fd = sim_listener_accept(q->file);
    while (fd == -EINTR);
    if (fd == -EAGAIN)
        return false;
    *over = fd < 0 || sim_once_in(END_SHOT);
    complete(r, q->data, fd, *over ? 0 : IORING_CQE_F_MORE);
    return true;
}

static bool poll_one(struct sim_ring *r, struct request *q, bool *over)
{
    const uint32_t events = sim_file_events(q->file) & (q->events | EPOLLERR | EPOLLHUP);

    if (events == 0) {
        q->announced = false;
        return false;
    }
    if (q->exclusive && !q->announced)
        return false;
    complete(r, q->data, (int32_t)events, 0);
    *over = true;
    return true;
}

/* True if the request is complete. */
static bool serve(struct sim_ring *r, struct request *q)
{
    bool over = false;

    for (uint32_t n = 0; n < BURST && !over; n++)
        if (!(q->op == IORING_OP_RECV     ? receive(r, q, &over)
              : q->op == IORING_OP_ACCEPT ? accept_one(r, q, &over)
                                          : poll_one(r, q, &over)))
            break;
    return over;
}

static void free_request(struct request *q)
{
    sim_file_put(q->file);
    free(q);
}

/* Task work, in an unspecified order. */
static void serve_waiting(struct sim_ring *r)
{
    struct request **at = &r->requests;
    struct request *late = NULL;

    while (*at != NULL) {
        struct request *q = *at;
        if (sim_once_in(4)) { /* postponed, so that orders differ */
            *at = q->next;
            q->next = late;
            late = q;
        } else if (serve(r, q)) {
            *at = q->next;
            free_request(q);
        } else {
            at = &q->next;
        }
    }
    while (late != NULL) {
        struct request *q = late;
        late = q->next;
        if (serve(r, q)) {
            free_request(q);
        } else {
            q->next = r->requests;
            r->requests = q;
        }
    }
}

static void send_now(struct sim_ring *r, const struct io_uring_sqe *sqe)
{
    struct sim_file *f = sim_fd_file(sqe->fd);
    const char *at = (const char *)(uintptr_t)sqe->addr;
    ssize_t n = -EPIPE;
    size_t sum = 0;

    while (f->kind == SIM_STREAM && sum < sqe->len) {
        n = sim_stream_send(f->object, at + sum, sqe->len - sum);
        if (n > 0)
            sum += (size_t)n;
        else if (n != -EINTR)
            break;
    }
    if (sqe->len == 0)
        n = 0;
    if (sum < sqe->len || !(sqe->flags & IOSQE_CQE_SKIP_SUCCESS))
        complete(r, sqe->user_data, sum > 0 ? (int32_t)sum : (int32_t)n, 0);
}

static bool is_ready(const struct request *q)
{
    return sim_file_events(q->file) &
           (q->op == IORING_OP_POLL_ADD ? q->events | EPOLLERR | EPOLLHUP
                                        : (uint32_t)(EPOLLIN | EPOLLERR | EPOLLHUP));
}

static void cancel(struct sim_ring *r, const struct io_uring_sqe *sqe)
{
    struct request **at = &r->requests;

    while (*at != NULL && (*at)->data != sqe->addr)
        at = &(*at)->next;
    struct request *q = *at;
    if (q == NULL || (is_ready(q) && sim_once_in(MISSED))) {
        complete(r, sqe->user_data, q == NULL || sim_once_in(2) ? -ENOENT : -EALREADY, 0);
        return;
    }
    *at = q->next;
    const bool first = sim_once_in(2);
    if (first)
        complete(r, sqe->user_data, 0, 0);
    complete(r, q->data, -ECANCELED, 0);
    if (!first)
        complete(r, sqe->user_data, 0, 0);
    free_request(q);
}

static void begin(struct sim_ring *r, const struct io_uring_sqe *sqe)
{
    struct request *q = calloc(1, sizeof(*q));

    MR_CHECK(q != NULL);
    q->op = sqe->opcode;
    q->file = sim_file_get(sim_fd_file(sqe->fd));
    q->data = sqe->user_data;
    q->events = sqe->poll32_events & ~(uint32_t)EPOLLEXCLUSIVE;
    q->exclusive = sqe->opcode == IORING_OP_POLL_ADD && sqe->poll32_events & EPOLLEXCLUSIVE;
    q->announced = true;
    if (sim_once_in(2) && serve(r, q)) { /* otherwise with the next task work */
        free_request(q);
        return;
    }
    q->next = r->requests;
    r->requests = q;
    sim_poke(r->process);
}

static int submit(struct sim_ring *r)
{
    int n = 0;

    if (sim_once_in(sim_env.interrupted))
        return -EINTR;
    while (r->sq_head != r->sq_tail) {
        const struct io_uring_sqe *sqe = &r->sq[r->sq_head++ % r->sq_size];
        n++;
        switch (sqe->opcode) {
        case IORING_OP_SEND:
            send_now(r, sqe);
            break;
        case IORING_OP_ASYNC_CANCEL:
            cancel(r, sqe);
            break;
        case IORING_OP_CLOSE:
            (void)close(sqe->fd);
            break;
        default:
            begin(r, sqe);
            break;
        }
    }
    return n;
}

/* ---- the calls ---- */

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
    struct sim_ring *r = calloc(1, sizeof(*r));

    MR_CHECK(r != NULL && n_all < RINGS);
    r->sq_size = entries < sim_env.ring_entries ? entries : sim_env.ring_entries;
    r->cq_size = p->cq_entries < sim_env.ring_entries ? p->cq_entries : sim_env.ring_entries;
    MR_CHECK(r->sq_size <= SQ_MAX);
    r->process = sim_self_index();
    ring->ring = r;
    all[n_all++] = r;
    return 0;
}

void io_uring_queue_exit(struct io_uring *ring)
{
    struct sim_ring *r = ring->ring;

    for (uint32_t i = 0; i < n_all; i++)
        if (all[i] == r)
            all[i] = all[--n_all];
    while (r->requests != NULL) {
        struct request *q = r->requests;
        r->requests = q->next;
        free_request(q);
    }
    free(r->cq);
    free(r);
}

struct io_uring_sqe *io_uring_get_sqe(struct io_uring *ring)
{
    struct sim_ring *r = ring->ring;

    if (r->sq_tail - r->sq_head == r->sq_size)
        return NULL;
    return &r->sq[r->sq_tail++ % r->sq_size];
}

unsigned io_uring_sq_ready(const struct io_uring *ring)
{
    return ring->ring->sq_tail - ring->ring->sq_head;
}

int io_uring_submit(struct io_uring *ring)
{
    return submit(ring->ring);
}

static void enter(struct sim_ring *r)
{
    flush_overflow(r);
    serve_waiting(r);
}

int io_uring_get_events(struct io_uring *ring)
{
    enter(ring->ring);
    return 0;
}

int io_uring_submit_and_get_events(struct io_uring *ring)
{
    const int rc = submit(ring->ring);

    sim_block(sim_now_us);
    if (rc >= 0)
        enter(ring->ring);
    return rc;
}

static int wait_until(struct sim_ring *r, uint64_t deadline_us)
{
    const int rc = submit(r);

    if (rc < 0) {
        sim_block(sim_now_us);
        return rc;
    }
    for (sim_block(sim_now_us);; sim_block(deadline_us)) {
        enter(r);
        if (r->visible > 0)
            return rc;
        if (sim_now_us >= deadline_us)
            return -ETIME;
        if (sim_once_in(sim_env.interrupted))
            return -EINTR;
    }
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned n)
{
    (void)n;
    return wait_until(ring->ring, UINT64_MAX);
}

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n,
                                     struct __kernel_timespec *ts, void *mask)
{
    (void)cqe;
    (void)n;
    (void)mask;
    return wait_until(ring->ring,
                      sim_now_us + (uint64_t)ts->tv_sec * 1000000u + (uint64_t)ts->tv_nsec / 1000u);
}

/* ---- seen by the rest of the kernel ---- */

void sim_ring_kill(uint32_t process, struct sim_file *dead)
{
    for (uint32_t i = 0; i < n_all; i++)
        for (struct request *q = all[i]->requests; all[i]->process == process && q != NULL;
             q = q->next) {
            struct sim_file *f = q->file;
            q->file = sim_file_get(dead);
            q->announced = true;
            sim_file_put(f);
        }
}

uint32_t sim_ring_exclusive(const struct sim_file *listener)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_all; i++)
        for (const struct request *q = all[i]->requests; q != NULL; q = q->next)
            n += q->file == listener && q->exclusive;
    return n;
}

void sim_ring_announce(struct sim_file *listener, uint32_t number)
{
    for (uint32_t i = 0; i < n_all; i++)
        for (struct request *q = all[i]->requests; q != NULL; q = q->next)
            if (q->file == listener && q->exclusive && number-- == 0)
                q->announced = true;
}

void sim_rings_end(void)
{
    SIM_CHECK(n_all == 0, "%u rings are left over", n_all);
}
