/*
 * upgrade.h - what one binary gives to the next. Private to src/proc and main.
 *
 * USR2 makes the master start its program anew. The new process gets the listening sockets, the
 * metrics segments, the ways for clients and the configuration in force over a socketpair, the
 * link. Then the two masters go through a transition together, see remote.h.
 */
#pragma once

#include "proc/generation.h"
#include "proc/pidfile.h"
#include "proc/ways.h"

#define MR_UPGRADE_ENV "MILLRACE_UPGRADE" /* number of the link's descriptor */

/* ---- in the old master ---- */

struct mr_upgrade {
    const char *exe;
    char **argv;
    const char *conf_file;
    const struct mr_pidfile *pidfile;
};

/**
 * Starts the program and gives it what `g` has and where clients will come in. On success the new
 * process is our child and *link is the caller's.
 */
enum mr_result mr_upgrade_start(const struct mr_upgrade *u, const struct mr_generation *g,
                                const struct mr_ways *ways_in, pid_t *pid, int *link,
                                struct mr_error *err) MR_MUST_USE;

/* ---- in the new master ---- */

struct mr_inheritance {
    int link;                      /* taken by the master; -1: this is an ordinary start */
    pid_t pid;                     /* of the old master; 0 when it is not known */
    struct mr_generation previous; /* sockets and segments of the old master */
    struct mr_ways ways_in;        /* one for each of its slots; taken by the master */
    int pidfile;                   /* its lock, -1 for none */
};

/** Receives what the old master gives; `fd` is the link. Waits some seconds at most. */
enum mr_result mr_inheritance_receive(struct mr_inheritance *in, int fd,
                                      struct mr_error *err) MR_MUST_USE;

/** Files of unix sockets stay for those that `heir` (NULL for none) serves. */
void mr_inheritance_close(struct mr_inheritance *in, const struct mr_generation *heir);
