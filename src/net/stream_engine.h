/* stream_engine.h - the side of a stream that the loop and the engines see; private to src/net. */
#pragma once

#include "net/stream.h"

bool mr_stream_wants_read(const struct mr_stream *s);
bool mr_stream_wants_write(const struct mr_stream *s);

/**
 * Hands received bytes to the owner. There must be `headroom` writable bytes before `bytes`; a
 * remainder that fits there makes one piece with the new bytes without growing a buffer.
 */
void mr_stream_deliver(struct mr_stream *s, char *bytes, size_t len, size_t headroom);

/** The peer closed its side (error 0) or the connection failed. */
void mr_stream_peer_gone(struct mr_stream *s, int error);

/** The socket takes output again, or a connect has ended. */
void mr_stream_writable(struct mr_stream *s);

/** Sends what is queued. */
void mr_stream_flush(struct mr_stream *s);

/** Presents a remainder again after mr_stream_resume. */
void mr_stream_redeliver(struct mr_stream *s);

/** Frees the buffers and tells the owner. */
void mr_stream_reap(struct mr_stream *s);
