/* stream_engine.h - what the loop and the engines see of a stream; private to src/net. */
#pragma once

#include "net/stream.h"

#include <sys/types.h>

#define MR_STREAM_ENGINE_SHIFT 15 /* flag bits from here on belong to the engine */

bool mr_stream_wants_read(const struct mr_stream *s);
bool mr_stream_wants_write(const struct mr_stream *s);
bool mr_stream_awaits_sent(const struct mr_stream *s);  /* the owner waits for output to be sent */
bool mr_stream_has_ended(const struct mr_stream *s);    /* the peer sends no more */
bool mr_stream_is_resting(const struct mr_stream *s);   /* detached from the engine */
bool mr_stream_is_finishing(const struct mr_stream *s); /* a shutdown follows the output */

/**
 * Delivers received bytes to the owner. `headroom` bytes before `bytes` must be writable: a
 * remainder that fits there is joined with the new bytes without growing a buffer.
 */
void mr_stream_deliver(struct mr_stream *s, char *bytes, size_t len, size_t headroom);

/** The peer has closed (error 0), or the connection failed. */
void mr_stream_peer_gone(struct mr_stream *s, int error);

/** A hang-up was reported while there was no interest in input. */
void mr_stream_hung_up(struct mr_stream *s);

/** The socket is writable again, or a connect has finished. */
void mr_stream_writable(struct mr_stream *s);

/** Passes queued output to the engine's `send`. */
void mr_stream_flush(struct mr_stream *s);

/** Gives the engine all output. More may be written while it sends. */
void mr_stream_sending(struct mr_stream *s, struct mr_buf *taken);

/** Result of a send: bytes sent, or -errno. Unsent bytes of `taken` go back. */
void mr_stream_sent(struct mr_stream *s, struct mr_buf *taken, ssize_t sent);

/** Sends all output in one system call, and calls mr_stream_sent. */
void mr_stream_send_now(struct mr_stream *s);

/** The engine has closed the fd of a closed stream and no longer refers to it. */
void mr_stream_released(struct mr_stream *s);

/** Delivers a remainder again after mr_stream_resume. */
void mr_stream_redeliver(struct mr_stream *s);

/** Frees the buffers and calls on_close. */
void mr_stream_reap(struct mr_stream *s);
