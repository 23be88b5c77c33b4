/* errand.c - requests without a client. */
#include "upstream/errand.h"

#include <errno.h>
#include <stddef.h>

static struct mr_slab *slab_of(const struct mr_errand *e)
{
    return &e->pool->loop->slab;
}

void mr_errand_release(struct mr_errand *e)
{
    e->allowance->used -= mr_buf_len(&e->reply);
    mr_buf_clear(&e->reply, slab_of(e));
    e->early_bytes = 0;
}

static void keep(struct mr_errand *e, struct mr_slice bytes)
{
    struct mr_allowance *a = e->allowance;

    if (e->too_large)
        return;
    if (bytes.len <= a->max && a->used <= a->max - bytes.len &&
        mr_buf_append(&e->reply, slab_of(e), bytes.at, bytes.len)) {
        a->used += bytes.len;
        return;
    }
    e->too_large = true;
    mr_errand_release(e);
}

/* Afterwards the errand may be in use again, or freed. */
static void finish(struct mr_errand *e, const char *failure)
{
    if (e->again != NULL)
        mr_again_free(e->again);
    e->again = NULL;
    e->on_done(e, failure);
}

/* True if the reply is a redirect: the request was sent again, or has failed. */
static bool is_redirected(struct mr_errand *e)
{
    if (e->again == NULL || e->too_large)
        return false;
    const char *reason = mr_again_redirected(e->again, mr_errand_reply(e));
    if (reason == NULL)
        return false;
    mr_errand_release(e);
    if (reason[0] != '\0')
        finish(e, reason);
    return true;
}

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_errand *e = MR_CONTAINER_OF(call, struct mr_errand, call);

    keep(e, (struct mr_slice){bytes, len});
    if (done && !is_redirected(e))
        finish(e, NULL);
}

static void on_early(struct mr_call *call, const char *bytes, size_t len)
{
    struct mr_errand *e = MR_CONTAINER_OF(call, struct mr_errand, call);

    if (e->again != NULL)
        mr_again_early(e->again, (struct mr_slice){bytes, len});
    keep(e, (struct mr_slice){bytes, len});
    e->early_bytes = mr_buf_len(&e->reply);
}

static void on_fail(struct mr_call *call, const char *reason)
{
    struct mr_errand *e = MR_CONTAINER_OF(call, struct mr_errand, call);

    mr_errand_release(e);
    finish(e, reason);
}

static const struct mr_call_ops CALL_OPS = {
    .on_reply = on_reply, .on_fail = on_fail, .on_early = on_early};

/* Keeps a copy of the request if it may be redirected. */
static void keep_request(struct mr_errand *e, const struct mr_errand_order *order,
                         struct mr_server *server)
{
    if (order->pool->topology->redirected == NULL || order->server != NULL)
        return;
    e->again = mr_again_keep(&(struct mr_again_setup){.pool = order->pool,
                                                      .call = &e->call,
                                                      .request = order->request,
                                                      .key = order->key,
                                                      .server = server,
                                                      .affinity = order->affinity,
                                                      .early = order->early,
                                                      .lane = order->lane,
                                                      .intent = MR_TO_MASTER});
}

const char *mr_errand_send(struct mr_errand *e, const struct mr_errand_order *order)
{
    struct mr_target to = {.server = order->server};

    if (to.server == NULL)
        to = mr_pool_route(order->pool, order->key, MR_TO_MASTER, NULL);
    if (to.server == NULL)
        return to.reason;
    *e = (struct mr_errand){.call = {.ops = &CALL_OPS,
                                     .class = order->class,
                                     .early = order->early,
                                     .marks = order->early > 0 ? MR_CALL_EARLY : 0},
                            .pool = order->pool,
                            .allowance = order->allowance,
                            .on_done = order->on_done};
    keep_request(e, order, to.server);
    const char *reason =
        mr_server_send(to.server, order->lane, order->affinity, &e->call, order->request);
    if (reason != NULL && e->again != NULL) {
        mr_again_free(e->again);
        e->again = NULL;
    }
    return reason;
}
