/* balance.c - spreads client connections evenly over the workers. */
#include "session/balance.h"

#include "session/handover.h"

#include <unistd.h>

#define SLACK 50u /* a fiftieth of the mean, at least one, is not worth a move */

/* Clients of a slot, with those that are on their way to it. */
static uint64_t load_of(const struct mr_metrics *slot)
{
    const struct mr_metrics_head *head = slot->head;
    const int64_t due = __atomic_load_n(&head->clients_due, __ATOMIC_RELAXED);

    return __atomic_load_n(&head->clients, __ATOMIC_RELAXED) + (due > 0 ? (uint64_t)due : 0);
}

bool mr_balance_pass(const struct mr_balance *b, const struct mr_service *service, int fd)
{
    const uint64_t mine = load_of(&b->slots[b->mine]);
    uint64_t least = mine, sum = 0;
    uint32_t to = b->mine;
    struct mr_error err;

    for (uint32_t i = 0; i < b->n; i++) {
        const uint64_t load = load_of(&b->slots[i]);
        sum += load;
        if (load < least && b->slots[i].head->pid != 0) {
            least = load;
            to = i;
        }
    }
    const uint64_t slack = sum / b->n / SLACK;
    if (to == b->mine || mine - least <= (slack > 0 ? slack : 1))
        return false;
    (void)__atomic_add_fetch(&b->slots[to].head->clients_due, 1, __ATOMIC_RELAXED);
    if (mr_handover_new(service, b->ways[to], fd, &err) == MR_OK) {
        (void)close(fd);
        return true;
    }
    (void)__atomic_sub_fetch(&b->slots[to].head->clients_due, 1, __ATOMIC_RELAXED);
    return false;
}
