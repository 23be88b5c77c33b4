/* gather.c - sends one request to several servers and joins the replies. */
#include "session/client.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const char NOBODY[] = "the servers that have the keys are not known yet";

#define FIRST_PARTS 8u

struct gather;

struct part_call {
    struct mr_call call;
    struct gather *gather;
    struct mr_slice key;    /* one of its keys, borrowed until it is sent */
    uint32_t group;         /* of its keys, while they are assigned */
    uint32_t key_bytes;     /* of its keys and blanks */
    struct mr_buf held;     /* its reply, unless it is the last to arrive */
    struct mr_again *again; /* to try another server; may be NULL */
};

struct gather {
    struct mr_service *service;
    struct mr_request *request; /* NULL until something is sent or fails */
    struct mr_plan plan;
    uint32_t pending;        /* parts still outstanding */
    uint32_t room;           /* for parts */
    size_t held_bytes;       /* size of the replies, counted in the client's held_bytes */
    struct part_call *calls; /* one per part */
};

static struct mr_slab *slab_of(const struct gather *g)
{
    return &g->service->loop->slab;
}

static void free_gather(struct gather *g, uint32_t n_keys)
{
    struct mr_slab *slab = slab_of(g);

    for (uint32_t i = 0; i < g->plan.n_parts; i++) {
        mr_buf_clear(&g->plan.parts[i].request, slab);
        mr_buf_clear(&g->calls[i].held, slab);
        if (MR_UNLIKELY(g->calls[i].again != NULL))
            mr_again_free(g->calls[i].again);
    }
    mr_buf_clear(&g->plan.notes, slab);
    mr_slab_put(slab, g->plan.part_of_key, n_keys * sizeof(uint32_t));
    mr_slab_put(slab, g->plan.parts, g->room * sizeof(*g->plan.parts));
    mr_slab_put(slab, g->calls, g->room * sizeof(*g->calls));
    mr_slab_put(slab, g, sizeof(*g));
}

static bool any_failed(const struct mr_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (plan->parts[i].failure != NULL)
            return true;
    return false;
}

static void join(struct gather *g, struct mr_buf *reply)
{
    struct mr_client *client = g->request->client;
    size_t bytes = MR_HEAD_BYTES;

    client->held_bytes -= g->held_bytes;
    g->service->pool.metrics->forward_error += any_failed(&g->plan);
    for (uint32_t i = 0; i < g->plan.n_parts; i++)
        bytes += g->plan.parts[i].reply.len;
    if (mr_buf_reserve(reply, slab_of(g), bytes) == NULL)
        mr_buf_fail(reply, slab_of(g));
    else
        g->service->config->protocol->keys.join(&g->plan, slab_of(g), reply);
}

static void complete(struct gather *g)
{
    struct mr_request *r = g->request;
    struct mr_slab *slab = slab_of(g);
    struct mr_buf reply = {0};

    if (MR_LIKELY(r->client != NULL))
        join(g, &reply);
    free_gather(g, g->plan.n_keys);
    if (r->client == NULL)
        mr_request_free(r);
    else if (mr_buf_failed(&reply))
        mr_client_fail(r, mr_pool_reason(ENOMEM));
    else
        mr_client_give_reply(r, &reply);
    mr_buf_clear(&reply, slab);
}

static void part_over(struct gather *g)
{
    if (--g->pending == 0)
        complete(g);
}

static void on_fail(struct mr_call *call, const char *reason)
{
    struct part_call *pc = MR_CONTAINER_OF(call, struct part_call, call);

    pc->gather->plan.parts[pc - pc->gather->calls].failure = reason;
    part_over(pc->gather);
}

/* True if the reply is a redirect: the part was sent again, or failed. */
static bool is_redirected(struct part_call *pc, struct mr_slice reply)
{
    const char *reason = mr_again_redirected(pc->again, reply);

    if (reason != NULL && reason[0] != '\0')
        on_fail(&pc->call, reason);
    return reason != NULL;
}

/* Keeps a reply, or a piece of one, until the others have arrived. */
static void hold(struct part_call *pc, struct mr_part *part, struct mr_slice bytes)
{
    struct gather *g = pc->gather;

    if (mr_buf_append(&pc->held, slab_of(g), bytes.at, bytes.len)) {
        g->held_bytes += bytes.len;
        g->request->client->held_bytes += bytes.len;
        part->reply = mr_buf_slice(&pc->held);
    } else {
        part->failure = mr_pool_reason(ENOMEM);
    }
    mr_client_check_output(g->request->client);
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct part_call *pc = MR_CONTAINER_OF(call, struct part_call, call);
    struct gather *g = pc->gather;
    struct mr_part *part = &g->plan.parts[pc - g->calls];
    const struct mr_slice reply = {bytes, len};
    const bool whole = done && mr_buf_empty(&pc->held);

    if (MR_UNLIKELY(pc->again != NULL) && whole && is_redirected(pc, reply))
        return;
    if (MR_LIKELY(g->request->client != NULL && part->failure == NULL)) {
        if (whole && g->pending == 1)
            part->reply = reply; /* joined at once */
        else
            hold(pc, part, reply);
    }
    if (done)
        part_over(g);
}

static const struct mr_call_ops CALL_OPS = {.on_reply = on_reply, .on_fail = on_fail};

/* ---- making parts ---- */

static void *regrow(struct mr_slab *slab, void *block, size_t old_size, size_t size)
{
    void *grown = mr_slab_try(slab, size);

    if (grown == NULL)
        return NULL;
    if (old_size > 0)
        memcpy(grown, block, old_size);
    mr_slab_put(slab, block, old_size);
    return grown;
}

/* Makes room for one more part. False when out of memory. */
static bool make_room(struct gather *g, uint32_t most)
{
    struct mr_slab *slab = slab_of(g);
    const uint32_t doubled = g->room > 0 ? 2 * g->room : FIRST_PARTS;
    const uint32_t room = doubled < most ? doubled : most;

    if (MR_LIKELY(g->plan.n_parts < g->room))
        return true;
    struct mr_part *parts = mr_slab_try(slab, room * sizeof(*parts));
    struct part_call *calls =
        parts == NULL ? NULL
                      : regrow(slab, g->calls, g->room * sizeof(*calls), room * sizeof(*calls));
    if (calls == NULL) {
        mr_slab_put(slab, parts, room * sizeof(*parts));
        return false;
    }
    if (g->room > 0)
        memcpy(parts, g->plan.parts, g->room * sizeof(*parts));
    mr_slab_put(slab, g->plan.parts, g->room * sizeof(*parts));
    g->plan.parts = parts;
    g->calls = calls;
    g->room = room;
    return true;
}

/* Adds a part for a server; there must be room. */
static void add_part(struct gather *g, const struct mr_msg *msg, const struct mr_server *server)
{
    const uint32_t i = g->plan.n_parts++;

    g->plan.parts[i] = (struct mr_part){.server = server->index, .name = server->name};
    g->calls[i] = (struct part_call){.call = {.ops = &CALL_OPS,
                                              .ticket = msg->ticket,
                                              .class = msg->class,
                                              .needs = msg->needs,
                                              .marks = msg->guarded ? MR_CALL_GUARDED : 0},
                                     .gather = g};
}

/*
 * The part of a key: that of its group, or a new one if there is none or it would grow too long.
 * Returns UINT32_MAX when out of memory.
 */
static uint32_t part_for(struct gather *g, const struct mr_msg *msg, struct mr_slice key,
                         struct mr_target to)
{
    uint32_t *part = &g->service->part_of[to.group];
    const uint32_t bytes = (uint32_t)key.len + 1;

    if (*part == UINT32_MAX ||
        (msg->part_bytes > 0 && g->calls[*part].key_bytes + bytes > msg->part_bytes)) {
        if (!make_room(g, msg->n_keys))
            return UINT32_MAX;
        *part = g->plan.n_parts;
        add_part(g, msg, to.server);
        g->calls[*part].key = key;
        g->calls[*part].group = to.group;
    }
    g->calls[*part].key_bytes += bytes;
    return *part;
}

/* Adjacent keys of a part, copied together. */
struct run {
    struct mr_slice bytes;
    uint32_t n_keys;
    uint32_t part;
};

static void end_run(struct gather *g, const struct mr_msg *msg, const struct run *run)
{
    if (run->n_keys > 0)
        mr_part_add(&g->service->config->protocol->keys, msg, slab_of(g), &g->plan.parts[run->part],
                    run->bytes, run->n_keys);
}

static void add_to_run(struct gather *g, const struct mr_msg *msg, struct run *run, uint32_t part,
                       struct mr_slice bytes)
{
    if (run->part == part && run->n_keys > 0 && run->bytes.at + run->bytes.len == bytes.at) {
        run->bytes.len += bytes.len;
        run->n_keys++;
        return;
    }
    end_run(g, msg, run);
    *run = (struct run){bytes, 1, part};
}

/*
 * Walks the keys once, and gives each to its part. *first becomes the target of the first key.
 * Returns why a key has no server, or NULL.
 */
static const char *assign_keys(struct gather *g, const struct mr_msg *msg, struct mr_target *first)
{
    const struct mr_proto_keys *keys = &g->service->config->protocol->keys;
    struct mr_key_walk walk = {0};
    struct run run = {0};
    struct mr_slice key;

    while (keys->next(msg, &walk, &key)) {
        const struct mr_target to = mr_pool_route(&g->service->pool, key, MR_TO_MASTER, NULL);
        if (MR_UNLIKELY(to.server == NULL))
            return to.reason;
        const uint32_t part = part_for(g, msg, key, to);
        if (MR_UNLIKELY(part == UINT32_MAX))
            return mr_pool_reason(ENOMEM);
        if (g->plan.n_keys == 0)
            *first = to;
        g->plan.part_of_key[g->plan.n_keys++] = part;
        add_to_run(g, msg, &run, part, walk.bytes);
    }
    if (run.n_keys == g->plan.n_keys && g->plan.n_parts == 1)
        return NULL; /* the request can go as it is */
    end_run(g, msg, &run);
    keys->end_parts(msg, &g->plan, slab_of(g));
    return NULL;
}

static void forget_groups(struct gather *g)
{
    for (uint32_t i = 0; i < g->plan.n_parts; i++)
        g->service->part_of[g->calls[i].group] = UINT32_MAX;
}

/* False if a part, or the notes for the join, ran out of memory. */
static bool requests_are_whole(const struct mr_plan *plan)
{
    bool whole = !mr_buf_failed(&plan->notes);

    for (uint32_t i = 0; i < plan->n_parts && whole; i++)
        whole = !mr_buf_failed(&plan->parts[i].request);
    return whole;
}

/* ---- sending them ---- */

/* Keeps a copy if servers redirect. */
static void keep(struct part_call *pc, const struct mr_part *part, uint8_t lane, uint64_t affinity)
{
    struct mr_pool *pool = &pc->gather->service->pool;

    pc->again = mr_again_keep(&(struct mr_again_setup){.pool = pool,
                                                       .call = &pc->call,
                                                       .request = mr_buf_slice(&part->request),
                                                       .key = pc->key,
                                                       .server = &pool->servers[part->server],
                                                       .affinity = affinity,
                                                       .lane = lane,
                                                       .intent = MR_TO_MASTER});
}

static void send_parts(struct gather *g, uint8_t lane, uint64_t affinity)
{
    struct mr_pool *pool = &g->service->pool;
    struct mr_slab *slab = slab_of(g);

    g->pending = g->plan.n_parts + 1; /* one extra: nothing may complete in here */
    pool->metrics->fragments += g->plan.n_parts;
    for (uint32_t i = 0; i < g->plan.n_parts; i++) {
        struct mr_part *part = &g->plan.parts[i];
        if (MR_UNLIKELY(pool->topology->redirected != NULL) && g->calls[i].key.len > 0)
            keep(&g->calls[i], part, lane, affinity);
        part->failure = mr_server_send(&pool->servers[part->server], lane, affinity,
                                       &g->calls[i].call, mr_buf_slice(&part->request));
        mr_buf_clear(&part->request, slab);
        g->pending -= part->failure != NULL;
    }
    part_over(g);
}

static struct gather *start(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    struct gather *g = mr_slab_get_zeroed(&service->loop->slab, sizeof(*g));

    g->service = service;
    g->plan.options = &service->config->options;
    g->plan.command = msg->command;
    g->plan.ticket = msg->ticket;
    g->plan.class = msg->class;
    return g;
}

/* Sends the parts, or fails the request if there is a reason not to. Nothing was sent yet. */
static void send_or_fail(struct gather *g, struct mr_client *client, const struct mr_msg *msg,
                         const char *reason)
{
    g->request = mr_client_add_request(client, msg);
    if (reason == NULL && !requests_are_whole(&g->plan))
        reason = mr_pool_reason(ENOMEM);
    if (reason == NULL) {
        send_parts(g, msg->lane, client->session.id);
        return;
    }
    struct mr_request *r = g->request;
    free_gather(g, g->plan.part_of_key != NULL ? msg->n_keys : 0);
    mr_client_fail(r, reason);
}

struct mr_target mr_gather(struct mr_client *client, const struct mr_msg *msg)
{
    struct gather *g = start(client, msg);
    struct mr_target first = {0};
    const char *reason = mr_pool_reason(ENOMEM);

    g->plan.part_of_key = mr_slab_try(slab_of(g), msg->n_keys * sizeof(uint32_t));
    if (g->plan.part_of_key != NULL)
        reason = assign_keys(g, msg, &first);
    forget_groups(g);
    if (reason == NULL && g->plan.n_parts == 1 && mr_buf_empty(&g->plan.parts[0].request)) {
        free_gather(g, msg->n_keys);
        return first;
    }
    send_or_fail(g, client, msg, reason);
    return (struct mr_target){0};
}

/* Makes parts for these servers, all with the same request. Returns why it cannot, or NULL. */
static const char *copy_to(struct gather *g, const struct mr_msg *msg, const uint32_t *servers,
                           uint32_t n)
{
    const struct mr_pool *pool = &g->service->pool;

    for (uint32_t i = 0; i < n; i++) {
        if (!make_room(g, n))
            return mr_pool_reason(ENOMEM);
        add_part(g, msg, &pool->servers[servers[i]]);
    }
    g->service->config->protocol->keys.copy(msg, &g->plan, slab_of(g));
    return NULL;
}

void mr_gather_all(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_pool *pool = &client->service->pool;
    struct mr_slab *slab = &pool->loop->slab;
    const size_t bytes = pool->n_servers * sizeof(uint32_t);
    uint32_t *servers = mr_slab_try(slab, bytes);
    struct gather *g = start(client, msg);
    const char *reason = mr_pool_reason(ENOMEM);

    if (servers != NULL) {
        const uint32_t n = mr_pool_holders(pool, servers);
        reason = n > 0 ? copy_to(g, msg, servers, n) : NOBODY;
    }
    send_or_fail(g, client, msg, reason);
    mr_slab_put(slab, servers, bytes);
}

void mr_gather_in_turn(struct mr_client *client, const struct mr_msg *msg)
{
    const struct mr_walk *walk = &client->service->pool.walk;
    const struct mr_stop *stop = mr_walk_at(walk, msg->place);
    struct gather *g = start(client, msg);
    const char *reason = NOBODY;

    if (stop == NULL && walk->n > 0) { /* servers at the end of the order are gone */
        g->request = mr_client_add_request(client, msg);
        complete(g);
        return;
    }
    if (stop != NULL) {
        g->plan.place = stop->place;
        g->plan.next = mr_walk_next(walk, stop);
        g->plan.progress = stop->place == msg->place ? msg->progress : 0;
        reason = copy_to(g, msg, &stop->server, 1);
    }
    send_or_fail(g, client, msg, reason);
}
