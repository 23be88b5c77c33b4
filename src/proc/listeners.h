/*
 * listeners.h - all listening sockets of a configuration. The master keeps them and lends them to
 * workers.
 */
#pragma once

#include "config/config.h"

struct mr_listeners {
    const struct mr_config *config;
    uint32_t n_slots;
    uint32_t n; /* number of addresses, over all pools in order */
    int *fds;   /* n_slots x n: slot s has fds[s * n] onwards; slots share the sockets of unix
                   addresses */
};

/**
 * Opens everything or nothing. A TCP address gets a SO_REUSEPORT socket per slot. Sockets that
 * `before` (may be NULL) has for an address are shared with it, so their queues are kept.
 */
enum mr_result mr_listeners_open(struct mr_listeners *l, const struct mr_config *config,
                                 uint32_t n_slots, const struct mr_listeners *before,
                                 struct mr_error *err) MR_MUST_USE;

/**
 * Sends new TCP connections only to the slots of `l`, if `before` has more. Connections already
 * queued for the others stay there to be accepted.
 */
void mr_listeners_steer(const struct mr_listeners *l, const struct mr_listeners *before);

/**
 * Stops listening at the addresses that `heir` does not have, in every process that holds their
 * sockets: whoever connects there is refused, rather than left in a queue that nobody empties.
 */
void mr_listeners_retire(const struct mr_listeners *l, const struct mr_listeners *heir);

/** True if slots share the socket of a TCP address, as they always do for unix addresses. */
bool mr_listeners_shared(const struct mr_config *config);

/**
 * Closes all sockets, and removes the files of unix sockets unless `heir` (may be NULL) serves
 * them.
 */
void mr_listeners_close(struct mr_listeners *l, const struct mr_listeners *heir);
