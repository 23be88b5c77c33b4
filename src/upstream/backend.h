/* backend.h - a server connection; private to src/upstream. */
#pragma once

#include "net/loop.h"
#include "net/stream.h"
#include "upstream/batch.h"
#include "upstream/server.h"

/** What a connection is used for. */
enum mr_backend_kind {
    MR_BACKEND_SHARED, /* requests of all clients */
    MR_BACKEND_PROBE,  /* health checks; not counted in the metrics */
    MR_BACKEND_LEASE,  /* one client at a time, see lease.h */
    MR_BACKEND_FEED,   /* subscriptions, see feed.h */
};

struct mr_backend;

/** Who uses a connection. Callbacks may be NULL. */
struct mr_backend_user {
    enum mr_backend_kind kind;
    /** Handles what came in; false if it is a reply. Pieces are not passed on, see `max_bytes`. */
    bool (*take)(struct mr_backend *b, struct mr_slice bytes);
    uint32_t (*max_bytes)(const struct mr_pool *pool); /* goes with `take`: the longest message */
    void (*on_lost)(
        struct mr_server *server); /* the connection is gone, its requests have failed */
};

enum mr_backend_state { MR_BACKEND_CONNECTING, MR_BACKEND_HELLO, MR_BACKEND_READY };

struct mr_backend {
    struct mr_stream stream;
    struct mr_list link; /* in server->backends */
    struct mr_server *server;
    const struct mr_backend_user *user;
    struct mr_server_metrics *metrics; /* where it is counted */
    struct mr_backend **home; /* pointer to this connection, set to NULL once it takes no more
                                 requests; may be NULL */
    struct mr_call *head;     /* requests in flight, in order */
    struct mr_call **tail;
    struct mr_timer timer;
    struct mr_batch batch;
    struct mr_reply_state scan;
    struct mr_buf held;  /* requests waiting for the greeting to be accepted */
    struct mr_buf late;  /* of struct late: their replies come first and are discarded */
    uint64_t read_us;    /* when the server last sent something */
    uint64_t drained_us; /* when output that had been held up was last sent in full */
    uint32_t hello_sent; /* number of replies that the greeting expects */
    uint32_t hello_seen;
    uint32_t n_calls; /* in flight */
    uint32_t unsent;  /* the last ones of these, counted as in_queue */
    uint64_t unsent_bytes;
    enum mr_backend_state state;
    enum mr_backend_kind kind; /* of `user` */
    bool near;                 /* short round trip, see `coalesce` */
    bool retired;
    bool timed_out;
    bool answered;     /* the server has answered a request on it */
    bool midway;       /* part of the next reply has been handled */
    bool lane_refused; /* the server refuses this lane */
    uint8_t able;      /* abilities the server showed in the greeting, see mr_msg.needs */
    bool extra;        /* counted in mr_extra_room */
    uint8_t lane;
    struct mr_lane *at_lane;
    const char *refused; /* why the connection was given up, if not for an errno */

    /* of a lease */
    uint64_t peer_id;     /* the server's id for this connection; 0: unknown */
    bool unblocked;       /* an unblock was sent, which could hit the next user */
    struct mr_list spare; /* in the list of unused leases; this and `reset` belong to lease.c */
    struct mr_call reset; /* sent between two users */
};

/**
 * Starts to connect.
 * @param home set to the connection, and to NULL once it takes no more requests
 * @return 0, or an errno; *home is then untouched
 */
int mr_backend_connect(struct mr_backend **home, struct mr_server *server, uint8_t lane,
                       const struct mr_backend_user *user);

/** Connects, unless the server is in back-off. Returns NULL, or the reason for not connecting. */
const char *mr_server_connect(struct mr_server *server, struct mr_backend **home, uint8_t lane,
                              const struct mr_backend_user *user);

/** True if the server can serve the request, as far as its greeting has shown. */
static inline bool mr_backend_is_able(const struct mr_backend *b, const struct mr_call *call)
{
    return (call->needs & ~b->able) == 0;
}

/** True if no reply is outstanding. */
bool mr_backend_idle(const struct mr_backend *b);

/** False for connections whose requests are our own: health checks and subscriptions. */
bool mr_backend_serves(const struct mr_backend *b);

/** Takes no more requests, and closes once all replies are in. */
void mr_backend_retire(struct mr_backend *b);

/** Closes at once. Requests in flight fail with the reason of `error` at the end of the turn. */
void mr_backend_close(struct mr_backend *b, int error);

/** Closes a connection that is not needed any more; not counted as a failure. */
void mr_backend_drop(struct mr_backend *b);

/** Iterates over server->backends: pass NULL for the first, returns NULL after the last. */
struct mr_backend *mr_backend_next(struct mr_server *server, struct mr_backend *b);

/**
 * Changes the owner: `home` now points to the connection, and becomes NULL with it. May be NULL.
 */
void mr_backend_rehome(struct mr_backend *b, struct mr_backend **home);

/** The connection is in another lane from the next reply on. */
void mr_backend_set_lane(struct mr_backend *b, uint8_t lane);
