/* sockets.c - connections to scripted ends, listening sockets, and messages between processes. */
#include "kernel_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define QUEUE_MAX 512u /* connections not accepted yet */

/* One direction of a connection. */
struct sim_pipe {
    struct sim_conn *conn;
    char *memory;
    size_t start, end, size; /* sent and not read: memory[start .. end) */
    size_t arrived;          /* of these, readable now */
    uint64_t n_arrived;      /* so far */
    uint64_t n_sent;         /* so far */
    bool fin, fin_arrived;   /* the end follows them */
    struct sim_event arrival;
};

struct queued {
    struct sim_conn *conn;
    struct queued *next;
};

struct listener {
    struct sim_file *file;
    bool is_unix;
    bool closed;
    struct queued *first, **last;
    uint32_t n;
};

struct packet {
    struct packet *next;
    struct sim_file **files;
    uint32_t n_files;
    size_t len;
    char bytes[];
};

struct packets {
    struct sim_file *file;
    struct packets *peer; /* NULL once it is closed */
    struct packet *first, **last;
    size_t bytes;
};

enum sim_connect_outcome (*sim_on_connect)(struct sim_conn *c, const struct sockaddr *addr);

static struct sim_conn **conns; /* of this run */
static uint32_t n_conns, room_conns;

/* ---- pipes ---- */

static size_t length(const struct sim_pipe *p)
{
    return p->end - p->start;
}

static void arrive(void *arg);

static bool can_arrive(const struct sim_pipe *p)
{
    if (length(p) > p->arrived)
        return p->arrived < sim_env.socket_bytes;
    return p->fin && !p->fin_arrived;
}

static void expect_arrival(struct sim_pipe *p)
{
    if (p->arrival.place == 0 && can_arrive(p))
        sim_event_set(&p->arrival, sim_below(sim_env.latency_us + 1), arrive, p);
}

static void append(struct sim_pipe *p, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    if (p->size - p->end < n && p->start > 0) {
        memmove(p->memory, p->memory + p->start, length(p));
        p->end -= p->start;
        p->start = 0;
    }
    if (p->size - p->end < n) {
        p->size = p->size * 2 + n;
        p->memory = realloc(p->memory, p->size);
        MR_CHECK(p->memory != NULL);
    }
    memcpy(p->memory + p->end, bytes, n);
    p->end += n;
    p->n_sent += n;
    expect_arrival(p);
}

static size_t take(struct sim_pipe *p, void *bytes, size_t n)
{
    if (n > p->arrived)
        n = p->arrived;
    if (n > 0)
        memcpy(bytes, p->memory + p->start, n);
    p->start += n;
    p->arrived -= n;
    if (p->start == p->end)
        p->start = p->end = 0;
    expect_arrival(p);
    return n;
}

static void drop(struct sim_pipe *p, bool all)
{
    if (all)
        p->arrived = 0;
    p->end = p->start + p->arrived;
    sim_event_cancel(&p->arrival);
}

/* How much arrives at once; small amounts may come in many pieces. */
static size_t piece(size_t left)
{
    size_t n = left;

    if (sim_env.cut_bytes > 0 && !sim_once_in(4))
        n = 1 + sim_below(sim_env.cut_bytes);
    if (n < left / 32)
        n = left / 32;
    return n < left ? n : left;
}

static void break_conn(struct sim_conn *c, int error);

/* Notifies the scripted end of a change. */
static void tell_owner(struct sim_conn *c)
{
    if (!c->closed && c->ops != NULL)
        c->ops->on_bytes(c);
}

static void on_broken(void *arg)
{
    tell_owner(arg);
}

static void arrive(void *arg)
{
    struct sim_pipe *p = arg;
    struct sim_conn *c = p->conn;
    const size_t window = sim_env.socket_bytes - p->arrived;
    size_t n = piece(length(p) - p->arrived);

    if (n > window)
        n = window;
    p->arrived += n;
    p->n_arrived += n;
    if (p->fin && p->arrived == length(p) && (n == 0 || sim_once_in(2)))
        p->fin_arrived = true;
    expect_arrival(p);
    if (p == c->in) {
        if (c->process_closed && n > 0)
            break_conn(c, 0); /* nobody is there to read it */
        else if (c->file != NULL)
            sim_file_changed(c->file);
    } else if (c->closed && n > 0) {
        break_conn(c, ECONNRESET);
    } else {
        tell_owner(c);
    }
}

/* ---- connections ---- */

static struct sim_conn *new_conn(bool is_unix)
{
    struct sim_conn *c = sim_alloc(sizeof(*c));

    if (n_conns == room_conns) {
        room_conns = room_conns * 2 + 64;
        conns = realloc(conns, room_conns * sizeof(struct sim_conn *));
        MR_CHECK(conns != NULL);
    }
    conns[n_conns] = c;
    c->id = n_conns++;
    c->is_unix = is_unix;
    c->in = sim_alloc(sizeof(*c->in));
    c->out = sim_alloc(sizeof(*c->out));
    c->in->conn = c->out->conn = c;
    return c;
}

/* Breaks both ends; `error` is what the process sees, 0 if it closed its own. */
static void break_conn(struct sim_conn *c, int error)
{
    if (c->reset)
        return;
    c->reset = true;
    c->connecting = false;
    c->error = error;
    drop(c->in, sim_once_in(2));
    drop(c->out, false);
    if (c->file != NULL)
        sim_file_changed(c->file);
    sim_event_set(&c->opening, sim_below(sim_env.latency_us + 1), on_broken, c);
}

void sim_write(struct sim_conn *c, const void *bytes, size_t n)
{
    MR_CHECK(!c->closed && !c->in->fin);
    if (!c->reset)
        append(c->in, bytes, n);
}

size_t sim_readable(const struct sim_conn *c)
{
    return c->out->arrived;
}

size_t sim_read(struct sim_conn *c, void *bytes, size_t n)
{
    n = take(c->out, bytes, n);
    if (n > 0 && c->file != NULL)
        sim_file_changed(c->file);
    return n;
}

bool sim_at_end(const struct sim_conn *c)
{
    return c->out->arrived == 0 && (c->out->fin_arrived || c->reset);
}

void sim_shut(struct sim_conn *c)
{
    c->in->fin = true;
    expect_arrival(c->in);
}

void sim_close(struct sim_conn *c)
{
    if (c->closed)
        return;
    c->closed = true;
    if (c->out->arrived > 0)
        break_conn(c, ECONNRESET);
    else
        sim_shut(c);
}

void sim_reset(struct sim_conn *c)
{
    if (c->closed)
        return;
    sim_note("connection %u: reset", c->id);
    c->closed = true;
    break_conn(c, ECONNRESET);
}

uint64_t sim_arrived(const struct sim_conn *c)
{
    return c->in->n_arrived;
}

uint64_t sim_sent(const struct sim_conn *c)
{
    return c->out->n_sent;
}

/* ---- what a process does with a connection ---- */

static size_t room(const struct sim_conn *c)
{
    const size_t used = length(c->out);

    return used < sim_env.socket_bytes ? sim_env.socket_bytes - used : 0;
}

uint32_t sim_stream_events(const struct sim_conn *c)
{
    uint32_t events = 0;

    if (c->connecting)
        return 0;
    if (c->reset)
        return EPOLLIN | EPOLLOUT | EPOLLHUP | (c->error != 0 ? (uint32_t)EPOLLERR : 0);
    if (c->in->arrived > 0 || c->in->fin_arrived)
        events |= EPOLLIN;
    if (room(c) * 3 >= sim_env.socket_bytes)
        events |= EPOLLOUT;
    if (c->in->fin_arrived && c->out->fin)
        events |= EPOLLHUP;
    return events;
}

static int take_error(struct sim_conn *c)
{
    const int error = c->error;

    c->error = 0;
    return error;
}

ssize_t sim_stream_recv(struct sim_conn *c, void *bytes, size_t n)
{
    if (sim_once_in(sim_env.interrupted))
        return -EINTR;
    if (c->in->arrived > 0)
        return (ssize_t)take(c->in, bytes, n);
    if (c->error != 0)
        return -take_error(c);
    if (c->connecting)
        return -EAGAIN;
    return c->reset || c->in->fin_arrived ? 0 : -EAGAIN;
}

ssize_t sim_stream_send(struct sim_conn *c, const void *bytes, size_t n)
{
    size_t fits = room(c);

    if (sim_once_in(sim_env.interrupted))
        return -EINTR;
    if (c->error != 0)
        return -take_error(c);
    if (c->reset || c->out->fin)
        return -EPIPE;
    if (c->connecting)
        return -EAGAIN;
    if (sim_once_in(sim_env.partial))
        fits = sim_below((uint32_t)(fits < n ? fits : n) + 1);
    if (fits == 0 && n > 0)
        return -EAGAIN;
    if (n > fits)
        n = fits;
    append(c->out, bytes, n);
    return (ssize_t)n;
}

/* The process's end has no references any more. */
void sim_stream_closed(struct sim_conn *c)
{
    c->file = NULL;
    c->process_closed = true;
    c->closed_by = sim_self();
    if (c->reset)
        return;
    if (c->connecting) {
        c->connecting = false;
        c->reset = true;
        sim_event_cancel(&c->opening);
        return;
    }
    if (c->in->arrived > 0) {
        sim_note("connection %u: closed with %zu unread bytes: reset", c->id, c->in->arrived);
        break_conn(c, 0);
        return;
    }
    c->out->fin = true;
    expect_arrival(c->out);
}

/* ---- listening ---- */

int sim_listen(bool is_unix)
{
    struct listener *l = calloc(1, sizeof(*l));

    MR_CHECK(l != NULL);
    l->is_unix = is_unix;
    l->last = &l->first;
    l->file = sim_file_new(SIM_LISTENER, l);
    return sim_fd_install(l->file, false);
}

uint32_t sim_listener_events(const void *listener)
{
    const struct listener *l = listener;

    return l->first != NULL ? EPOLLIN : 0;
}

void sim_listener_closed(void *listener)
{
    struct listener *l = listener;

    while (l->first != NULL) {
        struct queued *q = l->first;
        l->first = q->next;
        q->conn->process_closed = true;
        break_conn(q->conn, 0);
        free(q);
    }
    free(l);
}

/* The handshake is complete. */
static void come_in(void *arg)
{
    struct sim_conn *c = arg;
    struct sim_file *f = c->file;
    struct listener *l = f->object;

    c->file = NULL;
    if (c->closed || f->refs == 1 || l->n >= QUEUE_MAX) {
        c->process_closed = true;
        break_conn(c, 0);
        sim_file_put(f);
        return;
    }
    struct queued *q = calloc(1, sizeof(*q));
    MR_CHECK(q != NULL);
    q->conn = c;
    *l->last = q;
    l->last = &q->next;
    l->n++;
    sim_announce(f);
    sim_file_put(f);
    c->ops->on_open(c);
}

struct sim_conn *sim_connect(int listener, const struct sim_conn_ops *ops, void *owner)
{
    struct sim_file *f = sim_fd_file(listener);
    const struct listener *l = f->object;
    struct sim_conn *c = new_conn(l->is_unix);

    c->ops = ops;
    c->owner = owner;
    c->file = sim_file_get(f); /* until it completes */
    sim_event_set(&c->opening, sim_below(sim_env.latency_us + 1), come_in, c);
    return c;
}

int sim_listener_accept(struct sim_file *f)
{
    struct listener *l = f->object;

    if (f->kind == SIM_DEAD)
        return -EAGAIN;
    if (sim_once_in(sim_env.interrupted))
        return -EINTR;
    if (l->first == NULL)
        return -EAGAIN;
    if (sim_once_in(sim_env.no_descriptor)) {
        sim_note("%s: accept finds no descriptor left", sim_name(sim_self()));
        return sim_once_in(2) ? -EMFILE : -ENFILE;
    }
    struct queued *q = l->first;
    struct sim_conn *c = q->conn;
    l->first = q->next;
    if (l->first == NULL)
        l->last = &l->first;
    l->n--;
    free(q);
    if (c->reset && sim_once_in(2)) {
        c->process_closed = true;
        return -ECONNABORTED;
    }
    c->accepted = true;
    c->file = sim_file_new(SIM_STREAM, c);
    sim_note("%s: accepts connection %u", sim_name(sim_self()), c->id);
    return sim_fd_install(c->file, false);
}

/* ---- messages between processes ---- */

static struct packets *new_packets(void)
{
    struct packets *e = calloc(1, sizeof(*e));

    MR_CHECK(e != NULL);
    e->last = &e->first;
    e->file = sim_file_new(SIM_PACKETS, e);
    return e;
}

uint32_t sim_packets_events(const void *end)
{
    const struct packets *e = end;
    uint32_t events = e->first != NULL ? EPOLLIN : 0;

    if (e->peer == NULL)
        return events | EPOLLIN | EPOLLOUT | EPOLLHUP;
    return events | (e->peer->bytes * 4 <= sim_env.packet_bytes ? (uint32_t)EPOLLOUT : 0);
}

static void free_packet(struct packet *p)
{
    for (uint32_t i = 0; i < p->n_files; i++)
        if (p->files[i] != NULL)
            sim_file_put(p->files[i]);
    free(p->files);
    free(p);
}

void sim_packets_closed(void *end)
{
    struct packets *e = end;

    if (e->peer != NULL) {
        e->peer->peer = NULL;
        sim_file_changed(e->peer->file);
    }
    while (e->first != NULL) {
        struct packet *p = e->first;
        e->first = p->next;
        free_packet(p);
    }
    free(e);
}

static struct packet *pack(const struct msghdr *msg)
{
    const struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    size_t len = 0;

    for (size_t i = 0; i < msg->msg_iovlen; i++)
        len += msg->msg_iov[i].iov_len;
    struct packet *p = calloc(1, sizeof(*p) + len);
    MR_CHECK(p != NULL);
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        memcpy(p->bytes + p->len, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);
        p->len += msg->msg_iov[i].iov_len;
    }
    if (c == NULL || c->cmsg_type != SCM_RIGHTS)
        return p;
    p->n_files = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    p->files = calloc(p->n_files, sizeof(struct sim_file *));
    MR_CHECK(p->files != NULL);
    for (uint32_t i = 0; i < p->n_files; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        if (fd >= SIM_FD_BASE)
            p->files[i] = sim_file_get(sim_fd_file(fd));
    }
    return p;
}

static ssize_t send_packet(struct packets *e, const struct msghdr *msg)
{
    if (sim_once_in(sim_env.interrupted))
        return -EINTR;
    if (e->peer == NULL)
        return -EPIPE;
    if (e->peer->bytes >= sim_env.packet_bytes)
        return -EAGAIN;
    if (sim_env.partial > 0 && msg->msg_controllen > 0 && sim_once_in(sim_env.partial * 4))
        return sim_once_in(2) ? -ETOOMANYREFS : -ENOBUFS;
    struct packet *p = pack(msg);
    *e->peer->last = p;
    e->peer->last = &p->next;
    e->peer->bytes += p->len + sizeof(*p);
    sim_file_changed(e->peer->file);
    return (ssize_t)p->len;
}

/* Descriptors without room are dropped, as in the kernel. */
static void receive_files(struct packet *p, struct msghdr *msg)
{
    struct cmsghdr *c = msg->msg_control;
    const size_t space = msg->msg_controllen;
    uint32_t n = 0;

    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    if (p->n_files == 0)
        return;
    for (uint32_t i = 0; i < p->n_files; i++) {
        if (p->files[i] == NULL || CMSG_SPACE((n + 1) * sizeof(int)) > space)
            continue;
        const int fd = sim_fd_install(sim_file_get(p->files[i]), true);
        if (fd < 0) {
            msg->msg_flags |= MSG_CTRUNC;
            break;
        }
        memcpy(CMSG_DATA(c) + n++ * sizeof(int), &fd, sizeof(int));
    }
    if (n == 0)
        return;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    msg->msg_controllen = CMSG_SPACE(n * sizeof(int));
}

static ssize_t receive_packet(struct packets *e, struct msghdr *msg)
{
    struct packet *p = e->first;
    size_t n;

    if (sim_once_in(sim_env.interrupted))
        return -EINTR;
    if (p == NULL) {
        msg->msg_controllen = 0;
        return e->peer == NULL ? 0 : -EAGAIN;
    }
    e->first = p->next;
    if (e->first == NULL)
        e->last = &e->first;
    e->bytes -= p->len + sizeof(*p);
    n = p->len < msg->msg_iov[0].iov_len ? p->len : msg->msg_iov[0].iov_len;
    memcpy(msg->msg_iov[0].iov_base, p->bytes, n);
    receive_files(p, msg);
    free_packet(p);
    if (e->peer != NULL)
        sim_file_changed(e->peer->file);
    return (ssize_t)n;
}

/* ---- the C library's calls ---- */

static ssize_t result(ssize_t n)
{
    if (n >= 0)
        return n;
    errno = (int)-n;
    return -1;
}

int __real_socket(int family, int type, int protocol);
int __wrap_socket(int family, int type, int protocol)
{
    if ((type & 0xf) != SOCK_STREAM)
        return __real_socket(family, type, protocol);
    struct sim_conn *c = new_conn(family == AF_UNIX);
    c->connecting = true;
    c->file = sim_file_new(SIM_STREAM, c);
    return sim_fd_install(c->file, true);
}

int __wrap_socketpair(int family, int type, int protocol, int ends[2])
{
    struct packets *a = new_packets(), *b = new_packets();

    (void)family;
    (void)protocol;
    MR_CHECK((type & 0xf) == SOCK_SEQPACKET);
    a->peer = b;
    b->peer = a;
    ends[0] = sim_fd_install(a->file, false);
    ends[1] = sim_fd_install(b->file, false);
    return 0;
}

static void connected(void *arg)
{
    struct sim_conn *c = arg;

    c->connecting = false;
    sim_file_changed(c->file);
    c->ops->on_open(c);
}

static void refused(void *arg)
{
    struct sim_conn *c = arg;

    c->connecting = false;
    c->reset = true;
    c->error = ECONNREFUSED;
    sim_file_changed(c->file);
}

int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sim_file *f = sim_fd_file(fd);
    struct sim_conn *c = f->object;

    (void)len;
    if (f->kind == SIM_DEAD)
        return (int)result(-ECONNREFUSED);
    switch (sim_on_connect(c, addr)) {
    case SIM_CONNECTS:
        if (c->is_unix) {
            connected(c);
            return 0;
        }
        sim_event_set(&c->opening, sim_below(sim_env.latency_us + 1), connected, c);
        break;
    case SIM_REFUSES:
        if (c->is_unix)
            return (int)result(-ECONNREFUSED);
        sim_event_set(&c->opening, sim_below(sim_env.latency_us + 1), refused, c);
        break;
    case SIM_NO_ANSWER:
        if (c->is_unix)
            return (int)result(-EAGAIN);
        break;
    case SIM_FAILS_AT_ONCE:
        return (int)result(c->is_unix ? -ENOENT : -ENETUNREACH);
    }
    return (int)result(-EINPROGRESS);
}

int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    (void)addr;
    (void)len;
    (void)flags;
    return (int)result(sim_listener_accept(sim_fd_file(fd)));
}

ssize_t __real_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags)
{
    if (fd < SIM_FD_BASE)
        return __real_send(fd, bytes, n, flags);
    struct sim_file *f = sim_fd_file(fd);
    return result(f->kind == SIM_STREAM ? sim_stream_send(f->object, bytes, n) : -EPIPE);
}

ssize_t __real_recv(int fd, void *bytes, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags)
{
    if (fd < SIM_FD_BASE)
        return __real_recv(fd, bytes, n, flags);
    struct sim_file *f = sim_fd_file(fd);
    return result(f->kind == SIM_STREAM ? sim_stream_recv(f->object, bytes, n) : 0);
}

static ssize_t send_pieces(struct sim_conn *c, const struct msghdr *msg)
{
    ssize_t sum = 0;

    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        const struct iovec *iov = &msg->msg_iov[i];
        const ssize_t n = sim_stream_send(c, iov->iov_base, iov->iov_len);
        if (n < 0)
            return sum > 0 ? sum : n;
        sum += n;
        if ((size_t)n < iov->iov_len)
            break;
    }
    return sum;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct sim_file *f = sim_fd_file(fd);

    (void)flags;
    if (f->kind == SIM_STREAM)
        return result(send_pieces(f->object, msg));
    return result(f->kind == SIM_PACKETS ? send_packet(f->object, msg) : -EPIPE);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{
    struct sim_file *f = sim_fd_file(fd);

    (void)flags;
    if (f->kind == SIM_PACKETS)
        return result(receive_packet(f->object, msg));
    msg->msg_controllen = 0;
    return 0;
}

int __wrap_shutdown(int fd, int how)
{
    struct sim_file *f = sim_fd_file(fd);
    struct sim_conn *c = f->object;

    MR_CHECK(how == SHUT_WR);
    if (f->kind == SIM_DEAD || c->reset)
        return (int)result(-ENOTCONN);
    c->out->fin = true;
    expect_arrival(c->out);
    sim_file_changed(f);
    return 0;
}

int __real_getsockopt(int fd, int level, int option, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
    struct sim_file *f = sim_fd_file(fd);
    struct sim_conn *c = f->object;

    if (level == SOL_SOCKET && option == SO_ERROR) {
        const int error = f->kind == SIM_STREAM ? take_error(c) : ECONNRESET;
        memcpy(value, &error, sizeof(error));
        return 0;
    }
    if (f->kind == SIM_STREAM && level == IPPROTO_TCP && option == TCP_INFO && !c->is_unix) {
        const struct tcp_info info = {.tcpi_rtt = sim_below(2 * sim_env.latency_us + 1)};
        memcpy(value, &info, *len < sizeof(info) ? *len : sizeof(info));
        return 0;
    }
    return (int)result(-EOPNOTSUPP);
}

int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
    if (fd < SIM_FD_BASE)
        return __real_setsockopt(fd, level, option, value, len);
    (void)sim_fd_file(fd);
    return 0;
}

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;

    va_start(args, request);
    int *n = va_arg(args, int *);
    va_end(args);
    if (fd < SIM_FD_BASE)
        return __real_ioctl(fd, request, n);
    const struct sim_file *f = sim_fd_file(fd);
    MR_CHECK(request == FIONREAD || request == SIOCOUTQ);
    *n = 0;
    if (request == SIOCOUTQ && f->kind == SIM_STREAM) {
        const struct sim_pipe *out = ((const struct sim_conn *)f->object)->out;
        *n = (int)(length(out) - out->arrived); /* acknowledged bytes do not count */
    } else if (f->kind == SIM_STREAM) {
        *n = (int)((const struct sim_conn *)f->object)->in->arrived;
    } else if (f->kind == SIM_PACKETS) {
        *n = (int)((const struct packets *)f->object)->bytes;
    }
    return 0;
}

/* ---- the run ---- */

void sim_sockets_begin(void)
{
    n_conns = 0;
}

void sim_sockets_end(void)
{
    for (uint32_t i = 0; i < n_conns; i++) {
        struct sim_conn *c = conns[i];
        if (c->file != NULL && c->file->kind == SIM_LISTENER)
            sim_file_put(c->file); /* never completed */
        free(c->in->memory);
        free(c->out->memory);
    }
    free(conns);
    conns = NULL;
    room_conns = 0;
}
