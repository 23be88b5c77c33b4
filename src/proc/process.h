/* process.h - the common part of the master's children: a loop, signals, and the channel. */
#pragma once

#include "net/loop.h"
#include "proc/channel.h"

struct mr_process {
    struct mr_loop loop;
    struct mr_watch signals;
    struct mr_watch channel; /* fd is -1 for none */
    struct mr_timer renewal; /* of the channel */
    bool alone;              /* without a master: handles signals as the master would */
    void (*on_terminate)(struct mr_process *p); /* finish what clients have sent, then end */
    void (*on_quit)(struct mr_process *p);      /* end at once */
    void (*on_message)(struct mr_process *p, const struct mr_message *msg); /* all other messages */
    /** Alone: starts another helper when the one at the channel has ended; -1: not now. */
    int (*renew_channel)(struct mr_process *p);
};

/** The caller sets the callbacks, `alone` and channel.fd (taken). */
enum mr_result mr_process_init(struct mr_process *p, const char *engine,
                               struct mr_error *err) MR_MUST_USE;
void mr_process_fini(struct mr_process *p);
