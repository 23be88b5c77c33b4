/* listeners.h - every listening socket of a configuration: kept by the master, lent to workers. */
#pragma once

#include "config/config.h"

struct mr_listeners {
    const struct mr_config *config;
    uint32_t n_slots;
    uint32_t n; /* addresses, over all pools in order */
    int *fds;   /* n_slots x n: slot s has fds[s * n] onwards; a unix socket is the same in all */
};

/** Opens everything or nothing. TCP addresses get a SO_REUSEPORT socket for each slot. */
enum mr_result mr_listeners_open(struct mr_listeners *l, const struct mr_config *config,
                                 uint32_t n_slots, struct mr_error *err) MR_MUST_USE;

/** Closes every descriptor but those of one slot (UINT32_MAX: none is kept). */
void mr_listeners_keep_slot(struct mr_listeners *l, uint32_t slot);

/** Closes all and removes the files of unix sockets. */
void mr_listeners_close(struct mr_listeners *l);
