/* pin.c - clients that have a server connection for themselves: watched keys, and blocking. */
#include "session/pin.h"

#include "upstream/pool.h"

#include <stddef.h>

#define UNBLOCK_AGAIN_US 50000u /* the command may have come to the server after that */

static struct mr_slab *slab_of(const struct mr_client *client)
{
    return &client->service->loop->slab;
}

static const struct mr_proto *protocol_of(const struct mr_client *client)
{
    return client->service->config->protocol;
}

/* ---- its life ---- */

static void on_turn(struct mr_lease *lease)
{
    struct mr_pin *pin = MR_CONTAINER_OF(lease, struct mr_pin, lease);

    pin->client->barred &= ~(unsigned)MR_PAUSE_LEASE;
    mr_client_reconsider(pin->client);
}

struct mr_pin *mr_pin_of(struct mr_client *client)
{
    if (client->pin == NULL) {
        client->pin = mr_slab_get_zeroed(slab_of(client), sizeof(*client->pin));
        client->pin->client = client;
        client->pin->lease.on_turn = on_turn;
    }
    return client->pin;
}

void mr_pin_free(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    if (pin == NULL)
        return;
    mr_lease_end(&pin->lease, pin->in_flight > 0 ? MR_LEASE_SPOILT
                              : pin->watching    ? MR_LEASE_USED
                                                 : MR_LEASE_CLEAN);
    mr_buf_clear(&pin->kept, slab_of(client));
    mr_buf_clear(&pin->queue, slab_of(client));
    mr_slab_put(slab_of(client), pin, sizeof(*pin));
    client->pin = NULL;
}

void mr_pin_settle(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    if (pin == NULL || pin->in_flight > 0)
        return;
    if (client->service->held)
        mr_pin_loosen(client);
    if (pin->watching)
        return;
    if (!(client->barred & MR_PAUSE_LEASE))
        mr_lease_end(&pin->lease, MR_LEASE_CLEAN);
    if (!pin->open && pin->replayed == 0 && !pin->broken && pin->lease.server == NULL)
        mr_pin_free(client);
}

/* ---- answers ---- */

void mr_pin_say_text(struct mr_client *client, struct mr_slice reply)
{
    if (client->pin != NULL && client->pin->replayed > 0)
        client->pin->replayed--;
    else
        mr_client_answer(client, reply);
}

void mr_pin_say(struct mr_client *client, enum mr_saying saying)
{
    mr_pin_say_text(client, protocol_of(client)->lease.say(&client->session, saying));
}

static bool refuse(struct mr_client *client, const char *reason)
{
    struct mr_buf error = {0};

    protocol_of(client)->fail(&client->service->config->options, 0, reason, slab_of(client),
                              &error);
    mr_pin_say_text(client, mr_buf_slice(&error));
    mr_buf_clear(&error, slab_of(client));
    return true;
}

static bool say_apart(struct mr_client *client)
{
    mr_pin_say_text(client, mr_slice_of(protocol_of(client)->cross_server));
    return true;
}

/* ---- requests on the lease ---- */

/* What blocked is asked again, here or wherever the client goes on. */
static void ask_later(struct mr_request *r)
{
    struct mr_client *client = r->client;
    struct mr_pin *pin = client->pin;

    mr_client_withdraw(r);
    client->parse = (struct mr_parse_state){0};
    mr_stream_put_back(&client->stream, mr_buf_slice(&pin->kept));
}

static void over(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    pin->in_flight--;
    if (pin->blocked) {
        pin->blocked = false;
        pin->unblock_us = 0;
        mr_buf_clear(&pin->kept, slab_of(client));
    }
    mr_pin_settle(client);
    mr_client_reconsider(client);
}

static bool is_to_be_asked_again(const struct mr_request *r, struct mr_slice reply, bool done)
{
    const struct mr_client *client = r->client;
    const struct mr_pin *pin = client->pin;

    return pin->unblock_us > 0 && done && !pin->once && !client->service->draining &&
           protocol_of(client)->lease.is_unblocked(reply);
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);
    struct mr_client *client = r->client;

    if (client == NULL) {
        if (done)
            mr_request_free(r);
        return;
    }
    if (MR_UNLIKELY(is_to_be_asked_again(r, (struct mr_slice){bytes, len}, done)))
        ask_later(r);
    else
        mr_client_reply(r, bytes, len, done);
    if (done)
        over(client);
}

static void on_fail(struct mr_call *call, const char *reason)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);
    struct mr_client *client = r->client;

    if (client == NULL) {
        mr_request_free(r);
        return;
    }
    if (client->pin->watching) {
        client->pin->watching = false;
        client->pin->broken = true;
    }
    mr_client_fail(r, reason);
    over(client);
}

static const struct mr_call_ops CALL_OPS = {.on_reply = on_reply, .on_fail = on_fail};

void mr_pin_send(struct mr_client *client, const struct mr_msg *msg, struct mr_slice wire,
                 uint32_t early)
{
    struct mr_pin *pin = client->pin;
    struct mr_request *r = mr_client_add_request(client, msg);

    r->call.ops = &CALL_OPS;
    r->call.class = msg->class;
    r->call.needs = msg->needs;
    r->call.early = early;
    r->call.marks = (uint8_t)((early > 0 ? MR_CALL_EARLY : 0) |
                              (msg->step == MR_STEP_BLOCK ? MR_CALL_PATIENT : 0));
    if (msg->class == MR_CLASS_WRITE)
        client->wrote_us = client->service->loop->now_us;
    const char *error = mr_lease_send(&pin->lease, &r->call, wire);
    if (error != NULL)
        mr_client_fail(r, error);
    else
        pin->in_flight++;
}

/* ---- ways ---- */

bool mr_pin_wait_for_line(struct mr_client *client)
{
    client->barred |= MR_PAUSE_LINE;
    return false;
}

/* True when the lease is there, or was refused; false when it is waited for. */
static bool have_lease(struct mr_client *client, struct mr_server *server, uint8_t lane)
{
    struct mr_lease *lease = &mr_pin_of(client)->lease;

    if (lease->server != server) /* the key has another server by now */
        mr_lease_end(lease, MR_LEASE_CLEAN);
    if (lease->server == NULL ? mr_lease_take(lease, server, lane)
                              : !mr_list_linked(&lease->waiting))
        return true;
    client->barred |= MR_PAUSE_LEASE;
    return false;
}

/* Where keys may be anywhere, the server that the client has begun with; NULL for none yet. */
static struct mr_server *chosen_at_random(const struct mr_client *client)
{
    const struct mr_pin *pin = client->pin;

    if (pin != NULL && pin->watching)
        return pin->lease.server;
    return pin != NULL && pin->open ? pin->server : NULL;
}

struct mr_server *mr_pin_target(struct mr_client *client, const struct mr_msg *msg,
                                const char **reason)
{
    struct mr_pool *pool = &client->service->pool;
    struct mr_key_walk walk = {0};
    struct mr_slice key;
    const struct mr_target first = mr_pool_route(pool, msg->key, MR_TO_MASTER, NULL);

    *reason = first.reason;
    if (client->service->config->distribution == MR_DIST_RANDOM) {
        struct mr_server *chosen = chosen_at_random(client);
        return chosen != NULL ? chosen : first.server;
    }
    if (msg->action != MR_MSG_BY_KEYS || pool->topology->keys_together || first.server == NULL)
        return first.server;
    while (protocol_of(client)->next_key(msg, &walk, &key))
        if (mr_pool_route(pool, key, MR_TO_MASTER, NULL).server != first.server) {
            *reason = "";
            return NULL;
        }
    return first.server;
}

/*
 * Takes a message that needs a lease on the server of its keys: true when it was sent or refused.
 * A lease on another server is given up once nothing is watched there.
 */
static bool over_lease(struct mr_client *client, const struct mr_msg *msg)
{
    const char *reason;
    struct mr_server *server = mr_pin_target(client, msg, &reason);
    struct mr_pin *pin = client->pin;

    if (server == NULL)
        return reason[0] == '\0' ? say_apart(client) : refuse(client, reason);
    if (pin != NULL && pin->watching && pin->lease.server != server)
        return say_apart(client);
    if (client->head != NULL && (pin == NULL || pin->in_flight != client->n_requests ||
                                 msg->step == MR_STEP_BLOCK || pin->lease.server != server))
        return mr_pin_wait_for_line(client);
    if (!have_lease(client, server, msg->lane))
        return false;
    pin = client->pin;
    if (pin->lease.refusal != NULL) {
        (void)refuse(client, pin->lease.refusal);
        mr_lease_end(&pin->lease, MR_LEASE_CLEAN);
        return true;
    }
    mr_pin_send(client, msg, msg->wire, 0);
    return true;
}

static bool watch(struct mr_client *client, const struct mr_msg *msg)
{
    if (!over_lease(client, msg))
        return false;
    if (client->pin != NULL && client->pin->in_flight > 0)
        client->pin->watching = true;
    return true;
}

static bool block(struct mr_client *client, const struct mr_msg *msg)
{
    if (!over_lease(client, msg))
        return false;
    struct mr_pin *pin = client->pin;
    if (pin == NULL || pin->in_flight == 0)
        return true; /* refused */
    (void)mr_pin_wait_for_line(
        client); /* it may have to be asked again: nothing stands behind it */
    pin->blocked = true;
    pin->once =
        msg->once || !mr_buf_append(&pin->kept, slab_of(client), msg->wire.at, msg->wire.len);
    return true;
}

static bool unwatch(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pin *pin = client->pin;

    if (pin == NULL || !pin->watching) {
        if (pin != NULL)
            pin->broken = false;
        mr_pin_say(client, MR_SAY_OK);
    } else {
        pin->watching = false;
        mr_pin_send(client, msg, msg->wire, 0);
    }
    return true;
}

/* True when the message can go where the keys are watched, behind what went there before. */
static bool takes_the_lease(struct mr_client *client, const struct mr_msg *msg)
{
    const char *reason;

    return (msg->action == MR_MSG_BY_KEY || msg->action == MR_MSG_BY_KEYS) &&
           mr_lease_holds(&client->pin->lease) && client->pin->watching &&
           mr_pin_target(client, msg, &reason) == client->pin->lease.server;
}

/* A message without a step, while keys are watched or the last step is not over. */
static bool plain(struct mr_client *client, const struct mr_proto_ctx *ctx,
                  const struct mr_msg *msg)
{
    struct mr_pin *pin = client->pin;

    if (msg->action == MR_MSG_LOCAL || msg->action == MR_MSG_REFUSE || msg->action == MR_MSG_SKIP)
        return mr_dispatch_plain(client, ctx, msg);
    if (takes_the_lease(client, msg)) {
        if (client->n_requests != pin->in_flight)
            return mr_pin_wait_for_line(client);
        mr_pin_send(client, msg, msg->wire, 0);
        return true;
    }
    if (pin->in_flight > 0)
        return mr_pin_wait_for_line(client);
    return mr_dispatch_plain(client, ctx, msg);
}

/* What a client watches in one dialect is as good as changed once it speaks another one. */
static bool leaves_lane(const struct mr_client *client, const struct mr_msg *msg)
{
    return client->pin != NULL && client->pin->lease.server != NULL &&
           client->pin->lease.lane != msg->lane;
}

static bool take(struct mr_client *client, const struct mr_proto_ctx *ctx, const struct mr_msg *msg)
{
    const bool open = client->pin != NULL && client->pin->open;

    if (leaves_lane(client, msg)) {
        if (client->pin->in_flight > 0)
            return mr_pin_wait_for_line(client);
        mr_pin_loosen(client);
    }
    if (msg->step == MR_STEP_END)
        return mr_transaction_forget(client) && mr_dispatch_plain(client, ctx, msg);
    if (open || msg->step == MR_STEP_BEGIN || msg->step == MR_STEP_COMMIT ||
        msg->step == MR_STEP_DISCARD)
        return mr_transaction_take(client, msg);
    switch ((enum mr_step)msg->step) {
    case MR_STEP_WATCH:
        return watch(client, msg);
    case MR_STEP_UNWATCH:
        return unwatch(client, msg);
    case MR_STEP_BLOCK:
        return block(client, msg);
    default:
        return plain(client, ctx, msg);
    }
}

bool mr_pin_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx,
                     const struct mr_msg *msg)
{
    const bool taken = take(client, ctx, msg);

    mr_pin_settle(client);
    return taken;
}

/* ---- going elsewhere ---- */

bool mr_pin_blocks(const struct mr_client *client)
{
    return client->pin != NULL && client->pin->blocked;
}

bool mr_pin_waits(const struct mr_client *client)
{
    return client->pin != NULL && (client->pin->blocked || (client->barred & MR_PAUSE_LEASE) != 0);
}

void mr_pin_unblock(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    const uint64_t now = client->service->loop->now_us;

    if (pin != NULL && pin->blocked && now - pin->unblock_us >= UNBLOCK_AGAIN_US &&
        mr_lease_unblock(&pin->lease))
        pin->unblock_us = now;
}

void mr_pin_loosen(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    if (pin == NULL)
        return;
    mr_pin_unblock(client);
    if (pin->in_flight > 0)
        return;
    pin->broken |= pin->watching;
    mr_lease_end(&pin->lease, pin->watching ? MR_LEASE_USED : MR_LEASE_CLEAN);
    pin->watching = false;
    client->barred &= ~(unsigned)MR_PAUSE_LEASE;
}

bool mr_pin_can_travel(const struct mr_client *client)
{
    return client->pin == NULL || client->pin->lease.server == NULL;
}

struct mr_pin_luggage mr_pin_pack(const struct mr_client *client)
{
    const struct mr_pin *pin = client->pin;

    if (pin == NULL)
        return (struct mr_pin_luggage){0};
    return (struct mr_pin_luggage){.queue = mr_buf_slice(&pin->queue),
                                   .n_queued = pin->n_queued + pin->replayed,
                                   .aborted = pin->aborted,
                                   .broken = pin->broken};
}

void mr_pin_unpack(struct mr_client *client, const struct mr_pin_luggage *luggage)
{
    if (luggage->n_queued == 0 && !luggage->broken)
        return;
    struct mr_pin *pin = mr_pin_of(client);
    pin->replayed = luggage->n_queued;
    pin->aborted = luggage->aborted;
    pin->broken = luggage->broken;
}
