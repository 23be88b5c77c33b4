/* client.h - one client connection and its line of requests; private to src/session. */
#pragma once

#include "net/stream.h"
#include "session/service.h"

enum mr_request_state {
    MR_REQUEST_WAITING, /* for its server */
    MR_REQUEST_DONE,    /* the whole reply is in `reply` */
};

/** What is kept of a read while its server is being connected. */
struct mr_again {
    struct mr_buf bytes; /* of the request, and behind them its key */
    const struct mr_server *server;
    uint32_t key_bytes;
    uint8_t lane;
    uint8_t tries;
};

/** One request in its client's line. */
struct mr_request {
    struct mr_call call;     /* towards the server, when it is not split */
    struct mr_request *next; /* behind it in the line */
    struct mr_service *service;
    struct mr_client *client; /* NULL once the client is gone: the reply is thrown away */
    struct mr_buf reply;      /* what has come before it was this request's turn */
    uint64_t since_us;        /* loop time when it was parsed */
    struct mr_again *again;   /* to ask another server, should the connection fail; or NULL */
    uint32_t bytes;           /* of the request, for the limit on what is in flight */
    uint8_t class;            /* enum mr_class */
    uint8_t state;            /* enum mr_request_state */
    bool started : 1;         /* a piece of the reply has been written */
    bool edits : 1;           /* see struct mr_msg; not yet done */
    bool hidden : 1;          /* the reply is not shown */
};

/*
 * Why a client is not read from: one bit each, its name, and the event that ends it. A client
 * pauses for a reason only while that event is certain to come; whoever brings it about calls
 * mr_client_reconsider.
 */
#define MR_PAUSES(X)                                                                               \
    X(HELD, "held")                   /* mr_service_release */                                     \
    X(PIPELINE, "pipeline")           /* a request leaves the queue: it is full */                 \
    X(REQUEST_BYTES, "request_bytes") /* likewise: its requests are large */                       \
    X(REPLY_BYTES, "reply_bytes")     /* likewise: their replies will be large */                  \
    X(EARLY_REPLIES, "early_replies") /* likewise: many replies wait behind its head */            \
    X(LINE, "line")                   /* its line is empty: what comes next takes another way */   \
    X(LEASE, "lease")                 /* the lease that it waits for is had, or refused */         \
    X(LANE, "lane")                   /* mr_pool.on_lane_known */                                  \
    X(OUTPUT, "output")               /* on_room: the client takes replies slower than it asks */

enum mr_pause_index {
#define X(name, text) MR_PAUSE_INDEX_##name,
    MR_PAUSES(X)
#undef X
};

enum mr_pause {
#define X(name, text) MR_PAUSE_##name = 1 << MR_PAUSE_INDEX_##name,
    MR_PAUSES(X)
#undef X
};

struct mr_client {
    struct mr_stream stream;
    struct mr_list link; /* in service->clients or ->lingering */
    struct mr_service *service;
    struct mr_session session;
    struct mr_parse_state parse;
    unsigned pauses;    /* bits of enum mr_pause; 0 while it is read from */
    unsigned barred;    /* those of LINE, LEASE and LANE that hold */
    struct mr_pin *pin; /* what it has beyond single requests; or NULL, see pin.h */
    struct mr_request *head;
    struct mr_request *tail;
    struct mr_request *unsent; /* answered, but the client has not taken the reply yet */
    uint64_t wrote_us;         /* loop time of the last write */
    size_t held_bytes;         /* replies that wait for their turn */
    uint64_t answered_bytes;   /* of the recent replies, see `answered` */
    uint32_t answered;         /* recent replies: how large one is on average */
    uint32_t n_requests;       /* in the line */
    uint32_t inflight_bytes;   /* of these */
    bool eof;                  /* the client sends no more */
    bool closing;              /* close after the last reply of the line */
    bool lingering;            /* closed on our side */
    bool quit;                 /* the client asked for the end */
    bool moved;                /* goes on in another process */
    uint8_t stalls;            /* while lingering: looks without progress */
    uint32_t untaken;          /* what was still to be sent when it was last looked at */
};

/** Adopts an accepted socket. */
void mr_client_open(struct mr_service *service, int fd);

/**
 * Adopts a client that another process has served: `session` (its name is taken), the time since
 * its last write (0: none that matters), the input that was not dispatched yet, the output that was
 * not sent yet.
 */
void mr_client_adopt(struct mr_service *service, int fd, const struct mr_session *session,
                     const struct mr_pin_luggage *luggage, uint64_t wrote_ago_us,
                     struct mr_slice in, struct mr_slice out);

/** Puts a request for the message at the end of the client's line. Inlined: it runs for each. */
static inline struct mr_request *mr_client_add_request(struct mr_client *client,
                                                       const struct mr_msg *msg)
{
    struct mr_request *r = mr_slab_get(&client->service->loop->slab, sizeof(*r));

    r->next = NULL;
    r->client = client;
    r->service = client->service;
    r->reply = (struct mr_buf){0};
    r->since_us = client->service->loop->now_us;
    r->call.ticket = msg->ticket;
    r->again = NULL;
    r->bytes = (uint32_t)msg->wire.len;
    r->class = msg->class;
    r->state = MR_REQUEST_WAITING;
    r->started = false;
    r->edits = msg->edits;
    r->hidden = false;
    if (client->tail != NULL)
        client->tail->next = r;
    else
        client->head = r;
    client->tail = r;
    client->n_requests++;
    client->inflight_bytes += r->bytes;
    return r;
}

/** Replies from the line's head that are complete go out; call after one has become so. */
void mr_client_advance(struct mr_client *client);

/** Bytes of a reply: to the client when it is this request's turn, else kept. */
void mr_client_reply(struct mr_request *request, const char *bytes, size_t len, bool done);

/** The request fails with the proxy's own error reply. */
void mr_client_fail(struct mr_request *request, const char *reason);

/** A reply made by the proxy: in its turn behind the requests that are in line. */
void mr_client_answer(struct mr_client *client, struct mr_slice reply);

/** Frees a request that has left the line or has lost its client. */
void mr_request_free(struct mr_request *request);

/** Cuts the client when more piles up for it than its pool allows. */
void mr_client_check_output(struct mr_client *client);

/** What a pause depends on has become less: reads on unless a reason is left. */
void mr_client_reconsider(struct mr_client *client);

/** True when its peer has not sent, nor taken, a byte for that long. */
bool mr_client_is_idle(struct mr_client *client, uint32_t ms);

/** Ends the client, as if the network had failed. */
void mr_client_cut(struct mr_client *client, int error);

/** Ends the client in good order once its line is empty. */
void mr_client_finish(struct mr_client *client);

/** Takes the request at the head of the line, the only one there, out of it unanswered. */
void mr_client_withdraw(struct mr_request *request);

/**
 * Routes one parsed request; see dispatch.c. False when it cannot be taken yet: the client pauses
 * for a reason that is `barred`, then it is parsed again.
 */
bool mr_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx,
                 const struct mr_msg *msg);

/** The same for one that needs nothing of a pin. */
bool mr_dispatch_plain(struct mr_client *client, const struct mr_proto_ctx *ctx,
                       const struct mr_msg *msg);

/** A request for the message that a server will answer, at the end of the client's line. */
struct mr_request *mr_dispatch_request(struct mr_client *client, const struct mr_msg *msg);

/** Sends a request to several servers and joins their replies; see gather.c. */
void mr_gather(struct mr_client *client, const struct mr_msg *msg);

/** Sends a request to every server and joins their replies. */
void mr_gather_all(struct mr_client *client, const struct mr_msg *msg);
