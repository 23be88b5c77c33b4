/* listener.c - creates listening sockets and accepts from them. */
#include "net/listener.h"

#include "core/log.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 64  /* so that a burst of connects does not starve connected clients */
#define PROBES           25u /* the io_uring of a killed process keeps its sockets for a moment */
#define PROBE_WAIT_US    20000u
#define RETRY_MS         50u /* pause after accept failed for lack of resources */

/* Delays of the extra looks after the start, see `look`. */
static const uint32_t LOOKS_MS[] = {10, 50, 200, 1000};

static enum mr_result set_on(int fd, int level, int option, const char *name,
                             const struct mr_addr *addr, struct mr_error *err)
{
    const int on = 1;

    if (setsockopt(fd, level, option, &on, sizeof(on)) < 0)
        return mr_fail_sys(err, "%s on %s", name, addr->text);
    return MR_OK;
}

static enum mr_result bind_tcp(int fd, const struct mr_addr *addr,
                               const struct mr_listen_options *o, struct mr_error *err)
{
    enum mr_result rc = set_on(fd, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR", addr, err);

    if (rc == MR_OK && o->reuse_port)
        rc = set_on(fd, SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT", addr, err);
    if (rc == MR_OK && o->keepalive)
        rc = set_on(fd, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE", addr, err);
    if (rc == MR_OK)
        rc = set_on(fd, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY", addr, err);
    if (rc == MR_OK && bind(fd, &addr->sa.any, addr->len) < 0)
        rc = mr_fail_sys(err, "bind to %s", addr->text);
    return rc;
}

/* Removes the socket file of a process that is gone. */
static enum mr_result clear_stale(const struct mr_addr *addr, struct mr_error *err)
{
    const char *path = addr->sa.un.sun_path;
    struct stat st;

    if (lstat(path, &st) < 0)
        return MR_OK; /* bind will report it */
    if (!S_ISSOCK(st.st_mode))
        return mr_fail(err, MR_ECONFIG, "bind to %s: the path exists and is not a socket", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return mr_fail_sys(err, "socket for %s", path);
    const bool dead = connect(fd, &addr->sa.any, addr->len) < 0 && errno == ECONNREFUSED;
    (void)close(fd);
    if (!dead)
        return mr_fail(err, MR_ESYS, "bind to %s: another process serves this socket", path);
    if (unlink(path) < 0)
        return mr_fail_sys(err, "unlink the stale socket %s", path);
    return MR_OK;
}

static enum mr_result bind_unix(int fd, const struct mr_addr *addr,
                                const struct mr_listen_options *o, struct mr_error *err)
{
    enum mr_result rc = clear_stale(addr, err);

    if (rc != MR_OK)
        return rc;
    if (bind(fd, &addr->sa.any, addr->len) < 0)
        return mr_fail_sys(err, "bind to %s", addr->text);
    if (o->mode != 0 && chmod(addr->sa.un.sun_path, (mode_t)o->mode) < 0)
        return mr_fail_sys(err, "chmod %o %s", (unsigned)o->mode, addr->text);
    return MR_OK;
}

enum mr_result mr_listen(int *out, const struct mr_addr *addr, const struct mr_listen_options *o,
                         struct mr_error *err)
{
    const int family = addr->sa.any.sa_family;
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return mr_fail_sys(err, "socket for %s", addr->text);
    enum mr_result rc =
        family == AF_UNIX ? bind_unix(fd, addr, o, err) : bind_tcp(fd, addr, o, err);
    if (rc == MR_OK && listen(fd, o->backlog) < 0)
        rc = mr_fail_sys(err, "listen on %s", addr->text);
    if (rc != MR_OK) {
        (void)close(fd);
        return rc;
    }
    *out = fd;
    return MR_OK;
}

void mr_unlisten(int fd, const struct mr_addr *addr)
{
    struct mr_error err;

    (void)shutdown(fd, SHUT_RDWR);
    if (addr->sa.any.sa_family != AF_UNIX)
        return;
    const enum mr_result rc = clear_stale(addr, &err);
    (void)rc; /* whatever is there then is not ours */
}

enum mr_result mr_listen_probe(const struct mr_addr *addr, struct mr_error *err)
{
    const struct mr_listen_options plain = {.backlog = 1};
    enum mr_result rc;

    if (addr->sa.any.sa_family == AF_UNIX)
        return MR_OK; /* mr_listen will report it */
    for (unsigned tries = 0;; tries++) {
        const int fd = socket(addr->sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return mr_fail_sys(err, "socket for %s", addr->text);
        rc = bind_tcp(fd, addr, &plain, err);
        (void)close(fd);
        if (rc == MR_OK || err->sys != EADDRINUSE || tries == PROBES)
            return rc;
        (void)usleep(PROBE_WAIT_US);
    }
}

/* Out of descriptors or memory: pause instead of spinning on a readable socket. */
static void back_off(struct mr_acceptor *a, int error)
{
    mr_log_limited(MR_LOG_WARN, "accept_failed error=\"%s\" retry_ms=%u", strerror(error),
                   RETRY_MS);
    mr_watch_stop(a->loop, &a->watch);
    mr_loop_timer(a->loop, &a->timer, RETRY_MS);
}

/* Handles a new socket or -errno. False if there is nothing more to accept now. */
static bool take(struct mr_acceptor *a, int fd)
{
    if (MR_LIKELY(fd >= 0)) {
        a->on_accept(a, fd);
        return true;
    }
    switch (-fd) {
    case EAGAIN:
        return false;
    case EINTR: /* these concern only that one connection, see accept(2) */
    case ECONNABORTED:
    case EPERM:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
        return true;
    case EINVAL: /* nobody listens any more: a reload removed the address */
        mr_watch_stop(a->loop, &a->watch);
        return false;
    default:
        back_off(a, -fd);
        return false;
    }
}

static bool accept_one(struct mr_acceptor *a)
{
    const int fd = accept4(a->watch.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    return take(a, fd >= 0 ? fd : -errno);
}

static void on_accepted(struct mr_watch *watch, int fd)
{
    (void)take(MR_CONTAINER_OF(watch, struct mr_acceptor, watch), fd);
}

static void on_ready(struct mr_watch *watch)
{
    struct mr_acceptor *a = MR_CONTAINER_OF(watch, struct mr_acceptor, watch);

    for (int i = 0; i < ACCEPTS_PER_TURN && a->watch.active; i++)
        if (!accept_one(a))
            return;
}

/*
 * The kernel announces a connection to only one waiter. That may have been a process that was just
 * killed, or its io_uring, which outlives it for a moment. So a new acceptor also looks on its own
 * a few times.
 */
static void look(struct mr_timer *timer)
{
    struct mr_acceptor *a = MR_CONTAINER_OF(timer, struct mr_acceptor, timer);

    if (++a->looks < MR_COUNT(LOOKS_MS))
        mr_loop_timer(a->loop, timer, LOOKS_MS[a->looks]);
    mr_watch_start(a->loop, &a->watch); /* it may be in back-off */
    on_ready(&a->watch);
}

void mr_acceptor_start(struct mr_acceptor *a, struct mr_loop *loop, int fd, bool shared,
                       bool sparing, void (*on_accept)(struct mr_acceptor *, int))
{
    *a = (struct mr_acceptor){.watch = {.on_ready = on_ready,
                                        .on_accept = sparing ? NULL : on_accepted,
                                        .fd = fd,
                                        .exclusive = shared},
                              .loop = loop,
                              .timer = {.fire = look},
                              .on_accept = on_accept};
    mr_watch_start(loop, &a->watch);
    mr_loop_timer(loop, &a->timer, LOOKS_MS[0]);
}

void mr_acceptor_set_sparing(struct mr_acceptor *a, bool sparing)
{
    const bool active = a->watch.active; /* it may be in back-off */

    if (a->loop == NULL || (a->watch.on_accept == NULL) == sparing)
        return;
    mr_watch_stop(a->loop, &a->watch);
    a->watch.on_accept = sparing ? NULL : on_accepted;
    if (active)
        mr_watch_start(a->loop, &a->watch);
}

void mr_acceptor_stop(struct mr_acceptor *a)
{
    if (a->loop == NULL)
        return;
    mr_watch_stop(a->loop, &a->watch);
    mr_timer_cancel(&a->timer);
}

void mr_acceptor_drain(struct mr_acceptor *a)
{
    if (a->loop == NULL)
        return;
    mr_acceptor_stop(a);
    while (accept_one(a))
        ;
    mr_acceptor_stop(a); /* cancels the retry if an accept failed */
}
