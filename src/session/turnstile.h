/*
 * turnstile.h - `accept: mutex`: one worker at a time accepts. The lock is one word of shared
 * memory that is only ever tried, so nobody waits for it; the master frees it when its holder dies.
 */
#pragma once

#include "session/balance.h"
#include "session/service.h"

struct mr_turnstile {
    /** Process id, 0 for none; shared by all workers. NULL: there is no turnstile. */
    uint64_t *holder;
    uint64_t pid;
    struct mr_slots slots; /* whose workers accept by turns */
    uint32_t threshold;    /* with this many clients a worker leaves accepting to those with less */
};

/** Before a turn: accepts in it if nobody else does. True when it does. */
bool mr_turnstile_enter(const struct mr_turnstile *t, struct mr_service *services, uint32_t n);

/** After the turn: lets others have a go. */
void mr_turnstile_leave(const struct mr_turnstile *t);

/** In the master, when the process has died. */
void mr_turnstile_free(uint64_t *holder, uint64_t pid);
