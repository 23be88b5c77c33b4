/*
 * reload.h - a transition from one configuration to the next, between two teams of this master.
 * Private to src/proc.
 *
 * The new configuration is read and its sockets are opened first; an error leaves all as it was.
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
    struct mr_team *beside;   /* the new one until clients move, then the old one; or NULL */
    uint64_t asked_us;
};

/** Begins, when the transition is at REST; an error is logged. */
void mr_reload_begin(struct mr_reload *r);
