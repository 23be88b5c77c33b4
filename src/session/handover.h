/*
 * handover.h - moves client connections to another process, unnoticed by the clients.
 *
 * A client moves between requests: every dispatched request has been answered. The session,
 * undispatched input and unsent output are sent in as many messages as they need. Each message
 * names its client and the offset of its bytes, and the last one carries the descriptor. If the
 * sender dies midway, only the client being sent is closed; the receiver drops incomplete clients,
 * and the next one arrives regardless.
 */
#pragma once

#include "session/service.h"

#define MR_HANDOVER_VERSION 3u /* of the messages; both ends must match */

/** Opens a socket pair for handovers, non-blocking and close-on-exec. The caller owns both ends. */
enum mr_result mr_handover_open(int ends[2], struct mr_error *err) MR_MUST_USE;

/** Sending side. Zeroed before first use. */
struct mr_handover_sender {
    struct mr_service *service; /* of the client being sent, in its `travelling`; or NULL */
    uint32_t number;            /* of that client, counting up */
    size_t at;                  /* bytes of it sent so far */
    uint64_t moved_us;          /* loop time when a message was last accepted */
};

/**
 * Sends every client of the `n` services that can move now, as far as the receiver accepts; never
 * waits. Call it after each turn until mr_service_empty. Clients with requests in flight move once
 * these are answered; clients that are being closed stay.
 * @return MR_OK, or why no more clients can be sent
 */
enum mr_result mr_handover_clients(struct mr_handover_sender *h, struct mr_service *services,
                                   uint32_t n, int channel, struct mr_error *err) MR_MUST_USE;

/** Passes a newly accepted connection to another worker. The fd stays ours. Never waits. */
enum mr_result mr_handover_new(const struct mr_service *service, int channel, int fd,
                               struct mr_error *err) MR_MUST_USE;

/** Receiving side. */
struct mr_handover_receiver {
    struct mr_watch watch;
    struct mr_loop *loop;
    struct mr_service *services; /* borrowed; clients belong to one of these */
    uint32_t n_services;
    int64_t *due;        /* decremented for each new connection; may be NULL */
    uint64_t missing_us; /* loop time since when a connection is due but missing; 0: none is */
    uint32_t number;     /* of the client being received */
    struct mr_buf bytes; /* its data so far */
    uint64_t total;      /* size of its data; 0: no client is being received */
};

/** Starts receiving. Takes `channel`. */
void mr_handover_receive(struct mr_handover_receiver *r, struct mr_loop *loop, int channel,
                         struct mr_service *services, uint32_t n_services);

/** True while clients are waiting or due. */
bool mr_handover_waiting(struct mr_handover_receiver *r);

/** True once the senders are gone and all clients were taken. */
bool mr_handover_ended(const struct mr_handover_receiver *r);

/** Stops receiving. Does nothing if it has stopped because the senders are gone. */
void mr_handover_stop(struct mr_handover_receiver *r);
