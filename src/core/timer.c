/* timer.c - a hierarchical timer wheel. */
#include "core/timer.h"

#define MASK (MR_TIMER_SLOTS - 1u)

static uint64_t ms_of(uint64_t us)
{
    return us / 1000u;
}

void mr_timers_init(struct mr_timers *timers, uint64_t now_us)
{
    for (unsigned l = 0; l < MR_TIMER_LEVELS; l++) {
        timers->occupied[l] = 0;
        for (unsigned s = 0; s < MR_TIMER_SLOTS; s++)
            mr_list_init(&timers->slots[l][s]);
    }
    timers->now_ms = ms_of(now_us);
}

/* Level l holds timers due within 64^(l+1) ms, in slots of 64^l ms. */
static void place(struct mr_timers *timers, struct mr_timer *timer)
{
    const uint64_t left = timer->due_ms - timers->now_ms;
    unsigned level = 0;

    while (level + 1 < MR_TIMER_LEVELS && left >= (uint64_t)1 << (MR_TIMER_BITS * (level + 1)))
        level++;
    const unsigned slot = (unsigned)(timer->due_ms >> (MR_TIMER_BITS * level)) & MASK;
    mr_list_append(&timers->slots[level][slot], &timer->link);
    timers->occupied[level] |= (uint64_t)1 << slot;
}

void mr_timer_set(struct mr_timers *timers, struct mr_timer *timer, uint64_t now_us,
                  uint64_t delay_ms)
{
    mr_timer_cancel(timer);
    if (delay_ms > MR_TIMER_MAX_MS)
        delay_ms = MR_TIMER_MAX_MS;
    timer->due_ms = ms_of(now_us + 999u) + delay_ms; /* round up: never fires early */
    if (timer->due_ms <= timers->now_ms)
        timer->due_ms = timers->now_ms + 1;
    place(timers, timer);
}

void mr_timer_cancel(struct mr_timer *timer)
{
    if (mr_timer_is_set(timer))
        mr_list_del(&timer->link);
}

/* Moves timers of a coarse slot that is now in reach to finer slots. */
static void cascade(struct mr_timers *timers, unsigned level)
{
    const unsigned slot = (unsigned)(timers->now_ms >> (MR_TIMER_BITS * level)) & MASK;
    struct mr_list moved;

    if (slot == 0 && level + 1 < MR_TIMER_LEVELS)
        cascade(timers, level + 1);
    mr_list_init(&moved);
    mr_list_splice(&moved, &timers->slots[level][slot]);
    timers->occupied[level] &= ~((uint64_t)1 << slot);
    while (!mr_list_empty(&moved)) {
        struct mr_timer *timer = MR_CONTAINER_OF(moved.next, struct mr_timer, link);
        mr_list_del(&timer->link);
        place(timers, timer);
    }
}

static void fire_slot(struct mr_timers *timers, unsigned slot)
{
    struct mr_list due;

    mr_list_init(&due);
    mr_list_splice(&due, &timers->slots[0][slot]);
    timers->occupied[0] &= ~((uint64_t)1 << slot);
    while (!mr_list_empty(&due)) {
        struct mr_timer *timer = MR_CONTAINER_OF(due.next, struct mr_timer, link);
        mr_list_del(&timer->link);
        timer->fire(timer);
    }
}

static bool nothing_set(const struct mr_timers *timers)
{
    uint64_t any = 0;

    for (unsigned l = 0; l < MR_TIMER_LEVELS; l++)
        any |= timers->occupied[l];
    return any == 0;
}

void mr_timers_run(struct mr_timers *timers, uint64_t now_us)
{
    const uint64_t now_ms = ms_of(now_us);

    while (timers->now_ms < now_ms) {
        if (nothing_set(timers)) {
            timers->now_ms = now_ms;
            return;
        }
        timers->now_ms++;
        const unsigned slot = (unsigned)timers->now_ms & MASK;
        if (slot == 0)
            cascade(timers, 1);
        if (timers->occupied[0] & (uint64_t)1 << slot)
            fire_slot(timers, slot);
    }
}

/* Slots of `level` from the current one to the next occupied one, 1..64; 0 if all are empty. */
static unsigned distance(const struct mr_timers *timers, unsigned level)
{
    const unsigned at = (unsigned)(timers->now_ms >> (MR_TIMER_BITS * level)) & MASK;
    const uint64_t bits = timers->occupied[level];
    const unsigned turn = (at + 1) & MASK;

    if (bits == 0)
        return 0;
    const uint64_t turned = turn == 0 ? bits : bits >> turn | bits << (MR_TIMER_SLOTS - turn);
    return (unsigned)__builtin_ctzl(turned) + 1;
}

int mr_timers_wait_ms(const struct mr_timers *timers, uint64_t now_us, int max_ms)
{
    uint64_t best = UINT64_MAX;

    for (unsigned l = 0; l < MR_TIMER_LEVELS; l++) {
        const unsigned d = distance(timers, l);
        if (d == 0)
            continue;
        const uint64_t unit = (uint64_t)1 << (MR_TIMER_BITS * l);
        const uint64_t at = (timers->now_ms / unit + d) * unit; /* start of that slot */
        if (at < best)
            best = at;
    }
    if (best == UINT64_MAX)
        return max_ms;
    const uint64_t best_us = best * 1000u;
    if (best_us <= now_us)
        return 0;
    const uint64_t wait = (best_us - now_us + 999u) / 1000u;
    return wait < (uint64_t)max_ms ? (int)wait : max_ms;
}
