/* http.c - the admin interface over HTTP, on libmicrohttpd in our loop. */
#include "admin/http.h"

#include "admin/guests.h"
#include "admin/json.h"
#include "admin/prometheus.h"
#include "core/log.h"
#include "net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELD_MAX       (256u << 20) /* bytes of documents, for all connections of an address */
#define REQUEST_MS     10000u       /* from accept to the last byte of the answer */
#define RUNS_MAX       64u          /* consecutive runs of the library */
#define FINISH_US      300000u
#define FINISH_TURN_MS 10

/* An admin address. */
struct door {
    struct mr_http *http;
    struct MHD_Daemon *daemon;
    struct mr_watch watch;
    struct mr_timer rest; /* continues the library's work after RUNS_MAX */
    struct mr_guests guests;
    bool trusted; /* may change things: a unix socket, protected by its file mode */
};

struct mr_http {
    struct mr_loop *loop;
    const struct mr_runtime *runtime;
    const struct mr_admin_control *control;
    struct door *doors;
    uint32_t n;
};

/* A connection. The library closes its descriptor after reporting the end. */
struct caller {
    struct mr_guest guest;
    int fd;
};

struct answer {
    unsigned status;
    const char *type;
    char *text; /* owned */
};

static struct answer say(unsigned status, const char *text)
{
    return (struct answer){status, "text/plain; charset=utf-8", strdup(text)};
}

static struct answer ready(const struct mr_runtime *rt)
{
    for (uint32_t i = 0; i < rt->n_slots; i++)
        if (rt->slots[i].head->state != MR_SLOT_SERVING) {
            char text[80];
            (void)snprintf(text, sizeof(text), "not ready: worker %u is not serving\n", i);
            return say(MHD_HTTP_SERVICE_UNAVAILABLE, text);
        }
    return say(MHD_HTTP_OK, "ready\n");
}

static bool may_change(const struct door *door, struct MHD_Connection *connection)
{
    const char *token = door->http->runtime->config->admin_token;
    const char *given =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);

    if (door->trusted)
        return true;
    return token != NULL && given != NULL && strncmp(given, "Bearer ", 7) == 0 &&
           mr_slice_eq_secret(mr_slice_of(given + 7), token);
}

static struct answer reload(const struct door *door, struct MHD_Connection *connection)
{
    const struct mr_admin_control *control = door->http->control;

    if (!may_change(door, connection))
        return say(MHD_HTTP_FORBIDDEN, "a reload needs the unix socket or `Authorization: Bearer "
                                       "<admin_token>`\n");
    if (control->reload == NULL)
        return say(MHD_HTTP_CONFLICT, "a single process cannot reload\n");
    control->reload(control->arg);
    return say(MHD_HTTP_ACCEPTED, "reload requested; /stats.json will show the result\n");
}

static struct answer get(const struct door *door, const char *url)
{
    const struct mr_runtime *rt = door->http->runtime;

    if (strcmp(url, "/metrics") == 0)
        return (struct answer){MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                               mr_prometheus_text(rt)};
    if (strcmp(url, "/stats.json") == 0)
        return (struct answer){MHD_HTTP_OK, "application/json", mr_stats_json_own(rt)};
    if (strcmp(url, "/nutcracker.json") == 0)
        return (struct answer){MHD_HTTP_OK, "application/json", mr_stats_json(rt)};
    if (strcmp(url, "/healthz") == 0)
        return say(MHD_HTTP_OK, "ok\n");
    if (strcmp(url, "/readyz") == 0)
        return ready(rt);
    if (strcmp(url, "/") == 0)
        return say(MHD_HTTP_OK, "millrace\n\n"
                                "/metrics          metrics for Prometheus\n"
                                "/stats.json       all counters, latencies, workers and servers\n"
                                "/nutcracker.json  what the statistics port sends\n"
                                "/healthz          200 while this process answers\n"
                                "/readyz           200 while every worker serves, else 503\n"
                                "POST /reload      reload the configuration\n");
    return say(MHD_HTTP_NOT_FOUND, "no such page; / lists all pages\n");
}

/* The library has no call to close a connection, but it closes one at end of file. */
static void dismiss(struct mr_guest *guest)
{
    (void)shutdown(MR_CONTAINER_OF(guest, struct caller, guest)->fd, SHUT_RDWR);
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct door *door = arg;
    struct caller *caller = *context;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = caller = calloc(1, sizeof(*caller));
        MR_CHECK(caller != NULL);
        caller->fd =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        mr_guests_enter(&door->guests, &caller->guest);
    } else {
        mr_guest_leave(&caller->guest);
        free(caller);
    }
}

static struct mr_guest *guest_of(struct MHD_Connection *connection)
{
    struct caller *caller =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;

    return &caller->guest;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_len, void **state)
{
    const struct door *door = arg;
    const bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    struct answer a;

    (void)version;
    (void)upload;
    if (*state == NULL) { /* the head has arrived; a body may follow */
        *state = arg;     /* anything but NULL */
        return MHD_YES;
    }
    if (*upload_len > 0) {
        *upload_len = 0; /* ignore bodies */
        return MHD_YES;
    }
    if (strcmp(url, "/reload") == 0)
        a = strcmp(method, "POST") == 0 ? reload(door, connection)
                                        : say(MHD_HTTP_METHOD_NOT_ALLOWED, "use POST\n");
    else
        a = reads ? get(door, url) : say(MHD_HTTP_METHOD_NOT_ALLOWED, "use GET\n");
    MR_CHECK(a.text != NULL);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(a.text), a.text, MHD_RESPMEM_MUST_FREE);
    MR_CHECK(response != NULL);
    mr_guest_holds(guest_of(connection), strlen(a.text));
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a.type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    /* the process may be replaced at any time, so connections do not persist */
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    const enum MHD_Result rc = MHD_queue_response(connection, a.status, response);
    MHD_destroy_response(response);
    return rc;
}

static void run(struct door *door)
{
    MHD_UNSIGNED_LONG_LONG timeout;

    for (unsigned i = 0; i < RUNS_MAX; i++) {
        (void)MHD_run(door->daemon);
        if (MHD_get_timeout(door->daemon, &timeout) != MHD_YES || timeout > 0)
            return;
    }
    mr_loop_timer(door->http->loop, &door->rest, 0);
}

static void run_rest(struct mr_timer *timer)
{
    run(MR_CONTAINER_OF(timer, struct door, rest));
}

static void on_ready(struct mr_watch *watch)
{
    run(MR_CONTAINER_OF(watch, struct door, watch));
}

static bool is_unix(int fd)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);

    return getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && addr.ss_family == AF_UNIX;
}

static bool open_door(struct mr_http *http, int port_fd)
{
    struct door *door = &http->doors[http->n];
    const int fd = fcntl(port_fd, F_DUPFD_CLOEXEC, 0); /* closed by the library */

    if (fd < 0)
        return false;
    *door = (struct door){.http = http,
                          .trusted = is_unix(port_fd),
                          .watch = {.on_ready = on_ready},
                          .rest = {.fire = run_rest},
                          .guests = {.most = http->runtime->port_connections,
                                     .max_bytes = HELD_MAX,
                                     .limit_ms = REQUEST_MS,
                                     .dismiss = dismiss}};
    mr_guests_init(&door->guests, http->loop);
    door->daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, handle, door, MHD_OPTION_LISTEN_SOCKET,
                         (MHD_socket)fd, MHD_OPTION_CONNECTION_LIMIT, door->guests.most,
                         MHD_OPTION_NOTIFY_CONNECTION, on_connection, door, MHD_OPTION_END);
    if (door->daemon == NULL) {
        errno = EIO;
        (void)close(fd);
        return false;
    }
    door->watch.fd = MHD_get_daemon_info(door->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    mr_watch_start(http->loop, &door->watch);
    http->n++;
    return true;
}

struct mr_http *mr_http_attach(struct mr_loop *loop, const struct mr_runtime *runtime,
                               const struct mr_admin_control *control)
{
    if (runtime->n_ports < 2)
        return NULL;
    struct mr_http *http = calloc(1, sizeof(*http));
    MR_CHECK(http != NULL);
    *http = (struct mr_http){.loop = loop, .runtime = runtime, .control = control};
    http->doors = calloc(runtime->n_ports, sizeof(*http->doors));
    MR_CHECK(http->doors != NULL);
    for (uint32_t i = 1; i < runtime->n_ports; i++)
        if (!open_door(http, runtime->port_fds[i]))
            mr_log(MR_LOG_ERR, "admin_failed address=%s error=\"%s\"",
                   runtime->config->admin.at[i - 1].text, strerror(errno));
    return http;
}

static bool is_busy(const struct mr_http *http)
{
    for (uint32_t i = 0; i < http->n; i++)
        if (MHD_get_daemon_info(http->doors[i].daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)
                ->num_connections > 0)
            return true;
    return false;
}

void mr_http_finish(struct mr_http *http)
{
    if (http == NULL)
        return;
    const uint64_t until_us = http->loop->now_us + FINISH_US;
    for (uint32_t i = 0; i < http->n; i++) {
        run(&http->doors[i]); /* accepts waiting connections */
        const MHD_socket fd = MHD_quiesce_daemon(http->doors[i].daemon);
        if (fd != MHD_INVALID_SOCKET)
            (void)close(fd);
    }
    while (is_busy(http) && http->loop->now_us < until_us) {
        mr_loop_turn(http->loop, FINISH_TURN_MS);
        for (uint32_t i = 0; i < http->n; i++)
            run(&http->doors[i]);
    }
}

void mr_http_detach(struct mr_http *http)
{
    if (http == NULL)
        return;
    for (uint32_t i = 0; i < http->n; i++) {
        mr_timer_cancel(&http->doors[i].rest);
        mr_guests_dismiss_all(&http->doors[i].guests);
        mr_watch_stop(http->loop, &http->doors[i].watch);
        MHD_stop_daemon(http->doors[i].daemon);
    }
    free(http->doors);
    free(http);
}
