/* mirror.c - which keys a client's requests have written, and in which database. */
#include "session/mirror.h"

#include "core/log.h"
#include "transfer/carrier.h"

#include <errno.h>
#include <stdlib.h>

#define ACTIVE 64u /* transfers at a time, in each worker */
#define TRIES  5u  /* how often a server may refuse a key */

struct mr_mirror {
    struct mr_carrier carrier;
    const struct mr_proto_transfer *proto;
    struct mr_pool *to;
    uint32_t connections; /* of each server: writes on several are not in order */
};

/* A request that empties the other pool's servers, too. */
struct emptying {
    struct mr_errand errand;
    struct mr_mirror *mirror;
    struct mr_loop *loop;
};

void mr_mirror_open(struct mr_service *service, struct mr_pool *to)
{
    const struct mr_pool_config *config = service->config;
    struct mr_pool_metrics *metrics = service->pool.metrics;
    struct mr_mirror *m = calloc(1, sizeof(*m));

    MR_CHECK(m != NULL);
    m->proto = &config->protocol->transfer;
    m->to = to;
    m->connections = config->server_connections;
    mr_carrier_init(&m->carrier,
                    &(struct mr_carrier_setup){.loop = service->loop,
                                               .from = &service->pool,
                                               .to = to,
                                               .max_bytes = config->mirror_buffer_bytes,
                                               .max_active = ACTIVE,
                                               .tries = TRIES,
                                               .counts = {.carried = &metrics->mirrored,
                                                          .errors = &metrics->mirror_errors,
                                                          .dropped = &metrics->mirror_dropped,
                                                          .pending = &metrics->mirror_pending}});
    service->mirror = m;
}

void mr_mirror_free(struct mr_service *service)
{
    if (service->mirror == NULL)
        return;
    mr_carrier_fini(&service->mirror->carrier);
    free(service->mirror);
    service->mirror = NULL;
}

void mr_mirror_stop(struct mr_service *service)
{
    if (service->mirror != NULL)
        mr_carrier_stop(&service->mirror->carrier);
}

bool mr_mirror_settled(const struct mr_service *service)
{
    return service->mirror == NULL || mr_carrier_settled(&service->mirror->carrier);
}

/* ---- keys ---- */

static void add(struct mr_client *client, uint8_t lane, struct mr_slice key, bool doubtful)
{
    struct mr_mirror *m = client->service->mirror;
    struct mr_carrier_key add = {.key = key,
                                 .affinity = client->session.id % m->connections,
                                 .from_lane = lane,
                                 .doubtful = doubtful};

    if (m->proto->lane(&client->service->config->options, lane, &m->to->config->options,
                       &add.to_lane))
        mr_carrier_add(&m->carrier, &add);
    else
        mr_carrier_drop(&m->carrier, "the other pool does not have this database");
}

/* Adds every key of the message, `doubtful` if it may be written after this. */
static void add_keys(struct mr_client *client, const struct mr_msg *msg, uint8_t lane,
                     bool doubtful)
{
    const struct mr_proto_keys *keys = &client->service->config->protocol->keys;
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    if (msg->action == MR_MSG_BY_KEY) {
        add(client, lane, msg->key, doubtful);
        return;
    }
    doubtful |= client->service->pool.topology->redirected != NULL; /* it may be delayed */
    while (keys->next(msg, &walk, &key))
        add(client, lane, key, doubtful);
}

/* ---- emptying ---- */

static void on_emptied(struct mr_errand *errand, const char *failure)
{
    struct emptying *e = MR_CONTAINER_OF(errand, struct emptying, errand);
    struct mr_mirror *m = e->mirror;

    if (failure != NULL || !m->proto->done(mr_errand_reply(errand))) {
        (*m->carrier.setup.counts.errors)++;
        mr_carrier_drop(&m->carrier, failure != NULL ? failure : "a server was not emptied");
    }
    mr_errand_release(errand);
    mr_slab_put(&e->loop->slab, e, sizeof(*e));
}

static void empty_server(struct mr_client *client, const struct mr_msg *msg, uint8_t lane,
                         struct mr_server *server)
{
    struct mr_mirror *m = client->service->mirror;
    struct mr_loop *loop = client->service->loop;
    struct emptying *e = mr_slab_get_zeroed(&loop->slab, sizeof(*e));

    const char *reason = mr_errand_send(
        &e->errand, &(struct mr_errand_order){.pool = m->to,
                                              .allowance = &m->carrier.road.allowance,
                                              .server = server,
                                              .request = msg->wire,
                                              .lane = lane,
                                              .class = MR_CLASS_WRITE,
                                              .on_done = on_emptied});
    e->mirror = m;
    e->loop = loop;
    if (reason == NULL)
        return;
    (*m->carrier.setup.counts.errors)++;
    mr_carrier_drop(&m->carrier, reason);
    mr_slab_put(&loop->slab, e, sizeof(*e));
}

static void empty(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_mirror *m = client->service->mirror;
    uint32_t *servers = calloc(m->to->n_servers, sizeof(*servers));
    uint8_t lane;

    MR_CHECK(servers != NULL);
    if (m->proto->lane(&client->service->config->options, msg->lane, &m->to->config->options,
                       &lane)) {
        const uint32_t n = mr_pool_holders(m->to, servers);
        for (uint32_t i = 0; i < n; i++)
            empty_server(client, msg, lane, &m->to->servers[servers[i]]);
    }
    free(servers);
}

/* ---- messages ---- */

static void take(struct mr_client *client, const struct mr_msg *msg, bool doubtful)
{
    const struct mr_mirror *m = client->service->mirror;
    uint8_t other;

    if (msg->class != MR_CLASS_WRITE)
        return;
    if (msg->action == MR_MSG_EVERYWHERE && m->proto->empties(msg))
        empty(client, msg);
    if (msg->action != MR_MSG_BY_KEY && msg->action != MR_MSG_BY_KEYS)
        return;
    add_keys(client, msg, msg->lane, doubtful);
    if (m->proto->other_lane(&client->service->config->options, msg, &other))
        add_keys(client, msg, other, true); /* over another connection */
}

void mr_mirror_message(struct mr_client *client, const struct mr_msg *msg)
{
    take(client, msg, false);
}

void mr_mirror_lost(struct mr_service *service)
{
    mr_carrier_drop(&service->mirror->carrier, mr_pool_reason(ENOMEM));
}

void mr_mirror_run(struct mr_client *client, struct mr_slice run)
{
    struct mr_service *service = client->service;
    struct mr_buf scratch = {0};
    const struct mr_proto_ctx ctx = {.options = &service->config->options,
                                     .session = &client->session,
                                     .slab = &service->loop->slab,
                                     .scratch = &scratch,
                                     .facts = &service->facts};

    while (run.len > 0) {
        struct mr_parse_state state = {0};
        struct mr_msg msg = {0};
        if (service->config->protocol->client.parse(&ctx, &state, run.at, run.len, &msg) != MR_OK) {
            mr_mirror_lost(service);
            break;
        }
        take(client, &msg, true); /* leases are other connections, and may be closed meanwhile */
        run = (struct mr_slice){run.at + msg.consumed, run.len - msg.consumed};
    }
    mr_buf_clear(&scratch, &service->loop->slab);
}
