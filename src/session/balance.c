/* balance.c - spreads client connections over the workers. */
#include "session/balance.h"

#include "session/handover.h"

#include <unistd.h>

#define SLACK 50u /* differences up to 1/50 of the mean, or 1, are tolerated */

uint64_t mr_slot_load(const struct mr_metrics *slot)
{
    const struct mr_metrics_head *head = slot->head;
    const int64_t due = __atomic_load_n(&head->clients_due, __ATOMIC_RELAXED);

    return __atomic_load_n(&head->clients, __ATOMIC_RELAXED) + (due > 0 ? (uint64_t)due : 0);
}

bool mr_slot_serves(const struct mr_metrics *slot)
{
    return slot->head->pid != 0 &&
           __atomic_load_n(&slot->head->state, __ATOMIC_SEQ_CST) == MR_SLOT_SERVING;
}

/*
 * The least loaded worker if it has clearly fewer clients than this one, or just fewer if this one
 * is full; otherwise this one.
 */
static uint32_t choose(const struct mr_slots *slots, bool full)
{
    const uint64_t mine = mr_slot_load(&slots->at[slots->mine]);
    uint64_t least = mine, sum = 0;
    uint32_t to = slots->mine;

    for (uint32_t i = 0; i < slots->n; i++) {
        const uint64_t load = mr_slot_load(&slots->at[i]);
        sum += load;
        if (load < least && mr_slot_serves(&slots->at[i])) {
            least = load;
            to = i;
        }
    }
    const uint64_t slack = sum / slots->n / SLACK;
    return mine - least > (full ? 0 : slack > 0 ? slack : 1) ? to : slots->mine;
}

bool mr_balance_pass(const struct mr_balance *b, const struct mr_service *service, int fd)
{
    const uint32_t to = choose(&b->slots, mr_budget_full(service->budget));
    const struct mr_metrics *slot = &b->slots.at[to];
    int64_t *due = &slot->head->clients_due;
    struct mr_error err;

    if (to == b->slots.mine)
        return false;
    /* a stopping worker either sees this count, or we see that it stops */
    (void)__atomic_add_fetch(due, 1, __ATOMIC_SEQ_CST);
    if (mr_slot_serves(slot) && mr_handover_new(service, b->ways[to], fd, &err) == MR_OK) {
        (void)close(fd);
        return true;
    }
    (void)__atomic_sub_fetch(due, 1, __ATOMIC_SEQ_CST);
    return false;
}
