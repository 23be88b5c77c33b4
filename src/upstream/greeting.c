/* greeting.c - what is said on a server connection before the first request. */
#include "upstream/greeting.h"

#include "core/log.h"
#include "net/stream.h"
#include "upstream/backend.h"
#include "upstream/pool.h"

#include <errno.h>

static struct mr_slab *slab_of(struct mr_backend *b)
{
    return &b->stream.loop->slab;
}

static const struct mr_proto *protocol_of(const struct mr_backend *b)
{
    return b->server->pool->config->protocol;
}

void mr_greeting_send(struct mr_backend *b)
{
    const struct mr_pool_config *config = b->server->pool->config;
    struct mr_buf hello = {0};

    b->hello_sent = config->protocol->server.hello(b->server->options, b->lane, slab_of(b), &hello);
    if (b->hello_sent > 0)
        mr_stream_write(&b->stream, mr_buf_slice(&hello).at, mr_buf_len(&hello));
    mr_buf_clear(&hello, slab_of(b));
    if (b->kind == MR_BACKEND_LEASE && config->protocol->lease.introduce != NULL) {
        const struct mr_slice introduce = mr_slice_of(config->protocol->lease.introduce);
        mr_stream_write(&b->stream, introduce.at, introduce.len);
        b->hello_sent++;
    }
}

/* Removes requests that the server cannot serve from the queue, and their bytes from `held`. */
static struct mr_call *take_unable(struct mr_backend *b, bool *short_of_memory)
{
    struct mr_server_metrics *m = b->metrics;
    struct mr_call *unable = NULL, **unable_tail = &unable, *next;
    struct mr_call *call = b->head;
    const char *from = mr_buf_slice(&b->held).at;
    struct mr_buf kept = {0};
    bool whole = true;

    b->head = NULL;
    b->tail = &b->head;
    for (; call != NULL; from += call->bytes, call = next) {
        struct mr_call ***list = mr_backend_is_able(b, call) ? &b->tail : &unable_tail;
        next = call->next;
        call->next = NULL;
        **list = call;
        *list = &call->next;
        if (list == &b->tail) {
            whole = whole && mr_buf_append(&kept, slab_of(b), from, call->bytes);
            continue;
        }
        b->n_calls--;
        b->unsent--;
        b->unsent_bytes -= call->bytes;
        m->in_queue--;
        m->in_queue_bytes -= call->bytes;
    }
    mr_buf_clear(&b->held, slab_of(b));
    b->held = kept;
    *short_of_memory = !whole;
    return unable;
}

struct mr_call *mr_greeting_sort_out(struct mr_backend *b, bool *short_of_memory)
{
    *short_of_memory = false;
    for (const struct mr_call *call = b->head; call != NULL; call = call->next)
        if (MR_UNLIKELY(!mr_backend_is_able(b, call)))
            return take_unable(b, short_of_memory);
    return NULL;
}

/* In the greeting of a lease, the last reply tells the server's id for the connection. */
static bool is_introduction(const struct mr_backend *b)
{
    return b->kind == MR_BACKEND_LEASE && b->hello_seen + 1 == b->hello_sent &&
           protocol_of(b)->lease.introduce != NULL;
}

enum mr_greeting_state mr_greeting_take(struct mr_backend *b, struct mr_slice reply)
{
    struct mr_pool *pool = b->server->pool;
    const struct mr_pool_config *config = pool->config;
    struct mr_greeting greeting = {.able = b->able};
    const char *refused = NULL;

    if (is_introduction(b))
        b->peer_id = config->protocol->lease.read_id(reply);
    else
        refused = config->protocol->server.check_hello(b->server->options, b->lane, b->hello_seen,
                                                       reply, &greeting);
    b->able = greeting.able;
    b->lane_refused = greeting.lane_only;
    if (greeting.version[0] != '\0')
        memcpy(pool->version, greeting.version, sizeof(pool->version));
    b->hello_seen++;
    if (refused != NULL) {
        while (reply.len > 0 &&
               (reply.at[reply.len - 1] == '\n' || reply.at[reply.len - 1] == '\r'))
            reply.len--;
        mr_log_limited(MR_LOG_ERR, "server_refused pool=%s server=%s reason=\"%s\" reply=\"%.*s\"",
                       config->name, b->server->name, refused,
                       (int)(reply.len < 200 ? reply.len : 200), reply.at);
        b->refused = refused;
        return MR_GREETING_REFUSED;
    }
    return b->hello_seen == b->hello_sent ? MR_GREETING_OVER : MR_GREETING_GOES_ON;
}

bool mr_greeting_refused(const struct mr_backend *b, int error)
{
    const struct mr_server *server = b->server;
    bool other = error == EINVAL;

    if (b->state != MR_BACKEND_HELLO || b->refused == NULL)
        return false;
    if (b->lane_refused)
        return true;
    if (b->at_lane->spoken)
        return false;
    for (uint32_t lane = 0; lane < server->pool->n_lanes; lane++)
        other |= server->lanes[lane] != NULL && server->lanes[lane]->spoken;
    return other && server->pool->n_lanes > 1;
}
