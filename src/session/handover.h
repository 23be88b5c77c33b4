/*
 * handover.h - a client connection goes on in another process, without the client seeing it.
 *
 * A client travels at a request boundary: every request that it sent and that was dispatched has
 * its reply. With the descriptor go the session, the input that was not dispatched yet and the
 * output that the client has not taken yet. The format is versioned and length-checked, so that
 * processes of different builds either understand each other or say so.
 */
#pragma once

#include "session/service.h"

/** Both ends of a way for clients; the caller owns them. Non-blocking, close-on-exec. */
enum mr_result mr_handover_open(int ends[2], struct mr_error *err) MR_MUST_USE;

/**
 * Hands over every client of the service that can travel now. Call it after each turn until
 * mr_service_empty: a client with requests in flight travels when they are answered, one that is
 * being closed here stays until it is.
 * @return MR_OK, or why nobody takes clients any more; those that are left are served on
 */
enum mr_result mr_handover_clients(struct mr_service *service, int channel,
                                   struct mr_error *err) MR_MUST_USE;

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
    int fd;              /* of the client that is coming in, -1 between two */
    struct mr_buf bytes; /* of it, so far */
    size_t total;        /* of it */
};

/** `channel` is taken. */
void mr_handover_receive(struct mr_handover_receiver *r, struct mr_loop *loop, int channel,
                         struct mr_service *services, uint32_t n_services);

/** True while clients wait to be taken in. */
bool mr_handover_waiting(const struct mr_handover_receiver *r);

/** Stops; fine for one that has stopped by itself since the other side is gone. */
void mr_handover_stop(struct mr_handover_receiver *r);
