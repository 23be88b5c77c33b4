/* again.c - sends requests again, to another server. */
#include "upstream/again.h"

#include <errno.h>
#include <stddef.h>

#define KEPT_BYTES (1u << 20) /* larger requests are not kept */
#define TRIES      5u         /* redirects followed without delay */
#define WAIT_US    10000u     /* delay before a request is sent again */
#define LATER_US   2000000u   /* after this time the client gets the server's error */

static const char AGAIN[] = "";
static const char TOO_LARGE[] = "the key is on another server now, and the request is too large to "
                                "be kept for it; send it again";

struct mr_again *mr_again_keep(const struct mr_again_setup *setup)
{
    struct mr_slab *slab = &setup->pool->loop->slab;
    struct mr_again *again = mr_slab_try(slab, sizeof(*again));

    if (again == NULL)
        return NULL;
    *again = (struct mr_again){.pool = setup->pool,
                               .call = setup->call,
                               .server = setup->server,
                               .affinity = setup->affinity,
                               .key_bytes = (uint32_t)setup->key.len,
                               .early = setup->early,
                               .lane = setup->lane,
                               .intent = setup->intent,
                               .too_large = setup->request.len > KEPT_BYTES};
    if (again->too_large)
        return again;
    if (mr_buf_append(&again->bytes, slab, setup->request.at, setup->request.len) &&
        mr_buf_append(&again->bytes, slab, setup->key.at, setup->key.len))
        return again;
    mr_again_free(again);
    return NULL;
}

void mr_again_free(struct mr_again *again)
{
    struct mr_slab *slab = &again->pool->loop->slab;

    mr_buf_clear(&again->bytes, slab);
    mr_slab_put(slab, again, sizeof(*again));
}

static struct mr_slice request_of(const struct mr_again *again)
{
    const struct mr_slice bytes = mr_buf_slice(&again->bytes);

    return (struct mr_slice){bytes.at, bytes.len - again->key_bytes};
}

static struct mr_slice key_of(const struct mr_again *again)
{
    const struct mr_slice request = request_of(again);

    return (struct mr_slice){request.at + request.len, again->key_bytes};
}

/* Returns NULL, or why it was not sent. */
static const char *send_to(struct mr_again *again, struct mr_server *server)
{
    struct mr_call *call = again->call;

    again->server = server;
    again->moved_to = NULL;
    again->later = false;
    call->early = again->early;
    return mr_server_send(server, again->lane, again->affinity, call, request_of(again));
}

/* True if the server has not seen it, or if it is a read that may be tried once more. */
static bool may_repeat(struct mr_again *again)
{
    if (again->call->unsent)
        return true;
    if (again->repeated || !again->pool->config->retry_reads || again->call->class != MR_CLASS_READ)
        return false;
    again->repeated = true;
    return true;
}

bool mr_again_elsewhere(struct mr_again *again)
{
    if (again->intent & MR_TO_MASTER || again->too_large || !may_repeat(again) ||
        ++again->tries > again->pool->n_servers)
        return false;
    const struct mr_target to =
        mr_pool_route(again->pool, key_of(again), again->intent, again->server);
    if (to.server == NULL || to.server == again->server)
        return false;
    return send_to(again, to.server) == NULL;
}

/* ---- what has to wait ---- */

static void set_timer(struct mr_pool *pool)
{
    const struct mr_again *first = MR_CONTAINER_OF(pool->waiting.next, struct mr_again, link);
    const uint64_t now = pool->loop->now_us;

    if (!mr_list_empty(&pool->waiting))
        mr_loop_timer(pool->loop, &pool->waiting_timer,
                      first->at_us > now ? (first->at_us - now + 999) / 1000u : 0);
}

static void wait_a_moment(struct mr_again *again)
{
    struct mr_pool *pool = again->pool;

    if (again->since_us == 0)
        again->since_us = pool->loop->now_us;
    again->at_us = pool->loop->now_us + WAIT_US;
    mr_list_append(&pool->waiting, &again->link);
    if (!mr_timer_is_set(&pool->waiting_timer))
        set_timer(pool);
}

static struct mr_again *take_first(struct mr_pool *pool)
{
    struct mr_again *first = MR_CONTAINER_OF(pool->waiting.next, struct mr_again, link);

    mr_list_del(&first->link);
    return first;
}

static void fail(struct mr_again *again, const char *reason)
{
    again->call->unsent = false;
    again->call->ops->on_fail(again->call, reason);
}

static void on_time(struct mr_timer *timer)
{
    struct mr_pool *pool = MR_CONTAINER_OF(timer, struct mr_pool, waiting_timer);
    const uint64_t now = pool->loop->now_us;

    while (!mr_list_empty(&pool->waiting) &&
           MR_CONTAINER_OF(pool->waiting.next, struct mr_again, link)->at_us <= now) {
        struct mr_again *again = take_first(pool);
        const struct mr_target to = mr_pool_route(pool, key_of(again), again->intent, NULL);
        const char *reason = to.server != NULL ? send_to(again, to.server) : to.reason;
        if (reason != NULL)
            fail(again, reason);
    }
    set_timer(pool);
}

void mr_agains_init(struct mr_pool *pool)
{
    mr_list_init(&pool->waiting);
    pool->waiting_timer.fire = on_time;
}

void mr_agains_refuse(struct mr_pool *pool, const char *reason)
{
    mr_timer_cancel(&pool->waiting_timer);
    while (!mr_list_empty(&pool->waiting))
        fail(take_first(pool), reason);
}

/* ---- redirects ---- */

/* In one run, so that nothing gets in between. */
static const char *send_asking(struct mr_again *again, struct mr_server *server)
{
    const struct mr_slice asking = mr_slice_of(again->pool->config->protocol->cluster.asking);
    const struct mr_slice request = request_of(again);
    struct mr_slab *slab = &again->pool->loop->slab;
    struct mr_buf run = {0};
    const char *reason = mr_pool_reason(ENOMEM);

    again->server = server;
    again->call->marks |= MR_CALL_EARLY;
    again->call->early = 1;
    mr_buf_put(&run, slab, asking.at, asking.len);
    mr_buf_put(&run, slab, request.at, request.len);
    if (!mr_buf_failed(&run))
        reason =
            mr_server_send(server, again->lane, again->affinity, again->call, mr_buf_slice(&run));
    mr_buf_clear(&run, slab);
    return reason;
}

static bool has_time(const struct mr_again *again)
{
    return again->since_us == 0 || again->pool->loop->now_us - again->since_us < LATER_US;
}

static const char *wait_or_answer(struct mr_again *again)
{
    if (!has_time(again))
        return NULL;
    again->pool->metrics->redirects_later++;
    wait_a_moment(again);
    return AGAIN;
}

/* Tries another node with the same slot: for a read, another replica. */
static const char *try_other(struct mr_again *again)
{
    const struct mr_target to =
        mr_pool_route(again->pool, key_of(again), again->intent, again->server);

    if (to.server == NULL || to.server == again->server || again->tries++ >= TRIES)
        return NULL;
    again->pool->metrics->redirects_later++;
    const char *reason = send_to(again, to.server);
    return reason == NULL ? AGAIN : reason;
}

static const char *follow(struct mr_again *again, enum mr_redirect_kind kind, struct mr_target to)
{
    struct mr_pool_metrics *m = again->pool->metrics;
    const char *reason;

    if (to.server == NULL) /* it will be known in a moment */
        return wait_or_answer(again);
    if (again->tries >= TRIES) { /* the nodes disagree until all have the update */
        const char *waits = wait_or_answer(again);
        return waits != NULL ? waits : "nodes of the cluster redirect the request to each other";
    }
    again->tries++;
    if (kind == MR_REDIRECT_MOVED) {
        m->redirects_moved++;
        reason = send_to(again, to.server);
    } else {
        m->redirects_asked++;
        reason = send_asking(again, to.server);
    }
    return reason == NULL ? AGAIN : reason;
}

static bool is_redirect(const struct mr_again *again, struct mr_slice reply,
                        struct mr_verdict *verdict)
{
    again->pool->config->protocol->server.judge(MR_REPLY_REDIRECT, 0, reply, verdict);
    return verdict->meaning != MR_REPLY_PASS;
}

const char *mr_again_redirected(struct mr_again *again, struct mr_slice reply)
{
    struct mr_pool *pool = again->pool;
    struct mr_verdict verdict;

    if (pool->topology->redirected == NULL)
        return NULL;
    if (again->moved_to != NULL)
        return follow(again, MR_REDIRECT_MOVED, (struct mr_target){.server = again->moved_to});
    if (again->later)
        return wait_or_answer(again);
    if (MR_LIKELY(!is_redirect(again, reply, &verdict)))
        return NULL;
    const enum mr_redirect_kind kind = verdict.redirect.kind;
    const struct mr_target to = pool->topology->redirected(again->server, &verdict.redirect);
    if (again->too_large)
        return kind == MR_REDIRECT_MOVED || kind == MR_REDIRECT_ASK ? TOO_LARGE : NULL;
    switch (kind) {
    case MR_REDIRECT_MOVED:
    case MR_REDIRECT_ASK:
        return follow(again, again->early > 0 ? MR_REDIRECT_MOVED : kind, to);
    case MR_REDIRECT_OTHER:
        return try_other(again);
    case MR_REDIRECT_LATER:
        return wait_or_answer(again);
    }
    return NULL;
}

void mr_again_early(struct mr_again *again, struct mr_slice reply)
{
    struct mr_pool *pool = again->pool;
    struct mr_verdict verdict;

    if (pool->topology->redirected == NULL || again->too_large ||
        !is_redirect(again, reply, &verdict))
        return;
    const struct mr_target to = pool->topology->redirected(again->server, &verdict.redirect);
    if (verdict.redirect.kind == MR_REDIRECT_MOVED && to.server != NULL)
        again->moved_to = to.server;
    else
        again->later = true; /* a run cannot be sent to a node that does not own the slot yet */
}
