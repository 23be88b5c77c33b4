/*
 * turnstile.h - `accept: mutex`: one worker at a time accepts. The lock is a word in shared memory
 * that is only tried, never waited for; the master frees it when its holder dies.
 */
#pragma once

#include "session/balance.h"
#include "session/service.h"

struct mr_turnstile {
    /** pid of the holder, 0 for none; shared by all workers. NULL: no turnstile. */
    uint64_t *holder;
    uint64_t pid;
    struct mr_slots slots; /* workers that take turns */
    uint32_t threshold;    /* with this many clients, a worker leaves accepting to others */
};

/** Before a turn: accepts during it if no other worker does. True if so. */
bool mr_turnstile_enter(const struct mr_turnstile *t, struct mr_service *services, uint32_t n);

/** After the turn: lets others try. */
void mr_turnstile_leave(const struct mr_turnstile *t);

/** In the master: frees the lock of a dead process. */
void mr_turnstile_free(uint64_t *holder, uint64_t pid);
