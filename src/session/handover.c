/* handover.c - packing client connections, sending them, and unpacking. */
#include "session/handover.h"

#include "core/log.h"
#include "net/fdpass.h"
#include "session/client.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC     0x6d72636cu /* "mrcl" */
#define VERSION   1u
#define CHUNK     65536u /* of one message */
#define WAIT_MS   1000   /* for the other side to take a message */
#define PER_TURN  256u   /* clients taken in one after the other */
#define NAME_MAX_ 255u
#define FIELD_MAX MR_BUF_MAX
#define FRESH     2u /* just accepted: nothing is known of it but its pool */
#define AUTHED    1u
#define DIALECT   8 /* first of the bits of `flags` that hold the dialect */

/* Followed by the pool's name, the client's name, input and output. */
struct head {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;
    uint32_t head_bytes; /* of this struct: a later version may add fields behind */
    uint32_t pool_bytes;
    uint32_t name_bytes; /* 0 for none */
    uint32_t in_bytes;
    uint32_t out_bytes;
    uint32_t skip; /* as in struct mr_session, like what follows */
    uint64_t id;
    uint64_t wrote_us; /* ago, when it last wrote; 0: not lately */
};

enum mr_result mr_handover_open(int ends[2], struct mr_error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return mr_fail_sys(err, "socketpair for a handover");
    return MR_OK;
}

/* ---- sending ---- */

static bool append(struct mr_buf *out, struct mr_slab *slab, const void *at, size_t len)
{
    return len == 0 || mr_buf_append(out, slab, at, len);
}

/* Time since the client's last write, where that matters. */
static uint64_t wrote_ago_us(const struct mr_client *client)
{
    const uint64_t now = client->service->loop->now_us;

    return client->wrote_us == 0 ? 0 : now - client->wrote_us + 1;
}

static bool pack(const struct mr_client *client, struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_slice in = mr_buf_slice(&client->stream.in);
    const struct mr_slice unsent = mr_buf_slice(&client->stream.out);
    const char *pool = client->service->config->name;
    const char *name = client->session.name;
    const struct head head = {
        .magic = MAGIC,
        .version = VERSION,
        .flags = (uint16_t)((client->session.authed ? AUTHED : 0u) |
                            (uint32_t)client->session.dialect << DIALECT),
        .head_bytes = sizeof(head),
        .pool_bytes = (uint32_t)strlen(pool),
        .name_bytes = name != NULL ? (uint32_t)strlen(name) : 0,
        .in_bytes = (uint32_t)in.len,
        .out_bytes = (uint32_t)unsent.len,
        .skip = client->session.skip,
        .id = client->session.id,
        .wrote_us = wrote_ago_us(client),
    };

    return append(out, slab, &head, sizeof(head)) && append(out, slab, pool, head.pool_bytes) &&
           append(out, slab, name, head.name_bytes) && append(out, slab, in.at, in.len) &&
           append(out, slab, unsent.at, unsent.len);
}

static enum mr_result send_chunk(int channel, const char *bytes, size_t len, int fd, bool wait,
                                 struct mr_error *err)
{
    while (mr_send_fds(channel, bytes, len, &fd, fd >= 0) < 0) {
        struct pollfd p = {.fd = channel, .events = POLLOUT};
        if (errno == EINTR)
            continue;
        /* ETOOMANYREFS: too many descriptors on their way, the other side has to take some */
        if (!wait || (errno != EAGAIN && errno != ENOBUFS && errno != ETOOMANYREFS))
            return mr_fail_sys(err, "send a client");
        if (errno == ETOOMANYREFS)
            (void)usleep(1000);
        else if (poll(&p, 1, WAIT_MS) == 0)
            return mr_fail(err, MR_ESYS, "send a client: nobody takes it");
    }
    return MR_OK;
}

static enum mr_result send_client(struct mr_client *client, int channel, struct mr_error *err)
{
    struct mr_slab *slab = &client->service->loop->slab;
    struct mr_buf bytes = {0};
    enum mr_result rc = MR_OK;

    if (!pack(client, slab, &bytes)) {
        mr_buf_clear(&bytes, slab);
        return mr_fail(err, MR_ELIMIT, "no memory to pack a client");
    }
    struct mr_slice left = mr_buf_slice(&bytes);
    for (int fd = client->stream.fd; left.len > 0 && rc == MR_OK; fd = -1) {
        const size_t n = left.len < CHUNK ? left.len : CHUNK;
        rc = send_chunk(channel, left.at, n, fd, true, err);
        left = (struct mr_slice){left.at + n, left.len - n};
    }
    mr_buf_clear(&bytes, slab);
    return rc;
}

enum mr_result mr_handover_new(const struct mr_service *service, int channel, int fd,
                               struct mr_error *err)
{
    const char *pool = service->config->name;
    struct {
        struct head head;
        char pool[NAME_MAX_];
    } packed = {.head = {.magic = MAGIC,
                         .version = VERSION,
                         .flags = FRESH,
                         .head_bytes = sizeof(struct head),
                         .pool_bytes = (uint32_t)strlen(pool)}};

    memcpy(packed.pool, pool, packed.head.pool_bytes);
    return send_chunk(channel, (const char *)&packed, sizeof(struct head) + packed.head.pool_bytes,
                      fd, false, err);
}

/* At a request boundary, and not on its way out. */
static bool can_travel(const struct mr_client *client)
{
    return client->head == NULL && !client->closing && !client->eof && !client->lingering &&
           !mr_stream_is_closed(&client->stream);
}

enum mr_result mr_handover_clients(struct mr_service *service, int channel, struct mr_error *err)
{
    struct mr_list *link, *next;

    for (link = service->clients.next; link != &service->clients; link = next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        next = link->next;
        if (!can_travel(client) || !mr_stream_rest(&client->stream))
            continue;
        const enum mr_result rc = send_client(client, channel, err);
        if (rc != MR_OK)
            return rc;
        client->moved = true;
        mr_stream_close(&client->stream, 0);
    }
    return MR_OK;
}

/* ---- receiving ---- */

static struct mr_service *find(const struct mr_handover_receiver *r, struct mr_slice pool)
{
    for (uint32_t i = 0; i < r->n_services; i++)
        if (mr_slice_eq(mr_slice_of(r->services[i].config->name), pool))
            return &r->services[i];
    return NULL;
}

static struct mr_slice cut(struct mr_slice *bytes, size_t n)
{
    const struct mr_slice first = {bytes->at, n};

    *bytes = (struct mr_slice){bytes->at + n, bytes->len - n};
    return first;
}

/* The whole client is there. */
static void unpack(struct mr_handover_receiver *r)
{
    struct mr_slice bytes = mr_buf_slice(&r->bytes);
    struct head head;

    memcpy(&head, bytes.at, sizeof(head));
    (void)cut(&bytes, head.head_bytes);
    const struct mr_slice pool = cut(&bytes, head.pool_bytes);
    const struct mr_slice name = cut(&bytes, head.name_bytes);
    const struct mr_slice in = cut(&bytes, head.in_bytes);
    const struct mr_slice out = cut(&bytes, head.out_bytes);
    struct mr_service *service = find(r, pool);
    if (service == NULL) { /* the pool is gone: so is what its clients could ask */
        mr_log_limited(MR_LOG_NOTICE, "client_not_taken pool=%.*s reason=pool_removed",
                       (int)pool.len, pool.at);
        (void)close(r->fd);
    } else if (head.flags & FRESH) {
        mr_service_admit(service, r->fd);
    } else {
        const struct mr_session session = {.id = head.id,
                                           .skip = head.skip,
                                           .dialect = (uint8_t)(head.flags >> DIALECT),
                                           .authed = (head.flags & AUTHED) != 0,
                                           .name =
                                               name.len > 0 ? strndup(name.at, name.len) : NULL};
        mr_client_adopt(service, r->fd, &session, head.wrote_us, in, out);
    }
    if (head.flags & FRESH && r->due != NULL)
        (void)__atomic_sub_fetch(r->due, 1, __ATOMIC_RELAXED);
    r->fd = -1;
    mr_buf_clear(&r->bytes, &r->loop->slab);
}

/* Bytes of the client whose first message this is; 0 when it makes no sense. */
static size_t total_of(struct mr_slice first)
{
    struct head head;

    if (first.len < sizeof(head))
        return 0;
    memcpy(&head, first.at, sizeof(head));
    if (head.magic != MAGIC || head.version != VERSION || head.head_bytes < sizeof(head) ||
        head.head_bytes > first.len || head.pool_bytes > NAME_MAX_ || head.name_bytes > CHUNK ||
        head.in_bytes > FIELD_MAX || head.out_bytes > FIELD_MAX)
        return 0;
    return (size_t)head.head_bytes + head.pool_bytes + head.name_bytes + head.in_bytes +
           head.out_bytes;
}

static void give_up(struct mr_handover_receiver *r, const char *reason)
{
    mr_log(MR_LOG_ERR, "handover_broken reason=%s", reason);
    mr_handover_stop(r);
}

static void take_chunk(struct mr_handover_receiver *r, struct mr_slice chunk, int fd)
{
    if (r->fd < 0) {
        r->total = total_of(chunk);
        r->fd = fd;
    } else if (fd >= 0) {
        r->total = 0;
        (void)close(fd);
    }
    if (r->fd < 0 || r->total == 0 || mr_buf_len(&r->bytes) + chunk.len > r->total) {
        give_up(r, "message_not_understood");
    } else if (!mr_buf_append(&r->bytes, &r->loop->slab, chunk.at, chunk.len)) {
        give_up(r, "memory");
    } else if (mr_buf_len(&r->bytes) == r->total) {
        unpack(r);
    }
}

/* One message; false when there is none, or there will be no more. */
static bool receive_one(struct mr_handover_receiver *r)
{
    static char chunk[CHUNK];
    uint32_t n_fds = 1;
    int fd = -1;

    const ssize_t n = mr_recv_fds(r->watch.fd, chunk, sizeof(chunk), &fd, &n_fds);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return errno == EINTR;
    if (n <= 0) {
        mr_handover_stop(r); /* the other side has given all it had */
        return false;
    }
    take_chunk(r, (struct mr_slice){chunk, (size_t)n}, n_fds > 0 ? fd : -1);
    return true;
}

static void on_ready(struct mr_watch *watch)
{
    struct mr_handover_receiver *r = MR_CONTAINER_OF(watch, struct mr_handover_receiver, watch);

    for (uint32_t n = 0; n < PER_TURN && watch->active && receive_one(r); n++)
        ;
}

void mr_handover_receive(struct mr_handover_receiver *r, struct mr_loop *loop, int channel,
                         struct mr_service *services, uint32_t n_services)
{
    *r = (struct mr_handover_receiver){.watch = {.on_ready = on_ready, .fd = channel},
                                       .loop = loop,
                                       .services = services,
                                       .n_services = n_services,
                                       .fd = -1};
    mr_watch_start(loop, &r->watch);
}

bool mr_handover_waiting(const struct mr_handover_receiver *r)
{
    int n = 0;

    return r->watch.active && ioctl(r->watch.fd, FIONREAD, &n) == 0 && n > 0;
}

void mr_handover_stop(struct mr_handover_receiver *r)
{
    if (!r->watch.active)
        return;
    mr_watch_stop(r->loop, &r->watch);
    (void)close(r->watch.fd);
    if (r->fd >= 0)
        (void)close(r->fd);
    r->fd = -1;
    mr_buf_clear(&r->bytes, &r->loop->slab);
}
