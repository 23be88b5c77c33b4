/* lease.c - leased connections: spare ones, the line of those who wait, and the reset. */
#include "upstream/lease.h"

#include "upstream/backend.h"
#include "upstream/pool.h"

#include <stddef.h>

#define SPARE_MS 60000u /* a connection that nobody takes again is closed */

static const char ALL_TAKEN[] = "no server connection is free for a command that needs its own";

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

/* The one that was used last: it is the least likely to have been closed. */
static struct mr_backend *find_spare(struct mr_server *server, uint8_t lane)
{
    struct mr_list *spare = &server->leases.spare;

    for (struct mr_list *link = spare->prev; link != spare; link = link->prev)
        if (of_spare(link)->lane == lane)
            return of_spare(link);
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
    const struct mr_pool *pool = server->pool;

    return server->leases.n < pool->config->server_leases &&
           (pool->lease_room == NULL || pool->lease_room->is_left(pool->lease_room));
}

/* Tries to serve the lease; false when all connections are taken. */
static bool serve(struct mr_lease *lease)
{
    struct mr_server *server = lease->server;
    struct mr_backend *b = find_spare(server, lease->lane);

    if (b == NULL && !is_room(server)) {
        if (mr_list_empty(&server->leases.spare))
            return false;
        mr_backend_drop(of_spare(server->leases.spare.next)); /* of another kind: makes room */
        return false;
    }
    if (b != NULL) {
        take_over(lease, b);
        return true;
    }
    lease->refusal = mr_server_connect(server, &lease->backend, lease->lane, MR_BACKEND_LEASE);
    if (lease->refusal == NULL) {
        server->leases.n++;
        if (server->pool->lease_room != NULL)
            server->pool->lease_room->n++;
    }
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

/* Connections have become free, or may be made. */
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

void mr_leases_lost(struct mr_server *server)
{
    server->leases.n--;
    if (server->pool->lease_room != NULL)
        server->pool->lease_room->n--;
    serve_line(server);
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
        return "the server connection of this client is lost";
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

/* The connection is closed with it. */
static void on_reset_failed(struct mr_call *call, const char *reason)
{
    (void)call;
    (void)reason;
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
    mr_backend_rehome(b, NULL); /* the lease's memory is its owner's again */
    if (state == MR_LEASE_SPOILT || b->retired || !mr_backend_idle(b) || server->pool->closing) {
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

/* ---- ending what blocks on it ---- */

struct nudge {
    struct mr_call call;
    struct mr_slab *slab;
};

static void free_nudge(struct mr_call *call)
{
    struct nudge *n = MR_CONTAINER_OF(call, struct nudge, call);

    mr_slab_put(n->slab, n, sizeof(*n));
}

static void on_nudge_answered(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    (void)bytes;
    (void)len;
    if (done)
        free_nudge(call);
}

static void on_nudge_failed(struct mr_call *call, const char *reason)
{
    (void)reason;
    free_nudge(call);
}

bool mr_lease_unblock(struct mr_lease *lease)
{
    static const struct mr_call_ops OPS = {.on_reply = on_nudge_answered,
                                           .on_fail = on_nudge_failed};
    struct mr_slab *slab = &lease->server->pool->loop->slab;
    struct mr_buf request = {0};

    if (lease->backend == NULL || lease->backend->peer_id == 0)
        return false;
    struct nudge *n = mr_slab_get_zeroed(slab, sizeof(*n));
    n->slab = slab;
    n->call.ops = &OPS;
    n->call.class = MR_CLASS_OTHER;
    protocol_of(lease->server)->lease.unblock(lease->backend->peer_id, slab, &request);
    const bool sent =
        mr_server_send(lease->server, lease->lane, 0, &n->call, mr_buf_slice(&request)) == NULL;
    mr_buf_clear(&request, slab);
    if (!sent)
        free_nudge(&n->call);
    return sent;
}
