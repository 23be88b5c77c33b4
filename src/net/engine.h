/* engine.h - the interface between the loop and its I/O engine; private to src/net. */
#pragma once

#include "core/result.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_loop;
struct mr_stream;
struct mr_watch;

struct mr_engine {
    const char *name;
    enum mr_result (*init)(struct mr_loop *loop, struct mr_error *err);
    void (*fini)(struct mr_loop *loop);
    /** Starts serving a stream's fd, as mr_stream_wants_read/_write say. */
    void (*add)(struct mr_loop *loop, struct mr_stream *s);
    /** What the stream wants has changed. */
    void (*update)(struct mr_loop *loop, struct mr_stream *s);
    /** The stream was closed: drop its fd, close it and call mr_stream_released. */
    void (*release)(struct mr_loop *loop, struct mr_stream *s);
    /** Detaches the fd of a stream that stays open. Called again until it returns true. */
    bool (*rest)(struct mr_loop *loop, struct mr_stream *s, bool first);
    /** Sends all output and reports to mr_stream_sent, at once or before the next turn ends. */
    void (*send)(struct mr_loop *loop, struct mr_stream *s);
    void (*watch)(struct mr_loop *loop, struct mr_watch *w);
    void (*unwatch)(struct mr_loop *loop, struct mr_watch *w);
    /** True if the engine holds events that it will deliver in the next turn. */
    bool (*undelivered)(const struct mr_loop *loop);
    /** Waits up to timeout_us (-1: forever), sets loop->now_us, and delivers events. */
    void (*wait)(struct mr_loop *loop, int64_t timeout_us);
};

#define MR_ENGINE_AUTO "io_uring" /* tried before epoll by `auto` */

extern const struct mr_engine MR_ENGINE_EPOLL;
extern const struct mr_engine MR_ENGINE_URING; /* only if built with liburing */
