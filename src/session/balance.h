/*
 * balance.h - spreads client connections over the workers. The kernel assigns a new connection by
 * hash or to whoever wakes up first; a worker with clearly more clients than the least loaded one
 * passes the connection on. Private to src/session and the worker.
 */
#pragma once

#include "session/service.h"

/** The workers, as they see each other. */
struct mr_slots {
    const struct mr_metrics *at; /* borrowed; the head has each worker's number of clients */
    uint32_t n;
    uint32_t mine;
};

/** Clients of a slot, including those being passed to it. */
uint64_t mr_slot_load(const struct mr_metrics *slot);

/** True if the slot has a worker that takes new clients. */
bool mr_slot_serves(const struct mr_metrics *slot);

struct mr_balance {
    struct mr_slots slots;
    const int *ways; /* borrowed; one channel per worker */
};

/** Passes a new connection to another worker, taking the fd. False if it should stay here. */
bool mr_balance_pass(const struct mr_balance *b, const struct mr_service *service, int fd);
