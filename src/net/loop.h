/*
 * loop.h - the event loop of one process: streams, watches and timers over one engine.
 *
 * A turn: wait, deliver, timers, flush, reap. Single-threaded; only the wait blocks.
 */
#pragma once

#include "core/result.h"
#include "core/list.h"
#include "core/slab.h"
#include "core/timer.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_engine;
struct mr_stream;

#define MR_RECV_BYTES    65536u /* read from one stream per turn at most */
#define MR_RECV_HEADROOM 4096u  /* room before it, for an unfinished remainder */

/** A descriptor whose owner handles readability itself: a listener, a channel. */
struct mr_watch {
    void (*on_ready)(struct mr_watch *watch);
    /**
     * For a listening socket: engines that can accept call this instead, with a non-blocking,
     * close-on-exec fd or -errno. During mr_watch_stop it may be called for a connection already
     * accepted.
     */
    void (*on_accept)(struct mr_watch *watch, int fd);
    void *engine_op; /* private to the engine */
    int fd;          /* owned by whoever set it; close it only after mr_watch_stop */
    bool exclusive;  /* shared between processes: wake only one */
    bool active;     /* set by the loop; callbacks may stop a watch, but not free it */
};

/**
 * A timer with the precision of the engine's wait. Alarms are few, so they form a plain list. A
 * firing alarm must not cancel others.
 */
struct mr_alarm {
    struct mr_list link; /* zeroed while not set */
    void (*fire)(struct mr_alarm *alarm);
    uint64_t at_us;
};

/**
 * Waits for a lull: the end of the first turn that brings no events, or at the latest of
 * MR_LULL_TURNS turns. The loop does not block meanwhile, so a lull costs one poll. Where polls
 * have brought nothing lately, most are left out and the lull is now.
 */
struct mr_lull {
    struct mr_list link; /* zeroed while not awaited */
    void (*on_lull)(struct mr_lull *lull);
};

#define MR_LULL_TURNS 16u

struct mr_loop {
    const struct mr_engine *engine;
    void *engine_state;
    struct mr_slab slab;
    struct mr_timers timers;
    uint64_t now_us;         /* monotonic, read once per turn */
    uint32_t n_streams;      /* open, or closed and not reaped yet */
    uint32_t n_releasing;    /* closed, but still in use by the engine */
    uint32_t n_resumed;      /* streams in `resumed` */
    bool sends_matter;       /* an owner waits for a send: do not block for other events */
    bool stop;               /* set by anyone; mr_loop_run returns after this turn */
    struct mr_stream *dirty; /* output to flush at the end of the turn, in order */
    struct mr_stream **dirty_tail;
    struct mr_stream *closed; /* to reap at the end of the turn */
    struct mr_list resumed;   /* a remainder to deliver again */
    struct mr_list alarms;
    struct mr_list lulls;
    uint32_t n_events;          /* that the engine delivered in this turn */
    uint32_t busy_turns;        /* since the first lull in `lulls` is awaited */
    uint32_t luck;              /* how often a poll for a lull brought events; out of LUCK_MAX */
    uint32_t n_lulls;           /* awaited so far */
    uint64_t next_alarm_us;     /* no alarm is due earlier; UINT64_MAX if there is none */
    struct mr_timer trim_timer; /* frees unused memory */
};

/**
 * Chooses the engine for a setting and tries it out. `auto` is io_uring where the kernel allows it,
 * else epoll with the reason in `err`.
 * @return its name, or NULL with the reason in `err` if the requested engine is unavailable
 */
const char *mr_loop_choose_engine(const char *setting, struct mr_error *err);

/** `engine`: "epoll" or "io_uring". */
enum mr_result mr_loop_init(struct mr_loop *loop, const char *engine,
                            struct mr_error *err) MR_MUST_USE;

/** Closes what is still open without flushing. on_close runs for every stream. */
void mr_loop_fini(struct mr_loop *loop);

/** In a freshly forked child: closes the loop's descriptors, runs no callbacks. */
void mr_loop_abandon(struct mr_loop *loop);

/** Runs turns until every closed stream is reaped. */
void mr_loop_settle(struct mr_loop *loop);

/** Runs one turn, waiting at most `max_wait_ms` (-1: until something happens). */
void mr_loop_turn(struct mr_loop *loop, int max_wait_ms);

/**
 * True if input has left a socket but will be delivered only in the next turn. mr_stream_unread
 * does not see such input.
 */
bool mr_loop_undelivered(const struct mr_loop *loop);

/** Runs turns until loop->stop is set. */
void mr_loop_run(struct mr_loop *loop);

void mr_watch_start(struct mr_loop *loop, struct mr_watch *watch);
void mr_watch_stop(struct mr_loop *loop, struct mr_watch *watch);

/** Sets a timer, relative to the time of this turn. */
void mr_loop_timer(struct mr_loop *loop, struct mr_timer *timer, uint64_t delay_ms);

/** Sets an alarm that is not set yet, relative to the time of this turn. */
void mr_loop_alarm(struct mr_loop *loop, struct mr_alarm *alarm, uint64_t delay_us);

/** Does nothing if it is not set. */
void mr_alarm_cancel(struct mr_alarm *alarm);

/** Awaits a lull; does nothing if it is awaited already. */
void mr_loop_await_lull(struct mr_loop *loop, struct mr_lull *lull);

/** Does nothing if it is not awaited. */
void mr_lull_cancel(struct mr_lull *lull);
