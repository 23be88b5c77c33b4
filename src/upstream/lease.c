/* lease.c - leased connections: spare ones, the wait queue, and the reset. */
#include "upstream/lease.h"

#include "upstream/backend.h"
#include "upstream/pool.h"

#include <stddef.h>

#define SPARE_MS 60000u /* spare connections are closed after this time */

static const char ALL_TAKEN[] = "no dedicated server connection is free";

static const struct mr_proto *protocol_of(const struct mr_server *server)
{
    return server->pool->config->protocol;
}

static struct mr_lease *first_waiting(const struct mr_server *server)
{
    return MR_CONTAINER_OF(server->leases.waiting.next, struct mr_lease, waiting);
}

/* ---- spare connections ---- */

static struct mr_backend *of_spare(struct mr_list *link)
{
    return MR_CONTAINER_OF(link, struct mr_backend, spare);
}

/* The most recently used one, as the least likely to have been closed. */
static struct mr_backend *find_spare(struct mr_server *server, uint8_t lane)
{
    struct mr_list *spare = &server->leases.spare;

    for (struct mr_list *link = spare->prev; link != spare; link = link->prev) {
        struct mr_backend *b = of_spare(link);
        if (b->lane == lane && !mr_stream_is_closed(&b->stream))
            return b;
    }
    return NULL;
}

static void become_spare(struct mr_backend *b)
{
    mr_list_append(&b->server->leases.spare, &b->spare);
    mr_loop_timer(b->stream.loop, &b->timer, SPARE_MS);
}

static void take_over(struct mr_lease *lease, struct mr_backend *b)
{
    mr_timer_cancel(&b->timer);
    mr_backend_rehome(b, &lease->backend);
}

/* ---- getting one ---- */

static bool is_room(const struct mr_server *server)
{
    return server->leases.n < server->pool->config->server_leases && mr_pool_has_room(server->pool);
}

static void serve_line(struct mr_server *server);

/* The next in the queue may open another. */
static void on_lost(struct mr_server *server)
{
    server->leases.n--;
    serve_line(server);
}

static const struct mr_backend_user LEASE = {.kind = MR_BACKEND_LEASE, .on_lost = on_lost};

/* Tries to give the lease a connection. False if all are taken. */
static bool serve(struct mr_lease *lease)
{
    struct mr_server *server = lease->server;
    struct mr_backend *b = find_spare(server, lease->lane);

    if (b == NULL && !is_room(server)) {
        if (mr_list_empty(&server->leases.spare))
            return false;
        mr_backend_drop(of_spare(server->leases.spare.next)); /* of another lane: makes room */
        return false;
    }
    if (b != NULL) {
        take_over(lease, b);
        return true;
    }
    lease->refusal = mr_server_connect(server, &lease->backend, lease->lane, &LEASE);
    if (lease->refusal == NULL)
        server->leases.n++;
    return true;
}

static void leave_line(struct mr_lease *lease)
{
    if (mr_list_linked(&lease->waiting))
        mr_list_del(&lease->waiting);
}

static void refuse(struct mr_lease *lease, const char *reason)
{
    leave_line(lease);
    lease->refusal = reason;
    lease->on_turn(lease);
}

static void set_timer(struct mr_server *server)
{
    struct mr_leases *l = &server->leases;
    const uint64_t limit_us = server->pool->config->lease_timeout_ms * UINT64_C(1000);

    if (mr_list_empty(&l->waiting) || mr_timer_is_set(&l->timer))
        return;
    const uint64_t due = first_waiting(server)->since_us + limit_us,
                   now = server->pool->loop->now_us;
    mr_loop_timer(server->pool->loop, &l->timer, due > now ? (due - now + 999) / 1000 : 0);
}

static void on_timer(struct mr_timer *timer)
{
    struct mr_server *server = MR_CONTAINER_OF(timer, struct mr_server, leases.timer);
    const uint64_t now = server->pool->loop->now_us;
    const uint64_t limit_us = server->pool->config->lease_timeout_ms * UINT64_C(1000);

    while (!mr_list_empty(&server->leases.waiting) &&
           now - first_waiting(server)->since_us >= limit_us) {
        server->pool->metrics->lease_timeouts++;
        refuse(first_waiting(server), ALL_TAKEN);
    }
    set_timer(server);
}

bool mr_lease_take(struct mr_lease *lease, struct mr_server *server, uint8_t lane)
{
    lease->server = server;
    lease->lane = lane;
    lease->refusal = NULL;
    lease->backend = NULL;
    if (mr_list_empty(&server->leases.waiting) && serve(lease))
        return true;
    lease->since_us = server->pool->loop->now_us;
    mr_list_append(&server->leases.waiting, &lease->waiting);
    server->pool->metrics->lease_waits++;
    set_timer(server);
    return false;
}

/* Serves the wait queue after connections became free, or may be opened. */
static void serve_line(struct mr_server *server)
{
    while (!mr_list_empty(&server->leases.waiting)) {
        struct mr_lease *lease = first_waiting(server);
        if (!serve(lease))
            return;
        leave_line(lease);
        lease->on_turn(lease);
    }
}

void mr_leases_refuse(struct mr_server *server, const char *reason)
{
    while (!mr_list_empty(&server->leases.waiting))
        refuse(first_waiting(server), reason);
    mr_timer_cancel(&server->leases.timer);
}

void mr_leases_init(struct mr_server *server)
{
    mr_list_init(&server->leases.spare);
    mr_list_init(&server->leases.waiting);
    server->leases.timer.fire = on_timer;
}

/* ---- using it ---- */

const char *mr_lease_send(struct mr_lease *lease, struct mr_call *call, struct mr_slice request)
{
    if (lease->backend == NULL)
        return "the client's server connection was lost";
    return mr_backend_send(lease->backend, call, request);
}

/* ---- giving it back ---- */

static void on_reset(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_backend *b = MR_CONTAINER_OF(call, struct mr_backend, reset);

    if (!done)
        return;
    if (!protocol_of(b->server)->lease.is_reset((struct mr_slice){bytes, len}) || b->retired) {
        mr_backend_drop(b);
        return;
    }
    become_spare(b);
    serve_line(b->server);
}

/* It may be a mere time-out, but the state of the connection is not known any more. */
static void on_reset_failed(struct mr_call *call, const char *reason)
{
    (void)reason;
    mr_backend_drop(MR_CONTAINER_OF(call, struct mr_backend, reset));
}

static void reset(struct mr_backend *b)
{
    static const struct mr_call_ops OPS = {.on_reply = on_reset, .on_fail = on_reset_failed};
    const struct mr_slice request = mr_slice_of(protocol_of(b->server)->lease.reset);

    b->reset = (struct mr_call){.ops = &OPS, .class = MR_CLASS_OTHER};
    if (mr_backend_send(b, &b->reset, request) != NULL)
        mr_backend_drop(b);
}

void mr_lease_end(struct mr_lease *lease, enum mr_lease_state state)
{
    struct mr_server *server = lease->server;
    struct mr_backend *b = lease->backend;

    leave_line(lease);
    lease->server = NULL;
    lease->refusal = NULL;
    if (b == NULL)
        return;
    mr_backend_rehome(b, NULL); /* the owner may now free the lease */
    if (state == MR_LEASE_SPOILT || b->retired || b->unblocked || !mr_backend_idle(b) ||
        server->pool->closing) {
        mr_backend_drop(b);
    } else if (state == MR_LEASE_USED) {
        reset(b);
    } else if (b->state == MR_BACKEND_READY) {
        become_spare(b);
        serve_line(server);
    } else {
        mr_backend_drop(b);
    }
}

/* ---- requests of our own ---- */

struct errand {
    struct mr_call call;
    struct mr_slab *slab;
    struct mr_backend *backend; /* closed unless the reply is good; or NULL */
};

static struct errand *new_errand(struct mr_slab *slab, const struct mr_call_ops *ops)
{
    struct errand *e = mr_slab_get_zeroed(slab, sizeof(*e));

    e->slab = slab;
    e->call.ops = ops;
    e->call.class = MR_CLASS_OTHER;
    return e;
}

static void free_errand(struct mr_call *call)
{
    struct errand *e = MR_CONTAINER_OF(call, struct errand, call);

    mr_slab_put(e->slab, e, sizeof(*e));
}

static void on_errand_done(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct mr_backend *b = MR_CONTAINER_OF(call, struct errand, call)->backend;

    if (!done)
        return;
    free_errand(call);
    if (b == NULL || !protocol_of(b->server)->lease.is_error((struct mr_slice){bytes, len}))
        return;
    b->refused = "the server refuses a request that must precede this one";
    mr_backend_drop(b);
}

static void on_errand_failed(struct mr_call *call, const char *reason)
{
    struct mr_backend *b = MR_CONTAINER_OF(call, struct errand, call)->backend;

    (void)reason;
    free_errand(call);
    if (b != NULL)
        mr_backend_drop(b);
}

static const struct mr_call_ops ERRAND = {.on_reply = on_errand_done, .on_fail = on_errand_failed};

/* Takes the bytes. If the reply is an error the connection is closed. */
static bool send_errand(struct mr_backend *b, struct mr_slab *slab, struct mr_buf *request)
{
    struct errand *e = new_errand(slab, &ERRAND);

    e->backend = b;
    const bool sent = mr_backend_send(b, &e->call, mr_buf_slice(request)) == NULL;
    mr_buf_clear(request, slab);
    if (!sent)
        free_errand(&e->call);
    return sent;
}

bool mr_lease_change_lane(struct mr_lease *lease, uint8_t lane)
{
    struct mr_backend *b = lease->backend;

    if (b == NULL || b->state != MR_BACKEND_READY)
        return false;
    const struct mr_proto_options *options = &lease->server->pool->config->options;
    struct mr_slab *slab = &lease->server->pool->loop->slab;
    while (b->lane != lane) {
        struct mr_buf request = {0};
        const uint8_t next =
            protocol_of(lease->server)->lease.change_lane(options, b->lane, lane, slab, &request);
        if (!send_errand(b, slab, &request))
            return false;
        mr_backend_set_lane(b, next);
    }
    lease->lane = lane;
    return true;
}

bool mr_lease_mark(struct mr_lease *lease)
{
    const struct mr_pool *pool = lease->server->pool;
    struct mr_buf request = {0};

    if (lease->backend == NULL)
        return false;
    pool->config->protocol->lease.mark(&pool->config->options, lease->lane, &pool->loop->slab,
                                       &request);
    return send_errand(lease->backend, &pool->loop->slab, &request);
}

/* ---- ending a blocking command ---- */

bool mr_lease_unblock(struct mr_lease *lease, bool timed_out)
{
    struct mr_slab *slab = &lease->server->pool->loop->slab;
    struct mr_backend *b = lease->backend;
    struct mr_buf request = {0};

    if (b == NULL || b->peer_id == 0 || b->retired) /* retired: perhaps of another server */
        return false;
    struct errand *e = new_errand(slab, &ERRAND);
    protocol_of(lease->server)->lease.unblock(b->peer_id, timed_out, slab, &request);
    const bool sent =
        mr_server_send(lease->server, lease->lane, 0, &e->call, mr_buf_slice(&request)) == NULL;
    mr_buf_clear(&request, slab);
    b->unblocked |= sent;
    if (!sent)
        free_errand(&e->call);
    return sent;
}
