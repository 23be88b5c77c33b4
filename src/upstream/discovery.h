/*
 * discovery.h - keeps the map of a pool whose servers are discovered (see map.h) up to date.
 *
 * One worker asks on behalf of all: whoever claims the look when it is due. It asks over the same
 * connections as its requests.
 */
#pragma once

#include "core/timer.h"
#include "upstream/hosts.h"
#include "upstream/map.h"
#include "upstream/pool.h"

struct mr_discovery;
struct mr_look;

struct mr_discovery_ops {
    /** Starts a look, which ends with mr_discovery_over. */
    void (*ask)(struct mr_discovery *d);
    /** d->look will not be waited for any more. */
    void (*forget)(struct mr_look *look);
};

/** Whom to ask for the slots of a cluster, and for the masters that sentinels watch. */
extern const struct mr_discovery_ops MR_DISCOVERY_SLOTS;
extern const struct mr_discovery_ops MR_DISCOVERY_SENTINEL;

struct mr_discovery {
    struct mr_pool *pool;
    const struct mr_discovery_ops *ops;
    uint64_t interval_us;
    struct mr_timer timer;
    struct mr_look *look; /* in progress, or NULL */
    uint32_t turn;        /* which server is asked next */
};

void mr_discovery_init(struct mr_discovery *d, struct mr_pool *pool,
                       const struct mr_discovery_ops *ops, uint64_t interval_us);

/** Starts or stops looking. */
void mr_discovery_start(struct mr_discovery *d);
void mr_discovery_stop(struct mr_discovery *d);

/** The map may be wrong: looks again soon. */
void mr_discovery_want(struct mr_discovery *d);

/** The pool's server with this address, or NULL. */
struct mr_server *mr_discovery_find(struct mr_pool *pool, const struct mr_addr *addr);

/**
 * The same. A node that redirects lead to is added if it is not known: until it has a slot, no look
 * finds it. NULL if there is no room, or for a moment.
 */
struct mr_server *mr_discovery_meet(struct mr_pool *pool, const struct mr_addr *addr);

/**
 * The address that a server has reported; an empty host is its own. A name is looked up by the
 * resolver, which takes a moment.
 */
enum mr_host_answer mr_discovery_address(const struct mr_server *by, struct mr_slice host,
                                         uint16_t port, struct mr_addr *addr);

/** Adds nodes that other workers discovered. */
void mr_discovery_adopt(struct mr_pool *pool);

/* ---- for looks ---- */

/** The map as a look finds it. */
struct mr_reading {
    struct mr_pool *pool;
    const struct mr_server *by; /* who says so */
    struct mr_node_table *table;
    uint32_t no_room; /* nodes without a free place */
    uint32_t pending; /* nodes whose names are being looked up */
};

/** Starts with an empty table. Free it with mr_reading_fini. */
void mr_reading_init(struct mr_reading *r, struct mr_pool *pool, const struct mr_server *by);
void mr_reading_fini(struct mr_reading *r);

/** The server at this place, which may be a new one; NULL, logged, if it cannot be used. */
struct mr_server *mr_reading_node(struct mr_reading *r, struct mr_slice host, uint16_t port);

/** The same for an address; not logged. */
struct mr_server *mr_reading_server(struct mr_reading *r, const struct mr_addr *addr);

/** What servers are in this reading. `replica` may be any server. */
void mr_reading_set_master(struct mr_reading *r, uint32_t first, uint32_t last,
                           struct mr_server *master);
void mr_reading_set_replica(struct mr_reading *r, struct mr_server *replica,
                            const struct mr_server *master);

/** Ends the look: publishes the reading, or counts a failure if it is NULL. */
void mr_discovery_over(struct mr_discovery *d, const struct mr_reading *reading);
