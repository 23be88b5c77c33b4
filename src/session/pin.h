/*
 * pin.h - what a client has at its servers beyond single requests: a transaction that it is
 * putting together, watched keys, a command that blocks. Private to src/session.
 *
 * A transaction is collected here and goes out as one run when it is committed, so it needs no
 * connection of its own. Watched keys and commands that block do: a lease, from the first of them
 * until nothing is left. All requests of a client that are in flight take the same way, over its
 * lease or over shared connections; the first one that takes the other way waits until the line is
 * empty.
 */
#pragma once

#include "session/client.h"
#include "upstream/lease.h"

struct mr_pin {
    struct mr_client *client;
    struct mr_lease lease;
    uint32_t in_flight;  /* requests on the lease */
    bool watching;       /* keys, on the lease */
    bool broken;         /* what was watched is lost: the next commit changes nothing */
    bool blocked;        /* the request in flight may take any time */
    bool once;           /* it cannot be asked again elsewhere */
    uint64_t unblock_us; /* loop time when the server was last told to end it; 0: it was not */
    struct mr_buf kept;  /* the blocked request's bytes, to be asked again elsewhere */

    bool open; /* a transaction is being put together */
    bool aborted;
    uint32_t n_queued;        /* messages in it, the one that began it included */
    uint32_t replayed;        /* of these, still to be read again: answered in another process */
    struct mr_buf queue;      /* their bytes */
    struct mr_server *server; /* of its keys; NULL while it has none */
};

/** What of it travels with a client. */
struct mr_pin_luggage {
    struct mr_slice queue;
    uint32_t n_queued;
    bool aborted;
    bool broken;
};

/** Takes a message that has a step, or comes from a client with a pin; as mr_dispatch. */
bool mr_pin_dispatch(struct mr_client *client, const struct mr_proto_ctx *ctx,
                     const struct mr_msg *msg);

/** The client is gone: gives back what it has. Fine without a pin. */
void mr_pin_free(struct mr_client *client);

/** True while a command of the client blocks. */
bool mr_pin_blocks(const struct mr_client *client);

/** True while the client waits for a server that may take any time, or for a lease. */
bool mr_pin_waits(const struct mr_client *client);

/**
 * The client is to go on elsewhere: what blocks is asked again there, what is watched is given up.
 * Call it again from time to time until mr_pin_can_travel.
 */
void mr_pin_loosen(struct mr_client *client);

/** The client is to end: what blocks is answered with an error. Call it again likewise. */
void mr_pin_unblock(struct mr_client *client);

bool mr_pin_can_travel(const struct mr_client *client);
struct mr_pin_luggage mr_pin_pack(const struct mr_client *client);

/** `queue` of the luggage is the beginning of what the client's stream will present. */
void mr_pin_unpack(struct mr_client *client, const struct mr_pin_luggage *luggage);

/* ---- between pin.c and transaction.c ---- */

/** The client's pin, made when it has none. */
struct mr_pin *mr_pin_of(struct mr_client *client);

/** Frees the pin when nothing is left of it, and gives back what is not needed any more. */
void mr_pin_settle(struct mr_client *client);

/** Answers what the client has just sent, unless another process has done so. */
void mr_pin_say(struct mr_client *client, enum mr_saying saying);
void mr_pin_say_text(struct mr_client *client, struct mr_slice reply);

/** Sends over the lease. */
void mr_pin_send(struct mr_client *client, const struct mr_msg *msg, struct mr_slice wire,
                 uint32_t early);

/** Waits until the line is empty: false for mr_dispatch. */
bool mr_pin_wait_for_line(struct mr_client *client);

/** The server of the message's keys: NULL with *reason set, empty when they are apart. */
struct mr_server *mr_pin_target(struct mr_client *client, const struct mr_msg *msg,
                                const char **reason);

/** transaction.c */
bool mr_transaction_take(struct mr_client *client, const struct mr_msg *msg);

/** Nothing is executed; what was watched is not any more. False for mr_dispatch: it has to wait. */
bool mr_transaction_forget(struct mr_client *client);
void mr_transaction_drop(struct mr_pin *pin);
