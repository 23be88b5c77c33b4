/* stream.c - a byte stream over a connected socket. */
#include "net/stream.h"

#include "net/engine.h"
#include "net/filter.h"
#include "net/loop.h"
#include "net/stream_engine.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define DIRECT_BYTES 16384u /* a run of this size is sent at once, uncopied */
#define BATCH_BYTES  65536u /* further runs in the same turn are batched up to this size */

enum { /* the upper bits belong to the engine: MR_STREAM_ENGINE_SHIFT */
       CONNECTING = 1 << 0,
       PAUSED = 1 << 1,    /* the owner wants no input */
       EOF_SEEN = 1 << 2,  /* the peer has sent its last byte */
       BLOCKED = 1 << 3,   /* the socket buffer is full */
       DIRTY = 1 << 4,     /* in loop->dirty */
       CLOSED = 1 << 5,    /* in loop->closed */
       FINISHING = 1 << 6, /* close once all output is sent and the peer has closed */
       SHUT = 1 << 7,      /* our side is shut down */
       SENDING = 1 << 8,   /* the engine is sending `sending` bytes */
       CORKED = 1 << 9,    /* the owner is collecting output */
       RESTING = 1 << 10,  /* detached from the engine */
       FILTERED = 1 << 11, /* see filter.h */
       ENDING = 1 << 12,   /* shut our side down once all output is sent */
       THOROUGH = 1 << 13, /* a hang-up does not end a paused stream: its input is read first */
       HUNG_UP = 1 << 14,  /* such a stream, detached from the engine until it resumes */
};
_Static_assert(HUNG_UP < 1 << MR_STREAM_ENGINE_SHIFT, "the engine's bits are its own");

bool mr_stream_is_open(const struct mr_stream *s)
{
    return !(s->flags & (CONNECTING | CLOSED));
}

bool mr_stream_is_closed(const struct mr_stream *s)
{
    return s->flags & CLOSED;
}

bool mr_stream_is_blocked(const struct mr_stream *s)
{
    return s->flags & BLOCKED;
}

bool mr_stream_is_paused(const struct mr_stream *s)
{
    return s->flags & PAUSED;
}

bool mr_stream_unread(const struct mr_stream *s)
{
    int n = 0;

    return !(s->flags & CLOSED) && ioctl(s->fd, FIONREAD, &n) == 0 && n > 0;
}

size_t mr_stream_untaken(const struct mr_stream *s)
{
    int queued = 0;

    if (s->flags & CLOSED)
        return 0;
    if (ioctl(s->fd, SIOCOUTQ, &queued) < 0 || queued < 0)
        queued = 0;
    return mr_stream_pending(s) + (size_t)queued;
}

/* ---- the filter ---- */

static struct mr_filter *filter_of(const struct mr_stream *s)
{
    MR_CHECK(s->flags & FILTERED);
    return MR_CONTAINER_OF(s->ops, struct mr_filter, owner);
}

void mr_filter_insert(struct mr_filter *f, const struct mr_filter_ops *ops, struct mr_stream *s)
{
    MR_CHECK(!(s->flags & FILTERED));
    *f = (struct mr_filter){.ops = ops, .owner = *s->ops, .real = s->ops};
    s->ops = &f->owner;
    s->flags |= FILTERED;
}

void mr_filter_remove(struct mr_filter *f, struct mr_stream *s)
{
    MR_CHECK(filter_of(s) == f);
    s->ops = f->real;
    s->flags &= (uint32_t)~FILTERED;
    f->ops->on_release(f, s);
}

bool mr_stream_is_tied(const struct mr_stream *s)
{
    return s->flags & FILTERED && filter_of(s)->ops->is_tied(filter_of(s));
}

/* ---- */

static uint32_t now_ms(const struct mr_stream *s)
{
    return (uint32_t)(s->loop->now_us / 1000u);
}

uint32_t mr_stream_idle_ms(const struct mr_stream *s)
{
    return now_ms(s) - s->active_ms;
}

void mr_stream_touch(struct mr_stream *s)
{
    s->active_ms = now_ms(s);
}

bool mr_stream_has_backlog(const struct mr_stream *s)
{
    return !mr_buf_empty(&s->in) && (s->flags & PAUSED || mr_list_linked(&s->resumed));
}

bool mr_stream_wants_read(const struct mr_stream *s)
{
    return !(s->flags & (CONNECTING | PAUSED | EOF_SEEN | CLOSED | RESTING | HUNG_UP));
}

bool mr_stream_wants_write(const struct mr_stream *s)
{
    if (s->flags & (CLOSED | RESTING))
        return false;
    return s->flags & CONNECTING || (s->flags & (BLOCKED | CORKED)) == BLOCKED;
}

bool mr_stream_awaits_sent(const struct mr_stream *s)
{
    return s->room_at > 0 || s->flags & BLOCKED;
}

bool mr_stream_has_ended(const struct mr_stream *s)
{
    return s->flags & EOF_SEEN;
}

bool mr_stream_is_resting(const struct mr_stream *s)
{
    return s->flags & (RESTING | HUNG_UP);
}

bool mr_stream_is_finishing(const struct mr_stream *s)
{
    return s->flags & (FINISHING | ENDING);
}

static void start(struct mr_stream *s, struct mr_loop *loop, const struct mr_stream_ops *ops,
                  int fd, uint32_t flags)
{
    memset(s, 0, sizeof(*s));
    s->ops = ops;
    s->loop = loop;
    s->fd = fd;
    s->flags = flags;
    s->active_ms = now_ms(s);
    loop->n_streams++;
    loop->engine->add(loop, s);
}

void mr_stream_open(struct mr_stream *s, struct mr_loop *loop, const struct mr_stream_ops *ops,
                    int fd)
{
    start(s, loop, ops, fd, 0);
}

enum mr_result mr_stream_connect(struct mr_stream *s, struct mr_loop *loop,
                                 const struct mr_stream_ops *ops, const struct mr_addr *addr,
                                 struct mr_error *err)
{
    const int on = 1;
    enum mr_result rc;

    const int fd = socket(addr->sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return mr_fail_sys(err, "socket for %s", addr->text);
    if (addr->sa.any.sa_family != AF_UNIX &&
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0) {
        rc = mr_fail_sys(err, "TCP_NODELAY on a socket for %s", addr->text);
        goto close_fd;
    }
    if (connect(fd, &addr->sa.any, addr->len) < 0 && errno != EINPROGRESS && errno != EINTR) {
        rc = mr_fail_sys(err, "connect to %s", addr->text);
        goto close_fd;
    }
    /* a connect that has already finished is reported by the first writability, too */
    start(s, loop, ops, fd, CONNECTING);
    return MR_OK;

close_fd:
    (void)close(fd);
    return rc;
}

/* A resting stream is detached from the engine; mr_stream_wake adds it with its current state. */
static void update(struct mr_stream *s)
{
    if (!(s->flags & (RESTING | HUNG_UP)))
        s->loop->engine->update(s->loop, s);
}

/* In order, so that everybody waits equally long. */
static void mark_dirty(struct mr_stream *s)
{
    if (s->flags & DIRTY)
        return;
    s->flags |= DIRTY;
    s->next_dirty = NULL;
    *s->loop->dirty_tail = s;
    s->loop->dirty_tail = &s->next_dirty;
}

/* Goes before all others: what was held back has waited long enough. */
static void mark_dirty_first(struct mr_stream *s)
{
    struct mr_loop *loop = s->loop;

    if (s->flags & DIRTY)
        return;
    s->flags |= DIRTY;
    s->next_dirty = loop->dirty;
    if (loop->dirty == NULL)
        loop->dirty_tail = &s->next_dirty;
    loop->dirty = s;
}

void mr_stream_cork(struct mr_stream *s)
{
    if (s->flags & CORKED)
        return;
    s->flags |= CORKED;
    if (!(s->flags & CLOSED) && s->flags & BLOCKED)
        update(s); /* no room in the socket is of use now, nor may it wake the loop */
}

void mr_stream_uncork(struct mr_stream *s)
{
    if (!(s->flags & CORKED))
        return;
    s->flags &= (uint32_t)~CORKED;
    if (s->flags & CLOSED)
        return;
    if (s->flags & BLOCKED)
        update(s);
    if (!mr_buf_empty(&s->out))
        mark_dirty_first(s);
}

/* Delivers the remainder again in the next turn. */
static void present_again(struct mr_stream *s)
{
    if (mr_buf_empty(&s->in) || s->flags & RESTING || mr_list_linked(&s->resumed))
        return;
    mr_list_append(&s->loop->resumed, &s->resumed);
    s->loop->n_resumed++;
}

/* False if the stream was not in the list. */
static bool leave_resumed(struct mr_stream *s)
{
    if (!mr_list_linked(&s->resumed))
        return false;
    mr_list_del(&s->resumed);
    s->loop->n_resumed--;
    return true;
}

void mr_stream_close(struct mr_stream *s, int error)
{
    if (s->flags & CLOSED)
        return;
    s->flags |= CLOSED;
    s->error = error;
    (void)leave_resumed(s);
    s->loop->n_releasing++;
    s->loop->engine->release(s->loop, s);
}

void mr_stream_released(struct mr_stream *s)
{
    s->fd = -1;
    s->loop->n_releasing--;
    s->next_closed = s->loop->closed;
    s->loop->closed = s;
}

void mr_stream_wake(struct mr_stream *s)
{
    if (s->flags & CLOSED || !(s->flags & RESTING))
        return;
    s->flags &= (uint32_t) ~(RESTING | HUNG_UP);
    s->loop->engine->add(s->loop, s);
    if (!(s->flags & PAUSED))
        present_again(s);
    if (!(s->flags & (CONNECTING | BLOCKED)))
        mark_dirty(s);
}

void mr_stream_finish(struct mr_stream *s)
{
    if (s->flags & (CLOSED | FINISHING))
        return;
    mr_stream_wake(s);
    mr_stream_uncork(s);
    if (s->flags & FILTERED && filter_of(s)->ops->on_finish != NULL)
        filter_of(s)->ops->on_finish(filter_of(s), s);
    s->flags |= FINISHING; /* the remainder stays: the caller may still be reading it */
    if (s->flags & EOF_SEEN && mr_stream_pending(s) == 0) {
        mr_stream_close(s, 0);
        return;
    }
    if (s->flags & PAUSED) {
        s->flags &= (uint32_t)~PAUSED;
        update(s);
    }
    mark_dirty(s);
}

void mr_stream_end(struct mr_stream *s)
{
    if (s->flags & (CLOSED | FINISHING | ENDING))
        return;
    if (s->flags & FILTERED && filter_of(s)->ops->on_finish != NULL)
        filter_of(s)->ops->on_finish(filter_of(s), s);
    s->flags |= ENDING;
    if (!(s->flags & (CONNECTING | BLOCKED)))
        mark_dirty(s);
}

void mr_stream_read_all(struct mr_stream *s)
{
    s->flags |= THOROUGH;
}

static void keep(struct mr_stream *s, const char *bytes, size_t len)
{
    if (!mr_buf_append(&s->in, &s->loop->slab, bytes, len))
        mr_stream_close(s, ENOMEM);
}

/* Delivers the remainder alone. */
static void deliver_kept(struct mr_stream *s)
{
    const struct mr_slice kept = mr_buf_slice(&s->in);
    const size_t used = s->ops->on_data(s, kept.at, kept.len);

    MR_CHECK(used <= kept.len);
    if (s->flags & FINISHING)
        mr_buf_clear(&s->in, &s->loop->slab);
    else if (!(s->flags & CLOSED))
        mr_buf_consume(&s->in, &s->loop->slab, used);
}

/* Always inlined, so that a stream without a filter pays for one call. */
static inline __attribute__((always_inline)) void deliver(struct mr_stream *s, char *bytes,
                                                          size_t len, size_t headroom)
{
    const size_t rest = mr_buf_len(&s->in);

    if (rest + len < s->want || s->flags & (PAUSED | RESTING)) {
        keep(s, bytes, len);
        return;
    }
    s->want = 0;
    if (rest > headroom) {
        keep(s, bytes, len);
        if (!(s->flags & CLOSED))
            deliver_kept(s);
        return;
    }
    if (rest > 0) {
        memcpy(bytes - rest, mr_buf_slice(&s->in).at, rest);
        mr_buf_clear(&s->in, &s->loop->slab);
        bytes -= rest;
        len += rest;
    }
    const size_t used = s->ops->on_data(s, bytes, len);
    MR_CHECK(used <= len);
    if (used < len && !(s->flags & (CLOSED | FINISHING)))
        keep(s, bytes + used, len - used);
}

void mr_filter_deliver(struct mr_stream *s, char *bytes, size_t len, size_t headroom)
{
    if (len > 0 && !(s->flags & (CLOSED | FINISHING)))
        deliver(s, bytes, len, headroom);
}

void mr_stream_deliver(struct mr_stream *s, char *bytes, size_t len, size_t headroom)
{
    s->active_ms = now_ms(s);
    if (MR_UNLIKELY(s->flags & (CLOSED | FINISHING | FILTERED))) {
        if (!(s->flags & (CLOSED | FINISHING)))
            filter_of(s)->ops->on_receive(filter_of(s), s, bytes, len, headroom);
        return;
    }
    deliver(s, bytes, len, headroom);
}

void mr_stream_redeliver(struct mr_stream *s)
{
    if (s->flags & (CLOSED | FINISHING | PAUSED | RESTING) || mr_buf_empty(&s->in) ||
        mr_buf_len(&s->in) < s->want)
        return;
    s->want = 0;
    deliver_kept(s);
}

bool mr_stream_await_room(struct mr_stream *s, uint32_t bytes)
{
    if (s->flags & CLOSED || mr_stream_pending(s) <= bytes)
        return false;
    s->room_at = bytes + 1;
    s->loop->sends_matter |= (s->flags & SENDING) != 0;
    return true;
}

void mr_stream_want(struct mr_stream *s, size_t total)
{
    s->want = total > MR_BUF_MAX ? MR_BUF_MAX : (uint32_t)total;
}

void mr_stream_pause(struct mr_stream *s)
{
    if (s->flags & (CLOSED | PAUSED | FINISHING))
        return;
    s->flags |= PAUSED;
    if (!(s->flags & EOF_SEEN))
        update(s);
}

void mr_stream_resume(struct mr_stream *s)
{
    if (s->flags & CLOSED || !(s->flags & PAUSED))
        return;
    s->flags &= (uint32_t)~PAUSED;
    if (s->flags & HUNG_UP) {
        s->flags &= (uint32_t)~HUNG_UP;
        s->loop->engine->add(s->loop, s);
    } else if (!(s->flags & EOF_SEEN)) {
        update(s);
    }
    present_again(s);
}

void mr_stream_present(struct mr_stream *s)
{
    if (s->flags & (CLOSED | FINISHING | PAUSED))
        return;
    s->want = 0;
    present_again(s);
}

void mr_stream_put_back(struct mr_stream *s, struct mr_slice bytes)
{
    struct mr_slab *slab = &s->loop->slab;
    const struct mr_slice rest = mr_buf_slice(&s->in);
    struct mr_buf in = {0};

    if (s->flags & (CLOSED | FINISHING))
        return;
    if (!mr_buf_append(&in, slab, bytes.at, bytes.len) ||
        !mr_buf_append(&in, slab, rest.at, rest.len)) {
        mr_buf_clear(&in, slab);
        mr_stream_close(s, ENOMEM);
        return;
    }
    mr_buf_clear(&s->in, slab);
    s->in = in;
    mr_stream_present(s);
}

bool mr_stream_rest(struct mr_stream *s)
{
    if (s->flags & CLOSED)
        return false;
    const bool first = !(s->flags & RESTING);
    s->flags |= RESTING;
    (void)leave_resumed(s);
    return s->loop->engine->rest(s->loop, s, first) && s->sending == 0;
}

void mr_stream_restore(struct mr_stream *s, struct mr_slice in, struct mr_slice out)
{
    if (in.len > 0)
        keep(s, in.at, in.len);
    if (out.len > 0)
        mr_filter_send(s, out.at, out.len); /* it has passed the filter already */
    if (!(s->flags & (CLOSED | PAUSED)))
        present_again(s);
}

void mr_stream_peer_gone(struct mr_stream *s, int error)
{
    if (s->flags & CLOSED)
        return;
    if (leave_resumed(s)) /* bytes received before the end come first */
        mr_stream_redeliver(s);
    if (error != 0 || (s->flags & SHUT && !(s->flags & ENDING))) {
        mr_stream_close(s, error);
        return;
    }
    if (s->flags & (CLOSED | EOF_SEEN | PAUSED | RESTING))
        return; /* a paused stream hears of it when it resumes */
    s->flags |= EOF_SEEN;
    if (!(s->flags & FINISHING)) /* otherwise it closes once all output is sent */
        s->ops->on_eof(s);
    if (s->flags & SHUT) /* both sides have ended */
        mr_stream_close(s, 0);
    else if (!(s->flags & CLOSED))
        update(s);
}

static int socket_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? errno : error;
}

void mr_stream_hung_up(struct mr_stream *s)
{
    const int error = socket_error(s->fd);

    if (error == 0 && s->flags & THOROUGH && s->flags & EOF_SEEN) {
        mr_stream_close(s, 0); /* all input was read */
        return;
    }
    if (error == 0 && s->flags & THOROUGH && s->flags & PAUSED) {
        s->flags |= HUNG_UP; /* reported without end as long as the engine has it */
        (void)s->loop->engine->rest(s->loop, s, true);
        return;
    }
    mr_stream_peer_gone(s, error != 0 ? error : ECONNRESET);
}

/* Calls on_room if no more is pending than the owner waits for. */
static void tell_room(struct mr_stream *s)
{
    if (MR_LIKELY(s->room_at == 0) || mr_stream_pending(s) >= s->room_at || s->flags & CLOSED)
        return;
    s->room_at = 0;
    s->ops->on_room(s);
}

/* All output is sent: a finishing stream shuts its side now. */
static void flushed(struct mr_stream *s)
{
    if (s->flags & BLOCKED) {
        s->flags &= (uint32_t)~BLOCKED;
        update(s);
        if (s->ops->on_drain != NULL)
            s->ops->on_drain(s);
    }
    tell_room(s);
    if (!(s->flags & (FINISHING | ENDING)) || s->flags & (SHUT | CLOSED) ||
        mr_stream_pending(s) > 0)
        return;
    s->flags |= SHUT;
    if (s->flags & EOF_SEEN)
        mr_stream_close(s, 0);
    else
        (void)shutdown(s->fd, SHUT_WR);
}

static void blocked(struct mr_stream *s)
{
    if (s->flags & BLOCKED)
        return;
    s->flags |= BLOCKED;
    update(s);
}

/* Returns the bytes sent, or -1 if the stream is now blocked or closed. */
static ssize_t send_iov(struct mr_stream *s, struct iovec *iov, size_t n)
{
    const struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent;

    do
        sent = n == 1 ? send(s->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                      : sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        s->active_ms = now_ms(s);
        return sent;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        blocked(s);
    else
        mr_stream_close(s, errno);
    return -1;
}

void mr_stream_flush(struct mr_stream *s)
{
    s->flags &= (uint32_t)~DIRTY;
    if (s->flags & (CLOSED | CONNECTING | SENDING | CORKED | RESTING))
        return;
    if (mr_buf_empty(&s->out))
        flushed(s);
    else
        s->loop->engine->send(s->loop, s);
}

void mr_stream_sending(struct mr_stream *s, struct mr_buf *taken)
{
    *taken = s->out;
    s->out = (struct mr_buf){0};
    s->sending = mr_buf_len(taken);
    s->flags |= SENDING;
}

/* Puts unsent bytes back in front of newer output. */
static bool put_back(struct mr_stream *s, struct mr_buf *taken)
{
    const struct mr_slice since = mr_buf_slice(&s->out);

    if (mr_buf_empty(taken))
        return true;
    if (since.len > 0 && !mr_buf_append(taken, &s->loop->slab, since.at, since.len))
        return false;
    mr_buf_clear(&s->out, &s->loop->slab);
    s->out = *taken;
    *taken = (struct mr_buf){0};
    return true;
}

void mr_stream_sent(struct mr_stream *s, struct mr_buf *taken, ssize_t sent)
{
    const uint32_t len = s->sending;
    int error = 0;

    s->flags &= (uint32_t)~SENDING;
    s->sending = 0;
    if (sent > 0) {
        s->active_ms = now_ms(s);
        mr_buf_consume(taken, &s->loop->slab, (size_t)sent);
    } else if (sent < 0 && sent != -EAGAIN && sent != -EINTR) {
        error = (int)-sent;
    }
    if (error == 0 && !(s->flags & CLOSED) && !put_back(s, taken))
        error = ENOMEM;
    mr_buf_clear(taken, &s->loop->slab);
    if (error != 0)
        mr_stream_close(s, error);
    if (s->flags & CLOSED)
        return;
    if (sent == (ssize_t)len && mr_buf_empty(&s->out)) {
        flushed(s);
        return;
    }
    if (sent < (ssize_t)len) /* short: the socket buffer is full */
        blocked(s);
    else
        mark_dirty(s);
    tell_room(s);
}

void mr_stream_send_now(struct mr_stream *s)
{
    struct mr_buf out;
    ssize_t n;

    mr_stream_sending(s, &out);
    const struct mr_slice bytes = mr_buf_slice(&out);
    do
        n = send(s->fd, bytes.at, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    mr_stream_sent(s, &out, n < 0 ? -errno : n);
}

void mr_stream_writable(struct mr_stream *s)
{
    if (s->flags & CLOSED)
        return;
    if (!(s->flags & CONNECTING)) {
        mark_dirty(s);
        return;
    }
    const int error = socket_error(s->fd);
    if (error != 0) {
        mr_stream_close(s, error);
        return;
    }
    s->flags &= (uint32_t)~CONNECTING;
    update(s);
    if (s->flags & FILTERED && filter_of(s)->ops->on_connect != NULL)
        filter_of(s)->ops->on_connect(filter_of(s), s);
    else
        s->ops->on_open(s);
    if (!(s->flags & CLOSED) && (!mr_buf_empty(&s->out) || s->flags & ENDING))
        mark_dirty(s);
}

void mr_filter_opened(struct mr_stream *s)
{
    if (!(s->flags & CLOSED))
        s->ops->on_open(s);
}

/* Sends queued output and the given bytes in one call. Returns how many of `bytes` were sent. */
static size_t write_through(struct mr_stream *s, const char *bytes, size_t len)
{
    const struct mr_slice out = mr_buf_slice(&s->out);
    struct iovec iov[2] = {{(void *)(uintptr_t)out.at, out.len}, {(void *)(uintptr_t)bytes, len}};
    const ssize_t sent = out.len > 0 ? send_iov(s, iov, 2) : send_iov(s, iov + 1, 1);

    if (sent < 0)
        return 0;
    if ((size_t)sent < out.len + len)
        blocked(s);
    if ((size_t)sent <= out.len) {
        mr_buf_consume(&s->out, &s->loop->slab, (size_t)sent);
        return 0;
    }
    mr_buf_clear(&s->out, &s->loop->slab);
    return (size_t)sent - out.len;
}

/* The first large run of a turn may be the only one; several are better batched. */
static bool sends_at_once(const struct mr_stream *s, size_t len)
{
    if (len < DIRECT_BYTES || s->flags & (CONNECTING | BLOCKED | SENDING | CORKED | RESTING))
        return false;
    return !(s->flags & DIRTY) || mr_stream_pending(s) + len >= BATCH_BYTES;
}

static inline __attribute__((always_inline)) void write_out(struct mr_stream *s, const char *bytes,
                                                            size_t len)
{
    if (sends_at_once(s, len)) {
        const size_t sent = write_through(s, bytes, len);
        bytes += sent;
        len -= sent;
        if (s->flags & CLOSED)
            return;
        if (!(s->flags & BLOCKED))
            mark_dirty(s); /* collects what else is written in this turn */
        if (len == 0)
            return;
    }
    if (!mr_buf_append(&s->out, &s->loop->slab, bytes, len)) {
        mr_stream_close(s, ENOMEM);
        return;
    }
    if (!(s->flags & (CONNECTING | BLOCKED)))
        mark_dirty(s);
}

void mr_filter_send(struct mr_stream *s, const char *bytes, size_t len)
{
    if (!(s->flags & (CLOSED | SHUT)))
        write_out(s, bytes, len);
}

void mr_stream_write(struct mr_stream *s, const char *bytes, size_t len)
{
    if (MR_UNLIKELY(s->flags & (CLOSED | SHUT | FILTERED))) {
        if (!(s->flags & (CLOSED | SHUT)))
            filter_of(s)->ops->on_write(filter_of(s), s, bytes, len);
        return;
    }
    write_out(s, bytes, len);
}

void mr_stream_give(struct mr_stream *s, struct mr_buf *bytes)
{
    const struct mr_slice text = mr_buf_slice(bytes);

    if (s->out.cap > 0 || s->flags & (CLOSED | SHUT | SENDING | FILTERED) ||
        sends_at_once(s, text.len)) {
        mr_stream_write(s, text.at, text.len);
        mr_buf_clear(bytes, &s->loop->slab);
        return;
    }
    s->out = *bytes;
    *bytes = (struct mr_buf){0};
    if (!(s->flags & (CONNECTING | BLOCKED)))
        mark_dirty(s);
}

void mr_stream_reap(struct mr_stream *s)
{
    struct mr_loop *loop = s->loop;

    mr_buf_clear(&s->in, &loop->slab);
    mr_buf_clear(&s->out, &loop->slab);
    loop->n_streams--;
    if (s->flags & FILTERED)
        mr_filter_remove(filter_of(s), s);
    s->ops->on_close(s, s->error); /* the owner frees s here */
}
