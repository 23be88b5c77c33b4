/*
 * filter.h - what stands between a stream and its socket, and may change the bytes both ways.
 *
 * Owners, engines and handovers deal with a filtered stream as with any other: `in` holds what the
 * owner reads, `out` what the socket gets. A stream without a filter pays nothing for the slot,
 * neither time nor memory: the filter keeps a copy of the owner's callbacks, and the stream refers
 * to that copy.
 */
#pragma once

#include "net/stream.h"

struct mr_filter;

/** The four functions at the end of this file are for these callbacks. */
struct mr_filter_ops {
    /** The socket is connected. NULL: so is the stream. Else mr_filter_opened says when. */
    void (*on_connect)(struct mr_filter *f, struct mr_stream *s);
    /**
     * Bytes came from the socket; the `headroom` bytes before them are writable. The filter keeps
     * what it cannot yet pass on.
     */
    void (*on_receive)(struct mr_filter *f, struct mr_stream *s, char *bytes, size_t len,
                       size_t headroom);
    /** The owner writes. Large pieces may be sent at once. */
    void (*on_write)(struct mr_filter *f, struct mr_stream *s, const char *bytes, size_t len);
    /** The owner has written its last byte; the filter may append to it. May be NULL. */
    void (*on_finish)(struct mr_filter *f, struct mr_stream *s);
    /** True if another process could not continue from the descriptor, `in` and `out` alone. */
    bool (*is_tied)(const struct mr_filter *f);
    /** The stream is done with the filter. */
    void (*on_release)(struct mr_filter *f, struct mr_stream *s);
};

struct mr_filter {
    const struct mr_filter_ops *ops;
    struct mr_stream_ops owner; /* a copy of `real`: what the stream of this filter refers to */
    const struct mr_stream_ops *real;
};

/**
 * Puts a filter into a stream that was opened just now, before any byte has passed. The stream uses
 * it until on_release.
 */
void mr_filter_insert(struct mr_filter *f, const struct mr_filter_ops *ops, struct mr_stream *s);

/** Takes the filter out; on_release runs at once. Bytes then pass as they are. */
void mr_filter_remove(struct mr_filter *f, struct mr_stream *s);

/** The stream is open, not just its socket. */
void mr_filter_opened(struct mr_stream *s);

/** Passes input on to the owner. */
void mr_filter_deliver(struct mr_stream *s, char *bytes, size_t len, size_t headroom);

/** Passes output on to the socket. */
void mr_filter_send(struct mr_stream *s, const char *bytes, size_t len);
