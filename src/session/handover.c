/* handover.c - packing client connections, sending them, and unpacking. */
#include "session/handover.h"

#include "core/log.h"
#include "net/fdpass.h"
#include "session/client.h"
#include "session/pin.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC      0x6d72636cu /* "mrcl" */
#define MESSAGE    65536u      /* bytes of one at most */
#define TURN       (4u << 20)  /* bytes of a turn: other clients wait meanwhile */
#define COST       16384u      /* of a message beside its bytes, in bytes */
#define STUCK_US   1000000u    /* without a message taken: worth a line in the log */
#define MISSING_US 500000u     /* for one that is due: its sender may have died before it sent it */
#define FIELD_MAX  MR_BUF_MAX
#define FRESH      2u /* just accepted: nothing is known of it but its pool */
#define AUTHED     1u
#define ABORTED    4u /* as in struct mr_pin_luggage */
#define BROKEN     8u
#define PROTOCOL   4 /* first of the four bits of `flags` that hold the protocol's number */
#define DIALECT    8 /* and of those that hold the dialect */

/* Precedes the bytes of a message. */
struct envelope {
    uint32_t magic;
    uint16_t version;
    uint16_t reserved;
    uint32_t number; /* of the client */
    uint32_t reserved2;
    uint64_t at;    /* of the bytes that follow, among the client's */
    uint64_t total; /* bytes of the client */
};

#define CHUNK (MESSAGE - sizeof(struct envelope))

/* A client's bytes: this, the pool's name, the client's name, input and output. */
struct head {
    uint32_t flags;
    uint32_t head_bytes; /* of this struct: a later version may add fields behind */
    uint32_t pool_bytes;
    uint32_t name_bytes; /* 0 for none */
    uint32_t in_bytes;
    uint32_t out_bytes;
    uint32_t skip;     /* as in struct mr_session, like what follows */
    uint32_t n_queued; /* messages at the beginning of the input that were answered already */
    uint64_t id;
    uint64_t wrote_us; /* ago, when it last wrote; 0: not lately */
};

_Static_assert(sizeof(struct envelope) == 32 && sizeof(struct head) == 48, "a wire format");

enum mr_result mr_handover_open(int ends[2], struct mr_error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return mr_fail_sys(err, "socketpair for a handover");
    return MR_OK;
}

/* ---- sending ---- */

#define PARTS 6

/* A client's bytes where they lie. */
struct parts {
    struct head head;
    struct mr_slice at[PARTS];
    uint64_t total;
};

static void lay_out(struct parts *p, struct mr_slice pool, struct mr_slice name,
                    struct mr_slice queue, struct mr_slice in, struct mr_slice out)
{
    p->head.head_bytes = sizeof(p->head);
    p->head.pool_bytes = (uint32_t)pool.len;
    p->head.name_bytes = (uint32_t)name.len;
    p->head.in_bytes = (uint32_t)(queue.len + in.len);
    p->head.out_bytes = (uint32_t)out.len;
    p->at[0] = (struct mr_slice){(const char *)&p->head, sizeof(p->head)};
    p->at[1] = pool;
    p->at[2] = name;
    p->at[3] = queue;
    p->at[4] = in;
    p->at[5] = out;
    p->total = 0;
    for (size_t i = 0; i < PARTS; i++)
        p->total += p->at[i].len;
}

/* Time since the client's last write, where that matters. */
static uint64_t wrote_ago_us(const struct mr_client *client)
{
    const uint64_t now = client->service->loop->now_us;

    return client->wrote_us == 0 ? 0 : now - client->wrote_us + 1;
}

static void describe(const struct mr_client *client, struct parts *p)
{
    const char *name = client->session.name;
    const struct mr_pin_luggage luggage = mr_pin_pack(client);

    p->head = (struct head){
        .flags = (client->session.authed ? AUTHED : 0u) | (luggage.aborted ? ABORTED : 0u) |
                 (luggage.broken ? BROKEN : 0u) |
                 mr_proto_number(client->service->config->protocol) << PROTOCOL |
                 (uint32_t)client->session.dialect << DIALECT,
        .n_queued = luggage.n_queued,
        .skip = client->session.skip,
        .id = client->session.id,
        .wrote_us = wrote_ago_us(client),
    };
    lay_out(p, mr_slice_of(client->service->config->name), mr_slice_of(name != NULL ? name : ""),
            luggage.queue, mr_buf_slice(&client->stream.in), mr_buf_slice(&client->stream.out));
}

/* Copies up to `room` of the bytes from `at` on; returns how many. */
static size_t copy_from(const struct parts *p, uint64_t at, char *to, size_t room)
{
    size_t n = 0;

    for (size_t i = 0; i < PARTS && n < room; i++) {
        const struct mr_slice part = p->at[i];
        if (at >= part.len) {
            at -= part.len;
            continue;
        }
        const size_t left = part.len - (size_t)at, len = left < room - n ? left : room - n;
        memcpy(to + n, part.at + at, len);
        n += len;
        at = 0;
    }
    return n;
}

/*
 * One message, the last one of a client with its descriptor. Returns how many bytes of the client
 * went, or -1 with errno.
 */
static ssize_t send_message(int channel, const struct parts *p, uint32_t number, uint64_t at,
                            int fd)
{
    static char message[MESSAGE];
    const struct envelope envelope = {.magic = MAGIC,
                                      .version = MR_HANDOVER_VERSION,
                                      .number = number,
                                      .at = at,
                                      .total = p->total};

    memcpy(message, &envelope, sizeof(envelope));
    const size_t len = copy_from(p, at, message + sizeof(envelope), CHUNK);
    const ssize_t sent =
        mr_send_fds(channel, message, sizeof(envelope) + len, &fd, at + len == p->total);
    return sent < 0 ? -1 : (ssize_t)len;
}

/* ETOOMANYREFS: as many descriptors are on their way as may be; the other side has to take some. */
static bool is_full(int error)
{
    return error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

/* The client under way, NULL when it was cut meanwhile. */
static struct mr_client *travelling(const struct mr_handover_sender *h)
{
    const struct mr_list *list = &h->service->travelling;
    struct mr_client *client = MR_CONTAINER_OF(list->prev, struct mr_client, link);

    return list->prev == list || mr_stream_is_closed(&client->stream) ? NULL : client;
}

static void arrived(struct mr_client *client)
{
    client->moved = true;
    mr_list_del(&client->link);
    mr_list_append(&client->service->clients, &client->link);
    mr_stream_close(&client->stream, 0);
}

/* Goes on with the client under way. MR_AGAIN: no more in this turn. */
static enum mr_result send_on(struct mr_handover_sender *h, int channel, size_t *sent,
                              struct mr_error *err)
{
    struct mr_client *client = travelling(h);
    struct parts p;

    if (client != NULL)
        describe(client, &p);
    while (client != NULL && h->at < p.total) {
        if (*sent >= TURN)
            return MR_AGAIN;
        const ssize_t n = send_message(channel, &p, h->number, h->at, client->stream.fd);
        if (n < 0)
            return is_full(errno) ? MR_AGAIN : mr_fail_sys(err, "send a client");
        *sent += (size_t)n + COST;
        h->at += (size_t)n;
        h->moved_us = client->service->loop->now_us;
    }
    if (client != NULL)
        arrived(client);
    h->service = NULL;
    return MR_OK;
}

/* At a request boundary, and not on its way out. */
static bool can_travel(const struct mr_client *client)
{
    return client->head == NULL && mr_pin_can_travel(client) && !client->closing && !client->eof &&
           !client->lingering && !mr_stream_is_closed(&client->stream);
}

static enum mr_result send_all(struct mr_handover_sender *h, struct mr_service *service,
                               int channel, size_t *sent, struct mr_error *err)
{
    struct mr_list *link, *next;
    enum mr_result rc = MR_OK;

    for (link = service->clients.next; link != &service->clients && rc == MR_OK; link = next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        next = link->next;
        if (!can_travel(client) || !mr_stream_rest(&client->stream))
            continue;
        mr_list_del(link);
        mr_list_append(&service->travelling, link);
        h->service = service;
        h->number++;
        h->at = 0;
        h->moved_us = service->loop->now_us;
        rc = send_on(h, channel, sent, err);
    }
    return rc;
}

static void warn_if_stuck(struct mr_handover_sender *h)
{
    const uint64_t now = h->service->loop->now_us;

    if (now - h->moved_us < STUCK_US)
        return;
    mr_log(MR_LOG_WARN, "handover_delayed pool=%s clients=%u reason=\"nobody takes them\"",
           h->service->config->name, h->service->budget->n);
    h->moved_us = now;
}

enum mr_result mr_handover_clients(struct mr_handover_sender *h, struct mr_service *services,
                                   uint32_t n, int channel, struct mr_error *err)
{
    enum mr_result rc = MR_OK;
    size_t sent = 0;

    if (h->service != NULL)
        rc = send_on(h, channel, &sent, err);
    for (uint32_t i = 0; i < n && rc == MR_OK; i++)
        rc = send_all(h, &services[i], channel, &sent, err);
    if (rc != MR_AGAIN)
        return rc;
    warn_if_stuck(h);
    return MR_OK;
}

enum mr_result mr_handover_new(const struct mr_service *service, int channel, int fd,
                               struct mr_error *err)
{
    const struct mr_slice none = mr_slice_of("");
    struct parts p = {.head = {.flags = FRESH}};

    lay_out(&p, mr_slice_of(service->config->name), none, none, none, none);
    return send_message(channel, &p, 0, 0, fd) < 0 ? mr_fail_sys(err, "pass a connection on")
                                                   : MR_OK;
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

/* A client that cannot be served on: it is closed, and that is said. */
static void lose(int fd, const char *reason)
{
    if (fd >= 0)
        (void)close(fd);
    mr_log_limited(MR_LOG_ERR, "client_lost during=handover reason=%s", reason);
}

/* False when the bytes are not those of a client. */
static bool read_head(struct mr_slice bytes, struct head *head)
{
    if (bytes.len < sizeof(*head))
        return false;
    memcpy(head, bytes.at, sizeof(*head));
    return head->head_bytes >= sizeof(*head) && (uint64_t)head->head_bytes + head->pool_bytes +
                                                        head->name_bytes + head->in_bytes +
                                                        head->out_bytes ==
                                                    bytes.len;
}

static void adopt(struct mr_service *service, int fd, const struct head *head, struct mr_slice name,
                  struct mr_slice in, struct mr_slice out)
{
    const struct mr_session session = {.id = head->id,
                                       .skip = head->skip,
                                       .dialect = (uint8_t)(head->flags >> DIALECT),
                                       .authed = (head->flags & AUTHED) != 0,
                                       .name = name.len > 0 ? strndup(name.at, name.len) : NULL};
    const struct mr_pin_luggage luggage = {.n_queued = head->n_queued,
                                           .aborted = (head->flags & ABORTED) != 0,
                                           .broken = (head->flags & BROKEN) != 0};

    mr_service_adopt(service, fd, &session, &luggage, head->wrote_us, in, out);
}

/*
 * Why no service can go on with the client, NULL when `service` can. What it has sent is not to be
 * read as another protocol.
 */
static const char *why_not(const struct mr_service *service, uint32_t flags)
{
    const uint32_t told = flags >> PROTOCOL & 15u; /* 0: not, by an earlier version */

    if (service == NULL)
        return "pool_removed"; /* and with it what the client could ask */
    if (told != 0 && told != mr_proto_number(service->config->protocol))
        return "protocol_changed";
    return NULL;
}

/* The whole client is there. */
static void unpack(struct mr_handover_receiver *r, int fd)
{
    struct mr_slice bytes = mr_buf_slice(&r->bytes);
    struct head head;

    if (!read_head(bytes, &head)) {
        lose(fd, "not_understood");
        return;
    }
    (void)cut(&bytes, head.head_bytes);
    const struct mr_slice pool = cut(&bytes, head.pool_bytes);
    const struct mr_slice name = cut(&bytes, head.name_bytes);
    const struct mr_slice in = cut(&bytes, head.in_bytes);
    const struct mr_slice out = cut(&bytes, head.out_bytes);
    struct mr_service *service = find(r, pool);
    const char *reason = why_not(service, head.flags);
    if (reason != NULL) {
        mr_log_limited(MR_LOG_NOTICE, "client_not_taken pool=%.*s reason=%s", (int)pool.len,
                       pool.at, reason);
        (void)close(fd);
    } else if (head.flags & FRESH) {
        mr_service_admit(service, fd);
    } else {
        adopt(service, fd, &head, name, in, out);
    }
}

static void forget(struct mr_handover_receiver *r)
{
    r->total = 0;
    mr_buf_clear(&r->bytes, &r->loop->slab);
}

/* Adds a message's bytes to the client's; false when they are not those that come next. */
static bool gather(struct mr_handover_receiver *r, const struct envelope *e, struct mr_slice bytes)
{
    if (e->at ==
        0) { /* whoever was coming in has been given up by the sender, or has died with it */
        forget(r);
        if (e->total > FIELD_MAX || mr_buf_reserve(&r->bytes, &r->loop->slab, e->total) == NULL)
            return false;
        r->number = e->number;
        r->total = e->total;
    }
    return r->total != 0 && e->number == r->number && e->total == r->total &&
           e->at == mr_buf_len(&r->bytes) &&
           mr_buf_append(&r->bytes, &r->loop->slab, bytes.at, bytes.len);
}

static void take_message(struct mr_handover_receiver *r, struct mr_slice message, int fd)
{
    struct envelope e = {0};

    if (message.len > sizeof(e))
        memcpy(&e, message.at, sizeof(e));
    struct mr_slice bytes = message;
    if (e.magic != MAGIC || e.version != MR_HANDOVER_VERSION) {
        lose(fd, "not_understood");
        return;
    }
    (void)cut(&bytes, sizeof(e));
    const bool last = e.at + bytes.len == e.total;
    const bool whole = gather(r, &e, bytes);
    if (!last) {
        if (fd >= 0)
            lose(fd, "not_understood");
        return;
    }
    if (r->due != NULL)
        (void)__atomic_sub_fetch(r->due, 1, __ATOMIC_RELAXED);
    if (fd < 0)
        lose(fd, "out_of_descriptors"); /* the kernel has closed it */
    else if (!whole)
        lose(fd, "incomplete"); /* its beginning went to a worker that has died */
    else
        unpack(r, fd);
    forget(r);
}

/* One message; adds what it costs. False when there is none, or there will be no more. */
static bool receive_one(struct mr_handover_receiver *r, size_t *taken)
{
    static char message[MESSAGE];
    uint32_t n_fds = 1;
    int fd = -1;

    const ssize_t n = mr_recv_fds(r->watch.fd, message, sizeof(message), &fd, &n_fds);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        mr_handover_stop(r); /* the other side has given all it had */
        return false;
    }
    take_message(r, (struct mr_slice){message, (size_t)n}, n_fds > 0 ? fd : -1);
    *taken += (size_t)n + COST;
    return true;
}

static void on_ready(struct mr_watch *watch)
{
    struct mr_handover_receiver *r = MR_CONTAINER_OF(watch, struct mr_handover_receiver, watch);

    for (size_t taken = 0; taken < TURN && watch->active && receive_one(r, &taken);)
        ;
}

void mr_handover_receive(struct mr_handover_receiver *r, struct mr_loop *loop, int channel,
                         struct mr_service *services, uint32_t n_services)
{
    *r = (struct mr_handover_receiver){.watch = {.on_ready = on_ready, .fd = channel},
                                       .loop = loop,
                                       .services = services,
                                       .n_services = n_services};
    mr_watch_start(loop, &r->watch);
}

bool mr_handover_waiting(struct mr_handover_receiver *r)
{
    int n = 0;

    if (!r->watch.active)
        return false;
    if (ioctl(r->watch.fd, FIONREAD, &n) == 0 && n > 0) {
        r->missing_us = 0;
        return true;
    }
    if (r->due == NULL || __atomic_load_n(r->due, __ATOMIC_SEQ_CST) <= 0)
        return false;
    if (r->missing_us == 0)
        r->missing_us = r->loop->now_us;
    return r->loop->now_us - r->missing_us < MISSING_US;
}

bool mr_handover_ended(const struct mr_handover_receiver *r)
{
    return !r->watch.active;
}

void mr_handover_stop(struct mr_handover_receiver *r)
{
    if (!r->watch.active)
        return;
    mr_watch_stop(r->loop, &r->watch);
    (void)close(r->watch.fd);
    forget(r);
}
