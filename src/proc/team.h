/*
 * team.h - the processes of one generation: its workers and their helpers. Private to src/proc.
 */
#pragma once

#include "net/loop.h"
#include "proc/child.h"
#include "proc/generation.h"
#include "proc/side.h"

enum mr_team_state {
    MR_TEAM_STARTING,     /* a worker that dies makes it fail; from here on: */
    MR_TEAM_HELD,         /* clients come; pools whose keys move wait. Who dies is replaced */
    MR_TEAM_SERVING,      /* the same, nothing waits */
    MR_TEAM_HANDING_OVER, /* clients leave. Nobody is replaced from here on */
    MR_TEAM_LEAVING,      /* the workers end with their last client */
    MR_TEAM_QUITTING,     /* everybody ends at once */
};

/** What a team asks its master for. */
struct mr_team_hooks {
    /** In every new child: forget what is the master's; its descriptors are closed then. */
    void (*in_child)(void *arg);
    /** The admin interface was asked for a reload. */
    void (*on_reload_asked)(void *arg);
    void *arg;
    struct mr_admin_hook admin;
};

struct mr_team {
    struct mr_side side;
    enum mr_team_state state;
    struct mr_generation generation;
    const struct mr_team_hooks *hooks; /* borrowed */
    struct mr_loop *loop;
    struct mr_child *children; /* the workers, then the helpers */
    uint32_t n_children;
    struct mr_timer resolve_wait;
    struct mr_timer pulse;  /* between two pings */
    struct mr_timer news;   /* while a child's channel is too full for what it has to know */
    struct mr_ways ways_in; /* where clients of the team before come in */
    uint32_t transition;    /* in which it hands over */
    bool workers_started;
    bool failed; /* a worker has died while STARTING */
};

/** Takes the generation. */
struct mr_team *mr_team_new(const struct mr_generation *generation, struct mr_loop *loop,
                            const struct mr_team_hooks *hooks);

/** Starts the workers, after names were resolved, and where asked the admin process. */
void mr_team_start(struct mr_team *team, bool with_admin);

/** Starts the admin process where mr_team_start has not: it shows the counters as they are then. */
void mr_team_start_admin(struct mr_team *team);

/** The workers finish what clients have sent, then end. */
void mr_team_dismiss(struct mr_team *team);

/** Everybody ends at once. */
void mr_team_quit(struct mr_team *team);

/** Kills what is left. */
void mr_team_kill(struct mr_team *team);

/** After the last child is gone. `heir` as in mr_generation_close; NULL is fine. */
void mr_team_free(struct mr_team *team, const struct mr_generation *heir);

/**
 * Gives every running child the log's descriptor and level, after either has changed. Like what
 * follows, a child that does not read its channel is told once it does.
 */
void mr_team_share_log(struct mr_team *team);

/** Gives every running worker the address of a server. */
void mr_team_share_address(struct mr_team *team, uint32_t server, const struct mr_addr *addr);

/** The child with this pid has ended; false when it is not of this team. */
bool mr_team_bury(struct mr_team *team, pid_t pid, int status);

uint32_t mr_team_alive(const struct mr_team *team, int kind);
