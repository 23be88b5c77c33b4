/* dispatch.c - from a parsed request to its server, its servers, or an answer of our own. */
#include "session/client.h"
#include "upstream/replicas.h"

#include <errno.h>
#include <stddef.h>

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

/* Sends the request to the server (-1: there is none); returns why it did not go, or NULL. */
static const char *send_to(struct mr_request *r, int server, const struct mr_msg *msg)
{
    struct mr_pool *pool = &r->service->pool;

    if (MR_UNLIKELY(server < 0))
        return mr_pool_no_route(pool);
    return mr_pool_send(pool, (uint32_t)server, msg->lane, r->client->session.id, &r->call,
                        msg->wire);
}

static void forward(struct mr_client *client, int server, const struct mr_msg *msg)
{
    struct mr_request *r = add_request(client, msg);
    const char *error = send_to(r, server, msg);

    if (MR_UNLIKELY(error != NULL))
        mr_client_fail(r, error);
}

/* True when the client should find what it has written. */
static bool has_just_written(const struct mr_client *client)
{
    const uint64_t us = client->service->config->stickiness_ms * UINT64_C(1000);

    return us > 0 && client->wrote_us > 0 && client->service->loop->now_us - client->wrote_us < us;
}

/* The connection is being made: should that fail, another server can answer as well. */
static void keep_for_another(struct mr_request *r, const struct mr_msg *msg, uint32_t server)
{
    struct mr_slab *slab = &r->service->loop->slab;
    struct mr_again *again = mr_slab_get_zeroed(slab, sizeof(*again));

    if (!mr_buf_append(&again->wire, slab, msg->wire.at, msg->wire.len)) {
        mr_slab_put(slab, again, sizeof(*again));
        return;
    }
    again->server = server;
    again->lane = msg->lane;
    if (msg->key.len > 0 && msg->key.at >= msg->wire.at &&
        msg->key.at < msg->wire.at + msg->wire.len)
        again->key = (struct mr_slice){mr_buf_slice(&again->wire).at + (msg->key.at - msg->wire.at),
                                       msg->key.len};
    r->again = again;
}

/* The server has not seen the request: true when another one will. */
static bool ask_again(struct mr_request *r)
{
    struct mr_again *again = r->again;
    struct mr_pool *pool = &r->service->pool;
    const int server = mr_replicas_choose(pool, again->key, false, (int)again->server);

    if (!r->call.unsent || server < 0 || server == (int)again->server ||
        ++again->tries > pool->n_servers)
        return false;
    again->server = (uint32_t)server;
    return mr_pool_send(pool, again->server, again->lane, r->client->session.id, &r->call,
                        mr_buf_slice(&again->wire)) == NULL;
}

/* Every server has all keys: one takes the whole request. A replica that fails makes way. */
static void to_replicated(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pool *pool = &client->service->pool;
    const bool to_master = msg->to_master || has_just_written(client);
    struct mr_request *r = add_request(client, msg);
    const char *error = NULL;
    int last = -1;

    if (msg->class == MR_CLASS_WRITE)
        client->wrote_us = client->service->loop->now_us;
    for (uint32_t tries = 0; tries <= pool->n_servers; tries++) {
        const int server = mr_replicas_choose(pool, msg->key, to_master, last);
        if (tries > 0 && (server < 0 || server == last))
            break;
        error = send_to(r, server, msg);
        if (error == NULL) {
            if (MR_UNLIKELY(r->call.unsent) && !to_master)
                keep_for_another(r, msg, (uint32_t)server);
            return;
        }
        last = server;
    }
    mr_client_fail(r, error);
}

/* The one server that has all keys: its index, -1 when none is up, -2 when the keys are apart. */
static int common_server(struct mr_service *service, const struct mr_msg *msg)
{
    const struct mr_proto *proto = service->config->protocol;
    const int first = mr_pool_route(&service->pool, msg->key);
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    if (first < 0 || service->pool.n_servers == 1 ||
        service->config->distribution == MR_DIST_RANDOM)
        return first;
    while (proto->next_key(msg, &walk, &key))
        if (mr_pool_route(&service->pool, key) != first)
            return -2;
    return first;
}

static void by_keys(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    int server = common_server(service, msg);

    if (server == -2 && msg->splittable) {
        mr_gather(client, msg);
        return;
    }
    if (server == -2 && service->config->cross_server == MR_CROSS_REFUSE) {
        mr_client_answer(client, mr_slice_of(service->config->protocol->cross_server));
        return;
    }
    if (server == -2)
        server = mr_pool_route(&service->pool, msg->key);
    forward(client, server, msg);
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
    struct mr_pool *pool = &client->service->pool;

    if (client->service->config->topology == MR_REPLICATED &&
        (msg->action == MR_MSG_BY_KEY || msg->action == MR_MSG_BY_KEYS ||
         msg->action == MR_MSG_ANYWHERE)) {
        to_replicated(client, msg);
        return;
    }
    switch (msg->action) {
    case MR_MSG_BY_KEY:
        forward(client, mr_pool_route(pool, msg->key), msg);
        return;
    case MR_MSG_BY_KEYS:
        by_keys(client, msg);
        return;
    case MR_MSG_ANYWHERE:
        forward(client, mr_pool_route_anywhere(pool), msg);
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
