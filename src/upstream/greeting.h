/*
 * greeting.h - what is said on a server connection before the first request: authentication, the
 * dialect and database of its lane, and what the server is able to do. Private to src/upstream.
 */
#pragma once

#include "proto/proto.h"

#include <stdbool.h>

struct mr_backend;
struct mr_call;

/** Sends the greeting. */
void mr_greeting_send(struct mr_backend *b);

enum mr_greeting_state {
    MR_GREETING_GOES_ON, /* there are more replies to come */
    MR_GREETING_OVER,    /* the connection is ready */
    MR_GREETING_REFUSED, /* b->refused says why */
};

/** Judges the next reply to it. */
enum mr_greeting_state mr_greeting_take(struct mr_backend *b, struct mr_slice reply);

/**
 * Once it is over: removes the requests that this server cannot serve from those that waited for
 * the connection, and returns them.
 */
struct mr_call *mr_greeting_sort_out(struct mr_backend *b, bool *short_of_memory);

/**
 * True if the connection failed because of its lane: the server said so, or answered in another
 * dialect, or closes connections of this lane but serves another one.
 */
bool mr_greeting_refused(const struct mr_backend *b, int error);
