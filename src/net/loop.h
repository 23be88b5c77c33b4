/*
 * loop.h - the event loop of one process: streams, watches and timers over one engine.
 *
 * A turn: wait, deliver, timers, flush, reap. Everything runs in one thread; nothing here blocks
 * but the wait.
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

#define MR_RECV_BYTES    65536u /* most that one stream gets read in one turn */
#define MR_RECV_HEADROOM 4096u  /* room in front of it for an unfinished remainder */

/** A descriptor whose readability the owner handles itself: a listener, a channel. */
struct mr_watch {
    void (*on_ready)(struct mr_watch *watch);
    /**
     * Set for a listening socket: an engine that can accept by itself then calls this instead,
     * with a non-blocking, close-on-exec fd or minus an errno. It may still come, for a
     * connection accepted already, inside mr_watch_stop.
     */
    void (*on_accept)(struct mr_watch *watch, int fd);
    void *engine_op; /* private to the engine */
    int fd;          /* owned by whoever set it; closed only after mr_watch_stop */
    bool exclusive;  /* shared with other processes: wake one of them */
    bool active;     /* kept by the loop; stopping is fine in a callback, freeing is not */
};

/**
 * A timer with the precision of the engine's wait. For the few that need it: a plain list. When it
 * fires it may cancel no other one.
 */
struct mr_alarm {
    struct mr_list link; /* zeroed while it is not set */
    void (*fire)(struct mr_alarm *alarm);
    uint64_t at_us;
};

struct mr_loop {
    const struct mr_engine *engine;
    void *engine_state;
    struct mr_slab slab;
    struct mr_timers timers;
    uint64_t now_us;          /* monotonic, read once a turn */
    uint32_t n_streams;       /* open, or closed and not reaped yet */
    uint32_t n_releasing;     /* closed, and the engine has not let go of them */
    uint32_t n_resumed;       /* streams in `resumed` */
    bool sends_matter;        /* somebody waits for one that is under way: do not wait for more */
    bool stop;                /* set by anyone: mr_loop_run returns after this turn */
    struct mr_stream *dirty;  /* with output to flush at the end of the turn */
    struct mr_stream *closed; /* to be reaped at the end of the turn */
    struct mr_list resumed;   /* with a remainder to deliver again */
    struct mr_list alarms;
    uint64_t next_alarm_us;     /* no alarm is due before; UINT64_MAX without any */
    struct mr_timer trim_timer; /* gives unused memory back */
};

/**
 * The engine that a loop with this setting gets: `auto` is io_uring where the kernel allows it,
 * else epoll with the reason in `err`. Tries it out.
 * @return its name, or NULL with the reason in `err` when the one asked for cannot be had
 */
const char *mr_loop_choose_engine(const char *setting, struct mr_error *err);

/** `engine`: "epoll" or "io_uring". */
enum mr_result mr_loop_init(struct mr_loop *loop, const char *engine,
                            struct mr_error *err) MR_MUST_USE;

/** Closes what is still open without flushing; on_close runs for every stream. */
void mr_loop_fini(struct mr_loop *loop);

/** In a child just forked: gives back the loop's descriptors, runs nothing. */
void mr_loop_abandon(struct mr_loop *loop);

/** Turns until every stream that is closed is reaped. */
void mr_loop_settle(struct mr_loop *loop);

/** One turn; waits at most `max_wait_ms` (-1: until something happens). */
void mr_loop_turn(struct mr_loop *loop, int max_wait_ms);

/**
 * True when input has left the sockets and is delivered in the next turn only: mr_stream_unread
 * does not see it.
 */
bool mr_loop_undelivered(const struct mr_loop *loop);

/** Turns until loop->stop is set. */
void mr_loop_run(struct mr_loop *loop);

void mr_watch_start(struct mr_loop *loop, struct mr_watch *watch);
void mr_watch_stop(struct mr_loop *loop, struct mr_watch *watch);

/** Sets a timer relative to the time of this turn. */
void mr_loop_timer(struct mr_loop *loop, struct mr_timer *timer, uint64_t delay_ms);

/** Sets an alarm (not one that is set) relative to the time of this turn. */
void mr_loop_alarm(struct mr_loop *loop, struct mr_alarm *alarm, uint64_t delay_us);

/** Fine for one that is not set. */
void mr_alarm_cancel(struct mr_alarm *alarm);
