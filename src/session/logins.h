/*
 * logins.h - slows down password guessing: a few failed logins are free for each user and address,
 * then one per second.
 *
 * All share a table of fixed size, so using many addresses or names does not give more attempts.
 * All workers share the table.
 */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_LOGIN_ENTRIES 4096u
#define MR_LOGIN_BURST   10u /* free failures */

struct mr_logins {
    uint64_t seed;                      /* makes the choice of entries unpredictable */
    uint64_t free_us[MR_LOGIN_ENTRIES]; /* loop time when past failures are forgiven */
};

/** For zeroed memory. */
void mr_logins_init(struct mr_logins *logins);

/**
 * The entry for a connection's peer and a user. An IPv6 /64 network counts as one peer; `user` is
 * empty for unknown names.
 */
uint64_t *mr_logins_entry(struct mr_logins *logins, int fd, struct mr_slice user);

bool mr_logins_allow(const uint64_t *entry, uint64_t now_us);
void mr_logins_failed(uint64_t *entry, uint64_t now_us);
