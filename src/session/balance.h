/*
 * balance.h - spreads client connections evenly over the workers. The kernel picks a worker for a
 * new connection by a hash or by who wakes first; one that has clearly more than the least loaded
 * hands the connection on to that one. Private to src/session and the worker.
 */
#pragma once

#include "session/service.h"

struct mr_balance {
    const struct mr_metrics *slots; /* borrowed; their heads tell how many clients each has */
    uint32_t n;
    uint32_t mine;
    const int *ways; /* borrowed; to each worker */
};

/** Gives the new connection to another worker; false when it stays. Takes the fd when it is given.
 */
bool mr_balance_pass(const struct mr_balance *b, const struct mr_service *service, int fd);
