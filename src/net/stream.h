/*
 * stream.h - a byte stream over a connected socket, completion-style.
 *
 * The owner embeds the struct and sees bytes, never readiness. No callback runs inside an owner's
 * call on the same stream. on_close comes once and last, at the end of a turn; the owner frees
 * the stream's memory in it. Output is flushed once, at the end of the turn.
 */
#pragma once

#include "core/buf.h"
#include "core/list.h"
#include "core/result.h"
#include "net/addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mr_loop;
struct mr_stream;

struct mr_stream_ops {
    /** An outgoing connection is established. */
    void (*on_open)(struct mr_stream *s);
    /**
     * Bytes have come: an earlier remainder first, then the new ones, in one piece. They are
     * borrowed for the call. Returns how many were used up; the stream keeps the rest and
     * presents it again with more behind it (or after mr_stream_resume).
     */
    size_t (*on_data)(struct mr_stream *s, const char *bytes, size_t len);
    /** The peer has sent its last byte; writing may still work. Reading is over. */
    void (*on_eof)(struct mr_stream *s);
    /** Output that had been held up by the peer has all left. */
    void (*on_drain)(struct mr_stream *s);
    /** Output has left until no more is pending than mr_stream_await_room allows. */
    void (*on_room)(struct mr_stream *s);
    /** The stream is gone. `error` is an errno, 0 for an orderly close. */
    void (*on_close)(struct mr_stream *s, int error);
};

struct mr_stream {
    const struct mr_stream_ops *ops;
    struct mr_loop *loop;
    int fd;             /* -1 once closed */
    uint16_t flags;     /* private to net/ */
    uint16_t error;     /* errno of the close */
    struct mr_buf in;   /* remainder that the owner has not used up */
    struct mr_buf out;  /* bytes to be sent */
    uint32_t want;      /* deliver only when this many bytes are there; 0: any */
    uint32_t sending;   /* bytes that the engine has taken from `out` and is sending */
    uint32_t room_at;   /* on_room is due when fewer bytes are pending; 0: nobody waits */
    uint32_t active_ms; /* low bits of the loop's time when a byte last came or left */
    struct mr_stream *next_dirty;
    struct mr_stream *next_closed;
    struct mr_list resumed;
};

/** Serves a connected, non-blocking socket; takes the fd. */
void mr_stream_open(struct mr_stream *s, struct mr_loop *loop, const struct mr_stream_ops *ops,
                    int fd);

/**
 * Starts to connect. Then on_open, or on_close with the reason, will come.
 * On failure nothing was started and no callback will come.
 */
enum mr_result mr_stream_connect(struct mr_stream *s, struct mr_loop *loop,
                                 const struct mr_stream_ops *ops, const struct mr_addr *addr,
                                 struct mr_error *err) MR_MUST_USE;

/**
 * Queues a copy of the bytes; a large run is sent at once when nothing holds it up. Does nothing
 * on a closed stream. When memory is short the stream is closed with ENOMEM.
 */
void mr_stream_write(struct mr_stream *s, const char *bytes, size_t len);

/** Collects output until it is uncorked; it then leaves at the end of that turn. */
void mr_stream_cork(struct mr_stream *s);
void mr_stream_uncork(struct mr_stream *s); /* fine for one that is not corked */

/**
 * Asks for one on_room when at most `bytes` are pending, however they leave: at once or held up.
 * @return false when that is so already, or the stream is closed: on_room will not come
 */
bool mr_stream_await_room(struct mr_stream *s, uint32_t bytes) MR_MUST_USE;

/** Stops and restarts delivery; a remainder is presented again after the restart. */
void mr_stream_pause(struct mr_stream *s);
void mr_stream_resume(struct mr_stream *s);

/** Presents what the owner has left again in the next turn, however much it wants. */
void mr_stream_present(struct mr_stream *s);

/** Puts input back in front of what is there; it is presented in the next turn. */
void mr_stream_put_back(struct mr_stream *s, struct mr_slice bytes);

/** Asks for on_data only once `total` bytes, the remainder included, are there. */
void mr_stream_want(struct mr_stream *s, size_t total);

/** Closes, dropping unsent output; on_close comes once the engine has let go of the socket. */
void mr_stream_close(struct mr_stream *s, int error);

/**
 * Asks the engine to let go of the socket, so that another process can go on with it; nothing is
 * delivered or sent from now on. True once it has: call again after a turn until then. What is
 * left in `in` and `out` travels with the descriptor; mr_stream_close then closes it here only.
 */
bool mr_stream_rest(struct mr_stream *s);

/** Ends a rest: the stream goes on here after all. Fine for one that does not rest. */
void mr_stream_wake(struct mr_stream *s);

/** For a stream just opened on a socket that comes from elsewhere: what came with it. */
void mr_stream_restore(struct mr_stream *s, struct mr_slice in, struct mr_slice out);

/**
 * Sends what is queued, then tells the peer that no more will come, and closes when the peer
 * closes. Input is thrown away from now on. The owner bounds the time.
 */
void mr_stream_finish(struct mr_stream *s);

bool mr_stream_is_open(const struct mr_stream *s);    /* connected and not closed */
bool mr_stream_is_closed(const struct mr_stream *s);  /* on_close is due or done */
bool mr_stream_is_blocked(const struct mr_stream *s); /* the peer does not take our output */
bool mr_stream_is_paused(const struct mr_stream *s);

/** True while bytes that the peer has sent wait to be received. Costs a system call. */
bool mr_stream_unread(const struct mr_stream *s);

/** Bytes that the peer has not taken, those in the kernel included. Costs a system call. */
size_t mr_stream_untaken(const struct mr_stream *s);

/** Milliseconds since a byte last came or left. */
uint32_t mr_stream_idle_ms(const struct mr_stream *s);

/** As if a byte had just come: for a stream that was not read from. */
void mr_stream_touch(struct mr_stream *s);

/** True while input that is here waits to be presented: the owner has paused, or just resumed. */
bool mr_stream_has_backlog(const struct mr_stream *s);

/** True when the owner has left a part of what it was given. */
static inline bool mr_stream_has_remainder(const struct mr_stream *s)
{
    return !mr_buf_empty(&s->in);
}

/** Bytes queued for the peer. */
static inline size_t mr_stream_pending(const struct mr_stream *s)
{
    return mr_buf_len(&s->out) + s->sending;
}
