/* listeners.h - every listening socket of a configuration: kept by the master, lent to workers. */
#pragma once

#include "config/config.h"

struct mr_listeners {
    const struct mr_config *config;
    uint32_t n_slots;
    uint32_t n; /* addresses, over all pools in order */
    int *fds;   /* n_slots x n: slot s has fds[s * n] onwards; a unix socket is the same in all */
};

/**
 * Opens everything or nothing. TCP addresses get a SO_REUSEPORT socket for each slot. The sockets
 * that `before` (NULL for none) has for an address are shared with it: their queues go on.
 */
enum mr_result mr_listeners_open(struct mr_listeners *l, const struct mr_config *config,
                                 uint32_t n_slots, const struct mr_listeners *before,
                                 struct mr_error *err) MR_MUST_USE;

/**
 * Sends new TCP connections to the slots of `l` alone, when `before` has more of them. What is
 * already in the queues of the others stays there to be accepted.
 */
void mr_listeners_steer(const struct mr_listeners *l, const struct mr_listeners *before);

/** True when TCP addresses have one socket for all slots, as unix sockets always do. */
bool mr_listeners_shared(const struct mr_config *config);

/** Closes all and removes the files of unix sockets, but those that `heir` (or NULL) serves. */
void mr_listeners_close(struct mr_listeners *l, const struct mr_listeners *heir);
