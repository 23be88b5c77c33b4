/* turnstile.c - lets one worker at a time accept. */
#include "session/turnstile.h"

static bool any_below(const struct mr_slots *slots, uint64_t limit)
{
    for (uint32_t i = 0; i < slots->n; i++)
        if (i != slots->mine && mr_slot_serves(&slots->at[i]) &&
            mr_slot_load(&slots->at[i]) < limit)
            return true;
    return false;
}

/* Somebody has to accept: a worker at the threshold leaves it to others only if one is below. */
static bool leaves_it(const struct mr_turnstile *t, const struct mr_client_budget *b)
{
    if (b->n < t->threshold && !mr_budget_full(b))
        return false;
    return any_below(&t->slots, mr_budget_full(b) ? b->max : t->threshold);
}

bool mr_turnstile_enter(const struct mr_turnstile *t, struct mr_service *services, uint32_t n)
{
    uint64_t nobody = 0;
    const bool mine = !leaves_it(t, services[0].budget) &&
                      __atomic_compare_exchange_n(t->holder, &nobody, t->pid, false,
                                                  __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);

    for (uint32_t i = 0; i < n; i++)
        mr_service_accept(&services[i], mine);
    return mine;
}

void mr_turnstile_leave(const struct mr_turnstile *t)
{
    mr_turnstile_free(t->holder, t->pid);
}

void mr_turnstile_free(uint64_t *holder, uint64_t pid)
{
    (void)__atomic_compare_exchange_n(holder, &pid, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}
