/* budget.h - how many clients one worker can have, all its pools together. */
#pragma once

#include "upstream/lease.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_service;

struct mr_client_budget {
    uint32_t n;                  /* connected */
    struct mr_lease_room leases; /* server connections of single clients: they count as well */
    uint64_t *clients;           /* told there as well, for other workers to see */
    uint32_t max;                /* what the descriptors allow */
    uint32_t burst;              /* what may wait in the queues of the listening sockets */
    bool sparing;                /* close to the limit, see mr_budget_init */
    uint64_t next_id;            /* of a client */
    struct mr_service *services; /* borrowed: those that accept */
    uint32_t n_services;
};

/**
 * `max` and `burst` are set, nobody is connected. Where an engine accepts by itself, a whole queue
 * may come at once, before anybody can count. So when there is no room for that any more,
 * connections are taken one by one: a descriptor that is kept for a server must not go to a client
 * who will be refused.
 */
void mr_budget_init(struct mr_client_budget *b);

/** A client is connected. */
void mr_budget_add(struct mr_client_budget *b);

/** A client is gone. */
void mr_budget_drop(struct mr_client_budget *b);

static inline bool mr_budget_full(const struct mr_client_budget *b)
{
    return b->n + b->leases.n >= b->max;
}
