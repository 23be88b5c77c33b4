/* master.h - the process that owns the sockets and keeps the others running. */
#pragma once

#include "proc/generation.h"
#include "proc/upgrade.h"

#include <stdbool.h>

struct mr_loop;
struct mr_transition;

struct mr_master_setup {
    struct mr_generation *generation; /* taken */
    const struct mr_options *options; /* command line, also for reloads */
    const char *conf_file;
    const char *exe; /* path of this program, for upgrades */
    char **argv;
    struct mr_pidfile *pidfile;
    struct mr_inheritance *inheritance; /* its link is -1 if no master came before */
    struct mr_admin_hook admin;
    void (*on_ready)(void *arg);       /* this process serves now: write the pid file */
    void (*on_handed_over)(void *arg); /* another process serves: leave its files alone */
    void (*in_child)(void *arg);       /* in every new child: close what only the master may hold */
    void *arg;
};

struct mr_master;

/** Runs the master. Returns the exit status of the process. */
int mr_master_run(const struct mr_master_setup *setup);

/** The same in steps. Starts the processes. NULL, after logging why, if that fails. */
struct mr_master *mr_master_new(const struct mr_master_setup *setup);

/** Call after each turn of the loop: handles signals, children and deadlines. False at the end. */
bool mr_master_act(struct mr_master *m);

/** Returns the exit status. */
int mr_master_free(struct mr_master *m);

struct mr_loop *mr_master_loop(struct mr_master *m);
const struct mr_transition *mr_master_transition(const struct mr_master *m);
