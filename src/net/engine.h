/* engine.h - what an I/O engine does for the loop; private to src/net. */
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
    /** Begins to serve a stream's fd, by what mr_stream_wants_read/_write say. */
    void (*add)(struct mr_loop *loop, struct mr_stream *s);
    /** What the stream wants has changed. */
    void (*update)(struct mr_loop *loop, struct mr_stream *s);
    /** The stream is closed: lets go of its fd, closes it and calls mr_stream_released. */
    void (*release)(struct mr_loop *loop, struct mr_stream *s);
    /** Lets go of the fd of a stream that stays open; asked again until nothing is under way. */
    bool (*rest)(struct mr_loop *loop, struct mr_stream *s, bool first);
    /** Sends all of the output; tells by mr_stream_sent, at once or before the next turn's end. */
    void (*send)(struct mr_loop *loop, struct mr_stream *s);
    void (*watch)(struct mr_loop *loop, struct mr_watch *w);
    void (*unwatch)(struct mr_loop *loop, struct mr_watch *w);
    /** True when something has come out of the kernel that is delivered in the next turn. */
    bool (*undelivered)(const struct mr_loop *loop);
    /** Waits up to timeout_us (-1: for ever), sets loop->now_us, delivers what has come. */
    void (*wait)(struct mr_loop *loop, int64_t timeout_us);
};

#define MR_ENGINE_AUTO "io_uring" /* what `auto` tries before epoll */

extern const struct mr_engine MR_ENGINE_EPOLL;
extern const struct mr_engine MR_ENGINE_URING; /* where the build has liburing */
