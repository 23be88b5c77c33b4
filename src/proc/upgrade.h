/*
 * upgrade.h - from one binary to the next without losing a client. Private to src/proc and main.
 *
 * USR2 makes the master start its program anew. The new process gets the listening sockets, the
 * metrics segments, the ways for clients and the configuration in force over a socketpair, the
 * link. Then the steps are those of a reload (reload.h), told over the link: READY from the new
 * master, DRAINED from the old one. Until READY the old service goes on as if nothing happened,
 * and it stays when the new process fails.
 */
#pragma once

#include "proc/pidfile.h"
#include "proc/team.h"

#define MR_UPGRADE_ENV "MILLRACE_UPGRADE" /* number of the link's descriptor */

/* ---- in the old master ---- */

enum mr_upgrade_step { MR_UPGRADE_NONE, MR_UPGRADE_STARTING, MR_UPGRADE_DRAINING, MR_UPGRADE_GONE };

struct mr_upgrade {
    enum mr_upgrade_step step;
    struct mr_loop *loop;
    const char *exe;
    char **argv;
    const char *conf_file;
    const struct mr_pidfile *pidfile;
    struct mr_team **team;
    pid_t pid; /* of the new master */
    struct mr_watch link;
    struct mr_timer timer;
    int *ways_out;
    uint32_t n_slots; /* of the new master */
    bool last_call;
};

/** Begins; what speaks against it is logged. */
void mr_upgrade_begin(struct mr_upgrade *u);

/** A worker is drained or dead. */
void mr_upgrade_drained(struct mr_upgrade *u);

/** True when the pid was the new master's: it has failed. */
bool mr_upgrade_bury(struct mr_upgrade *u, pid_t pid, int status);

void mr_upgrade_stop(struct mr_upgrade *u);

/* ---- in the new master ---- */

struct mr_inheritance {
    int link;                      /* -1: there is none, this is an ordinary start */
    struct mr_generation previous; /* sockets and segments of the old master */
    int *ways_in;                  /* one for each of its slots */
    int pidfile;                   /* its lock, -1 for none */
};

/** Receives what the old master gives; `fd` is the link. Waits some seconds at most. */
enum mr_result mr_inheritance_receive(struct mr_inheritance *in, int fd,
                                      struct mr_error *err) MR_MUST_USE;

/** Tells the old master that our workers are up. */
enum mr_result mr_inheritance_ready(const struct mr_inheritance *in,
                                    const struct mr_generation *now,
                                    struct mr_error *err) MR_MUST_USE;

/** Files of unix sockets stay for those that `heir` (NULL for none) serves. */
void mr_inheritance_close(struct mr_inheritance *in, const struct mr_generation *heir);
