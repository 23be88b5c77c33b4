/* child.h - starts, signals and ends the master's child processes. Private to src/proc. */
#pragma once

#include "net/loop.h"
#include "proc/channel.h"

#include <sys/types.h>

struct mr_team;

enum mr_child_kind { MR_WORKER, MR_ADMIN, MR_RESOLVER };

enum mr_child_state {
    MR_CHILD_DOWN,         /* not running */
    MR_CHILD_STARTING,     /* has not sent READY yet */
    MR_CHILD_UP,           /* serving */
    MR_CHILD_HANDING_OVER, /* was sent HANDOVER */
    MR_CHILD_QUIESCED,     /* then reported QUIESCED: nothing that moves is in flight */
};

struct mr_child {
    struct mr_team *team;
    enum mr_child_kind kind;
    enum mr_child_state state;
    uint32_t index; /* of the slot */
    pid_t pid;      /* 0 if DOWN */
    struct mr_watch channel;
    struct mr_timer respawn;
    uint64_t started_us;
    uint32_t quick_deaths;
    uint32_t missed;      /* consecutive unanswered pings */
    bool log_due;         /* must be sent the log's descriptor and level */
    uint32_t address_due; /* and the addresses of servers from this one on */
};

const char *mr_child_kind_name(enum mr_child_kind kind);

/** Starts the process. On success sets its pid and the descriptor of its channel (owned). */
enum mr_result mr_child_fork(struct mr_child *child, struct mr_error *err) MR_MUST_USE;

/**
 * Sends a message; failures are logged.
 * @return true if it was sent, or if the child is gone
 */
bool mr_child_tell(struct mr_child *child, struct mr_message *msg, int fd);

/**
 * Sends a message that the child must not miss. If it cannot be sent the child is killed: it would
 * wait forever, or do what it no longer may.
 */
void mr_child_command(struct mr_child *child, struct mr_message *msg, int fd);

void mr_child_kill(const struct mr_child *child);

/** Reaps a process that has ended; 0 if there is none. */
pid_t mr_reap(int *status);

/** Signals a process that is not a child of a team. */
void mr_signal(pid_t pid, int signo);
