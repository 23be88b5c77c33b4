/*
 * handover.h - a client connection goes on in another process, without the client seeing it.
 *
 * A client travels at a request boundary: every request that it sent and that was dispatched has
 * its reply. With the descriptor go the session, the input that was not dispatched yet and the
 * output that the client has not taken yet, in as many messages as that takes. Each message says
 * which client it belongs to and where its bytes go, and the last one carries the descriptor. So a
 * sender that dies in between closes this client, a receiver drops what it cannot complete, and
 * whatever happened to one client the next one arrives.
 */
#pragma once

#include "session/service.h"

#define MR_HANDOVER_VERSION 3u /* of the messages; both ends must be of the same */

/** Opens a socket pair for handovers; the caller owns both. Non-blocking, close-on-exec. */
enum mr_result mr_handover_open(int ends[2], struct mr_error *err) MR_MUST_USE;

/** Sends clients; zeroed before the first use. */
struct mr_handover_sender {
    struct mr_service *service; /* whose client is under way, see `travelling` there; or NULL */
    uint32_t number;            /* of that client, counted by this sender */
    size_t at;                  /* bytes of it that were sent */
    uint64_t moved_us;          /* loop time when a message was last taken */
};

/**
 * Hands over every client of the `n` services that can travel now, as far as the other side takes
 * them; never waits. Call it after each turn until mr_service_empty: a client with requests in
 * flight travels when they are answered, one that is being closed here stays until it is.
 * @return MR_OK, or why nobody takes clients any more
 */
enum mr_result mr_handover_clients(struct mr_handover_sender *h, struct mr_service *services,
                                   uint32_t n, int channel, struct mr_error *err) MR_MUST_USE;

/** Gives a connection that was just accepted to another worker; the fd stays ours. Never waits. */
enum mr_result mr_handover_new(const struct mr_service *service, int channel, int fd,
                               struct mr_error *err) MR_MUST_USE;

/** Takes clients in. */
struct mr_handover_receiver {
    struct mr_watch watch;
    struct mr_loop *loop;
    struct mr_service *services; /* borrowed: those that clients may belong to */
    uint32_t n_services;
    int64_t *due;        /* counted down for each new connection; NULL for none */
    uint64_t missing_us; /* loop time since which one is due that does not come; 0: none is */
    uint32_t number;     /* of the client that is coming in */
    struct mr_buf bytes; /* of it, so far */
    uint64_t total;      /* of it; 0: none is coming in */
};

/** `channel` is taken. */
void mr_handover_receive(struct mr_handover_receiver *r, struct mr_loop *loop, int channel,
                         struct mr_service *services, uint32_t n_services);

/** True while clients wait to be taken in, or are due. */
bool mr_handover_waiting(struct mr_handover_receiver *r);

/** True once nobody can send clients any more, and all that were sent were taken in. */
bool mr_handover_ended(const struct mr_handover_receiver *r);

/** Stops; fine for one that has stopped by itself since the other side is gone. */
void mr_handover_stop(struct mr_handover_receiver *r);
