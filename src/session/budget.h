/* budget.h - limits the clients of a worker, over all its pools. */
#pragma once

#include "upstream/lease.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_service;

struct mr_client_budget {
    uint32_t n;                  /* connected clients */
    struct mr_extra_room extra;  /* leased and on-demand server connections, which count as well */
    uint64_t *clients;           /* copy of n, for other workers */
    uint32_t max;                /* limit, from the number of file descriptors */
    uint32_t burst;              /* how many may wait in the listen queues */
    bool sparing;                /* close to the limit, see mr_budget_init */
    uint64_t first_id;           /* of a client: unique among workers, and across generations */
    uint64_t *ids;               /* given so far; outlives this worker, so that none comes twice */
    struct mr_service *services; /* borrowed; all that accept */
    uint32_t n_services;
};

/**
 * `max` and `burst` are set, no client is connected. An engine that accepts by itself may take a
 * whole queue before anybody can count. So when a whole queue would no longer fit, connections are
 * accepted one by one: descriptors reserved for servers must not go to clients that will be
 * refused.
 */
void mr_budget_init(struct mr_client_budget *b);

/** Counts a new client. */
void mr_budget_add(struct mr_client_budget *b);

/** Uncounts a client. */
void mr_budget_drop(struct mr_client_budget *b);

static inline bool mr_budget_full(const struct mr_client_budget *b)
{
    return b->n + b->extra.n >= b->max;
}
