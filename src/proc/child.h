/* child.h - a process of the master: how it is started, spoken to and ended. Private to src/proc.
 */
#pragma once

#include "net/loop.h"
#include "proc/channel.h"

#include <sys/types.h>

struct mr_team;

enum mr_child_kind { MR_WORKER, MR_ADMIN, MR_RESOLVER };

enum mr_child_state {
    MR_CHILD_DOWN,         /* there is none */
    MR_CHILD_STARTING,     /* has not said READY */
    MR_CHILD_UP,           /* serves */
    MR_CHILD_HANDING_OVER, /* has been told HANDOVER */
    MR_CHILD_QUIESCED,     /* and has QUIESCED: nothing that moves is in flight */
};

struct mr_child {
    struct mr_team *team;
    enum mr_child_kind kind;
    enum mr_child_state state;
    uint32_t index; /* of the slot */
    pid_t pid;      /* 0 when it is DOWN */
    struct mr_watch channel;
    struct mr_timer respawn;
    uint64_t started_us;
    uint32_t quick_deaths;
    uint32_t missed;      /* pings in a row without an answer */
    bool log_due;         /* it has to be told where and what to log */
    uint32_t address_due; /* and the addresses of the servers from this one on */
};

const char *mr_child_kind_name(enum mr_child_kind kind);

/** Starts the process. On success sets its pid and the descriptor of its channel (owned). */
enum mr_result mr_child_fork(struct mr_child *child, struct mr_error *err) MR_MUST_USE;

/**
 * Sends; what cannot be sent is logged.
 * @return whether that is settled: it went, or the child is gone
 */
bool mr_child_tell(struct mr_child *child, struct mr_message *msg, int fd);

/**
 * Sends what a child cannot do without. A child that does not take it is killed, since it would
 * wait for ever for what it was told, or go on with what it must not.
 */
void mr_child_command(struct mr_child *child, struct mr_message *msg, int fd);

void mr_child_kill(const struct mr_child *child);

/** A process that has ended, 0 for none. */
pid_t mr_reap(int *status);

/** Sends a signal to another process than a child of a team. */
void mr_signal(pid_t pid, int signo);
