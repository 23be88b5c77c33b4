/*
 * lease.h - a server connection that one client has for itself for a while: what it leaves there,
 * watched keys or a command that blocks, concerns nobody else.
 *
 * Connections without a user are kept and given to the next one. Each server has at most
 * `server_leases` in each worker; who comes when all are taken waits in line, for `lease_timeout`.
 */
#pragma once

#include "core/list.h"
#include "upstream/call.h"
#include "upstream/server.h"

struct mr_backend;

struct mr_lease {
    struct mr_server *server;   /* NULL: nothing is leased nor waited for */
    struct mr_backend *backend; /* NULL while it is waited for, and once the connection is lost */
    struct mr_list waiting;     /* in the server's line */
    uint64_t since_us;          /* loop time when it joined the line */
    uint8_t lane;
    const char *refusal; /* why it was not had; NULL */
    /** It no longer waits: `backend` is set, or `refusal`. Never inside mr_lease_take. */
    void (*on_turn)(struct mr_lease *lease);
};

/** Descriptors for leased connections, shared by all pools of a worker. */
struct mr_lease_room {
    uint32_t n; /* leased connections, those without a user included */
    bool (*is_left)(const struct mr_lease_room *room);
};

/**
 * Leases a connection; zeroed but for on_turn. A connection that is still being made counts as had.
 * @return true when it was had, or refused, at once; false: on_turn will come
 */
bool mr_lease_take(struct mr_lease *lease, struct mr_server *server, uint8_t lane);

/** True while the connection can be used. */
static inline bool mr_lease_holds(const struct mr_lease *lease)
{
    return lease->backend != NULL;
}

/** Queues a request, see mr_server_send; fails when the connection is lost. */
const char *mr_lease_send(struct mr_lease *lease, struct mr_call *call, struct mr_slice request);

/** What its user has left on a connection. */
enum mr_lease_state {
    MR_LEASE_CLEAN, /* nothing */
    MR_LEASE_USED,  /* what mr_proto.lease.reset takes away */
    MR_LEASE_SPOILT /* a request in flight, or nobody knows: it is closed, what is in flight fails
                     */
};

/** Gives the connection, or the place in the line, back. Fine when nothing is leased. */
void mr_lease_end(struct mr_lease *lease, enum mr_lease_state state);

/**
 * Asks the server to end the command that blocks on the connection, with an error that
 * mr_proto.lease.is_unblocked tells. @return false when the server has not said how it calls the
 * connection, or cannot be asked
 */
bool mr_lease_unblock(struct mr_lease *lease);

/* ---- for the other files of upstream/ ---- */

void mr_leases_init(struct mr_server *server);

/** A leased connection has closed: the next in line may have another one. */
void mr_leases_lost(struct mr_server *server);

/** Nobody gets one any more: who waits is refused, spare connections close. */
void mr_leases_refuse(struct mr_server *server, const char *reason);
