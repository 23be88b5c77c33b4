/* pair.c - a stream and its owner at one end of a real socket, and a scripted peer at the other. */
#include "stress/pair.h"

#include "core/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATTERN 65521u /* a prime, so that it fits no buffer size */
#define CHUNK   50000u

static char pattern[2 * PATTERN];

/* Up to CHUNK bytes of the stream in one direction. */
static const char *bytes_of(const struct pair *p, bool to_owner, size_t at)
{
    if (pattern[0] == 0)
        for (size_t i = 0; i < sizeof(pattern); i++)
            pattern[i] = (char)(1 + (i % PATTERN) * (i % PATTERN) % 251);
    return pattern + (at + p->id * 4999u + (to_owner ? 977u : 0)) % PATTERN;
}

static void compare(const struct pair *p, bool to_owner, size_t at, const char *bytes, size_t len)
{
    for (size_t n; len > 0; bytes += n, at += n, len -= n) {
        n = len < CHUNK ? len : CHUNK;
        if (memcmp(bytes, bytes_of(p, to_owner, at), n) != 0)
            wrong(p, to_owner ? "the owner got other bytes" : "the peer got other bytes");
    }
}

static struct pair *called(struct mr_stream *s)
{
    struct owner *o = MR_CONTAINER_OF(s, struct owner, stream);

    if (o->calling)
        wrong(o->pair, "a callback inside the owner's call");
    return o->pair;
}

static bool reads(const struct pair *p)
{
    return !p->paused && !p->resting && !p->finished && !p->closed;
}

/* ---- callbacks of the owner ---- */

static void on_open(struct mr_stream *s)
{
    struct pair *p = called(s);

    if (++p->opens > 1 || p->kind != PAIR_CONNECTED)
        wrong(p, "on_open that was not due");
}

static void do_deed(struct pair *p, enum deed deed)
{
    struct pair *other = &p->world->pairs[p->other];

    switch (deed) {
    case DEED_PAUSE:
        pair_pause(p);
        break;
    case DEED_WRITE:
        pair_write(p, 3000);
        break;
    case DEED_CLOSE_OTHER:
        pair_close(other, ECANCELED);
        break;
    case DEED_CLOSE:
        pair_close(p, ECANCELED);
        break;
    case DEED_FINISH:
        pair_finish(p);
        break;
    case DEED_REWATCH:
        mr_watch_stop(&p->world->loop, &p->world->watch);
        mr_watch_start(&p->world->loop, &p->world->watch);
        break;
    case DEED_NOTHING:
    case DEEDS:
        break;
    }
}

/* Consumes bytes up to the next deed. */
static size_t on_data(struct mr_stream *s, const char *bytes, size_t len)
{
    struct pair *p = called(s);
    size_t used = 0;

    if (p->paused || p->resting || p->finished || p->closed || p->eofs > 0)
        wrong(p, "on_data that the owner has called off");
    if (len < p->want)
        wrong(p, "on_data with less than is wanted");
    if (p->consumed + len > p->sent)
        wrong(p, "on_data with more than was sent");
    p->want = 0;
    compare(p, true, p->consumed, bytes, len);
    while (used < len && !p->paused && !p->finished && !p->closed) {
        const size_t before = p->deed_at - p->consumed;
        const size_t n = p->deed_at > p->consumed && before < len - used ? before : len - used;
        p->consumed += n;
        used += n;
        if (p->consumed == p->deed_at) {
            p->deed_at = NEVER;
            do_deed(p, p->deed);
        }
    }
    return used;
}

static void on_eof(struct mr_stream *s)
{
    struct pair *p = called(s);

    if (++p->eofs > 1 || p->paused || p->resting || p->finished || p->closed)
        wrong(p, "on_eof that was not due");
    if (!p->ended)
        wrong(p, "on_eof, and the peer goes on");
    if (p->consumed + mr_buf_len(&s->in) != p->sent)
        wrong(p, "on_eof before all that was sent");
    if (!p->at_eof_done) {
        p->at_eof_done = true;
        do_deed(p, p->at_eof);
    }
}

static void on_drain(struct mr_stream *s)
{
    struct pair *p = called(s);

    if (mr_stream_pending(s) > 0 || mr_stream_is_blocked(s) || p->closed)
        wrong(p, "on_drain that was not due");
}

static void on_room(struct mr_stream *s)
{
    struct pair *p = called(s);

    if (!p->awaits_room || mr_stream_pending(s) > OPEN_ROOM || p->closed)
        wrong(p, "on_room that was not due");
    p->awaits_room = false;
}

static void on_close(struct mr_stream *s, int error)
{
    struct owner *o = MR_CONTAINER_OF(s, struct owner, stream);
    struct pair *p = called(s);

    p->world->streams--;
    if (p->owner == o) { /* otherwise it has moved on */
        p->closes++;
        p->seen_error = error;
        if (p->closed && p->error != error)
            wrong(p, "on_close with another error than the owner's");
        if (!p->closed && !p->doomed && !p->must_close && !p->ended)
            wrong(p, "on_close that nobody has asked for");
        p->input_open |= !reads(p);
        p->owner = NULL;
    }
    memset(s, 0x5a, sizeof(*s));
    free(o);
}

static const struct mr_stream_ops OPS = {
    .on_open = on_open,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_room = on_room,
    .on_close = on_close,
};

/* ---- the start ---- */

static struct owner *new_owner(struct pair *p)
{
    struct owner *o = calloc(1, sizeof(*o));

    MR_CHECK(o != NULL);
    o->pair = p;
    p->owner = o;
    p->world->streams++;
    return o;
}

/* The receive buffer keeps its size: TCP stalls if the window is smaller than a segment. */
static void shrink(int fd)
{
    const int bytes = 16384;

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* Nothing waits for an acknowledgement; what a listener accepts inherits that. */
static int tcp(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;

    MR_CHECK(fd >= 0);
    MR_CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    return fd;
}

static struct mr_addr loopback(uint16_t port)
{
    struct mr_addr a;

    MR_CHECK(mr_addr_numeric(&a, mr_slice_of(PEER_HOST), port));
    return a;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in in;
    socklen_t len = sizeof(in);

    MR_CHECK(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
    return ntohs(in.sin_port);
}

/* The stream connects; the peer is the listener's new socket, or nobody. */
static void start_connecting(struct pair *p)
{
    struct mr_addr a = loopback(0);
    struct mr_error err;

    const int listener = tcp();
    MR_CHECK(bind(listener, &a.sa.any, a.len) == 0);
    MR_CHECK(p->kind == PAIR_REFUSED || listen(listener, 1) == 0);
    a = loopback(port_of(listener));
    struct owner *o = new_owner(p);
    if (mr_stream_connect(&o->stream, &p->world->loop, &OPS, &a, &err) == MR_OK) {
        if (p->kind == PAIR_CONNECTED) {
            p->peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
            MR_CHECK(p->peer >= 0);
        }
    } else { /* refused at once: no callback follows */
        MR_CHECK(p->kind == PAIR_REFUSED);
        p->seen_error = err.sys;
        p->closes = 1;
        p->owner = NULL;
        p->world->streams--;
        free(o);
    }
    close(listener);
}

void pair_start(struct pair *p, enum pair_kind kind, uint16_t port, bool small_buffers)
{
    struct world *world = p->world;
    int ends[2];

    *p = (struct pair){.world = world,
                       .id = (unsigned)(p - world->pairs),
                       .kind = kind,
                       .peer = -1,
                       .turn = world->turns++,
                       .alive = true,
                       .deed_at = NEVER,
                       .peer_reads = true,
                       .doomed = kind == PAIR_REFUSED,
                       .must_close = kind == PAIR_REFUSED};
    if (kind == PAIR_UNIX) {
        MR_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
        p->peer = ends[1];
        if (small_buffers)
            shrink(ends[0]);
        mr_stream_open(&new_owner(p)->stream, &world->loop, &OPS, ends[0]);
    } else if (kind == PAIR_ACCEPTED) {
        const struct mr_addr a = loopback(port);
        p->peer = tcp();
        if (small_buffers)
            shrink(p->peer);
        MR_CHECK(connect(p->peer, &a.sa.any, a.len) == 0);
    } else {
        start_connecting(p);
    }
    if (small_buffers && p->peer >= 0 && kind != PAIR_ACCEPTED)
        shrink(p->peer);
}

bool pair_is_unaccepted(const struct pair *p)
{
    return p->alive && p->kind == PAIR_ACCEPTED && p->owner == NULL && p->closes == 0;
}

void pair_accepted(struct pair *p, int fd)
{
    mr_stream_open(&new_owner(p)->stream, &p->world->loop, &OPS, fd);
    if (p->paused)
        mr_stream_pause(&p->owner->stream);
}

/* ---- actions of the owner ---- */

/* The stream for a call during which no callback may run; NULL if it is gone. */
static struct mr_stream *begin(struct pair *p)
{
    if (p->owner == NULL)
        return NULL;
    /* an end met while it did not read may still have to be reported */
    p->input_open |= mr_stream_is_closed(&p->owner->stream) && !reads(p);
    p->owner->calling = true;
    return &p->owner->stream;
}

static void end(struct pair *p)
{
    p->owner->calling = false;
}

void pair_write(struct pair *p, size_t bytes)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    p->input_open |= p->ended && p->peer < 0; /* this fails, see input_may_end */
    for (size_t n; bytes > 0; bytes -= n) {
        n = bytes < CHUNK ? bytes : CHUNK;
        if (!p->finished && !p->closed) {
            mr_stream_write(s, bytes_of(p, false, p->written), n);
            p->written += n;
        }
    }
    end(p);
}

void pair_pause(struct pair *p)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    if (!p->finished)
        p->paused = true;
    mr_stream_pause(s);
    end(p);
}

void pair_resume(struct pair *p)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    p->paused = false;
    mr_stream_resume(s);
    end(p);
}

void pair_cork(struct pair *p, bool on)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    p->corked = on && !p->finished;
    if (p->corked)
        mr_stream_cork(s);
    else
        mr_stream_uncork(s);
    end(p);
}

void pair_close(struct pair *p, int error)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    if (!mr_stream_is_closed(s)) { /* otherwise it reports the peer's error */
        p->closed = true;
        p->error = error;
    }
    p->doomed = p->must_close = p->input_open = true;
    mr_stream_close(s, error);
    end(p);
}

void pair_finish(struct pair *p)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    p->finished = true;
    p->input_open = true;
    p->paused = p->resting = p->corked = false;
    mr_stream_finish(s);
    end(p);
}

void pair_rest(struct pair *p)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    if (!p->finished && !p->closed && mr_stream_is_open(s)) {
        p->resting = true;
        (void)mr_stream_rest(s);
    }
    end(p);
}

void pair_wake(struct pair *p)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    p->resting = false;
    mr_stream_wake(s);
    end(p);
}

void pair_want(struct pair *p, size_t total)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    if (reads(p) && p->want == 0) {
        p->input_open |= p->ended && p->peer < 0; /* there may never be so much */
        p->want = total;
        mr_stream_want(s, total);
    }
    end(p);
}

void pair_present(struct pair *p)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    if (reads(p) && p->eofs == 0) {
        p->want = 0;
        mr_stream_present(s);
    }
    end(p);
}

void pair_await_room(struct pair *p)
{
    struct mr_stream *s = begin(p);

    if (s == NULL)
        return;
    p->awaits_room = mr_stream_await_room(s, OPEN_ROOM);
    end(p);
}

void pair_move(struct pair *p)
{
    struct owner *old = p->owner;

    if (old == NULL || !p->resting || !mr_stream_rest(&old->stream))
        return;
    const int fd = dup(old->stream.fd);
    MR_CHECK(fd >= 0);
    struct mr_stream *s = &new_owner(p)->stream;
    p->eofs = 0; /* the socket reports it again */
    p->want = 0;
    p->resting = p->corked = p->awaits_room = false;
    mr_stream_open(s, &p->world->loop, &OPS, fd);
    if (p->paused)
        mr_stream_pause(s);
    mr_stream_restore(s, mr_buf_slice(&old->stream.in), mr_buf_slice(&old->stream.out));
    mr_stream_close(&old->stream, 0);
}

void pair_arm(struct pair *p, enum deed deed, size_t after, unsigned other)
{
    if (p->armed || p->ending != GOES_ON)
        return;
    p->armed = true;
    p->deed = deed;
    p->deed_at = p->queued + after;
    p->other = other;
    if (deed == DEED_CLOSE_OTHER)
        p->world->pairs[other].doomed = p->world->pairs[other].input_open = true;
}

static bool may_do(const struct pair *p, enum deed deed)
{
    return (p->armed && p->deed == deed) || (p->ending != GOES_ON && p->at_eof == deed);
}

bool pair_may_finish(const struct pair *p)
{
    return p->finished || may_do(p, DEED_FINISH);
}

bool pair_may_write(const struct pair *p)
{
    return may_do(p, DEED_WRITE);
}

/* ---- the peer ---- */

/* A reset discards what the peer wrote and TCP has not sent. */
static bool has_unsent(const struct pair *p)
{
    int n = 0;

    return p->kind != PAIR_UNIX && ioctl(p->peer, SIOCOUTQNSD, &n) == 0 && n > 0;
}

/*
 * The peer's socket is about to go. What it has sent arrives, but for: a reset throws away what TCP
 * still holds, a send that fails closes the stream at once, a wanted size may not be reached.
 */
static void input_may_end(struct pair *p, bool reset)
{
    const bool may_send = p->got < p->written || p->corked;

    if (p->want > 0 || (p->kind == PAIR_CONNECTED && p->opens == 0) || may_send)
        p->input_open = true;
    if (reset && (p->sent != p->queued || p->sent - p->consumed > STRICT || has_unsent(p)))
        p->input_open = true;
}

void pair_end(struct pair *p, enum ending ending)
{
    if (p->peer < 0 || p->ended || (p->ending != GOES_ON && ending != RESETS))
        return;
    p->ending = ending;
    if (ending != RESETS)
        return;
    const struct linger at_once = {.l_onoff = 1};
    input_may_end(p, true);
    p->queued = p->sent;
    p->doomed = true;
    (void)setsockopt(p->peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    (void)close(p->peer);
    p->peer = -1;
    p->ended = true;
}

static bool peer_sends(struct pair *p)
{
    bool any = false;

    while (p->sent < p->queued) {
        const size_t left = p->queued - p->sent;
        const ssize_t n = send(p->peer, bytes_of(p, true, p->sent), left < CHUNK ? left : CHUNK,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN) { /* the owner has closed */
                p->queued = p->sent;
                p->input_open = true;
            }
            break;
        }
        p->sent += (size_t)n;
        any = true;
    }
    return any;
}

static bool peer_reads(struct pair *p)
{
    static char got[CHUNK];
    ssize_t n;
    bool any = false;

    while (!p->peer_saw_eof && (n = recv(p->peer, got, sizeof(got), MSG_DONTWAIT)) != -1) {
        any = true;
        compare(p, false, p->got, got, (size_t)n);
        p->got += (size_t)n;
        if (p->got > p->written)
            wrong(p, "the peer got more than was written");
        if (n > 0)
            continue;
        p->peer_saw_eof = true;
        if (!p->finished && !p->doomed)
            wrong(p, "the peer sees an end that nobody has asked for");
        if (p->got < p->written && !p->doomed)
            wrong(p, "the peer sees the end before all that was written");
    }
    return any;
}

bool pair_pump(struct pair *p)
{
    if (p->peer < 0)
        return false;
    bool any = peer_sends(p);
    if (p->peer_reads)
        any |= peer_reads(p);
    if (p->ended || p->ending == GOES_ON || p->sent < p->queued)
        return any;
    p->ended = true;
    if (p->ending == CLOSES) {
        input_may_end(p, false);
        p->doomed = true; /* output may meet a closed socket */
        (void)close(p->peer);
        p->peer = -1;
    } else {
        (void)shutdown(p->peer, SHUT_WR);
    }
    return true;
}

/* ---- what must happen ---- */

static const char *missing_input(const struct pair *p)
{
    if (p->finished && !p->closed && p->owner != NULL && p->peer >= 0 && p->sent < p->queued)
        return "not all input was thrown away";
    if (p->input_open || !reads(p))
        return NULL;
    if (p->owner == NULL)
        return p->consumed < p->sent ? "input was lost" : NULL;
    if (p->consumed < p->queued && p->queued - p->consumed >= p->want)
        return "not all input has come";
    return p->ended && p->peer >= 0 && p->eofs == 0 ? "on_eof has not come" : NULL;
}

static const char *missing_output(const struct pair *p)
{
    if (p->doomed || p->resting || p->corked || !p->peer_reads)
        return NULL;
    if (p->got < p->written)
        return "not all output has come";
    if (p->finished && !p->peer_saw_eof)
        return "the peer has not heard of the end";
    if (p->owner == NULL)
        return NULL;
    if (mr_stream_pending(&p->owner->stream) > 0 || mr_stream_is_blocked(&p->owner->stream))
        return "the stream has output";
    return p->awaits_room ? "on_room has not come" : NULL;
}

/* The peer is gone: a stream that reads, or is only paused, must notice. */
static bool must_have_closed(const struct pair *p)
{
    if (p->must_close)
        return true;
    if (p->resting || !p->ended)
        return false;
    if (p->finished)
        return p->peer < 0 || p->peer_saw_eof;
    if (p->eofs > 0)
        return false;
    return p->ending == RESETS || (p->ending == CLOSES && !p->paused && p->at_eof == DEED_CLOSE);
}

const char *pair_missing(struct pair *p)
{
    if (!p->alive)
        return NULL;
    if (p->owner == NULL && p->closes == 0)
        return "the connection has not been accepted";
    if (p->owner != NULL && must_have_closed(p))
        return "on_close has not come";
    const char *missing = missing_input(p);
    if (missing == NULL)
        missing = missing_output(p);
    if (missing != NULL)
        return missing;
    if (p->owner != NULL && p->kind == PAIR_CONNECTED && p->opens == 0)
        return "on_open has not come";
    if (p->owner != NULL && p->resting && !mr_stream_is_closed(&p->owner->stream) &&
        !mr_stream_rest(&p->owner->stream))
        return "the engine has not let go of it";
    return NULL;
}

bool pair_same(const struct pair *a, const struct pair *b)
{
    if (a->id != b->id || a->kind != b->kind)
        return false;
    const bool input_open = a->input_open || b->input_open;
    if (!input_open && a->want == 0 && b->want == 0 && a->consumed != b->consumed)
        return false;
    if (a->doomed || b->doomed)
        return true;
    return a->got == b->got && (input_open || a->eofs == b->eofs) && a->opens == b->opens &&
           a->closes == b->closes && a->seen_error == b->seen_error;
}

void pair_describe(const struct pair *p, char *text, size_t size)
{
    (void)snprintf(text, size,
                   "pair %u kind %d: queued %zu sent %zu consumed %zu want %zu written %zu got %zu "
                   "opens %u eofs %u closes %u error %d%s%s%s%s%s%s%s",
                   p->id, (int)p->kind, p->queued, p->sent, p->consumed, p->want, p->written,
                   p->got, p->opens, p->eofs, p->closes, p->seen_error, p->paused ? " paused" : "",
                   p->resting ? " resting" : "", p->corked ? " corked" : "",
                   p->finished ? " finished" : "", p->closed ? " closed" : "",
                   p->doomed ? " doomed" : "", p->input_open ? " input open" : "");
}
