/* engine_epoll.c - level-triggered epoll, available on every kernel we support. */
#include "core/clock.h"
#include "net/engine.h"
#include "net/loop.h"
#include "net/stream_engine.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS    1024
#define WATCH_TAG 1u /* marks watches in the event's pointer */

struct state {
    int fd;
    char *recv;      /* MR_RECV_HEADROOM + MR_RECV_BYTES */
    int next, count; /* events being delivered, so that unwatch can drop pending ones */
    struct epoll_event events[EVENTS];
};

static enum mr_result init(struct mr_loop *loop, struct mr_error *err)
{
    const int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0)
        return mr_fail_sys(err, "epoll_create1");
    struct state *st = malloc(sizeof(*st));
    MR_CHECK(st != NULL);
    st->fd = fd;
    st->next = st->count = 0;
    st->recv = malloc(MR_RECV_HEADROOM + MR_RECV_BYTES);
    MR_CHECK(st->recv != NULL);
    loop->engine_state = st;
    return MR_OK;
}

static void fini(struct mr_loop *loop)
{
    struct state *st = loop->engine_state;

    (void)close(st->fd);
    free(st->recv);
    free(st);
}

static uint32_t interest(const struct mr_stream *s)
{
    return (mr_stream_wants_read(s) ? (uint32_t)EPOLLIN : 0) |
           (mr_stream_wants_write(s) ? (uint32_t)EPOLLOUT : 0);
}

static void control(struct mr_loop *loop, int op, int fd, uint32_t events, void *ptr)
{
    const struct state *st = loop->engine_state;
    struct epoll_event ev = {.events = events, .data.ptr = ptr};

    /* after ENOSPC (max_user_watches) or ENOMEM the socket would be dead: restart instead */
    MR_CHECK(epoll_ctl(st->fd, op, fd, &ev) == 0);
}

static void add(struct mr_loop *loop, struct mr_stream *s)
{
    control(loop, EPOLL_CTL_ADD, s->fd, interest(s), s);
}

static void update(struct mr_loop *loop, struct mr_stream *s)
{
    control(loop, EPOLL_CTL_MOD, s->fd, interest(s), s);
}

/*
 * Removes the fd explicitly: after a handover another process may hold the same socket open, and
 * then close(2) would leave it in the epoll set. Events already fetched see the CLOSED flag.
 */
static void release(struct mr_loop *loop, struct mr_stream *s)
{
    const struct state *st = loop->engine_state;

    (void)epoll_ctl(st->fd, EPOLL_CTL_DEL, s->fd, NULL);
    (void)close(s->fd);
    mr_stream_released(s);
}

static void send_output(struct mr_loop *loop, struct mr_stream *s)
{
    (void)loop;
    mr_stream_send_now(s);
}

/* Removed explicitly, for the same reason as in release. */
static bool rest(struct mr_loop *loop, struct mr_stream *s, bool first)
{
    const struct state *st = loop->engine_state;

    return !first || epoll_ctl(st->fd, EPOLL_CTL_DEL, s->fd, NULL) == 0 || errno == ENOENT;
}

static void *tag(struct mr_watch *w)
{
    return (char *)w + WATCH_TAG;
}

static void watch(struct mr_loop *loop, struct mr_watch *w)
{
    const uint32_t events = EPOLLIN | (w->exclusive ? (uint32_t)EPOLLEXCLUSIVE : 0);

    control(loop, EPOLL_CTL_ADD, w->fd, events, tag(w));
}

static void unwatch(struct mr_loop *loop, struct mr_watch *w)
{
    struct state *st = loop->engine_state;

    control(loop, EPOLL_CTL_DEL, w->fd, 0, NULL);
    for (int i = st->next; i < st->count; i++)
        if (st->events[i].data.ptr == tag(w))
            st->events[i].data.ptr = NULL;
}

static void receive(struct state *st, struct mr_stream *s)
{
    char *at = st->recv + MR_RECV_HEADROOM;
    const ssize_t n = recv(s->fd, at, MR_RECV_BYTES, 0);

    if (MR_LIKELY(n > 0))
        mr_stream_deliver(s, at, (size_t)n, MR_RECV_HEADROOM);
    else if (n == 0)
        mr_stream_peer_gone(s, 0);
    else if (errno != EAGAIN && errno != EINTR)
        mr_stream_peer_gone(s, errno);
}

static void handle(struct state *st, struct mr_stream *s, uint32_t events)
{
    if (mr_stream_is_closed(s) || mr_stream_is_resting(s))
        return;
    if (mr_stream_wants_write(s) && events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
        mr_stream_writable(s);
    if (mr_stream_wants_read(s) && events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        receive(st, s);
    else if (events & (EPOLLERR | EPOLLHUP) && !mr_stream_is_closed(s))
        mr_stream_hung_up(s); /* reported even without interest */
}

/* epoll_pwait2 needs Linux 5.11, so it is used only for fractions of a millisecond. */
static int wait_for_events(struct state *st, int64_t timeout_us)
{
    const struct timespec ts = {.tv_sec = timeout_us / 1000000,
                                .tv_nsec = timeout_us % 1000000 * 1000};
    const int64_t ms = timeout_us < 0 ? -1 : (timeout_us + 999) / 1000;

    if (timeout_us > 0 && timeout_us % 1000 != 0) {
        const int n = epoll_pwait2(st->fd, st->events, EVENTS, &ts, NULL);
        if (n >= 0 || errno != ENOSYS)
            return n;
    }
    return epoll_wait(st->fd, st->events, EVENTS, ms > INT32_MAX ? INT32_MAX : (int)ms);
}

static void wait_and_deliver(struct mr_loop *loop, int64_t timeout_us)
{
    struct state *st = loop->engine_state;
    const int n = wait_for_events(st, timeout_us);

    MR_CHECK(n >= 0 || errno == EINTR);
    loop->now_us = mr_clock_mono_us();
    st->count = n < 0 ? 0 : n;
    loop->n_events = (uint32_t)st->count;
    for (st->next = 0; st->next < st->count;) {
        const struct epoll_event ev = st->events[st->next++];
        const uintptr_t bits = (uintptr_t)ev.data.ptr;
        if (bits & WATCH_TAG) {
            struct mr_watch *w = (struct mr_watch *)((char *)ev.data.ptr - WATCH_TAG);
            w->on_ready(w);
        } else if (ev.data.ptr != NULL) {
            handle(st, ev.data.ptr, ev.events);
        }
    }
    st->count = 0;
}

/* epoll only reports readiness; input stays in the socket until the stream reads it. */
static bool undelivered(const struct mr_loop *loop)
{
    (void)loop;
    return false;
}

const struct mr_engine MR_ENGINE_EPOLL = {
    .name = "epoll",
    .init = init,
    .fini = fini,
    .add = add,
    .update = update,
    .release = release,
    .rest = rest,
    .send = send_output,
    .watch = watch,
    .unwatch = unwatch,
    .undelivered = undelivered,
    .wait = wait_and_deliver,
};
