/* carrier.c - the keys to be transferred: their order, their bounds, and what failed. */
#include "transfer/carrier.h"

#include "core/log.h"

#include <stddef.h>
#include <stdio.h>

#define RETRY_US    200000u  /* delay after a failure */
#define DOUBT_US    1000000u /* delay before a key is looked at again that may still change */
#define STUCK_US    2000000u /* without a success for this long, nothing moves any more */
#define LARGE_BYTES 16384u   /* values from this size on rest between two transfers */
#define REST_FACTOR 4u       /* how long, in multiples of the last transfer */
#define US_PER_MS   1000u

struct mr_cargo {
    struct mr_table_item item;
    struct mr_list link; /* in `ready` or `later`; zeroed while it is being transferred */
    struct mr_carrier *carrier;
    struct mr_transfer transfer;
    uint64_t affinity;
    uint64_t at_us; /* in `later`: when it is due */
    uint64_t since_us;
    uint32_t key_bytes;
    uint32_t refusals; /* in a row */
    uint8_t from_lane;
    uint8_t to_lane;
    bool again;    /* written during its transfer */
    bool doubtful; /* to be looked at once more, a moment later */
    bool large;    /* does not fit beside others */
    char key[];
};

static struct mr_slab *slab_of(const struct mr_carrier *c)
{
    return &c->setup.loop->slab;
}

static struct mr_slice key_of(const struct mr_cargo *cargo)
{
    return (struct mr_slice){cargo->key, cargo->key_bytes};
}

static size_t size_of(size_t key_bytes)
{
    return sizeof(struct mr_cargo) + key_bytes;
}

static struct mr_cargo *of_link(struct mr_list *link)
{
    return MR_CONTAINER_OF(link, struct mr_cargo, link);
}

static const char *name_of(const struct mr_pool *pool)
{
    return pool->config->name;
}

/* ---- which keys ---- */

static struct mr_cargo *find(const struct mr_carrier *c, uint64_t hash,
                             const struct mr_carrier_key *key)
{
    struct mr_table_item *item = mr_table_find(&c->cargo, hash);

    for (; item != NULL; item = mr_table_same(item)) {
        struct mr_cargo *cargo = MR_CONTAINER_OF(item, struct mr_cargo, item);
        if (cargo->to_lane == key->to_lane && mr_slice_eq(key_of(cargo), key->key))
            return cargo;
    }
    return NULL;
}

static struct mr_cargo *create(struct mr_carrier *c, const struct mr_carrier_key *key)
{
    const size_t size = size_of(key->key.len);
    struct mr_cargo *cargo =
        c->bytes + size <= c->setup.max_bytes ? mr_slab_try(slab_of(c), size) : NULL;

    if (cargo == NULL)
        return NULL;
    *cargo = (struct mr_cargo){.carrier = c,
                               .affinity = key->affinity,
                               .key_bytes = (uint32_t)key->key.len,
                               .from_lane = key->from_lane,
                               .to_lane = key->to_lane,
                               .doubtful = key->doubtful};
    memcpy(cargo->key, key->key.at, key->key.len);
    c->bytes += size;
    (*c->setup.counts.pending)++;
    return cargo;
}

static void discard(struct mr_cargo *cargo)
{
    struct mr_carrier *c = cargo->carrier;
    const size_t size = size_of(cargo->key_bytes);

    mr_table_del(&c->cargo, &cargo->item);
    c->bytes -= size;
    (*c->setup.counts.pending)--;
    mr_slab_put(slab_of(c), cargo, size);
}

void mr_carrier_drop(struct mr_carrier *c, const char *reason)
{
    (*c->setup.counts.dropped)++;
    mr_log_limited(MR_LOG_WARN, "mirror_dropped pool=%s to=%s reason=\"%s\"",
                   name_of(c->setup.from), name_of(c->setup.to), reason);
}

/* ---- when ---- */

static void set_timer(struct mr_carrier *c)
{
    const uint64_t now = c->setup.loop->now_us;
    uint64_t at = c->resume_us;

    if (!mr_list_empty(&c->later) && (at == 0 || of_link(c->later.next)->at_us < at))
        at = of_link(c->later.next)->at_us;
    if (at == 0)
        mr_timer_cancel(&c->timer);
    else
        mr_loop_timer(c->setup.loop, &c->timer,
                      at > now ? (uint32_t)((at - now + US_PER_MS - 1) / US_PER_MS) : 0);
}

/* Nearly all come in the order in which they are due. */
static void put_off(struct mr_cargo *cargo, uint64_t delay_us)
{
    struct mr_carrier *c = cargo->carrier;
    struct mr_list *after = c->later.prev;

    cargo->at_us = c->setup.loop->now_us + delay_us;
    while (after != &c->later && of_link(after)->at_us > cargo->at_us)
        after = after->prev;
    mr_list_append(after->next, &cargo->link); /* before the next one */
    if (c->later.next == &cargo->link)
        set_timer(c);
}

static void run(struct mr_carrier *c);

static void on_timer(struct mr_timer *timer)
{
    struct mr_carrier *c = MR_CONTAINER_OF(timer, struct mr_carrier, timer);
    const uint64_t now = c->setup.loop->now_us;

    while (!mr_list_empty(&c->later) && of_link(c->later.next)->at_us <= now) {
        struct mr_cargo *cargo = of_link(c->later.next);
        mr_list_del(&cargo->link);
        mr_list_append(&c->ready, &cargo->link);
    }
    if (c->resume_us > 0 && c->resume_us <= now) {
        c->resume_us = 0;
        c->failures = c->setup.max_active - 1; /* one may show whether it is worth trying again */
    }
    set_timer(c);
    run(c);
}

/* ---- results ---- */

/* No reply. A pool that is gone must not keep us busy. */
static void fail(struct mr_cargo *cargo)
{
    struct mr_carrier *c = cargo->carrier;

    put_off(cargo, RETRY_US);
    if (c->resume_us > 0 || ++c->failures < c->setup.max_active)
        return;
    c->resume_us = c->setup.loop->now_us + RETRY_US;
    set_timer(c);
}

/* Something went wrong. Tries again later, or gives up. */
static void retry(struct mr_cargo *cargo, enum mr_transfer_result result)
{
    struct mr_carrier *c = cargo->carrier;
    const struct mr_transfer *t = &cargo->transfer;

    (*c->setup.counts.errors)++;
    mr_log_limited(MR_LOG_WARN, "mirror_failed pool=%s to=%s at=%s reason=\"%s\"",
                   name_of(c->setup.from), name_of(c->setup.to),
                   t->by_target ? name_of(c->setup.to) : name_of(c->setup.from), t->reason);
    if (result == MR_TRANSFER_FAILED) {
        cargo->doubtful = true; /* a write on the connection that broke may still be executed */
        fail(cargo);
    } else if (++cargo->refusals < c->setup.tries) {
        put_off(cargo, RETRY_US);
    } else {
        mr_carrier_drop(c, t->reason);
        discard(cargo);
    }
}

/* The value did not fit beside others. It is tried alone; if it still does not fit, never. */
static void take_large(struct mr_cargo *cargo)
{
    struct mr_carrier *c = cargo->carrier;

    if (c->alone != cargo) {
        cargo->large = true;
        mr_list_append(&c->ready, &cargo->link);
        return;
    }
    (*c->setup.counts.errors)++;
    mr_carrier_drop(c, "the value is larger than mirror_buffer");
    discard(cargo);
}

/* A large value that is written often must not keep both servers busy. */
static uint64_t rest_us(const struct mr_cargo *cargo)
{
    const uint64_t took = cargo->carrier->setup.loop->now_us - cargo->since_us;

    return cargo->transfer.stored.bytes < LARGE_BYTES ? 0 : REST_FACTOR * took;
}

static void succeed(struct mr_cargo *cargo, enum mr_transfer_result result)
{
    struct mr_carrier *c = cargo->carrier;
    const bool again = cargo->again || result == MR_TRANSFER_UNSTEADY;

    c->moved_us = c->setup.loop->now_us;
    c->failures = 0;
    *c->setup.counts.carried += result == MR_TRANSFER_DONE;
    cargo->refusals = 0;
    cargo->large = false;
    if (!again && !cargo->doubtful) {
        discard(cargo);
        return;
    }
    if (!again)
        put_off(cargo, DOUBT_US);
    else if (rest_us(cargo) > 0)
        put_off(cargo, rest_us(cargo));
    else
        mr_list_append(&c->ready, &cargo->link);
    cargo->doubtful = cargo->doubtful && again;
}

static void on_done(struct mr_transfer *t, enum mr_transfer_result result)
{
    struct mr_cargo *cargo = MR_CONTAINER_OF(t, struct mr_cargo, transfer);
    struct mr_carrier *c = cargo->carrier;
    const bool alone = c->alone == cargo;

    c->n_active--;
    switch (result) {
    case MR_TRANSFER_DONE:
    case MR_TRANSFER_UNSTEADY:
        succeed(cargo, result);
        break;
    case MR_TRANSFER_TOO_LARGE:
        take_large(cargo);
        break;
    case MR_TRANSFER_REFUSED:
    case MR_TRANSFER_FAILED:
        retry(cargo, result);
        break;
    }
    if (alone)
        c->alone = NULL;
    run(c);
}

/* ---- starting ---- */

static void start(struct mr_cargo *cargo)
{
    struct mr_carrier *c = cargo->carrier;

    mr_list_del(&cargo->link);
    cargo->again = false;
    cargo->since_us = c->setup.loop->now_us;
    cargo->transfer = (struct mr_transfer){.road = &c->road,
                                           .key = key_of(cargo),
                                           .affinity = cargo->affinity,
                                           .from_lane = cargo->from_lane,
                                           .to_lane = cargo->to_lane,
                                           .on_done = on_done};
    const char *reason = mr_transfer_start(&cargo->transfer);
    if (reason == NULL) {
        c->n_active++;
        return;
    }
    (void)snprintf(cargo->transfer.reason, sizeof(cargo->transfer.reason), "%s", reason);
    retry(cargo, MR_TRANSFER_FAILED);
}

/* True if the first key in order may start now. */
static bool may_start(const struct mr_carrier *c)
{
    if (c->stopped || c->resume_us > 0 || c->alone != NULL || mr_list_empty(&c->ready))
        return false;
    if (of_link(c->ready.next)->large)
        return c->n_active == 0;
    return c->n_active < c->setup.max_active && c->road.allowance.used < c->road.allowance.max;
}

static void run(struct mr_carrier *c)
{
    while (may_start(c)) {
        struct mr_cargo *first = of_link(c->ready.next);
        c->alone = first->large ? first : NULL;
        start(first);
        if (c->n_active == 0)
            c->alone = NULL; /* it could not start */
    }
}

/* The key waits, or is being transferred. Earlier writes may be on other connections. */
static void add_again(struct mr_cargo *cargo, const struct mr_carrier_key *key)
{
    cargo->again = true; /* start clears it, so it counts only during a transfer */
    cargo->doubtful |=
        key->doubtful || cargo->affinity != key->affinity || cargo->from_lane != key->from_lane;
    cargo->affinity = key->affinity;
    cargo->from_lane = key->from_lane;
}

void mr_carrier_add(struct mr_carrier *c, const struct mr_carrier_key *key)
{
    const uint64_t hash = mr_table_hash(key->key, key->to_lane);
    struct mr_cargo *cargo = find(c, hash, key);

    if (cargo != NULL) {
        add_again(cargo, key);
        return;
    }
    cargo = create(c, key);
    if (cargo == NULL) {
        mr_carrier_drop(c, "mirror_buffer is full");
        return;
    }
    if (c->cargo.n == 0)
        c->moved_us = c->setup.loop->now_us; /* nothing could move before */
    mr_table_add(&c->cargo, &cargo->item, hash);
    mr_list_append(&c->ready, &cargo->link);
    run(c);
}

/* ---- its life ---- */

void mr_carrier_init(struct mr_carrier *c, const struct mr_carrier_setup *setup)
{
    *c = (struct mr_carrier){
        .setup = *setup,
        .road = {.from = setup->from, .to = setup->to, .allowance = {.max = setup->max_bytes}},
        .timer = {.fire = on_timer},
        .moved_us = setup->loop->now_us};
    mr_list_init(&c->ready);
    mr_list_init(&c->later);
}

static void discard_all(struct mr_carrier *c, struct mr_list *list)
{
    while (!mr_list_empty(list)) {
        struct mr_cargo *cargo = of_link(list->next);
        mr_list_del(&cargo->link);
        mr_carrier_drop(c, "the process ends");
        discard(cargo);
    }
}

void mr_carrier_fini(struct mr_carrier *c)
{
    MR_CHECK(c->n_active == 0);
    mr_timer_cancel(&c->timer);
    discard_all(c, &c->ready);
    discard_all(c, &c->later);
    MR_CHECK(c->cargo.n == 0 && c->road.allowance.used == 0);
    mr_table_fini(&c->cargo);
}

bool mr_carrier_settled(const struct mr_carrier *c)
{
    return c->cargo.n == 0 || c->resume_us > 0 || (c->stopped && c->n_active == 0) ||
           c->setup.loop->now_us - c->moved_us > STUCK_US;
}

void mr_carrier_stop(struct mr_carrier *c)
{
    c->stopped = true;
}
