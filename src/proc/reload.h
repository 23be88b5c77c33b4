/*
 * reload.h - moves from one configuration to the next, between two teams of this master. Private to
 * src/proc.
 *
 * The new configuration is read and its sockets opened first; on an error nothing changes.
 */
#pragma once

#include "proc/pidfile.h"
#include "proc/team.h"
#include "proc/transition.h"

struct mr_reload {
    struct mr_transition *transition;
    const struct mr_team_hooks *hooks;
    const struct mr_options *options;
    const char *conf_file;
    struct mr_pidfile *pidfile;
    struct mr_team **serving; /* the master's */
    struct mr_team *beside;   /* the new team until clients move, then the old one; may be NULL */
    uint64_t asked_us;
};

/** Starts a reload while the transition is at REST. Errors are logged. */
void mr_reload_begin(struct mr_reload *r);
