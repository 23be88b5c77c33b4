/* pin.c - clients with state at a server: watched keys and blocking commands. */
#include "session/pin.h"

#include "session/mirror.h"
#include "session/subscribe.h"
#include "upstream/pool.h"

#include <errno.h>
#include <stddef.h>

/* Then unblocking is tried again: the command may have reached the server late. */
#define UNBLOCK_AGAIN_US 50000u
#define REDIRECTED_US    2000000u /* a redirected request is repeated for at most this long */

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

/* Whether the command in flight may block. */
static void set_blocked(struct mr_client *client, bool blocked)
{
    uint64_t *count = &client->service->pool.metrics->blocked_clients;

    *count += (uint64_t)blocked - (uint64_t)client->pin->blocked;
    client->pin->blocked = blocked;
}

/* What was sent over the lease has been executed by now, or may yet be. */
static void mirror(struct mr_client *client)
{
    struct mr_buf written = client->pin->written;

    client->pin->written = (struct mr_buf){0};
    if (mr_buf_failed(&written))
        mr_mirror_lost(client->service);
    else if (!mr_buf_empty(&written))
        mr_mirror_run(client, mr_buf_slice(&written));
    mr_buf_clear(&written, slab_of(client));
}

void mr_pin_free(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    if (pin == NULL)
        return;
    mirror(client);
    set_blocked(client, false);
    mr_lease_end(&pin->lease, pin->in_flight > 0 ? MR_LEASE_SPOILT
                              : pin->watching    ? MR_LEASE_USED
                                                 : MR_LEASE_CLEAN);
    mr_buf_clear(&pin->kept, slab_of(client));
    mr_buf_clear(&pin->queue, slab_of(client));
    mr_buf_clear(&pin->key, slab_of(client));
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
    if (!pin->open && pin->replayed == 0 && !pin->broken && pin->lease.server == NULL &&
        pin->redirected_us == 0)
        mr_pin_free(client);
}

/* ---- replies ---- */

void mr_pin_say_text(struct mr_client *client, struct mr_slice reply)
{
    if (client->pin != NULL && client->pin->replayed > 0)
        client->pin->replayed--;
    else
        mr_client_answer(client, reply);
}

void mr_pin_say(struct mr_client *client, enum mr_saying saying)
{
    mr_pin_say_text(client, protocol_of(client)->client.say(&client->session, saying));
}

static bool refuse(struct mr_client *client, const char *reason)
{
    struct mr_buf error = {0};

    protocol_of(client)->client.fail(&client->service->config->options, 0, reason, slab_of(client),
                                     &error);
    mr_pin_say_text(client, mr_buf_slice(&error));
    mr_buf_clear(&error, slab_of(client));
    return true;
}

static bool say_apart(struct mr_client *client)
{
    mr_pin_say_text(client, mr_pool_apart(&client->service->pool));
    return true;
}

/* ---- requests on the lease ---- */

/* Puts a blocking command back into the input, to be sent again here or in another process. */
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
    set_blocked(client, false);
    pin->unblock_us = 0;
    mr_buf_clear(&pin->kept, slab_of(client));
    if (pin->in_flight == 0)
        mirror(client);
    mr_pin_settle(client);
    mr_client_reconsider(client);
}

static bool may_be_redirected(const struct mr_client *client)
{
    return client->service->pool.topology->redirected != NULL && client->pin->lease.server != NULL;
}

/* What a whole reply to the request may mean. */
static unsigned possible_meanings(const struct mr_request *r)
{
    const struct mr_client *client = r->client;
    const struct mr_pin *pin = client->pin;
    unsigned possible = MR_REPLY_PASS;

    if (pin->unblock_us > 0 && !pin->once && !client->service->draining)
        possible |= MR_REPLY_RETRY;
    if (!pin->moved && !r->started && mr_buf_empty(&r->reply) && may_be_redirected(client))
        possible |= MR_REPLY_REDIRECT;
    return possible;
}

static enum mr_meaning judge(const struct mr_client *client, unsigned possible,
                             struct mr_slice reply, struct mr_verdict *verdict)
{
    verdict->meaning = MR_REPLY_PASS;
    if (possible != MR_REPLY_PASS)
        protocol_of(client)->server.judge(possible, 0, reply, verdict);
    return verdict->meaning;
}

/* Updates the map. Returns where the request should go. */
static struct mr_target learn(struct mr_client *client, const struct mr_redirect *redirect)
{
    return client->service->pool.topology->redirected(client->pin->lease.server, redirect);
}

/*
 * A server redirected the request. A request that begins something is repeated there. Watched keys
 * that have left their server count as changed.
 */
static void take_redirect(struct mr_request *r, const struct mr_redirect *redirect)
{
    struct mr_client *client = r->client;
    struct mr_pin *pin = client->pin;
    const uint64_t now = client->service->loop->now_us;
    const struct mr_target to = learn(client, redirect);

    if (pin->redirected_us == 0)
        pin->redirected_us = now;
    if (!mr_buf_empty(&pin->kept) && client->head == r && client->tail == r &&
        now - pin->redirected_us < REDIRECTED_US) {
        pin->asking = redirect->kind == MR_REDIRECT_ASK ? to.server : NULL;
        pin->watching = pin->watched;
        ask_later(r);
        return;
    }
    pin->redirected_us = 0;
    pin->broken |= pin->watching;
    mr_client_fail(r, "the key is on another server now");
}

/* Passes on the reply. That of a transaction whose watched keys have moved is another. */
static void answer(struct mr_request *r, struct mr_slice reply, bool done)
{
    struct mr_client *client = r->client;
    struct mr_pin *pin = client->pin;

    if (MR_UNLIKELY(pin->moved && done)) {
        pin->moved = false;
        reply = protocol_of(client)->client.say(&client->session, MR_SAY_BROKEN);
    } else {
        pin->redirected_us = 0;
    }
    mr_client_reply(r, reply.at, reply.len, done);
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_request *r = MR_CONTAINER_OF(call, struct mr_request, call);
    struct mr_client *client = r->client;
    const struct mr_slice reply = {bytes, len};
    struct mr_verdict verdict;

    if (client == NULL) {
        if (done)
            mr_request_free(r);
        return;
    }
    switch (judge(client, done ? possible_meanings(r) : MR_REPLY_PASS, reply, &verdict)) {
    case MR_REPLY_RETRY:
        ask_later(r);
        break;
    case MR_REPLY_REDIRECT:
        take_redirect(r, &verdict.redirect);
        break;
    default:
        answer(r, reply, done);
    }
    if (done)
        over(client);
}

/* In a transaction: a command's key has left the server it was watched on. */
static void on_early(struct mr_call *call, const char *bytes, size_t len)
{
    struct mr_client *client = MR_CONTAINER_OF(call, struct mr_request, call)->client;
    struct mr_verdict verdict;

    if (client == NULL || !may_be_redirected(client) ||
        judge(client, MR_REPLY_REDIRECT, (struct mr_slice){bytes, len}, &verdict) == MR_REPLY_PASS)
        return;
    (void)learn(client, &verdict.redirect);
    client->pin->moved = true;
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
    client->pin->moved = false;
    client->pin->redirected_us = 0;
    mr_client_fail(r, reason);
    over(client);
}

static const struct mr_call_ops CALL_OPS = {
    .on_reply = on_reply, .on_fail = on_fail, .on_early = on_early};

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
    if (error != NULL) {
        mr_client_fail(r, error);
        return;
    }
    pin->in_flight++;
    if (client->service->mirror != NULL)
        mr_buf_put(&pin->written, slab_of(client), wire.at, wire.len);
}

/* Sends to a node that is importing the key's slot. */
static void send_asking(struct mr_client *client, const struct mr_msg *msg)
{
    const struct mr_slice asking = mr_slice_of(protocol_of(client)->cluster.asking);
    struct mr_buf run = {0};

    mr_buf_put(&run, slab_of(client), asking.at, asking.len);
    mr_buf_put(&run, slab_of(client), msg->wire.at, msg->wire.len);
    client->pin->asking = NULL;
    if (mr_buf_failed(&run))
        mr_client_fail(mr_client_add_request(client, msg), mr_pool_reason(ENOMEM));
    else
        mr_pin_send(client, msg, mr_buf_slice(&run), 1);
    mr_buf_clear(&run, slab_of(client));
}

/* ---- connections ---- */

bool mr_pin_wait_for_line(struct mr_client *client)
{
    client->barred |= MR_PAUSE_LINE;
    return false;
}

/* True if the lease is granted or refused; false if it is being waited for. */
static bool have_lease(struct mr_client *client, struct mr_server *server, uint8_t lane)
{
    struct mr_lease *lease = &mr_pin_of(client)->lease;

    if (lease->server != server) /* the key's server has changed */
        mr_lease_end(lease, MR_LEASE_CLEAN);
    if (lease->server == NULL ? mr_lease_take(lease, server, lane)
                              : !mr_list_linked(&lease->waiting))
        return true;
    client->barred |= MR_PAUSE_LEASE;
    return false;
}

/* With `distribution: random`, the server the client has started with, or NULL. */
static struct mr_server *chosen_at_random(const struct mr_client *client)
{
    const struct mr_pin *pin = client->pin;

    if (pin != NULL && pin->watching)
        return pin->lease.server;
    return pin != NULL && pin->open ? pin->server : NULL;
}

/*
 * True for keys of the group that is watched: wherever the map has the group by now, only the
 * server that watches can tell whether it has changed.
 */
static bool is_in_watched_group(struct mr_client *client, struct mr_slice key)
{
    struct mr_pool *pool = &client->service->pool;
    const struct mr_pin *pin = client->pin;

    return pin != NULL && pin->watching && pool->topology->group != NULL &&
           pool->topology->group(pool, key) == pin->watched_group;
}

struct mr_server *mr_pin_target(struct mr_client *client, const struct mr_msg *msg,
                                const char **reason)
{
    struct mr_pool *pool = &client->service->pool;
    struct mr_target first = mr_pool_route(pool, msg->key, MR_TO_MASTER, NULL);

    if (is_in_watched_group(client, msg->key))
        first.server = client->pin->lease.server;
    *reason = first.reason;
    if (client->service->config->distribution == MR_DIST_RANDOM) {
        struct mr_server *chosen = chosen_at_random(client);
        return chosen != NULL ? chosen : first.server;
    }
    if (msg->action != MR_MSG_BY_KEYS || pool->topology->keys_together || first.server == NULL ||
        mr_pool_keeps_together(pool, msg))
        return first.server;
    *reason = "";
    return NULL;
}

/*
 * Sends a message over a lease on the server of its keys. True if it was sent or refused. An unused
 * lease on another server is given up.
 */
static bool over_lease(struct mr_client *client, const struct mr_msg *msg)
{
    const char *reason = NULL;
    struct mr_pin *pin = client->pin;
    struct mr_server *server =
        pin != NULL && pin->asking != NULL ? pin->asking : mr_pin_target(client, msg, &reason);

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
    if (msg->confirms)
        (void)mr_lease_mark(&pin->lease); /* if it fails, so does what follows */
    if (pin->asking != NULL)
        send_asking(client, msg);
    else
        mr_pin_send(client, msg, msg->wire, 0);
    return true;
}

/* Keeps a copy to repeat elsewhere. Until the reply, nothing may follow. */
static bool keep(struct mr_client *client, const struct mr_msg *msg)
{
    client->barred |= MR_PAUSE_LINE;
    return mr_buf_append(&client->pin->kept, slab_of(client), msg->wire.at, msg->wire.len);
}

static bool refused(struct mr_client *client)
{
    if (client->pin != NULL) {
        client->pin->asking = NULL;
        client->pin->redirected_us = 0;
    }
    return true;
}

static bool watch(struct mr_client *client, const struct mr_msg *msg)
{
    if (client->service->pool.topology->redirected != NULL && client->head != NULL)
        return mr_pin_wait_for_line(client);
    if (!over_lease(client, msg))
        return false;
    struct mr_pin *pin = client->pin;
    if (pin == NULL || pin->in_flight == 0)
        return refused(client);
    pin->watched = pin->watching;
    pin->watching = true;
    if (!pin->watched)
        pin->watched_group = mr_pool_group(&client->service->pool, msg->key, pin->lease.server);
    if (client->service->pool.topology->redirected != NULL)
        (void)keep(client, msg);
    return true;
}

static bool block(struct mr_client *client, const struct mr_msg *msg)
{
    if (client->eof && client->head == NULL) { /* nobody would read the reply */
        mr_client_cut(client, 0);
        return true;
    }
    if (!over_lease(client, msg))
        return false;
    struct mr_pin *pin = client->pin;
    if (pin == NULL || pin->in_flight == 0)
        return refused(client);
    set_blocked(client, true);
    pin->watched = pin->watching;
    pin->once = !keep(client, msg) || msg->once;
    return true;
}

static bool unwatch(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pin *pin = client->pin;

    if (pin != NULL && pin->watching && mr_lease_holds(&pin->lease)) {
        pin->watching = false;
        mr_pin_send(client, msg, msg->wire, 0);
        return true;
    }
    if (pin != NULL)
        pin->watching = pin->broken = false;
    mr_pin_say(client, MR_SAY_OK);
    return true;
}

/* True if the message can use the connection that watches keys, in order with the others there. */
static bool takes_the_lease(struct mr_client *client, const struct mr_msg *msg)
{
    const char *reason;

    return (msg->action == MR_MSG_BY_KEY || msg->action == MR_MSG_BY_KEYS) &&
           mr_lease_holds(&client->pin->lease) && client->pin->watching &&
           mr_pin_target(client, msg, &reason) == client->pin->lease.server;
}

/* A message without a step, while keys are watched or a step is in progress. */
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

/* The client changes its dialect. Its lease follows, with the watched keys. */
static bool leaves_lane(const struct mr_client *client, const struct mr_msg *msg)
{
    return client->pin != NULL && client->pin->lease.server != NULL &&
           client->pin->lease.lane != msg->lane;
}

/*
 * True for a message of a transaction that another process has begun, but this one refuses to: the
 * client's rights have changed. It was answered there, and must not be executed.
 */
static bool is_left_over(const struct mr_pin *pin, const struct mr_msg *msg)
{
    return pin != NULL && pin->replayed > 0 && !pin->open && msg->step != MR_STEP_BEGIN;
}

static bool take(struct mr_client *client, const struct mr_proto_ctx *ctx, const struct mr_msg *msg)
{
    const bool open = client->pin != NULL && client->pin->open;

    if (is_left_over(client->pin, msg)) {
        client->pin->replayed--;
        return true;
    }
    if (leaves_lane(client, msg)) {
        if (client->pin->in_flight > 0)
            return mr_pin_wait_for_line(client);
        if (!mr_lease_change_lane(&client->pin->lease, msg->lane))
            mr_pin_loosen(client);
    }
    if (msg->step == MR_STEP_ABORT)
        return mr_transaction_forget(client) && mr_dispatch_plain(client, ctx, msg);
    if (msg->step == MR_STEP_END)
        return mr_subscribe_forget(client) && mr_transaction_forget(client) &&
               mr_dispatch_plain(client, ctx, msg);
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
    case MR_STEP_SUBSCRIBE:
    case MR_STEP_UNSUBSCRIBE:
        return mr_subscribe_dispatch(client, msg);
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

/* ---- moving to another process ---- */

bool mr_pin_blocks(const struct mr_client *client)
{
    return client->pin != NULL && client->pin->blocked;
}

bool mr_pin_waits(const struct mr_client *client)
{
    return client->pin != NULL && (client->pin->blocked || (client->barred & MR_PAUSE_LEASE) != 0);
}

bool mr_pin_end_block(struct mr_client *client, bool timed_out)
{
    return mr_pin_blocks(client) && mr_lease_unblock(&client->pin->lease, timed_out);
}

void mr_pin_unblock(struct mr_client *client)
{
    struct mr_pin *pin = client->pin;

    const uint64_t now = client->service->loop->now_us;

    if (pin != NULL && pin->blocked && now - pin->unblock_us >= UNBLOCK_AGAIN_US &&
        mr_lease_unblock(&pin->lease, false))
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
