/*
 * upgrade.h - passes the service from one binary to the next. Private to src/proc and main.
 *
 * On USR2 the master starts its program anew. The new process gets the listening sockets, metrics
 * segments, handover sockets and the current configuration over a socket pair, the link. Then both
 * masters run a transition together, see remote.h.
 */
#pragma once

#include "proc/generation.h"
#include "proc/pidfile.h"
#include "proc/ways.h"

#define MR_UPGRADE_ENV "MILLRACE_UPGRADE" /* descriptor number of the link */

/* ---- in the old master ---- */

struct mr_upgrade {
    const char *exe;
    char **argv;
    const struct mr_pidfile *pidfile;
};

/**
 * Starts the program and passes it what `g` has, and where clients will arrive. On success the new
 * process is our child, and the caller owns *link.
 */
enum mr_result mr_upgrade_start(const struct mr_upgrade *u, const struct mr_generation *g,
                                const struct mr_ways *ways_in, pid_t *pid, int *link,
                                struct mr_error *err) MR_MUST_USE;

/* ---- in the new master ---- */

struct mr_inheritance {
    int link;                      /* taken by the master; -1: ordinary start */
    pid_t pid;                     /* of the old master; 0 if it is gone */
    struct mr_generation previous; /* sockets and segments of the old master */
    struct mr_ways ways_in;        /* one per slot of the old master; taken by the master */
    int pidfile;                   /* locked; -1 for none */
};

/** Receives everything from the old master; `fd` is the link. Waits a few seconds at most. */
enum mr_result mr_inheritance_receive(struct mr_inheritance *in, int fd,
                                      struct mr_error *err) MR_MUST_USE;

/** Files of unix sockets stay if `heir` (may be NULL) serves them. */
void mr_inheritance_close(struct mr_inheritance *in, const struct mr_generation *heir);
