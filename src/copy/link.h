/*
 * link.h - a client connection to a pool of the running proxy, over its own listening address.
 *
 * Requests are pipelined: send several, then read as many replies.
 */
#pragma once

#include "config/config.h"

#include <hiredis/hiredis.h>

struct mr_link {
    const struct mr_pool_config *pool; /* borrowed */
    const char *user;                  /* NULL: the pool's password, if it has one */
    const char *password;
    uint32_t db;
    redisContext *context; /* NULL: not connected */
    uint32_t unread;       /* replies still to come */
    size_t unsent;         /* bytes of requests since the last reply was read */
    char trouble[128];     /* why the last connection broke */
};

/** Connects, logs in and selects the database. Does nothing if it is connected. */
enum mr_result mr_link_open(struct mr_link *link, struct mr_error *err) MR_MUST_USE;
void mr_link_close(struct mr_link *link);

/** Queues a request. */
void mr_link_send(struct mr_link *link, int n, const char **args, const size_t *lens);

/** Queues a request of words without blanks in them. */
void mr_link_ask(struct mr_link *link, const char *first, ...) __attribute__((sentinel));

/** The next reply, owned by the caller; NULL if the connection broke. It is closed then. */
redisReply *mr_link_reply(struct mr_link *link);
