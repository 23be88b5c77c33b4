/* feed.c - topics, where they are, and the connections that are subscribed to them. */
#include "upstream/feed.h"

#include "core/log.h"
#include "upstream/backend.h"
#include "upstream/pool.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define TICK_MS   100u     /* topics that are not where they should be are looked at so often */
#define QUIET_US  5000000u /* a feed that is silent for this long is asked whether it lives */
#define UNUSED_US 2000000u /* a feed without topics is closed after this time */
#define REDIRECTS 8u       /* followed by one attempt */

/* A request to subscribe a feed, or to end that. */
struct order {
    struct mr_call call;
    struct mr_server *server;
    struct mr_topic *topic; /* NULL: its answer does not matter */
};

/* A topic at one server. */
struct place {
    struct mr_server *server;
    struct order *order; /* in flight */
    bool ready;          /* the server has confirmed it */
};

struct mr_topic {
    struct mr_table_item item;
    struct mr_list subscriptions;
    struct mr_list failing; /* in the hub's list */
    struct place *places;
    uint32_t n_places;
    uint32_t name_len;
    uint8_t kind;      /* enum mr_topic_kind */
    uint8_t redirects; /* followed by the present attempt */
    bool busy;         /* in use by a caller: not freed */
    char name[];
};

static const struct mr_proto *protocol_of(const struct mr_pool *pool)
{
    return pool->config->protocol;
}

static struct mr_topic *of_item(struct mr_table_item *item)
{
    return MR_CONTAINER_OF(item, struct mr_topic, item);
}

static struct mr_feed *feed_of(const struct mr_server *server)
{
    return &server->pool->hub.feeds[server->index];
}

enum mr_topic_kind mr_topic_kind(const struct mr_topic *topic)
{
    return (enum mr_topic_kind)topic->kind;
}

struct mr_slice mr_topic_name(const struct mr_topic *topic)
{
    return (struct mr_slice){topic->name, topic->name_len};
}

/* Largest message that is passed on. */
static uint32_t max_bytes(const struct mr_pool *pool)
{
    return pool->config->client_output_limit; /* who got more would be cut */
}

/* ---- orders ---- */

static struct place *find_place(const struct mr_topic *topic, const struct mr_server *server)
{
    for (uint32_t i = 0; i < topic->n_places; i++)
        if (topic->places[i].server == server)
            return &topic->places[i];
    return NULL;
}

static void settle(struct mr_pool *pool, struct mr_topic *topic, const char *reason);
static const char *subscribe_at(struct mr_topic *topic, struct mr_server *server);

/* The topic has left the server. True if there was a redirect, and another server is asked. */
static bool follow(struct mr_topic *topic, struct mr_server *by, struct mr_slice reply)
{
    struct mr_pool *pool = by->pool;
    struct mr_verdict verdict;

    if (pool->topology->redirected == NULL || topic->n_places != 1 || topic->redirects == REDIRECTS)
        return false;
    protocol_of(pool)->server.judge(MR_REPLY_REDIRECT, 0, reply, &verdict);
    if (verdict.meaning == MR_REPLY_PASS)
        return false;
    const struct mr_target to = pool->topology->redirected(by, &verdict.redirect);
    if (to.server == NULL || to.server == by)
        return false;
    topic->redirects++;
    feed_of(by)->n_topics--;
    feed_of(to.server)->n_topics++;
    topic->places[0].server = to.server;
    return subscribe_at(topic, to.server) == NULL;
}

/* The text of an error reply, for the client; valid until the next. */
static const char *text_of(struct mr_hub *hub, struct mr_slice reply)
{
    char *text = hub->reason;
    size_t n = 0;

    while (n + 1 < sizeof(hub->reason) && n + 1 < reply.len && reply.at[n + 1] != '\r') {
        text[n] = reply.at[n + 1];
        n++;
    }
    text[n] = '\0';
    return text;
}

/* Returns the topic that waits for the order, or NULL, and frees the order. */
static struct mr_topic *end_order(struct order *o)
{
    struct mr_topic *topic = o->topic;

    if (topic != NULL) {
        struct place *place = find_place(topic, o->server);
        MR_CHECK(place != NULL && place->order == o);
        place->order = NULL;
    }
    mr_slab_put(&o->server->pool->loop->slab, o, sizeof(*o));
    return topic;
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct order *o = MR_CONTAINER_OF(call, struct order, call);
    const struct mr_slice reply = {bytes, len};
    struct mr_server *server = o->server;

    if (!done)
        return;
    struct mr_topic *topic = end_order(o);
    if (topic == NULL)
        return;
    if (!protocol_of(server->pool)->lease.is_error(reply)) {
        find_place(topic, server)->ready = true;
        topic->redirects = 0;
        settle(server->pool, topic, NULL);
    } else if (!follow(topic, server, reply)) {
        server->pool->hub.stale = true;
        settle(server->pool, topic, text_of(&server->pool->hub, reply));
    }
}

/* With the connection, or because of a time-out: then it is not to be trusted any more. */
static void on_fail(struct mr_call *call, const char *reason)
{
    struct order *o = MR_CONTAINER_OF(call, struct order, call);
    struct mr_server *server = o->server;
    struct mr_topic *topic = end_order(o);

    server->pool->hub.stale = true;
    if (feed_of(server)->backend != NULL)
        mr_backend_close(feed_of(server)->backend, ETIMEDOUT);
    if (topic != NULL)
        settle(server->pool, topic, reason);
}

static const struct mr_call_ops ORDER = {.on_reply = on_reply, .on_fail = on_fail};

static void on_tick(struct mr_timer *timer);

static void start_ticking(struct mr_pool *pool)
{
    pool->hub.timer.fire = on_tick;
    if (!mr_timer_is_set(&pool->hub.timer) && !pool->closing)
        mr_loop_timer(pool->loop, &pool->hub.timer, TICK_MS);
}

static bool take(struct mr_backend *b, struct mr_slice bytes);
static void on_lost(struct mr_server *server);

static const struct mr_backend_user USER = {
    .kind = MR_BACKEND_FEED, .take = take, .max_bytes = max_bytes, .on_lost = on_lost};

/* NULL, or why there is no feed. */
static const char *connect_feed(struct mr_server *server)
{
    struct mr_feed *feed = feed_of(server);

    if (feed->backend != NULL)
        return NULL;
    if (!mr_pool_has_room(server->pool))
        return "no descriptor is left for subscriptions";
    return mr_server_connect(server, &feed->backend, 0, &USER);
}

/* Sends an order over a feed that is connected. `topic`: who waits for it, or NULL. */
static struct order *send_order(struct mr_server *server, struct mr_topic *topic,
                                struct mr_slice request)
{
    struct order *o = mr_slab_get_zeroed(&server->pool->loop->slab, sizeof(*o));

    o->call.ops = &ORDER;
    o->call.class = MR_CLASS_OTHER;
    o->server = server;
    o->topic = topic;
    (void)mr_backend_send(feed_of(server)->backend, &o->call, request); /* it needs no ability */
    return o;
}

static struct order *order_topic(struct mr_server *server, const struct mr_topic *topic, bool on,
                                 struct mr_topic *waits)
{
    struct mr_slab *slab = &server->pool->loop->slab;
    struct mr_buf request = {0};

    protocol_of(server->pool)
        ->feed.order(mr_topic_kind(topic), on, mr_topic_name(topic), slab, &request);
    struct order *o = send_order(server, waits, mr_buf_slice(&request));
    mr_buf_clear(&request, slab);
    return o;
}

/* NULL if an order is on its way, else why not. */
static const char *subscribe_at(struct mr_topic *topic, struct mr_server *server)
{
    struct place *place = find_place(topic, server);
    const char *reason = connect_feed(server);

    place->ready = false;
    if (reason == NULL)
        place->order = order_topic(server, topic, true, topic);
    else
        server->pool->hub.stale = true;
    start_ticking(server->pool);
    return reason;
}

static void leave(const struct mr_topic *topic, struct place *place)
{
    struct mr_server *server = place->server;
    struct mr_feed *feed = feed_of(server);

    if (place->order != NULL)
        place->order->topic = NULL;
    if (feed->backend != NULL && (place->order != NULL || place->ready))
        (void)order_topic(server, topic, false, NULL);
    feed->n_topics--;
    feed->used_us = server->pool->loop->now_us;
}

/* ---- topics ---- */

static uint64_t hash_of(const struct mr_pool *pool, enum mr_topic_kind kind, struct mr_slice name)
{
    return mr_table_hash(name, pool->hub.seed + (uint64_t)kind);
}

struct mr_topic *mr_feed_find(struct mr_pool *pool, enum mr_topic_kind kind, struct mr_slice name)
{
    struct mr_table_item *item = mr_table_find(&pool->hub.topics, hash_of(pool, kind, name));

    for (; item != NULL; item = mr_table_same(item)) {
        struct mr_topic *topic = of_item(item);
        if (topic->kind == kind && mr_slice_eq(mr_topic_name(topic), name))
            return topic;
    }
    return NULL;
}

static struct mr_topic *new_topic(struct mr_pool *pool, enum mr_topic_kind kind,
                                  struct mr_slice name)
{
    struct mr_topic *topic = mr_slab_get_zeroed(&pool->loop->slab, sizeof(*topic) + name.len);

    memcpy(topic->name, name.at, name.len);
    topic->name_len = (uint32_t)name.len;
    topic->kind = (uint8_t)kind;
    mr_list_init(&topic->subscriptions);
    mr_table_add(&pool->hub.topics, &topic->item, hash_of(pool, kind, name));
    return topic;
}

static void free_places(struct mr_pool *pool, struct place *places, uint32_t n)
{
    mr_slab_put(&pool->loop->slab, places, n * sizeof(*places));
}

/* Frees a topic that nobody is subscribed to. */
static void drop_if_unused(struct mr_pool *pool, struct mr_topic *topic)
{
    if (topic->busy || !mr_list_empty(&topic->subscriptions))
        return;
    for (uint32_t i = 0; i < topic->n_places; i++)
        leave(topic, &topic->places[i]);
    mr_table_del(&pool->hub.topics, &topic->item);
    if (mr_list_linked(&topic->failing))
        mr_list_del(&topic->failing);
    free_places(pool, topic->places, topic->n_places);
    mr_slab_put(&pool->loop->slab, topic, sizeof(*topic) + topic->name_len);
}

/* The indexes of the servers that the topic should be on. */
static uint32_t find_servers(struct mr_pool *pool, const struct mr_topic *topic, uint32_t *servers,
                             const char **reason)
{
    const bool one = topic->kind != MR_TOPIC_PATTERN || pool->topology->keys_together ||
                     pool->config->options.relays;

    *reason = "no server is known";
    if (!one)
        return mr_pool_holders(pool, servers);
    const struct mr_target to = mr_pool_route(pool, mr_topic_name(topic), MR_TO_MASTER, NULL);
    if (to.server == NULL) {
        *reason = to.reason;
        return 0;
    }
    servers[0] = to.server->index;
    return 1;
}

/* Moves the topic to where it should be. Returns NULL if it is there, or on its way. */
static const char *place_topic(struct mr_pool *pool, struct mr_topic *topic)
{
    struct mr_slab *slab = &pool->loop->slab;
    uint32_t *servers = mr_slab_get(slab, pool->n_servers * sizeof(*servers));
    const char *reason;
    const uint32_t n = find_servers(pool, topic, servers, &reason);
    struct place *before = topic->places;
    const uint32_t n_before = topic->n_places;

    if (n > 0) {
        topic->places = mr_slab_get_zeroed(slab, n * sizeof(*topic->places));
        topic->n_places = n;
        for (uint32_t i = 0; i < n; i++) {
            topic->places[i].server = &pool->servers[servers[i]];
            feed_of(topic->places[i].server)->n_topics++;
        }
        for (uint32_t i = 0; i < n_before; i++) {
            struct place *same = find_place(topic, before[i].server);
            if (same != NULL) {
                *same = before[i];
                feed_of(same->server)->n_topics--;
            } else {
                leave(topic, &before[i]);
            }
        }
        free_places(pool, before, n_before);
    }
    mr_slab_put(slab, servers, pool->n_servers * sizeof(*servers));
    bool any = false;
    for (uint32_t i = 0; i < topic->n_places; i++) {
        const struct place *place = &topic->places[i];
        const char *why = NULL;
        if (!place->ready && place->order == NULL)
            why = subscribe_at(topic, place->server);
        any |= why == NULL;
        reason = why != NULL ? why : reason;
    }
    return any ? NULL : reason;
}

/*
 * Tells those who wait, once no order is in flight: the topic is ready if a server has confirmed
 * it. Other servers are asked again until they do, too.
 */
static void settle(struct mr_pool *pool, struct mr_topic *topic, const char *reason)
{
    struct mr_list *link, *next;
    bool ready = false;

    for (uint32_t i = 0; i < topic->n_places; i++) {
        if (topic->places[i].order != NULL)
            return;
        ready |= topic->places[i].ready;
    }
    topic->busy = true;
    for (link = topic->subscriptions.next; link != &topic->subscriptions; link = next) {
        struct mr_subscription *s = MR_CONTAINER_OF(link, struct mr_subscription, link);
        next = link->next;
        if (!s->waiting)
            continue;
        s->waiting = false;
        if (!ready) { /* lasting ones do not wait */
            mr_list_del(&s->link);
            s->topic = NULL;
        }
        s->ops->on_ready(s, ready ? NULL : reason);
    }
    topic->busy = false;
    drop_if_unused(pool, topic);
}

/* ---- subscriptions ---- */

static uint64_t routes_of(struct mr_pool *pool)
{
    (void)mr_pool_route(pool, mr_slice_of("placeholder"), MR_TO_MASTER, NULL); /* refreshes them */
    return pool->ring_changes + pool->map_changes;
}

static void start_hub(struct mr_pool *pool)
{
    struct mr_hub *hub = &pool->hub;

    if (hub->feeds != NULL)
        return;
    hub->feeds = calloc(pool->n_servers, sizeof(*hub->feeds));
    MR_CHECK(hub->feeds != NULL);
    (void)getrandom(&hub->seed, sizeof(hub->seed), GRND_NONBLOCK);
    hub->routes = routes_of(pool);
    mr_list_init(&hub->failing);
}

/* True if what is there is confirmed, and nothing is on its way. */
static bool is_ready(const struct mr_topic *topic)
{
    bool any = false;

    for (uint32_t i = 0; i < topic->n_places; i++) {
        if (topic->places[i].order != NULL)
            return false;
        any |= topic->places[i].ready;
    }
    return any;
}

enum mr_result mr_feed_subscribe(struct mr_pool *pool, struct mr_subscription *s,
                                 enum mr_topic_kind kind, struct mr_slice name, const char **reason)
{
    start_hub(pool);
    struct mr_topic *topic = mr_feed_find(pool, kind, name);
    if (topic == NULL)
        topic = new_topic(pool, kind, name);
    const bool ready = is_ready(topic);
    const char *why = ready ? NULL : place_topic(pool, topic);
    if (why != NULL && !s->lasting) {
        *reason = why;
        drop_if_unused(pool, topic);
        return MR_ESYS;
    }
    if (why != NULL) {
        pool->hub.stale = true;
        start_ticking(pool);
    }
    s->topic = topic;
    s->waiting = !ready && !s->lasting;
    mr_list_append(&topic->subscriptions, &s->link);
    return s->waiting ? MR_AGAIN : MR_OK;
}

void mr_feed_unsubscribe(struct mr_pool *pool, struct mr_subscription *s)
{
    struct mr_topic *topic = s->topic;

    if (topic == NULL)
        return;
    mr_list_del(&s->link);
    s->topic = NULL;
    drop_if_unused(pool, topic);
}

/* ---- what comes in ---- */

static void deliver(struct mr_pool *pool, const struct mr_push *push, struct mr_slice message)
{
    struct mr_topic *topic = mr_feed_find(pool, push->kind, push->name);
    struct mr_list *link, *next;

    if (topic == NULL)
        return; /* it was on its way when the last subscription ended */
    pool->metrics->messages++;
    for (link = topic->subscriptions.next; link != &topic->subscriptions; link = next) {
        struct mr_subscription *s = MR_CONTAINER_OF(link, struct mr_subscription, link);
        next = link->next;
        if (!s->waiting)
            s->ops->on_message(s, message);
    }
}

/* The server has ended a subscription by itself: the topic's slot has moved. */
static bool take_end(struct mr_server *server, const struct mr_push *push)
{
    struct mr_topic *topic = mr_feed_find(server->pool, push->kind, push->name);
    struct place *place = topic != NULL ? find_place(topic, server) : NULL;

    if (place == NULL || !place->ready || place->order != NULL)
        return false; /* it answers an order */
    place->ready = false;
    server->pool->hub.stale = true;
    if (server->pool->topology->failed != NULL)
        server->pool->topology->failed(server); /* the map has changed */
    return true;
}

/* Handles a message, or the end of a subscription. */
static bool take(struct mr_backend *b, struct mr_slice bytes)
{
    struct mr_verdict verdict;

    protocol_of(b->server->pool)->server.judge(MR_REPLY_PUSH, 0, bytes, &verdict);
    if (verdict.meaning == MR_REPLY_PASS)
        return false;
    if (verdict.push.ended)
        return take_end(b->server, &verdict.push);
    deliver(b->server->pool, &verdict.push, bytes);
    return true;
}

static void on_lost(struct mr_server *server)
{
    struct mr_hub *hub = &server->pool->hub;
    struct mr_table_item *item = NULL;

    while ((item = mr_table_next(&hub->topics, item)) != NULL) {
        struct place *place = find_place(of_item(item), server);
        if (place != NULL && place->order == NULL)
            place->ready = false;
    }
    hub->stale = true;
}

/* ---- keeping it so ---- */

static void renew(struct mr_pool *pool)
{
    struct mr_hub *hub = &pool->hub;
    struct mr_table_item *item = mr_table_next(&hub->topics, NULL), *next;

    hub->stale = false;
    for (; item != NULL; item = next) {
        struct mr_topic *topic = of_item(item);
        next = mr_table_next(&hub->topics, item);
        topic->redirects = 0;
        if (place_topic(pool, topic) != NULL)
            mr_list_append(&hub->failing, &topic->failing);
    }
    while (!mr_list_empty(&hub->failing)) { /* those who wait have waited for one attempt */
        struct mr_topic *topic = MR_CONTAINER_OF(hub->failing.next, struct mr_topic, failing);
        mr_list_del(&topic->failing);
        hub->stale = true;
        settle(pool, topic, "no server takes the subscription");
    }
}

static void look_after(struct mr_server *server)
{
    struct mr_feed *feed = feed_of(server);
    const uint64_t now = server->pool->loop->now_us;
    const char *ping = protocol_of(server->pool)->feed.ping;

    if (feed->backend == NULL)
        return;
    if (feed->n_topics == 0 && now - feed->used_us >= UNUSED_US)
        mr_backend_drop(feed->backend);
    else if (now - feed->backend->read_us >= QUIET_US && mr_backend_idle(feed->backend))
        (void)send_order(server, NULL, mr_slice_of(ping));
}

static void on_tick(struct mr_timer *timer)
{
    struct mr_pool *pool = MR_CONTAINER_OF(timer, struct mr_pool, hub.timer);
    struct mr_hub *hub = &pool->hub;
    const uint64_t routes = routes_of(pool);
    bool any = hub->topics.n > 0;

    if (hub->stale || hub->routes != routes) {
        hub->routes = routes;
        renew(pool);
    }
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        look_after(&pool->servers[i]);
        any |= hub->feeds[i].backend != NULL;
    }
    if (any)
        start_ticking(pool);
}

void mr_feeds_start(struct mr_pool *pool)
{
    if (pool->hub.topics.n > 0)
        start_ticking(pool);
}

void mr_feeds_stop(struct mr_pool *pool)
{
    mr_timer_cancel(&pool->hub.timer);
}

void mr_feeds_fini(struct mr_pool *pool)
{
    MR_CHECK(pool->hub.topics.n == 0);
    mr_table_fini(&pool->hub.topics);
    free(pool->hub.feeds);
}
