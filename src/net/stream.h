/*
 * stream.h - a byte stream over a connected socket, completion-style.
 *
 * The owner embeds the struct and deals with bytes, never with readiness. No callback runs inside
 * an owner's call on the same stream. on_close is the last callback and comes exactly once, at the
 * end of a turn; the owner frees the struct there. Output is flushed once, at the end of the turn.
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
     * Bytes arrived: any earlier remainder followed by new bytes, contiguous and borrowed for the
     * call. Returns how many were consumed. The stream keeps the rest and delivers it again when
     * more arrives, or after mr_stream_resume.
     */
    size_t (*on_data)(struct mr_stream *s, const char *bytes, size_t len);
    /** The peer has sent its last byte. No more input; output may still work. */
    void (*on_eof)(struct mr_stream *s);
    /** All output that the peer had held up is sent. */
    void (*on_drain)(struct mr_stream *s);
    /** Pending output has fallen to what mr_stream_await_room asked for. */
    void (*on_room)(struct mr_stream *s);
    /** The stream is gone. `error` is an errno, 0 for an orderly close. */
    void (*on_close)(struct mr_stream *s, int error);
};

struct mr_stream {
    const struct mr_stream_ops *ops;
    struct mr_loop *loop;
    int fd;            /* -1 once closed */
    uint32_t flags;    /* private to net/ */
    struct mr_buf in;  /* remainder not consumed by the owner */
    struct mr_buf out; /* queued output */
    uint32_t want;     /* deliver only once this many bytes are there; 0: any */
    uint32_t sending;  /* bytes the engine took from `out` and is sending */
    union {
        uint32_t room_at; /* call on_room below this many pending bytes; 0: never */
        int error;        /* once closed: the errno */
    };
    uint32_t active_ms; /* when a byte last came or left; low bits of the loop's time */
    struct mr_stream *next_dirty;
    struct mr_stream *next_closed;
    struct mr_list resumed;
};

/** Starts serving a connected, non-blocking socket. Takes the fd. */
void mr_stream_open(struct mr_stream *s, struct mr_loop *loop, const struct mr_stream_ops *ops,
                    int fd);

/**
 * Starts to connect; on_open follows, or on_close with the reason. On failure nothing was started
 * and no callback follows.
 */
enum mr_result mr_stream_connect(struct mr_stream *s, struct mr_loop *loop,
                                 const struct mr_stream_ops *ops, const struct mr_addr *addr,
                                 struct mr_error *err) MR_MUST_USE;

/**
 * Queues a copy of the bytes, or sends a large run at once if nothing is in its way. Does nothing
 * on a closed stream. Closes the stream with ENOMEM if memory is short.
 */
void mr_stream_write(struct mr_stream *s, const char *bytes, size_t len);

/** mr_stream_write, which takes over the memory where it can. `bytes` is empty afterwards. */
void mr_stream_give(struct mr_stream *s, struct mr_buf *bytes);

/** Holds output back until uncorked. It then leaves at the end of that turn. */
void mr_stream_cork(struct mr_stream *s);
void mr_stream_uncork(struct mr_stream *s); /* does nothing if not corked */

/**
 * Requests one on_room for when at most `bytes` are pending.
 * @return false if that is already so, or if the stream is closed; on_room then does not come
 */
bool mr_stream_await_room(struct mr_stream *s, uint32_t bytes) MR_MUST_USE;

/** Pauses and resumes delivery. A remainder is delivered again after resuming. */
void mr_stream_pause(struct mr_stream *s);
void mr_stream_resume(struct mr_stream *s);

/** Delivers the remainder again in the next turn, even if it is less than the owner wants. */
void mr_stream_present(struct mr_stream *s);

/** Puts input back in front of the remainder, to be delivered in the next turn. */
void mr_stream_put_back(struct mr_stream *s, struct mr_slice bytes);

/** Postpones on_data until `total` bytes, remainder included, are there. */
void mr_stream_want(struct mr_stream *s, size_t total);

/** Closes and drops unsent output. on_close follows once the engine has released the socket. */
void mr_stream_close(struct mr_stream *s, int error);

/**
 * Detaches the stream from the engine, so that another process can take over the socket. Nothing is
 * delivered or sent any more. Returns true once detached; until then call it again after a turn.
 * The content of `in` and `out` travels with the descriptor, and mr_stream_close then closes only
 * this end.
 */
bool mr_stream_rest(struct mr_stream *s);

/** Ends a rest, so the stream continues here. Does nothing if it does not rest. */
void mr_stream_wake(struct mr_stream *s);

/** Gives a stream on a socket from another process the input and output that came with it. */
void mr_stream_restore(struct mr_stream *s, struct mr_slice in, struct mr_slice out);

/**
 * Sends what is queued, then shuts down output, and closes when the peer closes. Further input is
 * discarded. The owner must bound the time.
 */
void mr_stream_finish(struct mr_stream *s);

/**
 * Sends what is queued, then shuts down output; input goes on. The stream closes once the peer has
 * ended, too, and on_eof has told so.
 */
void mr_stream_end(struct mr_stream *s);

/**
 * From now on a hang-up does not close the stream while it is paused: what the peer sent before is
 * delivered first, after it has resumed. A hang-up after the end of input is an orderly close.
 */
void mr_stream_read_all(struct mr_stream *s);

bool mr_stream_is_open(const struct mr_stream *s);    /* connected and not closed */
bool mr_stream_is_closed(const struct mr_stream *s);  /* on_close is due or done */
bool mr_stream_is_blocked(const struct mr_stream *s); /* the socket buffer is full */
bool mr_stream_is_paused(const struct mr_stream *s);

/** True if received bytes wait in the kernel. Costs a system call. */
bool mr_stream_unread(const struct mr_stream *s);

/** Bytes that the peer has not acknowledged, including those in the kernel. Costs a system call. */
size_t mr_stream_untaken(const struct mr_stream *s);

/** True if a filter has state that another process could not continue from; see filter.h. */
bool mr_stream_is_tied(const struct mr_stream *s);

/** Milliseconds since a byte last came or left. */
uint32_t mr_stream_idle_ms(const struct mr_stream *s);

/** Resets the idle time of a stream that was not being read. */
void mr_stream_touch(struct mr_stream *s);

/** True if input waits to be delivered, because the owner has paused or just resumed. */
bool mr_stream_has_backlog(const struct mr_stream *s);

/** True if the owner left part of what was delivered. */
static inline bool mr_stream_has_remainder(const struct mr_stream *s)
{
    return !mr_buf_empty(&s->in);
}

/** Bytes queued for the peer. */
static inline size_t mr_stream_pending(const struct mr_stream *s)
{
    return mr_buf_len(&s->out) + s->sending;
}
