/* gather.c - one request to several servers: sent in parts, the replies joined. */
#include "session/client.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

struct gather;

struct part_call {
    struct mr_call call;
    struct gather *gather;
};

struct gather {
    struct mr_request *request;
    struct mr_plan plan;
    uint32_t pending;        /* parts without an outcome */
    size_t held_bytes;       /* of the parts' replies, counted on the client */
    struct part_call *calls; /* one for each part */
};

static struct mr_slab *slab_of(const struct gather *g)
{
    return &g->request->service->loop->slab;
}

static void free_gather(struct gather *g)
{
    struct mr_slab *slab = slab_of(g);

    for (uint32_t i = 0; i < g->plan.n_parts && g->plan.parts != NULL; i++) {
        mr_buf_clear(&g->plan.parts[i].request, slab);
        mr_buf_clear(&g->plan.parts[i].reply, slab);
    }
    mr_buf_clear(&g->plan.notes, slab);
    mr_slab_put(slab, g->plan.part_of_key, g->plan.n_keys * sizeof(uint32_t));
    mr_slab_put(slab, g->plan.parts, g->plan.n_parts * sizeof(*g->plan.parts));
    mr_slab_put(slab, g->calls, g->plan.n_parts * sizeof(*g->calls));
    mr_slab_put(slab, g, sizeof(*g));
}

static bool any_failed(const struct mr_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (plan->parts[i].failure != NULL)
            return true;
    return false;
}

static void complete(struct gather *g)
{
    struct mr_request *r = g->request;
    struct mr_service *service = r->service;
    struct mr_slab *slab = slab_of(g);
    struct mr_buf reply = {0};

    if (r->client != NULL) {
        r->client->held_bytes -= g->held_bytes;
        service->pool.metrics->forward_error += any_failed(&g->plan);
        service->config->protocol->join(&g->plan, slab, &reply);
    }
    free_gather(g);
    if (r->client == NULL) {
        mr_request_free(r);
        return;
    }
    const struct mr_slice text = mr_buf_slice(&reply);
    if (mr_buf_failed(&reply))
        mr_client_fail(r, mr_pool_reason(ENOMEM));
    else
        mr_client_reply(r, text.at, text.len, true);
    mr_buf_clear(&reply, slab);
}

static void part_over(struct gather *g)
{
    if (--g->pending == 0)
        complete(g);
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct part_call *pc = MR_CONTAINER_OF(call, struct part_call, call);
    struct gather *g = pc->gather;
    struct mr_part *part = &g->plan.parts[pc - g->calls];
    struct mr_client *client = g->request->client;

    if (client != NULL && part->failure == NULL) {
        if (mr_buf_append(&part->reply, slab_of(g), bytes, len)) {
            g->held_bytes += len;
            client->held_bytes += len;
        } else {
            part->failure = mr_pool_reason(ENOMEM);
        }
        mr_client_check_output(client);
    }
    if (done)
        part_over(g);
}

static void on_fail(struct mr_call *call, const char *reason)
{
    struct part_call *pc = MR_CONTAINER_OF(call, struct part_call, call);

    pc->gather->plan.parts[pc - pc->gather->calls].failure = reason;
    part_over(pc->gather);
}

static const struct mr_call_ops CALL_OPS = {.on_reply = on_reply, .on_fail = on_fail};

/*
 * Gives every key its part, making a part for each server that is met, and another one where the
 * last would grow too long. `filled` has an element for each server of the pool, `servers` one for
 * each key. Returns why a key has no server, or NULL.
 */
static const char *plan_parts(struct mr_service *service, const struct mr_msg *msg,
                              struct mr_plan *plan, uint32_t *servers, uint32_t *filled)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    memset(service->part_of, 0xff, service->pool.n_servers * sizeof(*service->part_of));
    while (service->config->protocol->next_key(msg, &walk, &key)) {
        const struct mr_target to = mr_pool_route(&service->pool, key, MR_TO_MASTER, NULL);
        if (to.server == NULL)
            return to.reason;
        const uint32_t server = to.server->index;
        uint32_t *part = &service->part_of[server];
        filled[server] += (uint32_t)key.len + 1;
        if (*part == UINT32_MAX || (msg->part_bytes > 0 && filled[server] > msg->part_bytes)) {
            servers[plan->n_parts] = server;
            filled[server] = (uint32_t)key.len + 1;
            *part = plan->n_parts++;
        }
        plan->part_of_key[plan->n_keys++] = *part;
    }
    return NULL;
}

/* False when memory is short. */
static bool make_parts(struct gather *g, const struct mr_msg *msg, const uint32_t *servers)
{
    const struct mr_service *service = g->request->service;
    struct mr_plan *plan = &g->plan;
    struct mr_slab *slab = slab_of(g);

    plan->parts = mr_slab_try(slab, plan->n_parts * sizeof(*plan->parts));
    g->calls = mr_slab_try(slab, plan->n_parts * sizeof(*g->calls));
    if (plan->parts != NULL)
        memset(plan->parts, 0, plan->n_parts * sizeof(*plan->parts));
    if (plan->parts == NULL || g->calls == NULL)
        return false;
    for (uint32_t i = 0; i < plan->n_parts; i++) {
        plan->parts[i].server = servers[i];
        plan->parts[i].name = service->config->servers.at[servers[i]].name;
        g->calls[i] = (struct part_call){.call = {.ops = &CALL_OPS,
                                                  .ticket = msg->ticket,
                                                  .class = msg->class,
                                                  .needs = msg->needs,
                                                  .marks = msg->guarded ? MR_CALL_GUARDED : 0},
                                         .gather = g};
    }
    for (uint32_t k = 0; k < plan->n_keys; k++)
        plan->parts[plan->part_of_key[k]].n_keys++;
    return true;
}

/* Whether memory was enough for all of them, and for what the join must know. */
static bool requests_are_whole(const struct mr_plan *plan)
{
    bool whole = !mr_buf_failed(&plan->notes);

    for (uint32_t i = 0; i < plan->n_parts && whole; i++)
        whole = !mr_buf_failed(&plan->parts[i].request);
    return whole;
}

static void send_parts(struct gather *g, uint8_t lane, uint64_t affinity)
{
    struct mr_pool *pool = &g->request->service->pool;
    struct mr_slab *slab = slab_of(g);

    g->pending = g->plan.n_parts + 1; /* one for us, so that nothing completes under our feet */
    pool->metrics->fragments += g->plan.n_parts;
    for (uint32_t i = 0; i < g->plan.n_parts; i++) {
        struct mr_part *part = &g->plan.parts[i];
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

    g->request = mr_client_add_request(client, msg);
    g->plan.options = &service->config->options;
    g->plan.command = msg->command;
    g->plan.ticket = msg->ticket;
    g->plan.class = msg->class;
    return g;
}

/* Returns why nothing was sent, or NULL. */
static const char *split_and_send(struct gather *g, const struct mr_msg *msg,
                                  const uint32_t *servers)
{
    struct mr_service *service = g->request->service;

    if (!make_parts(g, msg, servers))
        return mr_pool_reason(ENOMEM);
    service->config->protocol->split(msg, &g->plan, &service->loop->slab);
    if (!requests_are_whole(&g->plan))
        return mr_pool_reason(ENOMEM);
    send_parts(g, msg->lane, g->request->client->session.id);
    return NULL;
}

/* Before anything was sent. */
static void give_up(struct gather *g, const struct mr_msg *msg, const char *reason)
{
    struct mr_request *r = g->request;

    g->plan.n_keys = msg->n_keys; /* as it was allocated */
    free_gather(g);
    mr_client_fail(r, reason);
}

void mr_gather(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    struct mr_slab *slab = &service->loop->slab;
    const size_t filled_bytes = service->pool.n_servers * sizeof(uint32_t);
    const size_t servers_bytes = msg->n_keys * sizeof(uint32_t);
    uint32_t *filled = mr_slab_get_zeroed(slab, filled_bytes);
    uint32_t *servers = mr_slab_try(slab, servers_bytes);
    struct gather *g = start(client, msg);
    const char *reason = mr_pool_reason(ENOMEM);

    g->plan.part_of_key = mr_slab_try(slab, servers_bytes);
    if (servers != NULL && g->plan.part_of_key != NULL)
        reason = plan_parts(service, msg, &g->plan, servers, filled);
    if (reason == NULL)
        reason = split_and_send(g, msg, servers);
    if (reason != NULL)
        give_up(g, msg, reason);
    mr_slab_put(slab, servers, servers_bytes);
    mr_slab_put(slab, filled, filled_bytes);
}

void mr_gather_all(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_service *service = client->service;
    struct gather *g = start(client, msg);

    g->plan.n_parts = service->pool.n_servers;
    for (uint32_t i = 0; i < g->plan.n_parts; i++)
        service->part_of[i] = i;
    const char *reason = split_and_send(g, msg, service->part_of);
    if (reason != NULL)
        give_up(g, msg, reason);
}
