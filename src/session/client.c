/* client.c - a client connection: parses requests, and sends replies in order. */
#include "session/client.h"

#include "core/log.h"
#include "session/pin.h"
#include "session/subscribe.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define INFLIGHT_BYTES (1u << 20) /* reading pauses beyond this many request bytes in flight */
#define OUTPUT_PAUSE   (1u << 20) /* reading pauses beyond this many unsent reply bytes */
#define UNKNOWN_AHEAD  64u        /* limit on requests in flight until reply sizes are known */
#define KNOWN_AFTER    16u        /* replies needed to know their size */
#define FORGET_AT      256u       /* at this many replies, history is halved */
#define LINGER_MS      1000u      /* interval of checks on lingering clients */
#define UNSENT_STALLS  30u /* checks without progress before a client with unsent output is cut */
#define CLOSE_STALLS   2u  /* the same with all output sent; the first check may come at once */

/* The size class of the slab; idle clients by the ten thousand have nothing else. */
_Static_assert(sizeof(struct mr_client) <= 320, "what an idle client costs");

static struct mr_client *of_stream(struct mr_stream *s)
{
    return MR_CONTAINER_OF(s, struct mr_client, stream);
}

static struct mr_slab *slab_of(const struct mr_client *client)
{
    return &client->service->loop->slab;
}

static size_t piled_up(const struct mr_client *client)
{
    return mr_stream_pending(&client->stream) + client->held_bytes;
}

/* ---- pauses ---- */

/*
 * True if the replies to the requests in flight are likely to exceed a fraction of the output
 * limit, going by recent replies. Otherwise a deep pipeline of large values could cut a client that
 * does read.
 */
static bool expects_more_than(const struct mr_client *client, uint32_t part)
{
    const uint64_t budget = client->service->config->client_output_limit / part;

    if (client->answered < KNOWN_AFTER)
        return client->n_requests >= UNKNOWN_AHEAD;
    return client->n_requests * client->answered_bytes > budget * client->answered;
}

/* Unsent reply bytes at which reading pauses. */
static uint32_t output_pause(const struct mr_client *client)
{
    const uint32_t part = client->service->config->client_output_limit / 4;

    return part < OUTPUT_PAUSE ? part : OUTPUT_PAUSE;
}

/*
 * Reasons not to read. A reason in `paused` holds until half its limit is reached, so that reading
 * does not stop and start with every request.
 */
static inline unsigned reasons(const struct mr_client *client, unsigned paused)
{
    const uint32_t pipeline = client->service->config->max_pipeline;
    const uint32_t output = output_pause(client);
    unsigned found = client->barred;

    if (MR_UNLIKELY(client->service->held))
        found |= MR_PAUSE_HELD;
    if (MR_UNLIKELY(client->n_requests >
                    (paused & MR_PAUSE_PIPELINE ? pipeline / 2 : pipeline - 1)))
        found |= MR_PAUSE_PIPELINE;
    if (MR_UNLIKELY(client->inflight_bytes >
                    (paused & MR_PAUSE_REQUEST_BYTES ? INFLIGHT_BYTES / 2 : INFLIGHT_BYTES)))
        found |= MR_PAUSE_REQUEST_BYTES;
    if (MR_UNLIKELY(expects_more_than(client, paused & MR_PAUSE_REPLY_BYTES ? 8 : 4)))
        found |= MR_PAUSE_REPLY_BYTES;
    if (MR_UNLIKELY(client->held_bytes > (paused & MR_PAUSE_EARLY_REPLIES ? output / 2 : output)))
        found |= MR_PAUSE_EARLY_REPLIES;
    if (MR_UNLIKELY(mr_stream_pending(&client->stream) >
                    (paused & MR_PAUSE_OUTPUT ? output / 2 : output)))
        found |= MR_PAUSE_OUTPUT;
    return found;
}

/*
 * Keeps reading while a client blocks, to notice when it disconnects: otherwise a client that is
 * gone could take data from others. The input is limited like a request.
 */
static void read_ahead(struct mr_client *client, size_t unused)
{
    const uint32_t limit = client->service->config->max_request_bytes;

    if (unused < limit) {
        mr_stream_want(&client->stream, limit);
        return;
    }
    mr_log_limited(MR_LOG_WARN, "client_cut pool=%s reason=input_limit bytes=%zu limit=%u",
                   client->service->config->name, unused, limit);
    mr_client_cut(client, ENOBUFS);
}

/*
 * Must not be called for a closed stream, which gets no more events. `unused` is the number of
 * input bytes at hand.
 */
static void pause_for(struct mr_client *client, unsigned found, size_t unused)
{
    const unsigned alone = /* reasons that can hold with an empty queue */
        MR_PAUSE_HELD | MR_PAUSE_OUTPUT | MR_PAUSE_LEASE | MR_PAUSE_LANE;

    MR_CHECK(!(found & ~alone) || client->head != NULL);
    if (found & MR_PAUSE_OUTPUT)
        MR_CHECK(mr_stream_await_room(&client->stream, output_pause(client) / 2));
    client->pauses = found;
    if (found & (MR_PAUSE_HELD | MR_PAUSE_OUTPUT) || !mr_pin_waits(client)) {
        mr_stream_pause(&client->stream);
        return;
    }
    mr_stream_resume(&client->stream); /* another reason may have paused it */
    read_ahead(client, unused);
}

void mr_client_reconsider(struct mr_client *client)
{
    if (MR_LIKELY(client->pauses == 0) || mr_stream_is_closed(&client->stream))
        return;
    const unsigned found = reasons(client, client->pauses);
    if (found != 0) {
        pause_for(client, found, mr_buf_len(&client->stream.in));
        return;
    }
    client->pauses = 0;
    if (mr_stream_is_paused(&client->stream))
        mr_stream_resume(&client->stream);
    else
        mr_stream_present(&client->stream);
}

static void learn_size(struct mr_client *client, size_t len, bool done)
{
    client->answered_bytes += len;
    if (done && ++client->answered == FORGET_AT) {
        client->answered /= 2;
        client->answered_bytes /= 2;
    }
}

/* ---- the request queue ---- */

void mr_request_free(struct mr_request *r)
{
    struct mr_slab *slab = &r->service->loop->slab;

    mr_buf_clear(&r->reply, slab);
    if (MR_UNLIKELY(r->again != NULL))
        mr_again_free(r->again);
    mr_slab_put(slab, r, sizeof(*r));
}

static void time_request(struct mr_request *r)
{
    struct mr_pool_metrics *m = r->service->pool.metrics;
    const uint64_t us = r->service->loop->now_us - r->since_us;

    mr_latency_add(&m->request_latency, us);
    mr_histogram_add(&m->request_times[r->class], us);
}

static void pop(struct mr_client *client)
{
    struct mr_request *r = client->head;

    client->head = r->next;
    if (client->head == NULL)
        client->tail = NULL;
    client->n_requests--;
    client->inflight_bytes -= r->bytes;
    if (MR_LIKELY(!mr_stream_is_blocked(&client->stream))) {
        time_request(r);
        mr_request_free(r);
    } else { /* complete once the client has taken the reply */
        r->next = client->unsent;
        client->unsent = r;
    }
}

static void settle_unsent(struct mr_client *client, bool taken)
{
    struct mr_request *r;

    while ((r = client->unsent) != NULL) {
        client->unsent = r->next;
        if (taken)
            time_request(r);
        mr_request_free(r);
    }
}

void mr_client_withdraw(struct mr_request *r)
{
    struct mr_client *client = r->client;

    MR_CHECK(client->head == r && client->tail == r && !r->started);
    client->head = client->tail = NULL;
    client->n_requests = 0;
    client->inflight_bytes = 0;
    client->barred &= ~(unsigned)MR_PAUSE_LINE;
    mr_request_free(r);
}

void mr_client_check_output(struct mr_client *client)
{
    const uint32_t limit = client->service->config->client_output_limit;

    if (MR_LIKELY(piled_up(client) <= limit))
        return;
    mr_log_limited(MR_LOG_WARN, "client_cut pool=%s reason=output_limit bytes=%zu limit=%u",
                   client->service->config->name, piled_up(client), limit);
    mr_client_cut(client, ENOBUFS);
}

static void write_held(struct mr_client *client, struct mr_request *r)
{
    const struct mr_slice held = mr_buf_slice(&r->reply);

    if (held.len == 0)
        return;
    client->held_bytes -= held.len;
    r->started = true;
    mr_stream_write(&client->stream, held.at, held.len);
    mr_buf_clear(&r->reply, slab_of(client));
}

void mr_client_advance(struct mr_client *client)
{
    while (client->head != NULL) {
        struct mr_request *r = client->head;
        write_held(client, r);
        if (r->state != MR_REQUEST_DONE)
            break;
        pop(client);
    }
    if (client->head == NULL)
        client->barred &= ~(unsigned)MR_PAUSE_LINE;
    if (MR_UNLIKELY(client->subscriber != NULL))
        mr_subscribe_flush(client);
    if (client->head == NULL && client->pauses == 0 && (client->eof || client->closing))
        mr_client_finish(client);
    else
        mr_client_reconsider(client);
}

static void hold(struct mr_request *r, const char *bytes, size_t len)
{
    struct mr_client *client = r->client;

    if (mr_buf_append(&r->reply, slab_of(client), bytes, len)) {
        client->held_bytes += len;
        return;
    }
    mr_client_cut(client, ENOMEM);
}

static void show(struct mr_request *r, const char *bytes, size_t len, bool done)
{
    struct mr_client *client = r->client;

    learn_size(client, len, done);
    if (MR_LIKELY(client->head == r)) {
        if (MR_UNLIKELY(!mr_buf_empty(&r->reply)))
            write_held(client, r);
        r->started = true;
        mr_stream_write(&client->stream, bytes, len);
        if (MR_LIKELY(done)) {
            pop(client);
            mr_client_advance(client);
        }
    } else {
        hold(r, bytes, len);
        if (done)
            r->state = MR_REQUEST_DONE;
    }
    mr_client_check_output(client);
}

/* Decides from the beginning of a reply how to show it. Returns how much of that to leave out. */
static size_t edit(struct mr_request *r, const char *bytes, size_t len)
{
    struct mr_verdict verdict;

    r->service->config->protocol->server.judge(MR_REPLY_EDITS, r->call.ticket,
                                               (struct mr_slice){bytes, len}, &verdict);
    r->edits = false;
    r->hidden = verdict.meaning == MR_REPLY_HIDE;
    if (verdict.meaning != MR_REPLY_REWRITE)
        return 0;
    show(r, verdict.rewrite.head, verdict.rewrite.head_len, false);
    return verdict.rewrite.cut;
}

void mr_client_reply(struct mr_request *r, const char *bytes, size_t len, bool done)
{
    size_t cut = 0;

    if (MR_UNLIKELY(r->edits) && !r->hidden)
        cut = edit(r, bytes, len);
    if (MR_LIKELY(!r->hidden))
        show(r, bytes + cut, len - cut, done);
    else if (done)
        show(r, NULL, 0, true);
}

void mr_client_give_reply(struct mr_request *r, struct mr_buf *reply)
{
    struct mr_client *client = r->client;
    const struct mr_slice text = mr_buf_slice(reply);

    if (MR_UNLIKELY(r->edits || r->hidden || !mr_buf_empty(&r->reply))) {
        mr_client_reply(r, text.at, text.len, true);
        mr_buf_clear(reply, slab_of(client));
        return;
    }
    learn_size(client, text.len, true);
    if (client->head == r) {
        r->started = true;
        mr_stream_give(&client->stream, reply);
        pop(client);
        mr_client_advance(client);
    } else {
        r->reply = *reply;
        *reply = (struct mr_buf){0};
        client->held_bytes += text.len;
        r->state = MR_REQUEST_DONE;
    }
    mr_client_check_output(client);
}

void mr_client_fail(struct mr_request *r, const char *reason)
{
    struct mr_client *client = r->client;
    struct mr_service *service = client->service;
    struct mr_buf error = {0};

    service->pool.metrics->forward_error++;
    if (r->started) { /* a reply that is half sent cannot be completed */
        r->state = MR_REQUEST_DONE;
        mr_client_cut(client, EPIPE);
        return;
    }
    client->held_bytes -= mr_buf_len(&r->reply); /* pieces received ahead of their turn */
    mr_buf_clear(&r->reply, slab_of(client));
    service->config->protocol->client.fail(&service->config->options, r->call.ticket, reason,
                                           slab_of(client), &error);
    const struct mr_slice text = mr_buf_slice(&error);
    mr_client_reply(r, text.at, text.len, true);
    mr_buf_clear(&error, slab_of(client));
}

void mr_client_answer(struct mr_client *client, struct mr_slice reply)
{
    if (MR_UNLIKELY(client->session.mute != 0))
        return;
    if (client->head == NULL) {
        mr_stream_write(&client->stream, reply.at, reply.len);
        mr_client_check_output(client);
        return;
    }
    const struct mr_msg own = {.class = MR_CLASS_OTHER};
    mr_client_reply(mr_client_add_request(client, &own), reply.at, reply.len, true);
}

/* ---- the connection ---- */

/* True if the peer has taken output since the last check. */
static bool takes_output(struct mr_client *client)
{
    const uint32_t untaken = (uint32_t)mr_stream_untaken(&client->stream);
    const bool moved = untaken != client->untaken;

    client->untaken = untaken;
    return moved;
}

/* Output may still be leaving the socket buffer. */
bool mr_client_is_idle(struct mr_client *client, uint32_t ms)
{
    if (mr_stream_idle_ms(&client->stream) < ms / 4)
        return false; /* recently active: skip the system call */
    if (takes_output(client))
        mr_stream_touch(&client->stream);
    return mr_stream_idle_ms(&client->stream) >= ms;
}

/* Counts checks without progress of a closing client; true once there were enough. */
static bool lingered_enough(struct mr_client *client)
{
    const bool unsent = mr_stream_pending(&client->stream) > 0;

    client->stalls = takes_output(client) ? 0 : (uint8_t)(client->stalls + 1);
    return client->stalls >= (unsent ? UNSENT_STALLS : CLOSE_STALLS);
}

static void check_lingering(struct mr_timer *timer)
{
    struct mr_service *service = MR_CONTAINER_OF(timer, struct mr_service, linger_timer);
    struct mr_list *link, *next;

    for (link = service->lingering.next; link != &service->lingering; link = next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        next = link->next;
        if (lingered_enough(client))
            mr_stream_close(&client->stream, 0);
    }
    if (!mr_list_empty(&service->lingering))
        mr_loop_timer(service->loop, timer, LINGER_MS);
}

void mr_client_finish(struct mr_client *client)
{
    struct mr_service *service = client->service;

    if (client->lingering || mr_stream_is_closed(&client->stream))
        return;
    client->lingering = true;
    client->pauses = 0;
    (void)takes_output(client);
    mr_list_del(&client->link);
    mr_list_append(&service->lingering, &client->link);
    service->linger_timer.fire = check_lingering;
    if (!mr_timer_is_set(&service->linger_timer))
        mr_loop_timer(service->loop, &service->linger_timer, LINGER_MS);
    mr_stream_finish(&client->stream);
}

void mr_client_cut(struct mr_client *client, int error)
{
    mr_stream_close(&client->stream, error);
}

static void reject(struct mr_client *client, struct mr_slice reply)
{
    mr_log_limited(MR_LOG_DEBUG, "client_framing_lost pool=%s", client->service->config->name);
    client->closing = true;
    mr_client_answer(client, reply);
}

/* Counts down messages whose replies are suppressed. */
static void unmute(struct mr_client *client, const struct mr_msg *msg)
{
    if (client->session.mute != MR_MUTE_ALL && msg->action != MR_MSG_SKIP)
        client->session.mute--;
}

static size_t on_data(struct mr_stream *s, const char *bytes, size_t len)
{
    struct mr_client *client = of_stream(s);
    struct mr_service *service = client->service;
    const struct mr_proto *proto = service->config->protocol;
    const struct mr_proto_ctx ctx = {.options = &service->config->options,
                                     .session = &client->session,
                                     .slab = &service->loop->slab,
                                     .scratch = &service->scratch,
                                     .facts = &service->facts};
    size_t used = 0;
    struct mr_msg msg;

    if (MR_UNLIKELY(client->closing))
        return len; /* input after the last request is discarded */
    while (used < len) {
        const unsigned found = reasons(client, 0);
        if (MR_UNLIKELY(found != 0)) {
            pause_for(client, found, len - used);
            break;
        }
        const enum mr_result rc =
            proto->client.parse(&ctx, &client->parse, bytes + used, len - used, &msg);
        if (rc == MR_AGAIN) {
            mr_stream_want(s, client->parse.want);
            break;
        }
        if (MR_UNLIKELY(rc != MR_OK)) {
            reject(client, msg.reply);
        } else if (MR_LIKELY(mr_dispatch(client, &ctx, &msg))) {
            used += msg.consumed;
            if (MR_UNLIKELY(client->session.mute != 0))
                unmute(client, &msg);
        }
        if (MR_UNLIKELY(client->closing || mr_stream_is_closed(s))) {
            used = len;
            break;
        }
    }
    mr_buf_clear(&service->scratch, &service->loop->slab);
    if (client->head == NULL && (client->closing || (client->eof && client->pauses == 0)))
        mr_client_finish(client);
    return used;
}

static void on_eof(struct mr_stream *s)
{
    struct mr_client *client = of_stream(s);

    client->eof = true;
    if (mr_pin_blocks(client)) /* nobody would read the reply */
        mr_client_cut(client, 0);
    else if (client->head == NULL && client->pauses == 0) /* otherwise there is input left */
        mr_client_finish(client);
}

static void on_drain(struct mr_stream *s)
{
    settle_unsent(of_stream(s), true);
}

static void on_room(struct mr_stream *s)
{
    mr_client_reconsider(of_stream(s));
}

static void on_close(struct mr_stream *s, int error)
{
    struct mr_client *client = of_stream(s);
    struct mr_service *service = client->service;
    struct mr_request *r, *next;

    for (r = client->head; r != NULL; r = next) {
        next = r->next;
        r->client = NULL;
        if (r->state == MR_REQUEST_DONE) /* otherwise the server's reply frees it */
            mr_request_free(r);
    }
    settle_unsent(client, false);
    mr_pin_free(client);
    mr_subscribe_free(client);
    if (client->moved)
        ; /* it lives on in another process */
    else if (error == 0 && (client->eof || client->quit))
        service->pool.metrics->client_eof++;
    else
        service->pool.metrics->client_err++;
    service->pool.metrics->client_connections--;
    service->pool.process->curr_connections--;
    mr_budget_drop(service->budget);
    mr_list_del(&client->link);
    free(client->session.labels);
    mr_slab_put(&service->loop->slab, client, sizeof(*client));
}

static const struct mr_stream_ops OPS = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_room = on_room,
    .on_close = on_close,
};

static struct mr_client *add(struct mr_service *service, int fd)
{
    struct mr_client *client = mr_slab_get_zeroed(&service->loop->slab, sizeof(*client));

    mr_stream_open(&client->stream, service->loop, &OPS, fd);
    client->service = service;
    client->since_us = service->loop->now_us;
    mr_list_append(&service->clients, &client->link);
    service->pool.metrics->client_connections++;
    service->pool.process->curr_connections++;
    mr_budget_add(service->budget);
    return client;
}

void mr_client_open(struct mr_service *service, int fd)
{
    struct mr_client *client = add(service, fd);

    client->session.id =
        service->budget->first_id + __atomic_fetch_add(service->budget->ids, 1, __ATOMIC_RELAXED);
    client->session.authed = mr_proto_is_open(&service->config->options);
    service->pool.process->total_connections++;
}

void mr_client_adopt(struct mr_service *service, int fd, const struct mr_session *session,
                     const struct mr_pin_luggage *luggage, uint64_t wrote_ago_us,
                     struct mr_slice in, struct mr_slice out)
{
    struct mr_client *client = add(service, fd);

    if (wrote_ago_us > 0)
        client->wrote_us = service->loop->now_us - wrote_ago_us;
    client->session = *session;
    if (mr_proto_is_open(&service->config->options))
        client->session.authed = true; /* the pool no longer has a password */
    mr_pin_unpack(client, luggage);
    mr_subscribe_unpack(client, luggage->topics);
    mr_stream_restore(&client->stream, in, out);
}
