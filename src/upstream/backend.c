/* backend.c - one server connection: its queue of requests in flight, and their replies. */
#include "upstream/backend.h"

#include "core/log.h"
#include "net/stream.h"
#include "upstream/batch.h"
#include "upstream/greeting.h"
#include "upstream/pool.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>

#define CONNECT_TIMEOUT_MS 10000u /* for pools without a timeout */
#define NEAR_RTT_US        300u   /* `coalesce: auto` applies to servers up to this far away */
#define STREAM_BYTES       16384u /* an unfinished reply of this size is passed on in pieces */

static const char OUT_OF_STEP[] = "server gave a reply that does not belong to the request";

/* What remains of a timed-out request until its reply arrives. */
struct late {
    uint64_t ticket;
    uint32_t early; /* replies due before its own */
    bool guarded;
};

static struct mr_server_metrics UNCOUNTED; /* probes count here; never read */

static bool is_probing(const struct mr_backend *b)
{
    return b->kind == MR_BACKEND_PROBE;
}

/* Permanently: afterwards the owner of `home` may free it. */
static void leave_home(struct mr_backend *b)
{
    if (b->home != NULL && *b->home == b)
        *b->home = NULL;
    b->home = NULL;
}

static struct mr_backend *of_stream(struct mr_stream *s)
{
    return MR_CONTAINER_OF(s, struct mr_backend, stream);
}

static struct mr_slab *slab_of(struct mr_backend *b)
{
    return &b->stream.loop->slab;
}

static const struct mr_proto *protocol_of(const struct mr_backend *b)
{
    return b->server->pool->config->protocol;
}

static uint64_t timeout_us(const struct mr_backend *b)
{
    return (uint64_t)b->server->pool->config->timeout_ms * 1000u;
}

bool mr_backend_idle(const struct mr_backend *b)
{
    return b->head == NULL && mr_buf_empty(&b->late);
}

bool mr_backend_serves(const struct mr_backend *b)
{
    return !is_probing(b) && b->kind != MR_BACKEND_FEED;
}

static void start_timer(struct mr_backend *b, uint64_t delay_us)
{
    mr_loop_timer(b->stream.loop, &b->timer, (delay_us + 999u) / 1000u);
}

/* Requests that waited in the proxy are now on their way. */
static void count_sent(struct mr_backend *b)
{
    struct mr_server_metrics *m = b->metrics;

    m->in_queue -= b->unsent;
    m->in_queue_bytes -= b->unsent_bytes;
    m->out_queue += b->unsent;
    m->out_queue_bytes += b->unsent_bytes;
    b->unsent = 0;
    b->unsent_bytes = 0;
}

static struct mr_call *pop(struct mr_backend *b)
{
    struct mr_server_metrics *m = b->metrics;
    struct mr_call *call = b->head;

    b->head = call->next;
    if (b->head == NULL)
        b->tail = &b->head;
    if (MR_UNLIKELY(b->unsent == b->n_calls--)) {
        b->unsent--;
        b->unsent_bytes -= call->bytes;
        m->in_queue--;
        m->in_queue_bytes -= call->bytes;
    } else {
        m->out_queue--;
        m->out_queue_bytes -= call->bytes;
    }
    return call;
}

/*
 * When the first request in flight times out. Time spent waiting in the proxy behind output that
 * still moves does not count, nor does a reply that is coming in. A call that may block has all the
 * time it wants until its reply begins.
 */
static uint64_t late_at(const struct mr_backend *b)
{
    const bool answering = b->scan.offset > 0 || b->scan.pending > 0;
    if (b->head->marks & MR_CALL_PATIENT && !answering && !mr_stream_has_remainder(&b->stream))
        return UINT64_MAX;
    uint64_t from = b->head->sent_us;

    if (from < b->drained_us)
        from = b->drained_us;
    if (answering && from < b->read_us)
        from = b->read_us;
    return from + timeout_us(b);
}

static void count_timeout(struct mr_backend *b)
{
    if (is_probing(b))
        return;
    b->metrics->server_timedout++;
    mr_server_failed(b->server, ETIMEDOUT, MR_FAILURE_TIMEOUT);
}

/* Fails the first request in flight; its reply will be checked and discarded. */
static bool give_up(struct mr_backend *b)
{
    struct mr_call *call = b->head;
    const struct late late = {.ticket = call->ticket,
                              .early = call->marks & MR_CALL_EARLY ? call->early : 0,
                              .guarded = (call->marks & MR_CALL_GUARDED) != 0};

    if (!mr_buf_append(&b->late, slab_of(b), (const char *)&late, sizeof(late)))
        return false;
    (void)pop(b);
    call->unsent = false;
    call->ops->on_fail(call, mr_pool_reason(ETIMEDOUT));
    return true;
}

/*
 * Fails timed-out requests one by one and discards their replies if they still come, so that other
 * requests on the connection are not affected. A server that then stays silent loses the
 * connection.
 */
static void expire(struct mr_backend *b)
{
    const uint64_t now = b->stream.loop->now_us;
    bool any = false;

    if (!mr_buf_empty(&b->late) && now - b->read_us >= 2 * timeout_us(b)) {
        b->timed_out = true;
        mr_backend_close(b, ETIMEDOUT);
        return;
    }
    while (b->head != NULL && late_at(b) <= now) {
        if (!give_up(b)) {
            mr_backend_close(b, ENOMEM);
            return;
        }
        any = true;
    }
    if (any)
        count_timeout(b);
    if (b->head != NULL && late_at(b) != UINT64_MAX)
        start_timer(b, late_at(b) - now);
    else if (!mr_buf_empty(&b->late))
        start_timer(b, timeout_us(b));
}

/* The reply to a blocking call has begun, so from now on it can be late. */
static void limit_patience(struct mr_backend *b)
{
    if (timeout_us(b) > 0 && !mr_timer_is_set(&b->timer))
        start_timer(b, timeout_us(b));
}

static void on_timer(struct mr_timer *timer)
{
    struct mr_backend *b = MR_CONTAINER_OF(timer, struct mr_backend, timer);

    if (b->state != MR_BACKEND_READY) {
        b->timed_out = true;
        mr_backend_close(b, ETIMEDOUT);
    } else if (mr_list_linked(&b->spare)) {
        mr_backend_drop(b);
    } else if (timeout_us(b) > 0) {
        expire(b);
    }
}

/* ---- the greeting ---- */

/* Unix sockets are near; for TCP the handshake's round-trip time decides. */
static bool is_near(const struct mr_backend *b)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    return getsockopt(b->stream.fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
           info.tcpi_rtt <= NEAR_RTT_US;
}

static void send_held(struct mr_backend *b)
{
    const struct mr_slice held = mr_buf_slice(&b->held);
    const uint64_t now = b->stream.loop->now_us;

    b->state = MR_BACKEND_READY;
    b->near = is_near(b);
    b->read_us = now;
    b->drained_us = now; /* time-outs of waiting requests start now */
    mr_timer_cancel(&b->timer);
    if (held.len > 0)
        mr_stream_write(&b->stream, held.at, held.len);
    mr_buf_clear(&b->held, slab_of(b));
    count_sent(b);
    if (is_probing(b) && b->head != NULL && protocol_of(b)->server.probe == NULL) {
        struct mr_call *probe = pop(b);
        probe->ops->on_reply(probe, NULL, 0, true); /* being connected is the answer */
        mr_backend_drop(b);
        return;
    }
    if (b->head != NULL && timeout_us(b) > 0)
        start_timer(b, timeout_us(b));
}

/* No greeting, or no more of it, is necessary. */
static void become_ready(struct mr_backend *b)
{
    bool short_of_memory;
    struct mr_call *unable = mr_greeting_sort_out(b, &short_of_memory), *next;

    mr_server_greeted(b->server, b->lane, b->hello_sent > 0);
    if (short_of_memory)
        mr_backend_close(b, ENOMEM);
    else
        send_held(b);
    mr_pool_lane_known(b->server->pool);
    for (; unable != NULL; unable = next) { /* last, because their owners may send again */
        next = unable->next;
        unable->ops->on_fail(unable, protocol_of(b)->server.unable);
    }
}

static void take_greeting(struct mr_backend *b, struct mr_slice reply)
{
    switch (mr_greeting_take(b, reply)) {
    case MR_GREETING_GOES_ON:
        break;
    case MR_GREETING_OVER:
        become_ready(b);
        break;
    case MR_GREETING_REFUSED:
        mr_backend_close(b, EACCES);
        break;
    }
}

static void on_open(struct mr_stream *s)
{
    struct mr_backend *b = of_stream(s);

    if (b->hello_sent > 0)
        b->state = MR_BACKEND_HELLO;
    else
        become_ready(b);
}

static void refuse(struct mr_backend *b, const char *reason)
{
    b->refused = reason;
    mr_backend_close(b, EPROTO);
}

/*
 * True if a reply that begins with these bytes can belong to the request. If not, client and server
 * disagree about the stream: nothing on the connection can be trusted, so it is closed and
 * everything in flight fails.
 */
static bool is_in_step(struct mr_backend *b, uint64_t ticket, struct mr_slice reply)
{
    struct mr_verdict verdict;

    if (b->midway)
        return true;
    protocol_of(b)->server.judge(MR_REPLY_OUT_OF_STEP, ticket, reply, &verdict);
    if (verdict.meaning == MR_REPLY_PASS)
        return true;
    refuse(b, OUT_OF_STEP);
    return false;
}

/* Replies to timed-out requests are checked like all others. */
static void take_late(struct mr_backend *b, struct mr_slice reply, bool done)
{
    struct late late;

    memcpy(&late, mr_buf_slice(&b->late).at, sizeof(late));
    if (late.guarded && !is_in_step(b, late.ticket, reply))
        return;
    b->midway = !done;
    if (!done)
        return;
    if (late.early > 0) {
        late.early--;
        memcpy(b->late.mem + b->late.start, &late, sizeof(late));
    } else {
        mr_buf_consume(&b->late, slab_of(b), sizeof(late));
    }
}

/*
 * Handles a reply to a call with marks. Returns false if the call must not see it: it was
 * discarded, or the connection is out of step.
 */
static bool look_at(struct mr_backend *b, struct mr_call *call, struct mr_slice reply, bool done)
{
    if (call->marks & MR_CALL_GUARDED && !is_in_step(b, call->ticket, reply))
        return false;
    if (!(call->marks & MR_CALL_EARLY) || call->early == 0)
        return true;
    if (done && !b->midway && call->ops->on_early != NULL)
        call->ops->on_early(call, reply.at, reply.len);
    b->midway = !done;
    b->metrics->response_bytes += reply.len;
    call->early -= done;
    return false;
}

/* Time-outs of requests queued behind a blocking call start now. */
static void end_patience(struct mr_backend *b)
{
    b->drained_us = b->read_us;
    if (b->head != NULL && timeout_us(b) > 0)
        start_timer(b, timeout_us(b));
}

/* Handles a reply or a piece of one. False if no request is waiting for it. */
static bool take_reply(struct mr_backend *b, const char *bytes, size_t len, bool done)
{
    struct mr_server_metrics *m = b->metrics;

    if (MR_UNLIKELY(b->state == MR_BACKEND_HELLO)) {
        if (done)
            take_greeting(b, (struct mr_slice){bytes, len});
        return done; /* greetings are short: one in pieces is wrong */
    }
    if (MR_UNLIKELY(b->kind == MR_BACKEND_FEED) && b->user->take(b, (struct mr_slice){bytes, len}))
        return true;
    if (MR_UNLIKELY(!mr_buf_empty(&b->late))) {
        take_late(b, (struct mr_slice){bytes, len}, done);
        return true;
    }
    struct mr_call *call = b->head;
    if (MR_UNLIKELY(call == NULL))
        return false;
    if (MR_UNLIKELY(call->marks != 0) && !look_at(b, call, (struct mr_slice){bytes, len}, done))
        return true;
    b->midway = !done;
    m->response_bytes += len;
    if (MR_LIKELY(done)) {
        m->responses++;
        mr_latency_add(&m->server_latency, b->read_us - call->sent_us);
        mr_histogram_add(&m->server_times[call->class], b->read_us - call->sent_us);
        (void)pop(b);
        b->answered = true;
        b->at_lane->spoken = true;
        if (MR_LIKELY(!is_probing(b)))
            mr_server_answered(b->server);
        if (MR_UNLIKELY(call->marks & MR_CALL_PATIENT))
            end_patience(b);
    }
    call->ops->on_reply(call, bytes, len, done);
    return true;
}

static void coalesce(struct mr_backend *b, size_t len)
{
    const uint32_t setting = b->server->pool->config->coalesce_us;

    if (setting == 0 || b->state != MR_BACKEND_READY || b->kind != MR_BACKEND_SHARED ||
        (setting == MR_AUTO && !b->near))
        return;
    mr_batch_add(&b->batch, setting == MR_AUTO ? 0 : setting, b->n_calls, len);
}

static void quickack(struct mr_backend *b)
{
    const int on = 1;

    (void)setsockopt(b->stream.fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

/* The server sent something that cannot be a reply to any request. */
static void bad_reply(struct mr_backend *b, const char *what)
{
    mr_log_limited(MR_LOG_ERR, "server_reply_bad pool=%s server=%s reason=%s",
                   b->server->pool->config->name, b->server->name, what);
    if (b->state == MR_BACKEND_HELLO)
        b->refused = "server does not speak the protocol of the request";
    mr_backend_close(b, EINVAL);
}

/* Messages are not passed on in pieces, since they go to many clients. Returns 0. */
static size_t await_message(struct mr_backend *b, size_t len)
{
    const uint64_t need = b->scan.offset > len ? b->scan.offset : len + 1;

    if (need <= b->user->max_bytes(b->server->pool))
        mr_stream_want(&b->stream, (size_t)need);
    else
        bad_reply(b, "message_too_large");
    return 0;
}

/* Passes on a large reply as it arrives. Returns how many bytes were passed on. */
static size_t take_piece(struct mr_backend *b, const char *bytes, size_t len)
{
    const size_t scanned = b->scan.offset < len ? (size_t)b->scan.offset : len;

    if (b->kind == MR_BACKEND_FEED)
        return await_message(b, len);
    if (len < STREAM_BYTES || scanned == 0) {
        const uint64_t want = b->scan.offset < STREAM_BYTES ? b->scan.offset : STREAM_BYTES;
        mr_stream_want(&b->stream, want > len ? (size_t)want : 0);
        return 0;
    }
    if (!b->scan.aside && !take_reply(b, bytes, scanned, false)) {
        bad_reply(b, "nobody_asked");
        return len;
    }
    b->scan.offset -= scanned;
    return scanned;
}

static size_t on_data(struct mr_stream *s, const char *bytes, size_t len)
{
    struct mr_backend *b = of_stream(s);
    const struct mr_proto *proto = protocol_of(b);
    const uint64_t answered = b->metrics->responses;
    size_t used = 0;

    b->read_us = s->loop->now_us;
    if (b->server->pool->config->tcp_quickack)
        quickack(b);
    while (used < len && !mr_stream_is_closed(s)) {
        size_t n;
        const enum mr_result rc =
            proto->server.scan_reply(b->lane, &b->scan, bytes + used, len - used, &n);
        if (rc == MR_AGAIN) {
            used += take_piece(b, bytes + used, len - used);
            if (MR_UNLIKELY(b->head != NULL && b->head->marks & MR_CALL_PATIENT))
                limit_patience(b);
            break;
        }
        if (rc != MR_ASIDE && (rc != MR_OK || !take_reply(b, bytes + used, n, true))) {
            bad_reply(b, rc != MR_OK ? "not_a_reply" : "nobody_asked");
            return len;
        }
        used += n;
    }
    mr_batch_answered(&b->batch, b->metrics->responses - answered, b->n_calls);
    if (b->retired && mr_backend_idle(b))
        mr_backend_close(b, 0);
    return used;
}

static void on_eof(struct mr_stream *s)
{
    struct mr_backend *b = of_stream(s);

    if (b->state == MR_BACKEND_HELLO)
        b->refused = "server closes new connections";
    mr_backend_close(b, 0);
}

static void on_drain(struct mr_stream *s)
{
    struct mr_backend *b = of_stream(s);

    b->drained_us = s->loop->now_us;
    if (b->state == MR_BACKEND_READY)
        count_sent(b);
}

/* A server may close an idle connection; any other close is a failure. */
static void count_close(struct mr_backend *b, int error, bool was_idle)
{
    struct mr_server_metrics *m = b->metrics;

    if (b->server->pool->closing || b->retired)
        return;
    if (is_probing(b)) { /* the prober counts its own failures */
        if (mr_greeting_refused(b, error))
            mr_server_refused(b->server, b->lane, b->refused);
        return;
    }
    if (b->timed_out)
        m->server_timedout++;
    else if (error == 0)
        m->server_eof++;
    else
        m->server_err++;
    if (was_idle && b->state == MR_BACKEND_READY && (error == 0 || error == ECONNRESET))
        return;
    mr_log_limited(MR_LOG_WARN, "server_failed pool=%s server=%s addr=%s reason=\"%s\"",
                   b->server->pool->config->name, b->server->name, b->server->addr.text,
                   b->refused != NULL ? b->refused : mr_pool_reason(error));
    if (mr_greeting_refused(b, error))
        mr_server_refused(b->server, b->lane, b->refused);
    else if (b->refused != OUT_OF_STEP) /* clients must not be able to eject a good server */
        mr_server_failed(b->server, error, b->answered ? MR_FAILURE_CUT : MR_FAILURE_SILENT);
}

static const char *close_reason(const struct mr_backend *b, int error)
{
    return b->refused != NULL ? b->refused : mr_pool_reason(error);
}

static void on_close(struct mr_stream *s, int error)
{
    struct mr_backend *b = of_stream(s);
    struct mr_server *server = b->server;

    mr_timer_cancel(&b->timer);
    mr_batch_drop(&b->batch);
    mr_list_del(&b->link);
    leave_home(b);
    if (mr_list_linked(&b->spare))
        mr_list_del(&b->spare);
    b->metrics->server_connections--;
    server->pool->process->curr_connections--;
    count_close(b, error, mr_backend_idle(b));
    while (b->head != NULL) {
        struct mr_call *call = pop(b);
        call->unsent = b->state != MR_BACKEND_READY;
        call->ops->on_fail(call, close_reason(b, error));
    }
    mr_buf_clear(&b->held, slab_of(b));
    mr_buf_clear(&b->late, slab_of(b));
    if (b->state != MR_BACKEND_READY)
        mr_pool_lane_known(server->pool);
    if (b->extra && server->pool->extra_room != NULL)
        server->pool->extra_room->n--;
    const struct mr_backend_user *user = b->user;
    mr_slab_put(slab_of(b), b, sizeof(*b));
    if (user->on_lost != NULL)
        user->on_lost(server);
}

static const struct mr_stream_ops OPS = {
    .on_open = on_open,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_close = on_close,
};

int mr_backend_connect(struct mr_backend **home, struct mr_server *server, uint8_t lane,
                       const struct mr_backend_user *user)
{
    const struct mr_pool *pool = server->pool;
    struct mr_slab *slab = &pool->loop->slab;
    struct mr_error err;

    struct mr_backend *b = mr_slab_get_zeroed(slab, sizeof(*b));
    if (mr_stream_connect(&b->stream, pool->loop, &OPS, &server->addr, &err) != MR_OK) {
        mr_slab_put(slab, b, sizeof(*b));
        return err.sys != 0 ? err.sys : EIO;
    }
    b->server = server;
    b->user = user;
    b->kind = user->kind;
    b->metrics = is_probing(b) ? &UNCOUNTED : server->metrics;
    b->home = home;
    *home = b;
    b->tail = &b->head;
    b->timer.fire = on_timer;
    mr_batch_init(&b->batch, &b->stream);
    b->read_us = pool->loop->now_us;
    mr_list_append(&server->backends, &b->link);
    b->lane = lane;
    b->at_lane = mr_server_lane(server, lane);
    b->extra =
        b->kind == MR_BACKEND_LEASE || b->kind == MR_BACKEND_FEED || !mr_server_plans(server, lane);
    if (b->extra && pool->extra_room != NULL)
        pool->extra_room->n++;
    mr_greeting_send(b);
    start_timer(b, timeout_us(b) > 0 ? timeout_us(b) : CONNECT_TIMEOUT_MS * 1000u);
    b->metrics->server_connections++;
    pool->process->curr_connections++;
    pool->process->total_connections++;
    return 0;
}

const char *mr_backend_send(struct mr_backend *b, struct mr_call *call, struct mr_slice request)
{
    struct mr_server_metrics *m = b->metrics;

    if (MR_UNLIKELY(call->needs != 0) && b->state == MR_BACKEND_READY &&
        !mr_backend_is_able(b, call))
        return protocol_of(b)->server.unable;
    coalesce(b, request.len);
    call->next = NULL;
    call->sent_us = b->stream.loop->now_us;
    call->bytes = (uint32_t)request.len;
    call->unsent = b->state != MR_BACKEND_READY;
    *b->tail = call;
    b->tail = &call->next;
    b->n_calls++;
    m->requests++;
    m->request_bytes += request.len;
    if (MR_LIKELY(b->state == MR_BACKEND_READY && !mr_stream_is_blocked(&b->stream))) {
        m->out_queue++;
        m->out_queue_bytes += request.len;
    } else {
        m->in_queue++;
        m->in_queue_bytes += request.len;
        b->unsent++;
        b->unsent_bytes += request.len;
    }
    if (MR_LIKELY(b->state == MR_BACKEND_READY || b->hello_sent == 0))
        mr_stream_write(&b->stream, request.at, request.len);
    else if (!mr_buf_append(&b->held, slab_of(b), request.at, request.len))
        mr_backend_close(b, ENOMEM);
    if (b->state == MR_BACKEND_READY && timeout_us(b) > 0 && !mr_timer_is_set(&b->timer))
        start_timer(b, timeout_us(b));
    return NULL;
}

void mr_backend_retire(struct mr_backend *b)
{
    if (b->retired)
        return;
    b->retired = true;
    if (mr_backend_idle(b))
        mr_backend_close(b, 0);
    else if (b->kind == MR_BACKEND_SHARED) /* others are still to be ended by their owners */
        leave_home(b);
}

void mr_backend_close(struct mr_backend *b, int error)
{
    mr_stream_close(&b->stream, error);
    leave_home(b); /* the next request connects again */
}

void mr_backend_drop(struct mr_backend *b)
{
    b->retired = true;
    mr_backend_close(b, 0);
}

void mr_backend_set_lane(struct mr_backend *b, uint8_t lane)
{
    b->lane = lane;
    b->at_lane = mr_server_lane(b->server, lane);
}

void mr_backend_rehome(struct mr_backend *b, struct mr_backend **home)
{
    leave_home(b);
    b->home = home;
    if (home != NULL)
        *home = b;
    if (mr_list_linked(&b->spare))
        mr_list_del(&b->spare);
}

struct mr_backend *mr_backend_next(struct mr_server *server, struct mr_backend *b)
{
    struct mr_list *link = b == NULL ? server->backends.next : b->link.next;

    return link == &server->backends ? NULL : MR_CONTAINER_OF(link, struct mr_backend, link);
}
