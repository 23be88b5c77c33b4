/* subscribe.c - a client's subscriptions. */
#include "session/subscribe.h"

#include "session/pin.h"
#include "upstream/feed.h"

#include <errno.h>
#include <stddef.h>

struct subscription {
    struct mr_subscription base;
    struct mr_table_item item; /* in service->subscriptions, by topic and client */
    struct mr_list link;       /* in subscriber->topics of its kind */
    struct mr_client *client;
    uint32_t request; /* number of the request that began it */
};

struct mr_subscriber {
    struct mr_list topics[MR_TOPIC_KINDS];
    struct mr_request *request; /* waits for the servers; or NULL */
    uint32_t n_requests;        /* to subscribe, so far */
    uint32_t n_waiting;         /* subscriptions of `request` that are not confirmed */
    struct mr_buf reply;        /* to `request` */
    struct mr_buf failure;      /* why it has failed; empty if it has not */
    struct mr_buf held;         /* messages that came in the middle of a reply */
    struct mr_buf luggage;      /* see mr_subscribe_luggage */
};

static struct mr_slab *slab_of(const struct mr_client *client)
{
    return &client->service->loop->slab;
}

static struct mr_pool *pool_of(const struct mr_client *client)
{
    return &client->service->pool;
}

static const struct mr_proto *protocol_of(const struct mr_client *client)
{
    return client->service->config->protocol;
}

/* ---- its life ---- */

static struct mr_subscriber *subscriber_of(struct mr_client *client)
{
    if (client->subscriber == NULL) {
        client->subscriber = mr_slab_get_zeroed(slab_of(client), sizeof(*client->subscriber));
        for (int i = 0; i < MR_TOPIC_KINDS; i++)
            mr_list_init(&client->subscriber->topics[i]);
    }
    return client->subscriber;
}

static struct subscription *of_link(struct mr_list *link)
{
    return MR_CONTAINER_OF(link, struct subscription, link);
}

static uint64_t hash_of(const struct mr_topic *topic, const struct mr_client *client)
{
    return ((uintptr_t)topic * UINT64_C(0x9e3779b97f4a7c15)) ^
           ((uintptr_t)client * UINT64_C(0xc2b2ae3d27d4eb4f));
}

/* The client's subscription to the topic, or NULL. */
static struct subscription *find(struct mr_client *client, enum mr_topic_kind kind,
                                 struct mr_slice name)
{
    struct mr_topic *topic = mr_feed_find(pool_of(client), kind, name);
    struct mr_table_item *item;

    if (topic == NULL || client->subscriber == NULL)
        return NULL;
    item = mr_table_find(&client->service->subscriptions, hash_of(topic, client));
    for (; item != NULL; item = mr_table_same(item)) {
        struct subscription *s = MR_CONTAINER_OF(item, struct subscription, item);
        if (s->base.topic == topic && s->client == client)
            return s;
    }
    return NULL;
}

/* `kind`: of its topic, which may be gone. */
static void end(struct subscription *s, enum mr_topic_kind kind)
{
    struct mr_client *client = s->client;

    mr_table_del(&client->service->subscriptions, &s->item);
    mr_list_del(&s->link);
    client->session.topics[kind]--;
    client->session.n_topics--;
    pool_of(client)->metrics->subscriptions--;
    mr_feed_unsubscribe(pool_of(client), &s->base);
    mr_slab_put(slab_of(client), s, sizeof(*s));
}

static void end_all(struct mr_client *client)
{
    for (int kind = 0; kind < MR_TOPIC_KINDS; kind++) {
        struct mr_list *topics = &client->subscriber->topics[kind];
        while (!mr_list_empty(topics))
            end(of_link(topics->next), (enum mr_topic_kind)kind);
    }
}

static void free_if_unused(struct mr_client *client)
{
    struct mr_subscriber *sub = client->subscriber;

    if (sub == NULL || sub->request != NULL || client->session.n_topics > 0 ||
        !mr_buf_empty(&sub->held) || !mr_buf_empty(&sub->luggage))
        return;
    mr_slab_put(slab_of(client), sub, sizeof(*sub));
    client->subscriber = NULL;
}

void mr_subscribe_free(struct mr_client *client)
{
    struct mr_subscriber *sub = client->subscriber;

    if (sub == NULL)
        return;
    end_all(client);
    if (sub->request != NULL)
        mr_request_free(sub->request); /* it has left the queue with its client */
    sub->request = NULL;
    mr_buf_clear(&sub->reply, slab_of(client));
    mr_buf_clear(&sub->failure, slab_of(client));
    mr_buf_clear(&sub->held, slab_of(client));
    mr_buf_clear(&sub->luggage, slab_of(client));
    free_if_unused(client);
}

bool mr_subscribe_forget(struct mr_client *client)
{
    if (client->subscriber == NULL)
        return true;
    if (client->subscriber->request != NULL)
        return mr_pin_wait_for_line(client);
    end_all(client);
    free_if_unused(client);
    return true;
}

/* ---- messages ---- */

static bool is_mid_reply(const struct mr_client *client)
{
    return client->head != NULL && client->head->started;
}

static void on_message(struct mr_subscription *base, struct mr_slice message)
{
    struct mr_client *client = MR_CONTAINER_OF(base, struct subscription, base)->client;
    struct mr_subscriber *sub = client->subscriber;
    const char mark = protocol_of(client)->feed.mark(&client->session);
    const uint32_t limit = client->service->config->client_output_limit;

    if (client->closing || mr_stream_is_closed(&client->stream))
        return;
    if (is_mid_reply(client)) {
        mr_buf_put(&sub->held, slab_of(client), &mark, 1);
        mr_buf_put(&sub->held, slab_of(client), message.at + 1, message.len - 1);
        if (mr_buf_failed(&sub->held) || mr_buf_len(&sub->held) > limit)
            mr_client_cut(client, ENOBUFS);
        return;
    }
    mr_stream_write(&client->stream, &mark, 1);
    mr_stream_write(&client->stream, message.at + 1, message.len - 1);
    mr_client_check_output(client);
}

void mr_subscribe_flush(struct mr_client *client)
{
    struct mr_subscriber *sub = client->subscriber;

    if (mr_buf_empty(&sub->held) || is_mid_reply(client))
        return;
    mr_stream_write(&client->stream, mr_buf_slice(&sub->held).at, mr_buf_len(&sub->held));
    mr_buf_clear(&sub->held, slab_of(client));
    mr_client_check_output(client);
    free_if_unused(client);
}

/* ---- subscribing ---- */

/* Ends what the last request has begun, since it has failed as a whole. */
static void undo(struct mr_client *client)
{
    for (int kind = 0; kind < MR_TOPIC_KINDS; kind++) {
        struct mr_list *topics = &client->subscriber->topics[kind], *link, *next;
        for (link = topics->next; link != topics; link = next) {
            struct subscription *s = of_link(link);
            next = link->next;
            if (s->request == client->subscriber->n_requests)
                end(s, (enum mr_topic_kind)kind);
        }
    }
}

/* All servers have answered. */
static void complete(struct mr_client *client)
{
    struct mr_subscriber *sub = client->subscriber;
    struct mr_request *r = sub->request;
    struct mr_buf reply = sub->reply, failure = sub->failure;
    struct mr_slab *slab = slab_of(client);

    sub->request = NULL;
    sub->reply = (struct mr_buf){0};
    sub->failure = (struct mr_buf){0};
    if (!mr_buf_empty(&failure))
        undo(client);
    free_if_unused(client);
    if (mr_buf_empty(&failure) && !mr_buf_failed(&reply)) {
        r->hidden = false; /* a confirmation is a push, which is never muted */
        mr_client_reply(r, mr_buf_slice(&reply).at, mr_buf_len(&reply), true);
    } else /* its last byte is NUL */
        mr_client_fail(r,
                       mr_buf_empty(&failure) ? mr_pool_reason(ENOMEM) : mr_buf_slice(&failure).at);
    mr_buf_clear(&reply, slab);
    mr_buf_clear(&failure, slab);
}

static void on_ready(struct mr_subscription *base, const char *reason)
{
    struct mr_client *client = MR_CONTAINER_OF(base, struct subscription, base)->client;
    struct mr_subscriber *sub = client->subscriber;

    if (base->lasting)
        return; /* nobody waits: the client was told before it moved */
    if (reason != NULL && mr_buf_empty(&sub->failure))
        mr_buf_put(&sub->failure, slab_of(client), reason, strlen(reason) + 1);
    if (--sub->n_waiting == 0 && sub->request != NULL)
        complete(client);
}

static const struct mr_subscription_ops OPS = {.on_ready = on_ready, .on_message = on_message};

/* Returns like mr_feed_subscribe. */
static enum mr_result begin(struct mr_client *client, enum mr_topic_kind kind, struct mr_slice name,
                            bool lasting, const char **reason)
{
    struct mr_subscriber *sub = subscriber_of(client);
    struct subscription *s = mr_slab_get_zeroed(slab_of(client), sizeof(*s));

    s->base.ops = &OPS;
    s->base.lasting = lasting;
    s->client = client;
    s->request = sub->n_requests;
    const enum mr_result rc = mr_feed_subscribe(pool_of(client), &s->base, kind, name, reason);
    if (rc != MR_OK && rc != MR_AGAIN) {
        mr_slab_put(slab_of(client), s, sizeof(*s));
        return rc;
    }
    mr_table_add(&client->service->subscriptions, &s->item, hash_of(s->base.topic, client));
    mr_list_append(&sub->topics[kind], &s->link);
    client->session.topics[kind]++;
    client->session.n_topics++;
    pool_of(client)->metrics->subscriptions++;
    return rc;
}

static bool subscribe(struct mr_client *client, const struct mr_msg *msg)
{
    struct mr_subscriber *sub = subscriber_of(client);
    const enum mr_topic_kind kind = (enum mr_topic_kind)msg->topic;
    struct mr_key_walk walk = {0};
    const char *reason = NULL;
    struct mr_slice name;

    sub->n_requests++;
    while (reason == NULL && protocol_of(client)->keys.next(msg, &walk, &name)) {
        if (find(client, kind, name) == NULL &&
            begin(client, kind, name, false, &reason) == MR_AGAIN)
            sub->n_waiting++;
        protocol_of(client)->feed.confirm(&client->session, kind, true, name, slab_of(client),
                                          &sub->reply);
    }
    sub->request = mr_client_add_request(client, msg);
    if (reason != NULL) {
        sub->n_waiting = 0;
        mr_buf_put(&sub->failure, slab_of(client), reason, strlen(reason) + 1);
    }
    if (sub->n_waiting == 0)
        complete(client);
    else
        client->barred |= MR_PAUSE_LINE; /* what it publishes next must not overtake */
    return true;
}

/* ---- unsubscribing ---- */

static void unsubscribe_one(struct mr_client *client, enum mr_topic_kind kind, struct mr_slice name,
                            struct mr_buf *out)
{
    struct subscription *s = find(client, kind, name);
    struct mr_buf copy = {0}; /* the name may be the topic's own */

    mr_buf_put(&copy, slab_of(client), name.at, name.len);
    if (s != NULL)
        end(s, kind);
    const struct mr_slice said = {mr_buf_len(&copy) > 0 ? mr_buf_slice(&copy).at : "",
                                  mr_buf_len(&copy)};
    protocol_of(client)->feed.confirm(&client->session, kind, false, said, slab_of(client), out);
    mr_buf_clear(&copy, slab_of(client));
}

static bool unsubscribe(struct mr_client *client, const struct mr_msg *msg)
{
    const enum mr_topic_kind kind = (enum mr_topic_kind)msg->topic;
    struct mr_key_walk walk = {0};
    struct mr_slice name;
    struct mr_buf reply = {0};
    struct mr_list *topics = client->subscriber != NULL ? &client->subscriber->topics[kind] : NULL;

    while (protocol_of(client)->keys.next(msg, &walk, &name))
        unsubscribe_one(client, kind, name, &reply);
    if (msg->n_keys == 0 && (topics == NULL || mr_list_empty(topics)))
        protocol_of(client)->feed.confirm(&client->session, kind, false, (struct mr_slice){0},
                                          slab_of(client), &reply);
    else if (msg->n_keys == 0)
        while (!mr_list_empty(topics))
            unsubscribe_one(client, kind, mr_topic_name(of_link(topics->next)->base.topic), &reply);
    free_if_unused(client);
    if (mr_buf_failed(&reply)) {
        mr_client_fail(mr_client_add_request(client, msg), mr_pool_reason(ENOMEM));
    } else { /* even to a client that is muted */
        mr_stream_write(&client->stream, mr_buf_slice(&reply).at, mr_buf_len(&reply));
        mr_client_check_output(client);
    }
    mr_buf_clear(&reply, slab_of(client));
    return true;
}

bool mr_subscribe_dispatch(struct mr_client *client, const struct mr_msg *msg)
{
    if (client->head != NULL)
        return mr_pin_wait_for_line(client);
    return msg->step == MR_STEP_SUBSCRIBE ? subscribe(client, msg) : unsubscribe(client, msg);
}

/* ---- moving to another process ---- */

/* Of each topic: its kind, the length of its name, and the name. */
struct item_head {
    uint32_t kind;
    uint32_t len;
};

void mr_subscribe_pack(struct mr_client *client)
{
    struct mr_subscriber *sub = client->subscriber;

    if (sub == NULL)
        return;
    for (uint32_t kind = 0; kind < MR_TOPIC_KINDS; kind++)
        for (struct mr_list *link = sub->topics[kind].next; link != &sub->topics[kind];
             link = link->next) {
            const struct mr_slice name = mr_topic_name(of_link(link)->base.topic);
            const struct item_head head = {kind, (uint32_t)name.len};
            mr_buf_put(&sub->luggage, slab_of(client), (const char *)&head, sizeof(head));
            mr_buf_put(&sub->luggage, slab_of(client), name.at, name.len);
        }
    end_all(client);
}

struct mr_slice mr_subscribe_luggage(const struct mr_client *client)
{
    return client->subscriber != NULL && !mr_buf_failed(&client->subscriber->luggage)
               ? mr_buf_slice(&client->subscriber->luggage)
               : mr_slice_of("");
}

void mr_subscribe_unpack(struct mr_client *client, struct mr_slice luggage)
{
    struct item_head head;
    const char *reason;

    while (luggage.len >= sizeof(head)) {
        memcpy(&head, luggage.at, sizeof(head));
        luggage = (struct mr_slice){luggage.at + sizeof(head), luggage.len - sizeof(head)};
        if (head.kind >= MR_TOPIC_KINDS || head.len > luggage.len)
            return;
        (void)begin(client, (enum mr_topic_kind)head.kind, (struct mr_slice){luggage.at, head.len},
                    true, &reason);
        luggage = (struct mr_slice){luggage.at + head.len, luggage.len - head.len};
    }
}

void mr_subscribe_resume(struct mr_client *client)
{
    struct mr_subscriber *sub = client->subscriber;

    if (sub == NULL)
        return;
    struct mr_buf luggage = sub->luggage;
    sub->luggage = (struct mr_buf){0};
    mr_subscribe_unpack(client, mr_buf_slice(&luggage));
    mr_buf_clear(&luggage, slab_of(client));
    free_if_unused(client);
}
