/* dispatch.c - from a parsed request to its server, its servers, or an answer of our own. */
#include "session/client.h"

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

static struct mr_request *add_request(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_request *r = mr_client_add_request(client, msg);

    r->call.ops = &CALL_OPS;
    r->call.class = msg->class;
    r->call.guarded = msg->guarded;
    return r;
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
static void keep(struct mr_request *r, const struct mr_msg *msg, const struct mr_intent *intent,
                 const struct mr_server *server)
{
    struct mr_slab *slab = &r->service->loop->slab;
    struct mr_again *again = mr_slab_get_zeroed(slab, sizeof(*again));

    if (!mr_buf_append(&again->bytes, slab, msg->wire.at, msg->wire.len) ||
        !mr_buf_append(&again->bytes, slab, intent->key.at, intent->key.len)) {
        mr_buf_clear(&again->bytes, slab);
        mr_slab_put(slab, again, sizeof(*again));
        return;
    }
    again->server = server;
    again->lane = msg->lane;
    again->key_bytes = (uint32_t)intent->key.len;
    r->again = again;
}

/* The server has not seen the request: true when another one will. */
static bool ask_again(struct mr_request *r)
{
    struct mr_again *again = r->again;
    struct mr_pool *pool = &r->service->pool;
    struct mr_slice wire = mr_buf_slice(&again->bytes);

    wire.len -= again->key_bytes;
    const struct mr_intent intent = {.key = {wire.at + wire.len, again->key_bytes},
                                     .avoid = again->server};
    const struct mr_target to = mr_pool_route(pool, &intent);
    if (!r->call.unsent || to.server == NULL || to.server == again->server ||
        ++again->tries > pool->n_servers)
        return false;
    again->server = to.server;
    return mr_server_send(to.server, again->lane, r->client->session.id, &r->call, wire) == NULL;
}

/* The request did not go to `last`: tries others. Returns why none takes it, or NULL. */
static const char *try_others(struct mr_request *r, const struct mr_msg *msg,
                              struct mr_intent intent, const char *error, struct mr_target *to)
{
    struct mr_pool *pool = &r->service->pool;

    for (uint32_t tries = 0; tries < pool->n_servers && error != NULL; tries++) {
        intent.avoid = to->server;
        const struct mr_target other = mr_pool_route(pool, &intent);
        if (other.server == NULL || other.server == intent.avoid)
            break;
        *to = other;
        error = send_to(r, other, msg);
    }
    return error;
}

/* ---- one server takes the whole request ---- */

static void forward(struct mr_client *client, const struct mr_msg *msg,
                    const struct mr_intent *intent, struct mr_target to)
{
    const struct mr_topology_ops *topology = client->service->pool.topology;
    struct mr_request *r = add_request(client, msg);
    const char *error = send_to(r, to, msg);

    if (msg->class == MR_CLASS_WRITE)
        client->wrote_us = client->service->loop->now_us;
    if (topology->elsewhere) {
        if (MR_UNLIKELY(error != NULL))
            error = try_others(r, msg, *intent, error, &to);
        if (MR_UNLIKELY(error == NULL && r->call.unsent) && !intent->to_master)
            keep(r, msg, intent, to.server);
    }
    if (MR_UNLIKELY(error != NULL))
        mr_client_fail(r, error);
}

/* True when the client should find what it has written. */
static bool has_just_written(const struct mr_client *client)
{
    const uint64_t us = client->service->config->stickiness_ms * UINT64_C(1000);

    return us > 0 && client->wrote_us > 0 && client->service->loop->now_us - client->wrote_us < us;
}

static struct mr_intent intent_of(const struct mr_client *client, const struct mr_msg *msg)
{
    return (struct mr_intent){.key = msg->key,
                              .to_master = msg->to_master || has_just_written(client)};
}

static void by_key(struct mr_client *client, const struct mr_msg *msg)
{
    const struct mr_intent intent = intent_of(client, msg);

    forward(client, msg, &intent, mr_pool_route(&client->service->pool, &intent));
}

static void anywhere(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_intent intent = intent_of(client, msg);

    intent.key = mr_slice_of(KEYLESS);
    forward(client, msg, &intent, mr_pool_route(&client->service->pool, &intent));
}

/* ---- several keys ---- */

/* True when not all keys of the message go where the first one goes. */
static bool are_apart(struct mr_service *service, const struct mr_msg *msg, struct mr_target first)
{
    const struct mr_proto *proto = service->config->protocol;
    struct mr_intent intent = {.to_master = true};
    struct mr_key_walk walk = {0};

    if (service->pool.topology->keys_together || first.server == NULL ||
        service->pool.n_servers == 1 || service->config->distribution == MR_DIST_RANDOM)
        return false;
    while (proto->next_key(msg, &walk, &intent.key))
        if (mr_pool_route(&service->pool, &intent).server != first.server)
            return true;
    return false;
}

static void by_keys(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    const struct mr_intent intent = intent_of(client, msg);
    const struct mr_target first = mr_pool_route(&service->pool, &intent);

    if (!are_apart(service, msg, first))
        forward(client, msg, &intent, first);
    else if (msg->splittable)
        mr_gather(client, msg);
    else if (service->config->cross_server == MR_CROSS_REFUSE)
        mr_client_answer(client, mr_slice_of(service->config->protocol->cross_server));
    else
        forward(client, msg, &intent, first);
}

static void answer(struct mr_client *client, const struct mr_proto_ctx *ctx,
                   const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    struct mr_buf *out = &service->answer;

    if (service->config->protocol->answer(ctx, msg, out) == MR_CLOSE_CLIENT) {
        client->closing = true;
        client->quit = true;
    }
    mr_client_answer(client, mr_buf_slice(out));
    mr_buf_clear(out, &service->loop->slab);
}

void mr_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx, const struct mr_msg *msg)
{
    switch (msg->action) {
    case MR_MSG_BY_KEY:
        by_key(client, msg);
        return;
    case MR_MSG_BY_KEYS:
        by_keys(client, msg);
        return;
    case MR_MSG_ANYWHERE:
        anywhere(client, msg);
        return;
    case MR_MSG_EVERYWHERE:
        mr_gather_all(client, msg);
        return;
    case MR_MSG_LOCAL:
        answer(client, ctx, msg);
        return;
    case MR_MSG_REFUSE:
        mr_client_answer(client, msg->reply);
        return;
    case MR_MSG_SKIP:
        return;
    }
}
