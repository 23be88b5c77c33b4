/* turnstile.c - one worker at a time accepts. */
#include "session/turnstile.h"

bool mr_turnstile_enter(const struct mr_turnstile *t, struct mr_service *services, uint32_t n)
{
    uint64_t nobody = 0;
    const bool full = n > 0 && services[0].budget->n >= t->threshold;
    const bool mine = !full && __atomic_compare_exchange_n(t->holder, &nobody, t->pid, false,
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
