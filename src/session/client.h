/* client.h - a client connection and its request queue; private to src/session. */
#pragma once

#include "net/stream.h"
#include "session/service.h"
#include "upstream/again.h"

enum mr_request_state {
    MR_REQUEST_WAITING, /* for a server */
    MR_REQUEST_DONE,    /* `reply` has the whole reply */
};

/** A request in its client's queue. */
struct mr_request {
    struct mr_call call;     /* to the server, unless it is split */
    struct mr_request *next; /* next in the queue */
    struct mr_service *service;
    struct mr_client *client; /* NULL once the client is gone; the reply is then discarded */
    struct mr_buf reply;      /* what arrived before its turn */
    uint64_t since_us;        /* loop time when it was parsed */
    struct mr_again *again;   /* to try another server; may be NULL */
    uint32_t bytes;           /* size, counted against the limit in flight */
    uint8_t class;            /* enum mr_class */
    uint8_t state;            /* enum mr_request_state */
    bool started : 1;         /* part of the reply was written */
    bool edits : 1;           /* see struct mr_msg; still to be done */
    bool hidden : 1;          /* the reply is not shown */
};

/*
 * Reasons not to read from a client: a bit, a name, and the event that ends each. A client may
 * pause only if that event is certain to come; whoever causes it calls mr_client_reconsider.
 */
#define MR_PAUSES(X)                                                                               \
    X(HELD, "held")                   /* mr_service_release */                                     \
    X(PIPELINE, "pipeline")           /* a request completes: the queue was full */                \
    X(REQUEST_BYTES, "request_bytes") /* same: its requests were large */                          \
    X(REPLY_BYTES, "reply_bytes")     /* same: their replies would be large */                     \
    X(EARLY_REPLIES, "early_replies") /* same: too many replies arrived out of order */            \
    X(LINE, "line")     /* the queue is empty: the next request takes another connection */        \
    X(LEASE, "lease")   /* the lease is granted or refused */                                      \
    X(LANE, "lane")     /* mr_pool.on_lane_known */                                                \
    X(OUTPUT, "output") /* on_room: the client reads more slowly than it asks */

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
    unsigned pauses;                  /* bits of enum mr_pause; 0 while reading */
    unsigned barred;                  /* those of LINE, LEASE and LANE that hold */
    uint32_t map_changes;             /* version of the pool's map that its queue was routed by */
    struct mr_subscriber *subscriber; /* see subscribe.h; may be NULL */
    struct mr_pin *pin;               /* state beyond single requests, see pin.h; may be NULL */
    struct mr_request *head;
    struct mr_request *tail;
    struct mr_request *unsent; /* answered, but its reply is not sent yet */
    uint64_t since_us;         /* loop time when it connected */
    uint64_t wrote_us;         /* loop time of the client's last write */
    size_t held_bytes;         /* replies that arrived before their turn */
    uint64_t answered_bytes;   /* size of recent replies, see `answered` */
    uint32_t answered;         /* number of recent replies */
    uint32_t n_requests;       /* in the queue */
    uint32_t inflight_bytes;   /* size of these requests */
    bool eof;                  /* the client has sent its last byte */
    bool closing;              /* close after the last reply */
    bool lingering;            /* closed on our side */
    bool quit;                 /* the client asked to quit */
    bool moved;                /* handed over to another process */
    uint8_t stalls;            /* while lingering: checks without progress */
    uint32_t untaken;          /* unsent bytes at the last check */
};

/** Takes over an accepted socket. */
void mr_client_open(struct mr_service *service, int fd);

/**
 * Takes over a client from another process: `session` (takes its labels), the time since its last
 * write (0 if irrelevant), undispatched input and unsent output.
 */
void mr_client_adopt(struct mr_service *service, int fd, const struct mr_session *session,
                     const struct mr_pin_luggage *luggage, uint64_t wrote_ago_us,
                     struct mr_slice in, struct mr_slice out);

/**
 * Appends a request for the message to the client's queue. Inlined, because it runs for every
 * request.
 */
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
    r->hidden = client->session.mute != 0;
    if (client->tail != NULL)
        client->tail->next = r;
    else
        client->head = r;
    client->tail = r;
    client->n_requests++;
    client->inflight_bytes += r->bytes;
    return r;
}

/** Sends completed replies from the head of the queue. Call it when a request completes. */
void mr_client_advance(struct mr_client *client);

/** Handles bytes of a reply: sends them if it is the request's turn, otherwise keeps them. */
void mr_client_reply(struct mr_request *request, const char *bytes, size_t len, bool done);

/**
 * mr_client_reply with a whole reply. Takes its memory over where that saves copying it; `reply` is
 * empty afterwards.
 */
void mr_client_give_reply(struct mr_request *request, struct mr_buf *reply);

/** Fails the request with an error reply of the proxy. */
void mr_client_fail(struct mr_request *request, const char *reason);

/** Sends a reply of the proxy, after all requests in the queue. */
void mr_client_answer(struct mr_client *client, struct mr_slice reply);

/** Frees a request that has left the queue or lost its client. */
void mr_request_free(struct mr_request *request);

/** Cuts the client if its pending output exceeds the limit. */
void mr_client_check_output(struct mr_client *client);

/** A condition for pausing has eased: resumes reading if none is left. */
void mr_client_reconsider(struct mr_client *client);

/** True if no byte was sent or taken by the peer for that long. */
bool mr_client_is_idle(struct mr_client *client, uint32_t ms);

/** Closes the connection at once, as if the network had failed. */
void mr_client_cut(struct mr_client *client, int error);

/** Closes in an orderly way. The queue must be empty. */
void mr_client_finish(struct mr_client *client);

/** Removes the only request in the queue, unanswered. */
void mr_client_withdraw(struct mr_request *request);

/**
 * Routes a parsed request, see dispatch.c. False if it cannot be taken yet: the client pauses for a
 * `barred` reason and the request is parsed again later.
 */
bool mr_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx,
                 const struct mr_msg *msg);

/** The same for a request that does not involve the pin. */
bool mr_dispatch_plain(struct mr_client *client, const struct mr_proto_ctx *ctx,
                       const struct mr_msg *msg);

/** Appends a request that a server will answer to the client's queue. */
struct mr_request *mr_dispatch_request(struct mr_client *client, const struct mr_msg *msg);

/** If servers redirect: keeps a copy of the requests that end with this one. */
void mr_dispatch_keep_run(struct mr_request *request, struct mr_slice run, struct mr_slice key,
                          struct mr_server *server, uint8_t lane);

/**
 * Splits a request whose keys are in several groups, and joins the replies, see gather.c. Otherwise
 * does nothing, and returns the target of the whole request; its server is NULL after a split.
 */
struct mr_target mr_gather(struct mr_client *client, const struct mr_msg *msg);

/** Sends a request to all servers and joins the replies. */
void mr_gather_all(struct mr_client *client, const struct mr_msg *msg);

/** Sends an IN_TURN request to the server whose turn it is. */
void mr_gather_in_turn(struct mr_client *client, const struct mr_msg *msg);
