/* guests.c - limits connections to the proxy's own ports: number, memory and duration. */
#include "admin/guests.h"

static void dismiss(struct mr_guest *guest)
{
    struct mr_guests *guests = guest->of;

    mr_guest_leave(guest);
    guests->dismiss(guest);
}

static void time_is_over(struct mr_timer *timer)
{
    dismiss(MR_CONTAINER_OF(timer, struct mr_guest, timer));
}

static struct mr_guest *oldest(const struct mr_guests *guests)
{
    return MR_CONTAINER_OF(guests->list.next, struct mr_guest, link);
}

static uint32_t room(const struct mr_guests *guests)
{
    return guests->most / 2 + 1;
}

static void trim(struct mr_timer *timer)
{
    struct mr_guests *guests = MR_CONTAINER_OF(timer, struct mr_guests, trim);

    while (guests->n > room(guests))
        dismiss(oldest(guests));
}

void mr_guests_init(struct mr_guests *guests, struct mr_loop *loop)
{
    guests->loop = loop;
    guests->n = 0;
    guests->bytes = 0;
    guests->trim.fire = trim;
    mr_list_init(&guests->list);
}

void mr_guests_enter(struct mr_guests *guests, struct mr_guest *guest)
{
    guest->of = guests;
    guest->since_us = guests->loop->now_us;
    guest->bytes = 0;
    guest->timer.fire = time_is_over;
    mr_loop_timer(guests->loop, &guest->timer, guests->limit_ms);
    mr_list_append(&guests->list, &guest->link);
    guests->n++;
    while (guests->n > room(guests) && oldest(guests)->since_us < guest->since_us)
        dismiss(oldest(guests));
    if (guests->n > room(guests) && !mr_timer_is_set(&guests->trim))
        mr_loop_timer(guests->loop, &guests->trim, 1);
}

void mr_guest_holds(struct mr_guest *guest, size_t bytes)
{
    struct mr_guests *guests = guest->of;

    if (!mr_list_linked(&guest->link))
        return;
    guest->bytes += bytes;
    guests->bytes += bytes;
    while (guests->bytes > guests->max_bytes && oldest(guests) != guest)
        dismiss(oldest(guests));
}

void mr_guests_dismiss_all(struct mr_guests *guests)
{
    while (guests->n > 0)
        dismiss(oldest(guests));
    mr_timer_cancel(&guests->trim);
}

void mr_guest_leave(struct mr_guest *guest)
{
    if (!mr_list_linked(&guest->link))
        return;
    mr_timer_cancel(&guest->timer);
    mr_list_del(&guest->link);
    guest->of->n--;
    guest->of->bytes -= guest->bytes;
}
