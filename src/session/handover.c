/* handover.c - packs client connections, sends them, and unpacks them. */
#include "session/handover.h"

#include "core/log.h"
#include "net/fdpass.h"
#include "session/client.h"
#include "session/pin.h"
#include "session/subscribe.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC      0x6d72636cu /* "mrcl" */
#define MESSAGE    65536u      /* maximum size of a message */
#define TURN       (4u << 20)  /* bytes per turn, so that other clients are not delayed */
#define COST       16384u      /* overhead of a message, counted as bytes */
#define STUCK_US   1000000u    /* without progress for this long: log a warning */
#define MISSING_US 500000u     /* wait for a connection that is due, in case its sender died */
#define FIELD_MAX  MR_BUF_MAX
#define FRESH      2u /* newly accepted: only its pool is known */
#define AUTHED     1u
#define ABORTED    4u /* as in struct mr_pin_luggage */
#define BROKEN     8u
#define PROTOCOL   4 /* first of four bits of `flags` with the protocol's number */
#define DIALECT    8 /* first of the bits with the dialect */

/* Header of a message. */
struct envelope {
    uint32_t magic;
    uint16_t version;
    uint16_t reserved;
    uint32_t number; /* identifies the client */
    uint32_t reserved2;
    uint64_t at;    /* offset of the following bytes in the client's data */
    uint64_t total; /* size of the client's data */
};

#define CHUNK (MESSAGE - sizeof(struct envelope))

/* Header of a client's data; topics, user, pool name, labels, input and output follow. */
struct head {
    uint32_t flags;
    uint32_t head_bytes; /* size of this struct, of the topics, and of the user's name */
    uint32_t pool_bytes;
    uint32_t label_bytes; /* 0: no labels */
    uint32_t in_bytes;
    uint32_t out_bytes;
    uint32_t skip;     /* this and `id` as in struct mr_session */
    uint32_t n_queued; /* number of messages at the start of the input that were already answered */
    uint64_t id;
    uint64_t wrote_us; /* time since its last write; 0 if irrelevant */
    uint32_t user_bytes;
    uint8_t mute;
    uint8_t reserved[3];
};

#define HEAD_MIN 48u /* size without the user */

_Static_assert(sizeof(struct envelope) == 32 && sizeof(struct head) == 56, "a wire format");

enum mr_result mr_handover_open(int ends[2], struct mr_error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return mr_fail_sys(err, "socketpair for a handover");
    return MR_OK;
}

/* ---- sending ---- */

#define PARTS 8

/* A client's data, not copied. */
struct parts {
    struct head head;
    struct mr_slice at[PARTS];
    uint64_t total;
};

/* The topics and the user's name are part of the head. */
static void lay_out(struct parts *p, struct mr_slice topics, struct mr_slice user,
                    struct mr_slice pool, struct mr_slice labels, struct mr_slice queue,
                    struct mr_slice in, struct mr_slice out)
{
    p->head.head_bytes = (uint32_t)(sizeof(p->head) + topics.len + user.len);
    p->head.user_bytes = (uint32_t)user.len;
    p->head.pool_bytes = (uint32_t)pool.len;
    p->head.label_bytes = (uint32_t)labels.len;
    p->head.in_bytes = (uint32_t)(queue.len + in.len);
    p->head.out_bytes = (uint32_t)out.len;
    p->at[0] = (struct mr_slice){(const char *)&p->head, sizeof(p->head)};
    p->at[1] = topics;
    p->at[2] = user;
    p->at[3] = pool;
    p->at[4] = labels;
    p->at[5] = queue;
    p->at[6] = in;
    p->at[7] = out;
    p->total = 0;
    for (size_t i = 0; i < PARTS; i++)
        p->total += p->at[i].len;
}

/* Time since the client's last write; 0 if irrelevant. */
static uint64_t wrote_ago_us(const struct mr_client *client)
{
    const uint64_t now = client->service->loop->now_us;

    return client->wrote_us == 0 ? 0 : now - client->wrote_us + 1;
}

static void describe(const struct mr_client *client, struct parts *p)
{
    const struct mr_user *user = client->session.user;
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
        .mute = client->session.mute,
    };
    lay_out(p, mr_subscribe_luggage(client), mr_slice_of(user != NULL ? user->name : ""),
            mr_slice_of(client->service->config->name),
            (struct mr_slice){client->session.labels, client->session.label_bytes}, luggage.queue,
            mr_buf_slice(&client->stream.in), mr_buf_slice(&client->stream.out));
}

/* Copies up to `room` bytes from offset `at`. Returns how many. */
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
 * Sends one message; the client's last one carries its descriptor. Returns how many bytes of the
 * client were sent, or -1 with errno.
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

/* ETOOMANYREFS: too many descriptors in flight until the receiver takes some. */
static bool is_full(int error)
{
    return error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

/* The client being sent, or NULL if it was cut meanwhile. */
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

/* Continues with the current client. MR_AGAIN if no more can be sent in this turn. */
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

/* True between requests, and if it is not being closed. */
static bool can_travel(const struct mr_client *client)
{
    return client->head == NULL && mr_pin_can_travel(client) && !client->closing && !client->eof &&
           !client->lingering && !mr_stream_is_closed(&client->stream) &&
           !mr_stream_is_tied(&client->stream);
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
        mr_subscribe_pack(client);
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

    lay_out(&p, none, none, mr_slice_of(service->config->name), none, none, none, none);
    return send_message(channel, &p, 0, 0, fd) < 0 ? mr_fail_sys(err, "pass on a connection")
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

/* Closes a client that cannot be continued, and logs it. */
static void lose(int fd, const char *reason)
{
    if (fd >= 0)
        (void)close(fd);
    mr_log_limited(MR_LOG_ERR, "client_lost during=handover reason=%s", reason);
}

/* False if the bytes are not a client's data. Heads of earlier versions are shorter. */
static bool read_head(struct mr_slice bytes, struct head *head)
{
    *head = (struct head){0};
    if (bytes.len < HEAD_MIN)
        return false;
    memcpy(head, bytes.at, HEAD_MIN);
    if (head->head_bytes >= sizeof(*head) && bytes.len >= sizeof(*head))
        memcpy(head, bytes.at, sizeof(*head));
    return head->head_bytes >=
               (uint64_t)head->user_bytes + (head->user_bytes > 0 ? sizeof(*head) : HEAD_MIN) &&
           (uint64_t)head->head_bytes + head->pool_bytes + head->label_bytes + head->in_bytes +
                   head->out_bytes ==
               bytes.len;
}

/*
 * A user has the rights of the current configuration. Clients whose user is gone, and those that
 * never had to log in but do now, must log in.
 */
static void find_user(const struct mr_service *service, struct mr_slice name,
                      struct mr_session *session)
{
    const struct mr_proto_options *options = &service->config->options;
    const bool is_default = name.len == 0 || mr_slice_eq(name, mr_slice_of("default"));

    if (options->users != NULL)
        session->user = mr_user_find(options->users, name.len > 0 ? name : mr_slice_of("default"));
    if (session->user == NULL && !(is_default && (options->auth != NULL || options->users == NULL)))
        session->authed = false;
}

static void adopt(struct mr_service *service, int fd, const struct head *head,
                  struct mr_slice topics, struct mr_slice user, struct mr_slice labels,
                  struct mr_slice in, struct mr_slice out)
{
    struct mr_session session = {.id = head->id,
                                 .skip = head->skip,
                                 .dialect = (uint8_t)(head->flags >> DIALECT),
                                 .authed = (head->flags & AUTHED) != 0,
                                 .mute = head->mute};
    const struct mr_pin_luggage luggage = {.topics = topics,
                                           .n_queued = head->n_queued,
                                           .aborted = (head->flags & ABORTED) != 0,
                                           .broken = (head->flags & BROKEN) != 0};

    mr_session_set_labels(&session, labels);
    find_user(service, user, &session);
    mr_service_adopt(service, fd, &session, &luggage, head->wrote_us, in, out);
}

/*
 * Why the client cannot continue in `service`, or NULL if it can. Its input must not be parsed as
 * another protocol.
 */
static const char *why_not(const struct mr_service *service, uint32_t flags)
{
    const uint32_t told = flags >> PROTOCOL & 15u; /* 0: sent by an earlier version */

    if (service == NULL)
        return "pool_removed"; /* intended: no error to log */
    if (told != 0 && told != mr_proto_number(service->config->protocol))
        return "protocol_changed";
    const struct mr_pool_config *config = service->config;
    if (config->protocol->client.has_dialect != NULL &&
        !config->protocol->client.has_dialect(&config->options, (uint8_t)(flags >> DIALECT)))
        return "database_removed";
    return NULL;
}

/* All of the client's data has arrived. */
static void unpack(struct mr_handover_receiver *r, int fd)
{
    struct mr_slice bytes = mr_buf_slice(&r->bytes);
    struct head head;

    if (!read_head(bytes, &head)) {
        lose(fd, "not_understood");
        return;
    }
    struct mr_slice topics = cut(&bytes, head.head_bytes - head.user_bytes);
    (void)cut(&topics, topics.len < sizeof(head) ? topics.len : sizeof(head));
    const struct mr_slice user = cut(&bytes, head.user_bytes);
    const struct mr_slice pool = cut(&bytes, head.pool_bytes);
    const struct mr_slice labels = cut(&bytes, head.label_bytes);
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
        adopt(service, fd, &head, topics, user, labels, in, out);
    }
}

static void forget(struct mr_handover_receiver *r)
{
    r->total = 0;
    mr_buf_clear(&r->bytes, &r->loop->slab);
}

/* Appends a message to the client's data. False if it is not the next one. */
static bool gather(struct mr_handover_receiver *r, const struct envelope *e, struct mr_slice bytes)
{
    if (e->at == 0) { /* a new client; an incomplete one was abandoned by its sender */
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
        lose(fd, "out_of_descriptors"); /* the kernel closed it */
    else if (!whole)
        lose(fd, "incomplete"); /* the beginning went to a worker that died */
    else
        unpack(r, fd);
    forget(r);
}

/* Receives one message and adds its cost. False if there is none, or the channel has ended. */
static bool receive_one(struct mr_handover_receiver *r, size_t *taken)
{
    static char message[MESSAGE];
    uint32_t n_fds = 1;
    int fd = -1;

    const ssize_t n = mr_recv_fds(r->watch.fd, message, sizeof(message), &fd, &n_fds);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        mr_handover_stop(r); /* the other side is done */
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
