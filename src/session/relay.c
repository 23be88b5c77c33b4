/* relay.c - joins a client's connection and a server's. */
#include "session/relay.h"

#include "core/log.h"
#include "net/stream.h"
#include "session/service.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define FULL_BYTES         262144u /* pending output at which the other side pauses */
#define CONNECT_TIMEOUT_MS 10000u  /* for pools without a timeout */
#define LINGER_MS          30000u  /* to send the rest after the other side has failed */
#define TRIES              4u      /* servers that are tried for a client */

enum state {
    CONNECTING, /* the client is not read yet */
    JOINED,
    ENDED, /* the session is over; streams may still have to close */
};

struct mr_relay {
    struct mr_stream client;
    struct mr_stream server;
    struct mr_list link; /* in service->relays */
    struct mr_service *service;
    struct mr_server *to;  /* NULL: `server` is not in use */
    struct mr_timer timer; /* bounds the connect */
    enum state state;
    uint32_t tries;
    bool client_gone; /* `client` is not in use */
};

static struct mr_relay *of_client(struct mr_stream *s)
{
    return MR_CONTAINER_OF(s, struct mr_relay, client);
}

static struct mr_relay *of_server(struct mr_stream *s)
{
    return MR_CONTAINER_OF(s, struct mr_relay, server);
}

static struct mr_relay *of_link(struct mr_list *link)
{
    return MR_CONTAINER_OF(link, struct mr_relay, link);
}

/* ---- bytes ---- */

static void pass(struct mr_stream *from, struct mr_stream *to, const char *bytes, size_t len)
{
    mr_stream_write(to, bytes, len);
    if (mr_stream_pending(to) > FULL_BYTES && mr_stream_await_room(to, FULL_BYTES / 2))
        mr_stream_pause(from);
}

static size_t on_client_data(struct mr_stream *s, const char *bytes, size_t len)
{
    struct mr_relay *r = of_client(s);

    if (r->to == NULL)
        return len; /* the server is gone */
    r->to->metrics->request_bytes += len;
    pass(s, &r->server, bytes, len);
    return len;
}

static size_t on_server_data(struct mr_stream *s, const char *bytes, size_t len)
{
    struct mr_relay *r = of_server(s);

    r->to->metrics->response_bytes += len;
    if (!r->client_gone)
        pass(s, &r->client, bytes, len);
    return len;
}

static void on_client_eof(struct mr_stream *s)
{
    if (of_client(s)->to != NULL)
        mr_stream_end(&of_client(s)->server);
}

static void on_server_eof(struct mr_stream *s)
{
    if (!of_server(s)->client_gone)
        mr_stream_end(&of_server(s)->client);
}

static void on_client_room(struct mr_stream *s)
{
    if (of_client(s)->to != NULL)
        mr_stream_resume(&of_client(s)->server);
}

static void on_server_room(struct mr_stream *s)
{
    if (!of_server(s)->client_gone)
        mr_stream_resume(&of_server(s)->client);
}

/* ---- the end ---- */

static void free_if_over(struct mr_relay *r)
{
    if (!r->client_gone || r->to != NULL)
        return;
    mr_timer_cancel(&r->timer);
    mr_list_del(&r->link);
    mr_slab_put(&r->service->loop->slab, r, sizeof(*r));
}

static void cut(struct mr_relay *r, int error)
{
    r->state = ENDED;
    if (!r->client_gone)
        mr_stream_close(&r->client, error);
    if (r->to != NULL)
        mr_stream_close(&r->server, error != 0 ? ECONNABORTED : 0);
}

static void on_linger_over(struct mr_timer *timer)
{
    cut(MR_CONTAINER_OF(timer, struct mr_relay, timer), ECONNABORTED);
}

/* One side has closed. So does the other, once it has what was sent before. */
static void follow(struct mr_relay *r, struct mr_stream *other, int error)
{
    if (error == 0 && r->state == JOINED) {
        mr_stream_end(other);
        mr_stream_resume(other); /* the room that it may wait for will not come */
    } else if (r->state == JOINED && mr_stream_pending(other) > 0) {
        r->state = ENDED;
        mr_stream_finish(other);
        r->timer.fire = on_linger_over;
        mr_loop_timer(r->service->loop, &r->timer, LINGER_MS);
    } else {
        mr_stream_close(other, ECONNABORTED);
    }
}

static void on_client_close(struct mr_stream *s, int error)
{
    struct mr_relay *r = of_client(s);
    struct mr_pool *pool = &r->service->pool;

    r->client_gone = true;
    if (error == 0 && r->state == JOINED)
        pool->metrics->client_eof++;
    else
        pool->metrics->client_err++;
    pool->metrics->client_connections--;
    pool->process->curr_connections--;
    mr_budget_drop(r->service->budget);
    if (r->to != NULL)
        follow(r, &r->server, error);
    free_if_over(r);
}

static void dial(struct mr_relay *r);

/* The connect failed: another server may take the client. */
static void connect_failed(struct mr_relay *r, struct mr_server *server, int error)
{
    if (error != ECONNABORTED) { /* not because the client left */
        server->metrics->server_err++;
        server->metrics->server_timedout += error == ETIMEDOUT;
        mr_log_limited(MR_LOG_WARN, "server_failed pool=%s server=%s addr=%s reason=\"%s\"",
                       r->service->config->name, server->name, server->addr.text,
                       mr_pool_reason(error));
        mr_server_failed(server, error, MR_FAILURE_SILENT);
    }
    if (!r->client_gone && !mr_stream_is_closed(&r->client))
        dial(r);
}

static void on_server_close(struct mr_stream *s, int error)
{
    struct mr_relay *r = of_server(s);
    struct mr_server *server = r->to;
    struct mr_pool *pool = &r->service->pool;

    mr_timer_cancel(&r->timer);
    server->metrics->server_connections--;
    pool->process->curr_connections--;
    if (pool->extra_room != NULL)
        pool->extra_room->n--;
    r->to = NULL;
    if (r->state == CONNECTING) {
        connect_failed(r, server, error);
    } else {
        if (error == 0)
            server->metrics->server_eof++;
        else if (error != ECONNABORTED)
            server->metrics->server_err++;
        if (!r->client_gone)
            follow(r, &r->client, error);
    }
    free_if_over(r);
}

/* ---- the beginning ---- */

static void on_server_open(struct mr_stream *s)
{
    struct mr_relay *r = of_server(s);

    mr_timer_cancel(&r->timer);
    mr_server_answered(r->to);
    r->state = JOINED;
    r->to->metrics->requests++;
    mr_stream_resume(&r->client);
}

static const struct mr_stream_ops CLIENT_OPS = {
    .on_data = on_client_data,
    .on_eof = on_client_eof,
    .on_room = on_client_room,
    .on_close = on_client_close,
};

static const struct mr_stream_ops SERVER_OPS = {
    .on_open = on_server_open,
    .on_data = on_server_data,
    .on_eof = on_server_eof,
    .on_room = on_server_room,
    .on_close = on_server_close,
};

static void on_connect_timeout(struct mr_timer *timer)
{
    mr_stream_close(&MR_CONTAINER_OF(timer, struct mr_relay, timer)->server, ETIMEDOUT);
}

static void connecting(struct mr_relay *r, struct mr_server *server)
{
    struct mr_pool *pool = &r->service->pool;
    const uint32_t timeout = pool->config->timeout_ms;

    r->to = server;
    server->metrics->server_connections++;
    pool->process->curr_connections++;
    pool->process->total_connections++;
    if (pool->extra_room != NULL)
        pool->extra_room->n++;
    mr_stream_read_all(&r->server);
    r->timer.fire = on_connect_timeout;
    mr_loop_timer(pool->loop, &r->timer, timeout > 0 ? timeout : CONNECT_TIMEOUT_MS);
}

/* The bytes of the client's address, without its port. */
static struct mr_slice source(const struct mr_addr *addr)
{
    switch (addr->sa.any.sa_family) {
    case AF_INET:
        return (struct mr_slice){(const char *)&addr->sa.in.sin_addr, 4};
    case AF_INET6:
        return (struct mr_slice){(const char *)&addr->sa.in6.sin6_addr, 16};
    default:
        return mr_slice_of("");
    }
}

static void dial(struct mr_relay *r)
{
    struct mr_pool *pool = &r->service->pool;
    const char *reason = mr_pool_has_room(pool) ? NULL : "no descriptor is left";
    struct mr_server *avoid = NULL;
    struct mr_addr addr = {0};

    if (pool->config->balance == MR_BY_SOURCE)
        mr_addr_of_socket(&addr, r->client.fd, true);
    while (reason == NULL && r->tries++ < TRIES) {
        const struct mr_target to = mr_pool_route(pool, source(&addr), 0, avoid);
        if (to.server == NULL) {
            reason = to.reason;
            break;
        }
        reason = mr_server_dial(to.server, &r->server, &SERVER_OPS);
        if (reason == NULL) {
            connecting(r, to.server);
            return;
        }
        avoid = to.server;
        if (r->tries < TRIES && pool->n_servers > 1)
            reason = NULL;
    }
    pool->metrics->forward_error++;
    mr_log_limited(MR_LOG_WARN, "client_cut pool=%s reason=no_server error=\"%s\"",
                   pool->config->name, reason != NULL ? reason : "all attempts failed");
    mr_stream_close(&r->client, ECONNREFUSED);
}

void mr_relay_open(struct mr_service *service, int fd)
{
    struct mr_pool *pool = &service->pool;
    struct mr_relay *r = mr_slab_get_zeroed(&service->loop->slab, sizeof(*r));

    r->service = service;
    mr_stream_open(&r->client, service->loop, &CLIENT_OPS, fd);
    mr_stream_read_all(&r->client);
    mr_stream_pause(&r->client);
    mr_list_append(&service->relays, &r->link);
    pool->metrics->client_connections++;
    pool->process->curr_connections++;
    pool->process->total_connections++;
    mr_budget_add(service->budget);
    dial(r);
}

/* ---- all of them ---- */

void mr_relays_cut_idle(struct mr_service *service, uint32_t ms)
{
    for (struct mr_list *link = service->relays.next; link != &service->relays; link = link->next) {
        struct mr_relay *r = of_link(link);
        if ((r->client_gone || mr_stream_idle_ms(&r->client) >= ms) &&
            (r->to == NULL || mr_stream_idle_ms(&r->server) >= ms))
            cut(r, 0);
    }
}

void mr_relays_cut(struct mr_service *service)
{
    for (struct mr_list *link = service->relays.next; link != &service->relays; link = link->next)
        cut(of_link(link), ECONNRESET);
}
