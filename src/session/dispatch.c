/* dispatch.c - sends a parsed request to its server or servers, or answers it. */
#include "session/client.h"
#include "session/inquiry.h"
#include "session/mirror.h"
#include "session/pin.h"

#include <errno.h>
#include <stddef.h>

#define KEYLESS "placeholder" /* the key that twemproxy uses for requests without one */

static void on_fail(struct mr_call *call, const char *reason)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);

    if (r->client == NULL)
        mr_request_free(r);
    else if (r->again == NULL || r->started || !mr_buf_empty(&r->reply) ||
             !mr_again_elsewhere(r->again))
        mr_client_fail(r, reason);
}

/* True if the reply is a redirect and not for the client: the request was sent again, or failed. */
static bool is_redirected(struct mr_request *r, struct mr_slice reply, bool done)
{
    if (!done || r->started || !mr_buf_empty(&r->reply))
        return false;
    const char *reason = mr_again_redirected(r->again, reply);
    if (reason != NULL && reason[0] != '\0')
        on_fail(&r->call, reason);
    return reason != NULL;
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);

    if (MR_UNLIKELY(r->again != NULL) && is_redirected(r, (struct mr_slice){bytes, len}, done))
        return;
    if (MR_LIKELY(r->client != NULL))
        mr_client_reply(r, bytes, len, done);
    else if (done)
        mr_request_free(r);
}

static void on_early(struct mr_call *call, const char *bytes, size_t len)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);

    if (r->again != NULL)
        mr_again_early(r->again, (struct mr_slice){bytes, len});
}

static const struct mr_call_ops CALL_OPS = {
    .on_reply = on_reply, .on_fail = on_fail, .on_early = on_early};

static inline struct mr_request *add_request(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_request *r = mr_client_add_request(client, msg);

    r->call.ops = &CALL_OPS;
    r->call.class = msg->class;
    r->call.needs = msg->needs;
    r->call.marks = msg->guarded ? MR_CALL_GUARDED : 0;
    return r;
}

struct mr_request *mr_dispatch_request(struct mr_client *client, const struct mr_msg *msg)
{
    return add_request(client, msg);
}

/* Sends the request to its target. Returns NULL, or why it could not be sent. */
static const char *send_to(struct mr_request *r, struct mr_target to, const struct mr_msg *msg)
{
    if (MR_UNLIKELY(to.server == NULL))
        return to.reason;
    return mr_server_send(to.server, msg->lane, r->client->session.id, &r->call, msg->wire);
}

/* ---- trying another server ---- */

/* Keeps a copy to send to another server. */
static void keep(struct mr_request *r, const struct mr_msg *msg, struct mr_slice key,
                 struct mr_server *server, unsigned intent)
{
    r->again = mr_again_keep(&(struct mr_again_setup){.pool = &r->service->pool,
                                                      .call = &r->call,
                                                      .request = msg->wire,
                                                      .key = key,
                                                      .server = server,
                                                      .affinity = r->client->session.id,
                                                      .lane = msg->lane,
                                                      .intent = (uint8_t)intent});
}

void mr_dispatch_keep_run(struct mr_request *r, struct mr_slice run, struct mr_slice key,
                          struct mr_server *server, uint8_t lane)
{
    if (r->service->pool.topology->redirected == NULL)
        return;
    r->again = mr_again_keep(&(struct mr_again_setup){.pool = &r->service->pool,
                                                      .call = &r->call,
                                                      .request = run,
                                                      .key = key,
                                                      .server = server,
                                                      .affinity = r->client->session.id,
                                                      .early = r->call.early,
                                                      .lane = lane,
                                                      .intent = MR_TO_MASTER});
}

/* True if the client must see its own recent write. */
static bool has_just_written(const struct mr_client *client)
{
    const uint64_t us = client->service->config->stickiness_ms * UINT64_C(1000);

    return us > 0 && client->wrote_us > 0 && client->service->loop->now_us - client->wrote_us < us;
}

static unsigned intent_of(const struct mr_client *client, const struct mr_msg *msg)
{
    return msg->to_master || has_just_written(client) ? MR_TO_MASTER : 0;
}

/*
 * The request failed with `error`, or waits for a connection (NULL). Tries other servers. Returns
 * NULL, or why no server takes it.
 */
static const char *try_others(struct mr_request *r, const struct mr_msg *msg, struct mr_slice key,
                              struct mr_target to, const char *error)
{
    struct mr_pool *pool = &r->service->pool;
    const unsigned intent = intent_of(r->client, msg);

    if (!pool->topology->elsewhere)
        return error;
    for (uint32_t tries = 0; tries < pool->n_servers && error != NULL; tries++) {
        const struct mr_target other = mr_pool_route(pool, key, intent, to.server);
        if (other.server == NULL || other.server == to.server)
            break;
        to = other;
        error = send_to(r, to, msg);
    }
    if (r->again != NULL)
        r->again->server = to.server;
    else if (error == NULL && r->call.unsent && !(intent & MR_TO_MASTER))
        keep(r, msg, key, to.server, intent);
    return error;
}

/* ---- one server takes the whole request ---- */

static inline void note_write(struct mr_client *client, const struct mr_msg *msg)
{
    client->wrote_us = client->service->loop->now_us;
    if (MR_UNLIKELY(client->service->mirror != NULL))
        mr_mirror_message(client, msg);
}

/* True if a copy is needed before anything has gone wrong. */
static inline bool must_keep(const struct mr_service *service, const struct mr_msg *msg)
{
    return service->pool.topology->redirected != NULL ||
           (service->config->retry_reads && msg->class == MR_CLASS_READ &&
            service->pool.topology->elsewhere);
}

static MR_ALWAYS_INLINE void forward(struct mr_client *client, const struct mr_msg *msg,
                                     struct mr_slice key, struct mr_target to)
{
    struct mr_request *r = add_request(client, msg);

    if (MR_UNLIKELY(must_keep(client->service, msg)) && to.server != NULL)
        keep(r, msg, key, to.server, intent_of(client, msg));
    const char *error = send_to(r, to, msg);
    if (MR_UNLIKELY(error != NULL || r->call.unsent))
        error = try_others(r, msg, key, to, error);
    if (msg->class == MR_CLASS_WRITE)
        note_write(client, msg);
    if (MR_UNLIKELY(error != NULL))
        mr_client_fail(r, error);
}

static void by_key(struct mr_client *client, const struct mr_msg *msg, struct mr_slice key)
{
    forward(client, msg, key,
            mr_pool_route(&client->service->pool, key, intent_of(client, msg), NULL));
}

/* ---- several keys ---- */

/* True if keys may be in several groups. */
static bool has_groups(const struct mr_service *service)
{
    return !service->pool.topology->keys_together && service->pool.n_groups > 1 &&
           service->config->distribution != MR_DIST_RANDOM;
}

static void split(struct mr_client *client, const struct mr_msg *msg)
{
    const struct mr_target whole = mr_gather(client, msg);

    if (whole.server == NULL) {
        if (msg->class == MR_CLASS_WRITE)
            note_write(client, msg);
        return;
    }
    if (client->service->pool.topology->has_roles && !(intent_of(client, msg) & MR_TO_MASTER))
        by_key(client, msg, msg->key); /* a replica may take it */
    else
        forward(client, msg, msg->key, whole);
}

static void by_keys(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    const bool too_long = msg->part_bytes > 0 && msg->wire.len > msg->part_bytes;

    if (!too_long && !has_groups(service))
        by_key(client, msg, msg->key);
    else if (msg->splittable)
        split(client, msg);
    else if (service->config->cross_server == MR_CROSS_REFUSE &&
             !mr_pool_keeps_together(&service->pool, msg))
        mr_client_answer(client, mr_pool_apart(&service->pool));
    else
        by_key(client, msg, msg->key);
}

/* What was answered is this worker's part of the reply. */
static void ask_others(struct mr_client *client, const struct mr_msg *msg,
                       const struct mr_buf *part)
{
    struct mr_request *r = add_request(client, msg);
    const char *error = mr_pool_reason(ENOMEM);

    if (!mr_buf_failed(part))
        error =
            mr_inquire(client->service, &r->call, &client->session, msg->wire, mr_buf_slice(part));
    if (error != NULL)
        mr_client_fail(r, error);
    else
        client->barred |= MR_PAUSE_LINE; /* one at a time: answers may be large */
}

static bool answer(struct mr_client *client, const struct mr_proto_ctx *ctx,
                   const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    struct mr_buf *out = &service->answer;
    const uint8_t dialect = client->session.dialect;

    switch (service->config->protocol->client.answer(ctx, msg, out)) {
    case MR_KEEP_CLIENT:
        break;
    case MR_CLOSE_CLIENT:
        client->closing = true;
        client->quit = true;
        break;
    case MR_ASK_LATER:
        client->barred |= MR_PAUSE_LANE;
        return false;
    case MR_ASK_OTHERS:
        if (service->inquiries == NULL)
            break;
        ask_others(client, msg, out);
        mr_buf_clear(out, &service->loop->slab);
        return true;
    }
    if (client->session.dialect != dialect && client->head != NULL)
        client->barred |= MR_PAUSE_LINE; /* the next request uses another connection */
    if (mr_buf_failed(out))
        mr_client_fail(add_request(client, msg), mr_pool_reason(ENOMEM));
    else
        mr_client_answer(client, mr_buf_slice(out));
    mr_buf_clear(out, &service->loop->slab);
    return true;
}

bool mr_dispatch_plain(struct mr_client *client, const struct mr_proto_ctx *ctx,
                       const struct mr_msg *msg)
{
    switch (msg->action) {
    case MR_MSG_BY_KEY:
        by_key(client, msg, msg->key);
        break;
    case MR_MSG_BY_KEYS:
        by_keys(client, msg);
        break;
    case MR_MSG_ANYWHERE:
        by_key(client, msg, msg->key.len > 0 ? msg->key : mr_slice_of(KEYLESS));
        break;
    case MR_MSG_EVERYWHERE:
        mr_gather_all(client, msg);
        if (msg->class == MR_CLASS_WRITE)
            note_write(client, msg);
        break;
    case MR_MSG_IN_TURN:
        mr_gather_in_turn(client, msg);
        break;
    case MR_MSG_LOCAL:
        return answer(client, ctx, msg);
    case MR_MSG_REFUSE:
        mr_client_answer(client, msg->reply);
        break;
    case MR_MSG_SKIP:
        break;
    }
    return true;
}

/*
 * Requests in the queue were routed by the old map and may still be redirected; none routed by the
 * new map may overtake them. So a client's queue never spans two maps.
 */
static bool is_on_the_map(struct mr_client *client)
{
    if (client->head != NULL) {
        client->barred |= MR_PAUSE_LINE;
        return false;
    }
    client->map_changes = client->service->pool.map_changes;
    return true;
}

bool mr_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx, const struct mr_msg *msg)
{
    if (MR_UNLIKELY(client->map_changes != client->service->pool.map_changes) &&
        !is_on_the_map(client))
        return false;
    if (MR_UNLIKELY(client->pin != NULL || msg->step != MR_STEP_NONE))
        return mr_pin_dispatch(client, ctx, msg);
    if (MR_UNLIKELY(msg->action != MR_MSG_BY_KEY))
        return mr_dispatch_plain(client, ctx, msg);
    by_key(client, msg, msg->key); /* nearly all requests */
    return true;
}
