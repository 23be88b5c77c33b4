/*
 * pin.h - a client's state at servers beyond single requests: an open transaction, watched keys, a
 * blocking command. Private to src/session.
 *
 * A transaction is queued here and sent in one run when it is committed, so it needs no connection
 * of its own. Watched keys and blocking commands need a lease, until no such state is left. All
 * requests of a client in flight use the same connection, leased or shared; a request for the other
 * kind waits until the queue is empty.
 */
#pragma once

#include "session/client.h"
#include "upstream/lease.h"

struct mr_pin {
    struct mr_client *client;
    struct mr_lease lease;
    uint32_t in_flight;     /* requests on the lease */
    bool watching;          /* keys are watched on the lease */
    uint32_t watched_group; /* of the first of them, see mr_pool_group */
    bool broken;            /* watched keys were lost: the next commit must fail */
    bool blocked;           /* the request in flight may block */
    bool once;              /* it cannot be repeated elsewhere */
    uint64_t unblock_us;    /* loop time of the last attempt to unblock it; 0: none */
    struct mr_buf kept;     /* bytes of a request that may have to be repeated elsewhere */
    struct mr_buf written;  /* bytes of the requests in flight, for mr_mirror_run */

    /* where servers redirect requests */
    struct mr_server *asking; /* target of an ASK redirect, for the next request; NULL */
    uint64_t redirected_us;   /* when the request was first redirected; 0: never */
    bool watched;             /* value of `watching` without the request in flight */
    bool moved;               /* a command of the transaction in flight was redirected */

    bool open; /* a transaction is open */
    bool aborted;
    uint32_t n_queued;   /* messages in it, including the one that began it */
    uint32_t replayed;   /* of these, messages to be parsed again: another process answered them */
    struct mr_buf queue; /* their bytes */
    struct mr_server *server; /* server of its keys; NULL while it has none */
    uint32_t group;           /* group of its keys, see mr_pool_group */
    struct mr_buf key;        /* one of its keys, if it may have to be sent again */
};

/** State beyond the session that moves with the client. */
struct mr_pin_luggage {
    struct mr_slice topics; /* see mr_subscribe_unpack */
    struct mr_slice queue;
    uint32_t n_queued;
    bool aborted;
    bool broken;
};

/** Dispatches a message with a step, or of a client with a pin. Returns like mr_dispatch. */
bool mr_pin_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx,
                     const struct mr_msg *msg);

/** Releases everything when the client is gone. Does nothing without a pin. */
void mr_pin_free(struct mr_client *client);

/** True while a command of the client blocks. */
bool mr_pin_blocks(const struct mr_client *client);

/**
 * Another client ends the blocking command, as if timed out or with an error. False if impossible.
 */
bool mr_pin_end_block(struct mr_client *client, bool timed_out);

/** True while the client waits for a blocking command or for a lease. */
bool mr_pin_waits(const struct mr_client *client);

/**
 * Prepares the client to move: a blocking command will be repeated there, watched keys are given
 * up. Call it repeatedly until mr_pin_can_travel.
 */
void mr_pin_loosen(struct mr_client *client);

/**
 * Ends a blocking command with an error, because the client is to be closed. Call it repeatedly.
 */
void mr_pin_unblock(struct mr_client *client);

bool mr_pin_can_travel(const struct mr_client *client);
struct mr_pin_luggage mr_pin_pack(const struct mr_client *client);

/** The luggage's `queue` is also the beginning of the client's input. */
void mr_pin_unpack(struct mr_client *client, const struct mr_pin_luggage *luggage);

/* ---- shared by pin.c and transaction.c ---- */

/** The client's pin, created if necessary. */
struct mr_pin *mr_pin_of(struct mr_client *client);

/** Gives up an unused lease, and frees the pin if it has no state left. */
void mr_pin_settle(struct mr_client *client);

/** Replies to the current message, unless another process already has. */
void mr_pin_say(struct mr_client *client, enum mr_saying saying);
void mr_pin_say_text(struct mr_client *client, struct mr_slice reply);

/** Sends over the lease. */
void mr_pin_send(struct mr_client *client, const struct mr_msg *msg, struct mr_slice wire,
                 uint32_t early);

/** Makes the client wait for an empty queue. Returns false, for mr_dispatch. */
bool mr_pin_wait_for_line(struct mr_client *client);

/**
 * The server of the message's keys, or NULL with *reason set; "" if they are on several servers.
 */
struct mr_server *mr_pin_target(struct mr_client *client, const struct mr_msg *msg,
                                const char **reason);

/** transaction.c */
bool mr_transaction_take(struct mr_client *client, const struct mr_msg *msg);

/** Drops the transaction and stops watching. False, for mr_dispatch, if it has to wait. */
bool mr_transaction_forget(struct mr_client *client);
void mr_transaction_drop(struct mr_pin *pin);
