/*
 * floor.c - millrace-floor: the least a Redis proxy can do, as a baseline for real ones.
 *
 * It finds the end of each request and reply, forwards whole requests over one connection to one
 * server in one write per turn, and returns the replies in order. No routing, no limits, no
 * time-outs, hardly any error handling.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAX_FDS      65536
#define IN_BYTES     1048576u
#define FIFO         (1u << 20)
#define RING_BUFFERS 1024u
#define RING_BYTES   16384u

struct bytes {
    char *at;
    size_t len, cap;
};

struct peer {
    int fd;
    bool dirty, busy;
    struct bytes in, out, sending;
};

static struct peer *peers[MAX_FDS];
static struct peer server;
static struct peer *dirty[MAX_FDS];
static size_t n_dirty;
static int fifo[FIFO];
static uint32_t fifo_first, fifo_end;
static int listener;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void append(struct bytes *b, const char *at, size_t len)
{
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2;
        b->at = realloc(b->at, b->cap);
        if (b->at == NULL)
            die("memory");
    }
    memcpy(b->at + b->len, at, len);
    b->len += len;
}

static void drop(struct bytes *b, size_t n)
{
    b->len -= n;
    if (b->len > 0)
        memmove(b->at, b->at + n, b->len);
}

static void write_to(struct peer *p, const char *at, size_t len)
{
    append(&p->out, at, len);
    if (p->dirty)
        return;
    p->dirty = true;
    dirty[n_dirty++] = p;
}

/* End of a line `<type><number>\r\n`, or NULL if it is incomplete. */
static const char *line(const char *at, const char *end, long *number)
{
    const char *nl = memchr(at, '\n', (size_t)(end - at));

    if (nl != NULL)
        *number = strtol(at + 1, NULL, 10);
    return nl == NULL ? NULL : nl + 1;
}

/* Size of the element at `at` with all its elements, or 0 if it is incomplete. */
static size_t element(const char *at, const char *end)
{
    long n;
    const char *next = at < end ? line(at, end, &n) : NULL;

    if (next == NULL)
        return 0;
    if (*at == '$' && n >= 0)
        return end - next >= n + 2 ? (size_t)(next - at + n + 2) : 0;
    if (*at != '*')
        return (size_t)(next - at);
    while (n-- > 0) {
        const size_t len = element(next, end);
        if (len == 0)
            return 0;
        next += len;
    }
    return (size_t)(next - at);
}

static void from_client(struct peer *p)
{
    size_t used = 0, n;

    while ((n = element(p->in.at + used, p->in.at + p->in.len)) > 0) {
        fifo[fifo_end++ % FIFO] = p->fd;
        used += n;
    }
    if (used == 0)
        return;
    write_to(&server, p->in.at, used);
    drop(&p->in, used);
}

static void from_server(void)
{
    size_t used = 0, n;

    while ((n = element(server.in.at + used, server.in.at + server.in.len)) > 0) {
        struct peer *p = peers[fifo[fifo_first++ % FIFO]];
        if (p != NULL)
            write_to(p, server.in.at + used, n);
        used += n;
    }
    drop(&server.in, used);
}

static void received(struct peer *p)
{
    if (p == &server)
        from_server();
    else
        from_client(p);
}

static struct peer *add_client(int fd)
{
    struct peer *p = calloc(1, sizeof(*p));

    if (p == NULL || fd >= MAX_FDS)
        die("client");
    p->fd = fd;
    peers[fd] = p;
    return p;
}

static void remove_client(struct peer *p)
{
    if (p == &server)
        die("server");
    peers[p->fd] = NULL;
    (void)close(p->fd);
    for (size_t i = 0; i < n_dirty; i++)
        if (dirty[i] == p)
            dirty[i] = dirty[--n_dirty];
    free(p->in.at);
    free(p->out.at);
    free(p->sending.at);
    free(p);
}

/* ---- epoll ---- */

static void add_to(int ep, int fd, struct peer *p)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};

    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
        die("epoll_ctl");
}

static void read_from(struct peer *p)
{
    static char buffer[IN_BYTES];
    const ssize_t n = read(p->fd, buffer, p == &server ? IN_BYTES : 65536);

    if (n > 0) {
        append(&p->in, buffer, (size_t)n);
        received(p);
    } else if (n == 0 || errno != EAGAIN) {
        remove_client(p);
    }
}

static void flush(struct peer *p)
{
    const ssize_t n = write(p->fd, p->out.at, p->out.len);

    p->dirty = false;
    if (n > 0)
        drop(&p->out, (size_t)n);
}

static void run_epoll(void)
{
    static struct epoll_event events[1024];
    const int ep = epoll_create1(0);
    int fd;

    add_to(ep, listener, NULL);
    add_to(ep, server.fd, &server);
    for (;;) {
        const int n = epoll_wait(ep, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr != NULL)
                read_from(events[i].data.ptr);
            else
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                    add_to(ep, fd, add_client(fd));
        }
        for (size_t i = 0; i < n_dirty; i++)
            flush(dirty[i]);
        n_dirty = 0;
    }
}

/* ---- io_uring ---- */

enum { ACCEPT, RECV, SEND };

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static char *memory;

static struct io_uring_sqe *entry(int kind, int fd)
{
    struct io_uring_sqe *sqe;

    while ((sqe = io_uring_get_sqe(&ring)) == NULL)
        io_uring_submit(&ring);
    sqe->user_data = (uint64_t)kind << 32 | (uint32_t)fd;
    return sqe;
}

static void arm(int fd)
{
    struct io_uring_sqe *sqe = entry(RECV, fd);
    const uint64_t data = sqe->user_data;

    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 1;
    sqe->user_data = data;
}

static void give(uint32_t id)
{
    io_uring_buf_ring_add(buffers, memory + (size_t)id * RING_BYTES, RING_BYTES, (uint16_t)id,
                          io_uring_buf_ring_mask(RING_BUFFERS), 0);
    io_uring_buf_ring_advance(buffers, 1);
}

static void send_to(struct peer *p)
{
    const struct bytes spare = p->sending;

    p->dirty = false;
    if (p->busy || p->out.len == 0)
        return;
    p->sending = p->out;
    p->out = spare;
    p->out.len = 0;
    p->busy = true;
    struct io_uring_sqe *sqe = entry(SEND, p->fd);
    const uint64_t data = sqe->user_data;
    io_uring_prep_send(sqe, p->fd, p->sending.at, p->sending.len, MSG_WAITALL);
    sqe->user_data = data;
}

static void complete(const struct io_uring_cqe *cqe)
{
    const int fd = (int)(uint32_t)cqe->user_data;
    struct peer *p = fd == server.fd ? &server : peers[fd];

    switch (cqe->user_data >> 32) {
    case ACCEPT:
        if (cqe->res >= 0)
            arm(add_client(cqe->res)->fd);
        return;
    case SEND:
        if (p != NULL) {
            p->busy = false;
            send_to(p);
        }
        return;
    default:
        break;
    }
    if (cqe->res > 0 && p != NULL) {
        const uint32_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        append(&p->in, memory + (size_t)id * RING_BYTES, (size_t)cqe->res);
        give(id);
        received(p);
    } else if (cqe->res != -ENOBUFS && p != NULL) {
        remove_client(p);
        return;
    }
    if (!(cqe->flags & IORING_CQE_F_MORE) && p != NULL)
        arm(fd);
}

static void set_up_ring(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
                                     .cq_entries = 16384};

    if (io_uring_queue_init_params(4096, &ring, &params) < 0)
        die("io_uring");
    memory = malloc((size_t)RING_BUFFERS * RING_BYTES);
    void *at = NULL;
    if (memory == NULL ||
        posix_memalign(&at, 4096, RING_BUFFERS * sizeof(struct io_uring_buf)) != 0)
        die("memory");
    buffers = at;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)at, .ring_entries = RING_BUFFERS, .bgid = 1};
    if (io_uring_register_buf_ring(&ring, &reg, 0) < 0)
        die("io_uring buffers");
    io_uring_buf_ring_init(buffers);
    for (uint32_t i = 0; i < RING_BUFFERS; i++)
        give(i);
}

static void run_uring(void)
{
    set_up_ring();
    struct io_uring_sqe *sqe = entry(ACCEPT, 0);
    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, 0);
    sqe->user_data = (uint64_t)ACCEPT << 32;
    arm(server.fd);
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, n = 0;
        io_uring_submit_and_wait(&ring, 1);
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            complete(cqe);
            n++;
        }
        io_uring_cq_advance(&ring, n);
        for (size_t i = 0; i < n_dirty; i++)
            send_to(dirty[i]);
        n_dirty = 0;
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1;

    if (argc < 3) {
        (void)fprintf(stderr, "Usage: millrace-floor PORT SERVER_PORT [io_uring]\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    (void)setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* clients inherit it */
    addr.sin_port = htons((uint16_t)atoi(argv[1]));
    if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 4096) < 0)
        die("listen");
    server.fd = socket(AF_INET, SOCK_STREAM, 0);
    addr.sin_port = htons((uint16_t)atoi(argv[2]));
    if (connect(server.fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        die("connect");
    (void)setsockopt(server.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (argc > 3)
        run_uring();
    (void)fcntl(server.fd, F_SETFL, O_NONBLOCK);
    run_epoll();
}
