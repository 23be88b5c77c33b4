/* budget.c - limits the clients of a worker. */
#include "session/budget.h"

#include "session/service.h"

static uint32_t room_of(const struct mr_client_budget *b)
{
    return mr_budget_full(b) ? 0 : b->max - b->n - b->extra.n;
}

static bool extra_room_is_left(const struct mr_extra_room *room)
{
    const struct mr_client_budget *b = MR_CONTAINER_OF(room, struct mr_client_budget, extra);

    return !mr_budget_full(b);
}

static void set_sparing(struct mr_client_budget *b, bool sparing)
{
    b->sparing = sparing;
    for (uint32_t i = 0; i < b->n_services; i++)
        mr_service_accept_sparingly(&b->services[i], sparing);
}

void mr_budget_init(struct mr_client_budget *b)
{
    b->n = 0;
    b->extra = (struct mr_extra_room){.is_left = extra_room_is_left};
    *b->clients = 0;
    b->sparing = room_of(b) <= b->burst;
}

void mr_budget_add(struct mr_client_budget *b)
{
    *b->clients = ++b->n;
    if (!b->sparing && room_of(b) <= b->burst)
        set_sparing(b, true);
    for (uint32_t i = 0; i < b->n_services && mr_budget_full(b); i++)
        mr_service_end_turn(&b->services[i]);
}

void mr_budget_drop(struct mr_client_budget *b)
{
    *b->clients = --b->n;
    if (b->sparing && room_of(b) / 2 > b->burst) /* hysteresis, as clients come and go */
        set_sparing(b, false);
}
