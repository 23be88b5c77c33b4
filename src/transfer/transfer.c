/* transfer.c - takes one key from pool to pool: fetch, store, and fetch again. */
#include "transfer/transfer.h"

#include "core/clock.h"

#include <stddef.h>
#include <stdio.h>

#define ROUNDS       10u  /* values stored before a key counts as unsteady */
#define TOLERANCE_MS 200u /* between two readings of the same expiry: they are relative times */
#define US_PER_MS    1000u

static const struct mr_proto_transfer *proto_of(const struct mr_transfer *t)
{
    return &t->road->from->config->protocol->transfer;
}

static struct mr_slab *slab_of(const struct mr_transfer *t)
{
    return &t->road->from->loop->slab;
}

/* ---- views ---- */

/* Eight bytes at a time; whether two readings differ is all that it must tell. */
static uint64_t digest_of(struct mr_slice bytes)
{
    uint64_t h = bytes.len, word;

    for (size_t i = 0; i < bytes.len; i += sizeof(word)) {
        const size_t n = bytes.len - i < sizeof(word) ? bytes.len - i : sizeof(word);
        word = 0;
        memcpy(&word, bytes.at + i, n);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 32;
    }
    return h;
}

static bool expire_together(const struct mr_transfer_view *a, const struct mr_transfer_view *b)
{
    if (a->until_ms == 0 || b->until_ms == 0)
        return a->until_ms == b->until_ms;
    return a->until_ms < b->until_ms ? b->until_ms - a->until_ms <= TOLERANCE_MS
                                     : a->until_ms - b->until_ms <= TOLERANCE_MS;
}

static bool same(const struct mr_transfer_view *a, const struct mr_transfer_view *b)
{
    if (!a->known || !b->known || a->exists != b->exists)
        return false;
    return !a->exists || (a->digest == b->digest && a->bytes == b->bytes && expire_together(a, b));
}

/* ---- the end ---- */

static void finish(struct mr_transfer *t, enum mr_transfer_result result)
{
    mr_errand_release(&t->errand);
    t->on_done(t, result);
}

static void fail(struct mr_transfer *t, const char *reason)
{
    t->by_target = t->state != MR_TRANSFER_FETCHING;
    (void)snprintf(t->reason, sizeof(t->reason), "%s", reason);
    finish(t, MR_TRANSFER_FAILED);
}

/* The reply is an error, or no reply to what was asked. Its first line is the reason. */
static void refuse(struct mr_transfer *t, struct mr_slice reply)
{
    const char *end = memchr(reply.at, '\r', reply.len);
    const size_t len = end != NULL ? (size_t)(end - reply.at) : 0;

    t->by_target = t->state != MR_TRANSFER_FETCHING;
    if (len > 1 && reply.at[0] == '-')
        (void)snprintf(t->reason, sizeof(t->reason), "%.*s", (int)(len - 1), reply.at + 1);
    else
        (void)snprintf(t->reason, sizeof(t->reason), "an unexpected reply");
    finish(t, MR_TRANSFER_REFUSED);
}

/* ---- steps ---- */

static void on_done(struct mr_errand *e, const char *failure);

static const char *send_request(struct mr_transfer *t, struct mr_pool *pool, uint8_t lane,
                                uint32_t early, struct mr_buf *request)
{
    const char *reason = "Cannot allocate memory";

    if (!mr_buf_failed(request))
        reason = mr_errand_send(&t->errand,
                                &(struct mr_errand_order){
                                    .pool = pool,
                                    .allowance = &t->road->allowance,
                                    .key = t->key,
                                    .request = mr_buf_slice(request),
                                    .early = early,
                                    .affinity = t->affinity,
                                    .lane = lane,
                                    .class = pool == t->road->from ? MR_CLASS_READ : MR_CLASS_WRITE,
                                    .on_done = on_done});
    mr_buf_clear(request, slab_of(t));
    return reason;
}

static const char *fetch(struct mr_transfer *t)
{
    struct mr_buf request = {0};

    t->state = MR_TRANSFER_FETCHING;
    proto_of(t)->fetch(t->key, slab_of(t), &request);
    return send_request(t, t->road->from, t->from_lane, 1, &request);
}

static void fetch_again(struct mr_transfer *t)
{
    const char *reason = fetch(t);

    if (reason != NULL)
        fail(t, reason);
}

static void remove_there(struct mr_transfer *t)
{
    struct mr_buf request = {0};

    mr_errand_release(&t->errand);
    t->state = MR_TRANSFER_REMOVING;
    proto_of(t)->remove(t->key, slab_of(t), &request);
    const char *reason = send_request(t, t->road->to, t->to_lane, 0, &request);
    if (reason != NULL)
        fail(t, reason);
}

/* The reply is freed as soon as the request has its value, and before it is sent. */
static void store_there(struct mr_transfer *t, struct mr_slice value)
{
    struct mr_buf request = {0};

    proto_of(t)->store(t->key, value, t->next.until_ms, slab_of(t), &request);
    mr_errand_release(&t->errand);
    t->state = MR_TRANSFER_STORING;
    t->sent_bytes = mr_buf_len(&request);
    t->road->allowance.used += t->sent_bytes;
    const char *reason = send_request(t, t->road->to, t->to_lane, 0, &request);
    if (reason != NULL) {
        t->road->allowance.used -= t->sent_bytes;
        fail(t, reason);
    }
}

/* False if the reply is an error. */
static bool read_view(struct mr_transfer *t, struct mr_transfer_view *view, struct mr_slice *value)
{
    int64_t ms;

    *view = (struct mr_transfer_view){.known = true};
    const enum mr_holding holding = proto_of(t)->read_value(mr_errand_reply(&t->errand), value);
    if (holding == MR_HOLDING_UNKNOWN || !proto_of(t)->read_ttl(mr_errand_early(&t->errand), &ms))
        return false;
    if (holding == MR_HOLDS_NOTHING)
        return true;
    view->exists = true;
    view->digest = digest_of(*value);
    view->bytes = value->len;
    if (ms >= 0)
        view->until_ms = mr_clock_wall_us() / US_PER_MS + (uint64_t)ms;
    return true;
}

static void fetched(struct mr_transfer *t)
{
    struct mr_slice value;

    if (t->errand.too_large) {
        finish(t, MR_TRANSFER_TOO_LARGE);
    } else if (!read_view(t, &t->next, &value)) {
        refuse(t, mr_errand_reply(&t->errand));
    } else if (same(&t->next, &t->stored)) {
        finish(t, MR_TRANSFER_DONE);
    } else if (t->rounds == ROUNDS) {
        finish(t, MR_TRANSFER_UNSTEADY);
    } else if (t->next.exists) {
        t->rounds++;
        store_there(t, value);
    } else {
        t->rounds++;
        remove_there(t);
    }
}

/* The other pool has what was sent; now the first one must still have it. */
static void left_there(struct mr_transfer *t)
{
    t->stored = t->next;
    mr_errand_release(&t->errand);
    fetch_again(t);
}

static void answered(struct mr_transfer *t)
{
    const struct mr_slice reply = mr_errand_reply(&t->errand);

    if (proto_of(t)->done(reply))
        left_there(t);
    else
        refuse(t, reply);
}

static void on_done(struct mr_errand *e, const char *failure)
{
    struct mr_transfer *t = MR_CONTAINER_OF(e, struct mr_transfer, errand);

    if (t->state == MR_TRANSFER_STORING)
        t->road->allowance.used -= t->sent_bytes;
    if (failure != NULL) {
        fail(t, failure);
        return;
    }
    switch (t->state) {
    case MR_TRANSFER_FETCHING:
        fetched(t);
        break;
    case MR_TRANSFER_STORING:
    case MR_TRANSFER_REMOVING:
        answered(t);
        break;
    }
}

const char *mr_transfer_start(struct mr_transfer *t)
{
    return fetch(t);
}
