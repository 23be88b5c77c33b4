/*
 * lease.h - a server connection dedicated to one client for a while, so that its state there
 * (watched keys, a blocking command) affects nobody else.
 *
 * Unused connections are kept and given to the next client. Each worker has at most `server_leases`
 * per server. When all are taken, clients queue for up to `lease_timeout`.
 */
#pragma once

#include "core/list.h"
#include "upstream/call.h"
#include "upstream/server.h"

struct mr_backend;

struct mr_lease {
    struct mr_server *server;   /* NULL: neither leased nor waiting */
    struct mr_backend *backend; /* NULL while waiting, and once the connection is lost */
    struct mr_list waiting;     /* in the server's wait queue */
    uint64_t since_us;          /* loop time when it joined the queue */
    uint8_t lane;
    const char *refusal; /* why there is no connection, or NULL */
    /** The wait is over: `backend` or `refusal` is set. Never called inside mr_lease_take. */
    void (*on_turn)(struct mr_lease *lease);
};

/**
 * Requests a connection. The lease must be zeroed but for on_turn. The connection may still be
 * connecting when it is granted.
 * @return true if granted or refused at once; false if on_turn will be called
 */
bool mr_lease_take(struct mr_lease *lease, struct mr_server *server, uint8_t lane);

/** True while the connection is usable. */
static inline bool mr_lease_holds(const struct mr_lease *lease)
{
    return lease->backend != NULL;
}

/** Queues a request, see mr_server_send. Fails if the connection is lost. */
const char *mr_lease_send(struct mr_lease *lease, struct mr_call *call, struct mr_slice request);

/** State that a user leaves on a connection. */
enum mr_lease_state {
    MR_LEASE_CLEAN, /* none */
    MR_LEASE_USED,  /* state that mr_proto.lease.reset clears */
    MR_LEASE_SPOILT /* a request in flight, or unknown state: the connection is closed and its
                       requests fail */
};

/** Returns the connection, or leaves the queue. Does nothing if nothing is leased. */
void mr_lease_end(struct mr_lease *lease, enum mr_lease_state state);

/**
 * Asks the server to end the blocking command: as by a time-out, or with an error that is judged
 * as MR_REPLY_RETRY.
 * @return false if the connection's id is unknown or the server cannot be asked
 */
bool mr_lease_unblock(struct mr_lease *lease, bool timed_out);

/**
 * Moves the connection to another lane, keeping its user's state. No request may be in flight. If
 * the server refuses, the connection is closed.
 * @return false if it is not possible
 */
bool mr_lease_change_lane(struct mr_lease *lease, uint8_t lane);

/**
 * Sends mr_proto.lease.mark. If the server refuses it, the connection is closed, and what follows
 * fails. @return false if it cannot be sent
 */
bool mr_lease_mark(struct mr_lease *lease);

/* ---- for the rest of upstream/ ---- */

void mr_leases_init(struct mr_server *server);

/** Refuses everybody in the queue. */
void mr_leases_refuse(struct mr_server *server, const char *reason);
