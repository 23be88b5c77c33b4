/* backend.h - one connection to a server; private to src/upstream. */
#pragma once

#include "net/loop.h"
#include "net/stream.h"
#include "upstream/server.h"

/** What a connection is for. */
enum mr_backend_kind {
    MR_BACKEND_SHARED, /* the requests of all clients */
    MR_BACKEND_PROBE,  /* health checks; what it does is not counted */
    MR_BACKEND_LEASE,  /* one client at a time, see lease.h */
};

enum mr_backend_state { MR_BACKEND_CONNECTING, MR_BACKEND_HELLO, MR_BACKEND_READY };

struct mr_backend {
    struct mr_stream stream;
    struct mr_list link; /* in server->backends */
    struct mr_server *server;
    struct mr_server_metrics *metrics; /* where it counts */
    struct mr_backend **home;          /* what is NULL once it takes no more requests; or NULL */
    struct mr_call *head;              /* in flight, in order */
    struct mr_call **tail;
    struct mr_timer timer;
    struct mr_alarm hold; /* ends the gathering of a batch, where it has a limit in time */
    struct mr_reply_state scan;
    struct mr_buf held;  /* requests that wait for the hello to be accepted */
    struct mr_buf late;  /* of struct late: their replies come first, and are thrown away */
    uint64_t read_us;    /* when the server last sent something */
    uint64_t drained_us; /* when output that was held up has last left */
    uint32_t hello_sent; /* replies to the hello that are due in all */
    uint32_t hello_seen;
    uint32_t n_calls; /* in flight */
    uint32_t unsent;  /* of these, counted as in_queue: the last ones */
    uint64_t unsent_bytes;
    enum mr_backend_state state;
    enum mr_backend_kind kind;
    bool near;    /* the network adds little to what waits for an answer */
    bool holding; /* a batch of requests is gathered */
    bool retired;
    bool timed_out;
    bool answered; /* a reply has come */
    bool midway;   /* a piece of the next reply has been taken */
    uint8_t able;  /* what the server has shown in the hello that it is able to do */
    uint8_t lane;
    const char *refused; /* why the connection is of no use, when it is not an errno that says it */

    /* of a lease */
    uint64_t peer_id;     /* how the server calls the connection; 0: it has not said */
    struct mr_list spare; /* among those without a user; its owner is lease.c, like what follows */
    struct mr_call reset; /* between two users */
};

/**
 * Starts to connect.
 * @param home set to the connection, and to NULL once it takes no more requests
 * @return 0, or an errno; *home is untouched then
 */
int mr_backend_connect(struct mr_backend **home, struct mr_server *server, uint8_t lane,
                       enum mr_backend_kind kind);

/** Connects unless the server is to be left alone for now; NULL, or why there is no connection. */
const char *mr_server_connect(struct mr_server *server, struct mr_backend **home, uint8_t lane,
                              enum mr_backend_kind kind);

/**
 * Queues a request behind those already there.
 * @return NULL; or why the server cannot be asked that, the call was not taken then
 */
const char *mr_backend_send(struct mr_backend *b, struct mr_call *call, struct mr_slice request);

/** True when the server owes no reply. */
bool mr_backend_idle(const struct mr_backend *b);

/** False for a connection that only probes. */
bool mr_backend_serves(const struct mr_backend *b);

/** Takes no more requests; closes once it has answered those it has. */
void mr_backend_retire(struct mr_backend *b);

/** Closes now; what is in flight fails with the reason of `error` at the end of the turn. */
void mr_backend_close(struct mr_backend *b, int error);

/** Closes a connection that nobody needs any more: that is no failure of the server. */
void mr_backend_drop(struct mr_backend *b);

/** Next in server->backends; NULL after the last. Pass NULL for the first. */
struct mr_backend *mr_backend_next(struct mr_server *server, struct mr_backend *b);

/** It changes hands: `home` is what becomes NULL from now on; may be NULL. */
void mr_backend_rehome(struct mr_backend *b, struct mr_backend **home);
