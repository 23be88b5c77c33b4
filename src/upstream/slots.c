/* slots.c - asks nodes of a cluster for its slots, one at a time. */
#include "core/log.h"
#include "upstream/discovery.h"

#include <stddef.h>

#define ANSWER_BYTES (16u << 20)

/* Its reply may come after others have been asked. */
struct mr_look {
    struct mr_call call;
    struct mr_pool *pool;
    struct mr_discovery *discovery; /* NULL: nobody waits for it any more */
    const struct mr_server *server;
    struct mr_buf answer;
};

struct ranges {
    struct mr_reading reading;
    struct mr_server *master; /* of the range */
    bool any;
    bool incomplete; /* the name of a master is being looked up */
};

static void take_range(void *arg, const struct mr_slot_range *range)
{
    struct ranges *ranges = arg;
    const uint32_t pending = ranges->reading.pending;
    struct mr_server *server = mr_reading_node(&ranges->reading, range->host, range->port);

    if (!range->is_replica) {
        ranges->master = server;
        ranges->incomplete |= ranges->reading.pending > pending;
    }
    if (server == NULL)
        return;
    ranges->any = true;
    if (!range->is_replica)
        mr_reading_set_master(&ranges->reading, range->first, range->last, server);
    else if (ranges->master != NULL)
        mr_reading_set_replica(&ranges->reading, server, ranges->master);
}

static void take_answer(struct mr_look *look)
{
    struct mr_pool *pool = look->pool;
    const struct mr_slice answer = mr_buf_slice(&look->answer);
    struct ranges ranges = {0};

    mr_reading_init(&ranges.reading, pool, look->server);
    const bool readable = pool->config->protocol->cluster.read_slots(answer, take_range, &ranges);
    const bool good = readable && ranges.any && !ranges.incomplete;
    if (!good && !(readable && ranges.incomplete))
        mr_log_limited(MR_LOG_WARN, "slots_unknown pool=%s server=%s reply=\"%.*s\"",
                       pool->config->name, look->server->name,
                       (int)(answer.len < 100 ? answer.len : 100), answer.len > 0 ? answer.at : "");
    mr_discovery_over(look->discovery, good ? &ranges.reading : NULL);
    mr_reading_fini(&ranges.reading);
}

static void look_over(struct mr_look *look, bool answered)
{
    struct mr_slab *slab = &look->pool->loop->slab;

    if (look->discovery != NULL && answered)
        take_answer(look);
    else if (look->discovery != NULL)
        mr_discovery_over(look->discovery, NULL);
    mr_buf_clear(&look->answer, slab);
    mr_slab_put(slab, look, sizeof(*look));
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_look *look = MR_CONTAINER_OF(call, struct mr_look, call);

    if (mr_buf_len(&look->answer) + len <= ANSWER_BYTES)
        mr_buf_put(&look->answer, &look->pool->loop->slab, bytes, len);
    if (done)
        look_over(look, !mr_buf_failed(&look->answer));
}

static void on_fail(struct mr_call *call, const char *reason)
{
    (void)reason;
    look_over(MR_CONTAINER_OF(call, struct mr_look, call), false);
}

static const struct mr_call_ops CALL_OPS = {.on_reply = on_reply, .on_fail = on_fail};

/* Rotates through the servers, healthy ones first; NULL if no address is known. */
static struct mr_server *choose(struct mr_discovery *d)
{
    struct mr_pool *pool = d->pool;
    struct mr_server *last = NULL;

    for (uint32_t k = 0; k < pool->n_servers; k++) {
        struct mr_server *s = &pool->servers[d->turn++ % pool->n_servers];
        if (s->addr.len == 0)
            continue;
        if (mr_health_is_well(s->health, pool->loop->now_us) &&
            mr_health_load(&s->health->failures) == 0)
            return s;
        last = s;
    }
    return last;
}

static void ask(struct mr_discovery *d)
{
    struct mr_pool *pool = d->pool;
    struct mr_server *server = choose(d);

    if (server == NULL) {
        mr_discovery_over(d, NULL);
        return;
    }
    struct mr_look *look = mr_slab_get_zeroed(&pool->loop->slab, sizeof(*look));
    look->call.ops = &CALL_OPS;
    look->call.class = MR_CLASS_OTHER;
    look->pool = pool;
    look->discovery = d;
    look->server = server;
    d->look = look;
    if (mr_server_send(server, 0, 0, &look->call,
                       mr_slice_of(pool->config->protocol->cluster.ask_slots)) != NULL)
        look_over(look, false);
}

static void forget(struct mr_look *look)
{
    look->discovery = NULL;
}

const struct mr_discovery_ops MR_DISCOVERY_SLOTS = {.ask = ask, .forget = forget};
