/*
 * liburing.h - the part of liburing that engine_uring.c uses, over the simulated kernel. The engine
 * is compiled a second time with this header in place of the real one.
 */
#pragma once

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

struct sim_ring;

struct io_uring {
    struct sim_ring *ring;
};

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p);
void io_uring_queue_exit(struct io_uring *ring);

struct io_uring_sqe *io_uring_get_sqe(struct io_uring *ring);
unsigned io_uring_sq_ready(const struct io_uring *ring);
int io_uring_submit(struct io_uring *ring);
int io_uring_submit_and_get_events(struct io_uring *ring);
int io_uring_submit_and_wait(struct io_uring *ring, unsigned n);
int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n,
                                     struct __kernel_timespec *ts, void *mask);
int io_uring_get_events(struct io_uring *ring);

unsigned io_uring_cq_ready(const struct io_uring *ring);
int io_uring_peek_cqe(struct io_uring *ring, struct io_uring_cqe **cqe);
void io_uring_cqe_seen(struct io_uring *ring, struct io_uring_cqe *cqe);
bool io_uring_cq_has_overflow(const struct io_uring *ring);

/** Completion number `i` that is ready; NULL after the last. */
struct io_uring_cqe *sim_ring_cqe(const struct io_uring *ring, unsigned i);

#define io_uring_for_each_cqe(ring, head, cqe)                                                     \
    for ((head) = 0; ((cqe) = sim_ring_cqe((ring), (head))) != NULL; (head)++)

int io_uring_register_buf_ring(struct io_uring *ring, struct io_uring_buf_reg *reg, unsigned flags);
void io_uring_buf_ring_init(struct io_uring_buf_ring *br);
int io_uring_buf_ring_mask(uint32_t entries);
void io_uring_buf_ring_add(struct io_uring_buf_ring *br, void *at, unsigned len, uint16_t id,
                           int mask, int offset);
void io_uring_buf_ring_advance(struct io_uring_buf_ring *br, int n);

static inline void io_uring_prep(struct io_uring_sqe *sqe, int op, int fd, const void *at,
                                 size_t len)
{
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = (uint8_t)op;
    sqe->fd = fd;
    sqe->addr = (uint64_t)(uintptr_t)at;
    sqe->len = (uint32_t)len;
}

static inline void io_uring_prep_recv_multishot(struct io_uring_sqe *sqe, int fd, void *at,
                                                size_t len, int flags)
{
    io_uring_prep(sqe, IORING_OP_RECV, fd, at, len);
    sqe->msg_flags = (uint32_t)flags;
    sqe->ioprio = IORING_RECV_MULTISHOT;
}

static inline void io_uring_prep_send(struct io_uring_sqe *sqe, int fd, const void *at, size_t len,
                                      int flags)
{
    io_uring_prep(sqe, IORING_OP_SEND, fd, at, len);
    sqe->msg_flags = (uint32_t)flags;
}

static inline void io_uring_prep_poll_add(struct io_uring_sqe *sqe, int fd, unsigned events)
{
    io_uring_prep(sqe, IORING_OP_POLL_ADD, fd, NULL, 0);
    sqe->poll32_events = events;
}

static inline void io_uring_prep_multishot_accept(struct io_uring_sqe *sqe, int fd,
                                                  struct sockaddr *addr, socklen_t *len, int flags)
{
    (void)addr;
    (void)len;
    io_uring_prep(sqe, IORING_OP_ACCEPT, fd, NULL, 0);
    sqe->accept_flags = (uint32_t)flags;
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
}

static inline void io_uring_prep_cancel64(struct io_uring_sqe *sqe, uint64_t data, int flags)
{
    io_uring_prep(sqe, IORING_OP_ASYNC_CANCEL, -1, NULL, 0);
    sqe->addr = data;
    sqe->cancel_flags = (uint32_t)flags;
}

static inline void io_uring_prep_close(struct io_uring_sqe *sqe, int fd)
{
    io_uring_prep(sqe, IORING_OP_CLOSE, fd, NULL, 0);
}
