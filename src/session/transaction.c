/* transaction.c - queues a transaction, and sends it in one run. */
#include "session/mirror.h"
#include "session/pin.h"

#include "upstream/pool.h"

static struct mr_slab *slab_of(const struct mr_client *client)
{
    return &client->service->loop->slab;
}

void mr_transaction_drop(struct mr_pin *pin)
{
    mr_buf_clear(&pin->queue, slab_of(pin->client));
    pin->open = false;
    pin->aborted = false;
    pin->n_queued = 0;
    pin->server = NULL;
    mr_buf_clear(&pin->key, slab_of(pin->client));
}

/* Refuses the command, which aborts the transaction. */
static bool abort_with(struct mr_client *client, enum mr_saying saying)
{
    client->pin->aborted = true;
    mr_pin_say(client, saying);
    return true;
}

static bool abort_with_text(struct mr_client *client, struct mr_slice reply)
{
    client->pin->aborted = true;
    mr_pin_say_text(client, reply);
    return true;
}

/* ---- queueing ---- */

/* True if the message's keys are on the server of the earlier ones. */
static bool keys_fit(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pin *pin = client->pin;
    const char *reason;

    if (msg->action != MR_MSG_BY_KEY && msg->action != MR_MSG_BY_KEYS)
        return true;
    struct mr_server *server = mr_pin_target(client, msg, &reason);
    if (server == NULL || (pin->watching && server != pin->lease.server))
        return false;
    const uint32_t group = mr_pool_group(&client->service->pool, msg->key, server);
    if (pin->server != NULL && group != pin->group)
        return false;
    if (pin->server == NULL && client->service->pool.topology->redirected != NULL)
        mr_buf_put(&pin->key, slab_of(client), msg->key.at, msg->key.len);
    pin->server = server;
    pin->group = group;
    return true;
}

static bool append(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pin *pin = client->pin;

    if (mr_buf_len(&pin->queue) + msg->wire.len > client->service->config->max_request_bytes ||
        !mr_buf_append(&pin->queue, slab_of(client), msg->wire.at, msg->wire.len))
        return abort_with(client, MR_SAY_TOO_LARGE);
    pin->n_queued++;
    mr_pin_say(client, msg->step == MR_STEP_BEGIN ? MR_SAY_OK : MR_SAY_QUEUED);
    return true;
}

static bool queue(struct mr_client *client, const struct mr_msg *msg)
{
    switch (msg->action) {
    case MR_MSG_BY_KEY:
    case MR_MSG_BY_KEYS:
    case MR_MSG_ANYWHERE:
        if (!keys_fit(client, msg))
            return abort_with_text(client, mr_pool_apart(&client->service->pool));
        return append(client, msg);
    case MR_MSG_LOCAL:
        return msg->queueable ? append(client, msg) : abort_with(client, MR_SAY_NOT_INSIDE);
    case MR_MSG_EVERYWHERE:
    case MR_MSG_IN_TURN:
        return abort_with(client, MR_SAY_NOT_INSIDE);
    case MR_MSG_REFUSE:
        return abort_with_text(client, msg->reply);
    case MR_MSG_SKIP:
        return true;
    }
    MR_BUG("a message without an action");
}

static bool begin(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pin *pin = mr_pin_of(client);

    pin->open = true;
    if (pin->replayed == 0)
        pin->aborted = false;
    return append(client, msg);
}

/* ---- commit and discard ---- */

bool mr_transaction_forget(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    if (pin == NULL)
        return true;
    if (pin->watching && pin->in_flight > 0)
        return mr_pin_wait_for_line(client);
    mr_transaction_drop(pin);
    pin->broken = false;
    if (pin->watching)
        mr_lease_end(&pin->lease, MR_LEASE_USED);
    pin->watching = false;
    return true;
}

static bool give_up(struct mr_client *client, enum mr_saying saying)
{
    if (!mr_transaction_forget(client))
        return false;
    mr_pin_say(client, saying);
    return true;
}

/* A transaction without keys goes to any server. */
static const char *send_shared(struct mr_client *client, struct mr_request *r, uint8_t lane,
                               struct mr_slice run)
{
    struct mr_server *server = client->pin->server;

    if (server == NULL) {
        const struct mr_target any =
            mr_pool_route(&client->service->pool, mr_slice_of("placeholder"), MR_TO_MASTER, NULL);
        if (any.server == NULL)
            return any.reason;
        server = any.server;
    }
    mr_dispatch_keep_run(r, run, mr_buf_slice(&client->pin->key), server, lane);
    return mr_server_send(server, lane, client->session.id, &r->call, run);
}

static void send_run(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pin *pin = client->pin;
    const struct mr_slice run = mr_buf_slice(&pin->queue);

    if (pin->watching) {
        pin->watching = false;
        mr_pin_send(client, msg, run, pin->n_queued);
        return;
    }
    struct mr_request *r = mr_dispatch_request(client, msg);
    r->call.early = pin->n_queued;
    r->call.marks = MR_CALL_EARLY;
    client->wrote_us = client->service->loop->now_us;
    const char *error = send_shared(client, r, msg->lane, run);
    if (error != NULL)
        mr_client_fail(r, error);
    else if (client->service->mirror != NULL)
        mr_mirror_run(client, run);
}

static bool commit(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pin *pin = client->pin;

    if (pin->aborted)
        return give_up(client, MR_SAY_ABORTED);
    if (pin->watching && !mr_lease_holds(&pin->lease)) {
        pin->watching = false;
        pin->broken = true;
    }
    if (pin->broken)
        return give_up(client, MR_SAY_BROKEN);
    if (pin->n_queued == 1 && !pin->watching)
        return give_up(client, MR_SAY_EMPTY);
    if (client->n_requests != pin->in_flight && pin->watching)
        return mr_pin_wait_for_line(client);
    if (pin->in_flight > 0 && !pin->watching)
        return mr_pin_wait_for_line(client);
    if (!mr_buf_append(&pin->queue, slab_of(client), msg->wire.at, msg->wire.len))
        return give_up(client, MR_SAY_TOO_LARGE);
    send_run(client, msg);
    mr_transaction_drop(pin);
    return true;
}

bool mr_transaction_take(struct mr_client *client, const struct mr_msg *msg)
{
    const bool open = client->pin != NULL && client->pin->open;

    switch ((enum mr_step)msg->step) {
    case MR_STEP_BEGIN:
        if (!open)
            return begin(client, msg);
        mr_pin_say(client, MR_SAY_NESTED);
        return true;
    case MR_STEP_COMMIT:
        if (open)
            return commit(client, msg);
        mr_pin_say(client, MR_SAY_COMMIT_ALONE);
        return true;
    case MR_STEP_DISCARD:
        if (open)
            return give_up(client, MR_SAY_OK);
        mr_pin_say(client, MR_SAY_DISCARD_ALONE);
        return true;
    case MR_STEP_WATCH:
        mr_pin_say(client, MR_SAY_WATCH_INSIDE);
        return true;
    case MR_STEP_SUBSCRIBE:
    case MR_STEP_UNSUBSCRIBE:
        return abort_with(client, MR_SAY_NOT_INSIDE);
    default:
        return queue(client, msg);
    }
}
