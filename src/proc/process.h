/* process.h - what every child of the master has: a loop, signals, and the channel. */
#pragma once

#include "net/loop.h"
#include "proc/channel.h"

struct mr_process {
    struct mr_loop loop;
    struct mr_watch signals;
    struct mr_watch channel; /* fd -1 for none */
    bool alone;              /* there is no master: signals mean what they mean for it */
    void (*on_terminate)(struct mr_process *p); /* finish what clients have sent */
    void (*on_quit)(struct mr_process *p);      /* stop now */
    void (*on_message)(struct mr_process *p, const struct mr_message *msg); /* any other */
};

/** Callbacks, `alone` and channel.fd (taken) are set by the caller. */
enum mr_result mr_process_init(struct mr_process *p, const char *engine,
                               struct mr_error *err) MR_MUST_USE;
void mr_process_fini(struct mr_process *p);
