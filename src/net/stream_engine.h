/* stream_engine.h - the side of a stream that the loop and the engines see; private to src/net. */
#pragma once

#include "net/stream.h"

#include <sys/types.h>

#define MR_STREAM_ENGINE_SHIFT 11 /* bits of stream->flags from here on belong to the engine */

bool mr_stream_wants_read(const struct mr_stream *s);
bool mr_stream_wants_write(const struct mr_stream *s);
bool mr_stream_awaits_sent(const struct mr_stream *s);  /* its owner waits for output to leave */
bool mr_stream_has_ended(const struct mr_stream *s);    /* the peer sends no more */
bool mr_stream_is_resting(const struct mr_stream *s);   /* see mr_stream_rest */
bool mr_stream_is_finishing(const struct mr_stream *s); /* see mr_stream_finish */

/**
 * Hands received bytes to the owner. There must be `headroom` writable bytes before `bytes`; a
 * remainder that fits there makes one piece with the new bytes without growing a buffer.
 */
void mr_stream_deliver(struct mr_stream *s, char *bytes, size_t len, size_t headroom);

/** The peer closed its side (error 0) or the connection failed. */
void mr_stream_peer_gone(struct mr_stream *s, int error);

/** The connection has failed in a way that a wait for nothing in particular tells of. */
void mr_stream_hung_up(struct mr_stream *s);

/** The socket takes output again, or a connect has ended. */
void mr_stream_writable(struct mr_stream *s);

/** Gives what is queued to the engine's `send`. */
void mr_stream_flush(struct mr_stream *s);

/** The engine takes the whole output; more may be written while it sends. */
void mr_stream_sending(struct mr_stream *s, struct mr_buf *taken);

/** What mr_stream_sending gave has left as far as `sent` tells: bytes, or minus an errno. */
void mr_stream_sent(struct mr_stream *s, struct mr_buf *taken, ssize_t sent);

/** Sends all of the output with a system call, and tells mr_stream_sent. */
void mr_stream_send_now(struct mr_stream *s);

/** Nothing refers to a closed stream any more, and its fd is closed: it can be reaped. */
void mr_stream_released(struct mr_stream *s);

/** Presents a remainder again after mr_stream_resume. */
void mr_stream_redeliver(struct mr_stream *s);

/** Frees the buffers and tells the owner. */
void mr_stream_reap(struct mr_stream *s);
