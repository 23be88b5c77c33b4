/*
 * balance.h - spreads client connections evenly over the workers. The kernel picks a worker for a
 * new connection by a hash or by who wakes first; one that has clearly more than the least loaded
 * hands the connection on to that one. Private to src/session and the worker.
 */
#pragma once

#include "session/service.h"

/** The workers as they see each other. */
struct mr_slots {
    const struct mr_metrics *at; /* borrowed; their heads tell how many clients each has */
    uint32_t n;
    uint32_t mine;
};

/** Clients of a slot, with those that are on their way to it. */
uint64_t mr_slot_load(const struct mr_metrics *slot);

/** True when the slot has a worker that takes new clients. */
bool mr_slot_serves(const struct mr_metrics *slot);

struct mr_balance {
    struct mr_slots slots;
    const int *ways; /* borrowed; to each worker */
};

/** Gives the new connection to another worker; false when it stays. Takes the fd when it is given.
 */
bool mr_balance_pass(const struct mr_balance *b, const struct mr_service *service, int fd);
