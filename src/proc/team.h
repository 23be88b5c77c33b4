/*
 * team.h - the processes of one generation: its workers and their helpers. Private to src/proc.
 */
#pragma once

#include "net/loop.h"
#include "proc/channel.h"
#include "proc/generation.h"

#include <sys/types.h>

enum mr_child_kind { MR_WORKER, MR_ADMIN, MR_RESOLVER };

struct mr_child {
    struct mr_team *team;
    enum mr_child_kind kind;
    uint32_t index; /* of the slot */
    pid_t pid;      /* 0: not running */
    struct mr_watch channel;
    struct mr_timer respawn;
    uint64_t started_us;
    uint32_t quick_deaths;
    uint32_t missed; /* pings in a row without an answer */
    bool ready;
    bool drained; /* while it hands its clients over: no request that matters is in flight */
};

/** What a team asks its master for. */
struct mr_team_hooks {
    /** In every new child: forget what is the master's; its descriptors are closed then. */
    void (*in_child)(void *arg);
    /** A worker is up for the first time or again. */
    void (*on_ready)(void *arg, struct mr_child *child);
    /** A worker that hands its clients over has none in flight any more. */
    void (*on_drained)(void *arg, struct mr_child *child);
    /** It is gone. Says whether another one takes its place. */
    bool (*on_death)(void *arg, struct mr_child *child);
    /** The admin interface was asked for a reload. */
    void (*on_reload_asked)(void *arg);
    void *arg;
    struct mr_admin_hook admin;
};

struct mr_team {
    struct mr_generation generation;
    const struct mr_team_hooks *hooks; /* borrowed */
    struct mr_loop *loop;
    struct mr_child *children; /* the workers, then the helpers */
    uint32_t n_children;
    struct mr_timer resolve_wait;
    struct mr_timer pulse; /* between two pings */
    int *ways_in;          /* where clients of the slots of the team before come in; -1 for none */
    int *ways_out;         /* the other ends, until the old workers have them; then NULL */
    uint32_t n_ways;
    bool workers_started;
    bool leaving; /* nobody who dies is replaced */
};

/** Takes the generation. */
struct mr_team *mr_team_new(const struct mr_generation *generation, struct mr_loop *loop,
                            const struct mr_team_hooks *hooks);

/** Starts the workers, after names were resolved, and where asked the admin process. */
void mr_team_start(struct mr_team *team, bool with_admin);
void mr_team_start_admin(struct mr_team *team);

/** Opens a way for the clients of each of `n` slots of the team before. */
enum mr_result mr_team_open_ways(struct mr_team *team, uint32_t n,
                                 struct mr_error *err) MR_MUST_USE;

/** Clients of `n` slots of another process come in here; takes the array and what is in it. */
void mr_team_take_ways(struct mr_team *team, int *ways_in, uint32_t n);

/** The old workers have their ends of the ways. */
void mr_team_ways_given(struct mr_team *team);

/** The old workers are gone: nobody comes any more. */
void mr_team_ways_done(struct mr_team *team);

/** Replaces nobody any more and cancels what was planned. */
void mr_team_leave(struct mr_team *team);

/**
 * Leaves, and tells every worker to hand its clients over: by its slot's of the `ways_out`, to a
 * team of `n_slots` workers. `moves` has a bit for each pool whose keys move.
 */
void mr_team_hand_over(struct mr_team *team, const int *ways_out, uint32_t n_slots,
                       const uint8_t *moves);

/** After the last child is gone. `heir` as in mr_generation_close. */
void mr_team_free(struct mr_team *team, const struct mr_generation *heir);

/** Sends to every running child, or to those of a kind (-1: all). */
void mr_team_tell(struct mr_team *team, struct mr_message *msg, int fd, int kind);

/** Gives every running child the log's descriptor and level, after either has changed. */
void mr_team_share_log(struct mr_team *team);

/** Sends to one child; says whether it went. */
bool mr_child_tell(struct mr_child *child, struct mr_message *msg, int fd);

/** The child with this pid has ended; false when it is not of this team. */
bool mr_team_bury(struct mr_team *team, pid_t pid, int status);

/** Kills what is left. */
void mr_team_kill(struct mr_team *team);

uint32_t mr_team_alive(const struct mr_team *team, int kind);
bool mr_team_ready(const struct mr_team *team);   /* every worker is */
bool mr_team_drained(const struct mr_team *team); /* every worker is, or is gone */

const char *mr_child_kind_name(enum mr_child_kind kind);
