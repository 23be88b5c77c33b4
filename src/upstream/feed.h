/*
 * feed.h - subscriptions to what servers publish.
 *
 * A worker has one connection per server for this, its feed, which is subscribed once to whatever
 * any of the worker's clients wants. A topic is on the server that its name is routed to; a pattern
 * is on all servers, unless any of them knows what is published at the others. After a feed is
 * lost, or a topic's server has changed, subscriptions are renewed without their owners.
 */
#pragma once

#include "core/list.h"
#include "core/table.h"
#include "core/timer.h"
#include "proto/proto.h"

struct mr_backend;
struct mr_pool;
struct mr_server;
struct mr_subscription;
struct mr_topic;

struct mr_subscription_ops {
    /** The servers have confirmed it (NULL), or why not; it is then ended. */
    void (*on_ready)(struct mr_subscription *s, const char *reason);
    /** A message, as the server sent it; borrowed for the call. Must not end subscriptions. */
    void (*on_message)(struct mr_subscription *s, struct mr_slice message);
};

/** Somebody's interest in a topic. Embedded by its owner. */
struct mr_subscription {
    const struct mr_subscription_ops *ops;
    struct mr_topic *topic; /* NULL: ended */
    struct mr_list link;    /* in the topic */
    bool lasting;           /* never ended for lack of a server, but renewed until it succeeds */
    bool waiting;           /* on_ready is still to come; until then there are no messages */
};

struct mr_feed {
    struct mr_backend *backend; /* NULL: not connected */
    uint32_t n_topics;          /* that are on the server */
    uint64_t used_us;           /* loop time when a topic was last on it */
};

/** Part of the pool. Zeroed before first use. */
struct mr_hub {
    struct mr_table topics;
    struct mr_feed *feeds; /* one per server of the pool; NULL until used */
    uint64_t routes;       /* version of the routes that the topics follow */
    uint64_t seed;
    struct mr_list failing; /* struct mr_topic: found without a server while renewing */
    struct mr_timer timer;
    char reason[200]; /* of the last order that was refused */
    bool stale;       /* some topic is not where it should be */
};

/**
 * Subscribes. `s->ops`, and `lasting`, are set, everything else is zero. A lasting one succeeds.
 * @return MR_OK: subscribed; MR_AGAIN: on_ready follows; otherwise *reason says why not
 */
enum mr_result mr_feed_subscribe(struct mr_pool *pool, struct mr_subscription *s,
                                 enum mr_topic_kind kind, struct mr_slice name,
                                 const char **reason) MR_MUST_USE;

/** Ends the subscription; it may be freed afterwards. */
void mr_feed_unsubscribe(struct mr_pool *pool, struct mr_subscription *s);

enum mr_topic_kind mr_topic_kind(const struct mr_topic *topic);
struct mr_slice mr_topic_name(const struct mr_topic *topic);

/** The topic, if anybody is subscribed to it, or NULL. */
struct mr_topic *mr_feed_find(struct mr_pool *pool, enum mr_topic_kind kind, struct mr_slice name);

/* ---- for the pool ---- */

/** Goes on renewing. */
void mr_feeds_start(struct mr_pool *pool);

/** Stops renewing. Subscriptions are to be ended by their owners before mr_feeds_fini. */
void mr_feeds_stop(struct mr_pool *pool);
void mr_feeds_fini(struct mr_pool *pool);
