/* dispatch.c - from a parsed request to its server, its servers, or an answer of our own. */
#include "session/client.h"
#include "session/pin.h"

#include <errno.h>
#include <stddef.h>

#define KEYLESS "placeholder" /* the key that twemproxy takes for requests without one */

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);

    if (MR_LIKELY(r->client != NULL))
        mr_client_reply(r, bytes, len, done);
    else if (done)
        mr_request_free(r);
}

static bool ask_again(struct mr_request *r);

static void on_fail(struct mr_call *call, const char *reason)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);

    if (r->client == NULL)
        mr_request_free(r);
    else if (r->again == NULL || !ask_again(r))
        mr_client_fail(r, reason);
}

static const struct mr_call_ops CALL_OPS = {.on_reply = on_reply, .on_fail = on_fail};

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

/* Sends the request where it goes; returns why it did not go, or NULL. */
static const char *send_to(struct mr_request *r, struct mr_target to, const struct mr_msg *msg)
{
    if (MR_UNLIKELY(to.server == NULL))
        return to.reason;
    return mr_server_send(to.server, msg->lane, r->client->session.id, &r->call, msg->wire);
}

/* ---- a server that cannot be had, where another one will do ---- */

/* Keeps what another server must be asked, should the connection that is being made fail. */
static void keep(struct mr_request *r, const struct mr_msg *msg, struct mr_slice key,
                 const struct mr_server *server)
{
    struct mr_slab *slab = &r->service->loop->slab;
    struct mr_again *again = mr_slab_get_zeroed(slab, sizeof(*again));

    if (!mr_buf_append(&again->bytes, slab, msg->wire.at, msg->wire.len) ||
        !mr_buf_append(&again->bytes, slab, key.at, key.len)) {
        mr_buf_clear(&again->bytes, slab);
        mr_slab_put(slab, again, sizeof(*again));
        return;
    }
    again->server = server;
    again->lane = msg->lane;
    again->key_bytes = (uint32_t)key.len;
    r->again = again;
}

/* The server has not seen the request: true when another one will. */
static bool ask_again(struct mr_request *r)
{
    struct mr_again *again = r->again;
    struct mr_pool *pool = &r->service->pool;
    struct mr_slice wire = mr_buf_slice(&again->bytes);

    wire.len -= again->key_bytes;
    const struct mr_slice key = {wire.at + wire.len, again->key_bytes};
    const struct mr_target to = mr_pool_route(pool, key, 0, again->server);
    if (!r->call.unsent || to.server == NULL || to.server == again->server ||
        ++again->tries > pool->n_servers)
        return false;
    again->server = to.server;
    return mr_server_send(to.server, again->lane, r->client->session.id, &r->call, wire) == NULL;
}

/* True when the client should find what it has written. */
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
 * The request did not go where it should (`error`), or waits for a connection. Returns why no
 * server takes it, or NULL.
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
    if (error == NULL && r->call.unsent && !(intent & MR_TO_MASTER))
        keep(r, msg, key, to.server);
    return error;
}

/* ---- one server takes the whole request ---- */

static MR_ALWAYS_INLINE void forward(struct mr_client *client, const struct mr_msg *msg,
                                     struct mr_slice key, struct mr_target to)
{
    struct mr_request *r = add_request(client, msg);
    const char *error = send_to(r, to, msg);

    if (MR_UNLIKELY(error != NULL || r->call.unsent))
        error = try_others(r, msg, key, to, error);
    if (msg->class == MR_CLASS_WRITE)
        client->wrote_us = client->service->loop->now_us;
    if (MR_UNLIKELY(error != NULL))
        mr_client_fail(r, error);
}

static void by_key(struct mr_client *client, const struct mr_msg *msg, struct mr_slice key)
{
    forward(client, msg, key,
            mr_pool_route(&client->service->pool, key, intent_of(client, msg), NULL));
}

/* ---- several keys ---- */

/* True when not all keys of the message go where the first one goes. */
static bool are_apart(struct mr_service *service, const struct mr_msg *msg, struct mr_target first)
{
    const struct mr_proto *proto = service->config->protocol;
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    if (service->pool.topology->keys_together || first.server == NULL ||
        service->pool.n_servers == 1 || service->config->distribution == MR_DIST_RANDOM)
        return false;
    while (proto->next_key(msg, &walk, &key))
        if (mr_pool_route(&service->pool, key, MR_TO_MASTER, NULL).server != first.server)
            return true;
    return false;
}

static void by_keys(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    const struct mr_target first =
        mr_pool_route(&service->pool, msg->key, intent_of(client, msg), NULL);

    const bool too_long = msg->part_bytes > 0 && msg->wire.len > msg->part_bytes;

    if (!too_long && !are_apart(service, msg, first))
        forward(client, msg, msg->key, first);
    else if (msg->splittable)
        mr_gather(client, msg);
    else if (service->config->cross_server == MR_CROSS_REFUSE)
        mr_client_answer(client, mr_slice_of(service->config->protocol->cross_server));
    else
        forward(client, msg, msg->key, first);
}

static bool answer(struct mr_client *client, const struct mr_proto_ctx *ctx,
                   const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    struct mr_buf *out = &service->answer;
    const uint8_t dialect = client->session.dialect;

    switch (service->config->protocol->answer(ctx, msg, out)) {
    case MR_KEEP_CLIENT:
        break;
    case MR_CLOSE_CLIENT:
        client->closing = true;
        client->quit = true;
        break;
    case MR_ASK_LATER:
        client->barred |= MR_PAUSE_LANE;
        return false;
    }
    if (client->session.dialect != dialect && client->head != NULL)
        client->barred |= MR_PAUSE_LINE; /* the next request takes another connection */
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
        by_key(client, msg, mr_slice_of(KEYLESS));
        break;
    case MR_MSG_EVERYWHERE:
        mr_gather_all(client, msg);
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

bool mr_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx, const struct mr_msg *msg)
{
    if (MR_UNLIKELY(client->pin != NULL || msg->step != MR_STEP_NONE))
        return mr_pin_dispatch(client, ctx, msg);
    if (MR_UNLIKELY(msg->action != MR_MSG_BY_KEY))
        return mr_dispatch_plain(client, ctx, msg);
    by_key(client, msg, msg->key); /* nearly all of them */
    return true;
}
