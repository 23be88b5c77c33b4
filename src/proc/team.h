/* team.h - the processes of a generation: its workers and their helpers. Private to src/proc. */
#pragma once

#include "net/loop.h"
#include "proc/child.h"
#include "proc/generation.h"
#include "proc/side.h"

enum mr_team_state {
    MR_TEAM_STARTING,     /* fails if a worker dies */
    MR_TEAM_HELD,         /* clients arrive; pools whose keys move wait. The dead are replaced */
    MR_TEAM_SERVING,      /* the same, and nothing waits */
    MR_TEAM_HANDING_OVER, /* clients leave. From here on nobody is replaced */
    MR_TEAM_LEAVING,      /* workers end with their last client */
    MR_TEAM_QUITTING,     /* everybody ends at once */
};

/** Callbacks to the master. */
struct mr_team_hooks {
    /**
     * In every new child: release what belongs to the master. Its descriptors are closed
     * afterwards.
     */
    void (*in_child)(void *arg);
    /** A reload was requested through the admin interface. */
    void (*on_reload_asked)(void *arg);
    /** A worker asks all others, or answers one of them; see question.h. The descriptor is lent. */
    void (*on_question)(void *arg, struct mr_child *from, struct mr_message *msg);
    void *arg;
    struct mr_admin_hook admin;
};

struct mr_team {
    struct mr_side side;
    enum mr_team_state state;
    struct mr_generation generation;
    const struct mr_team_hooks *hooks; /* borrowed */
    struct mr_loop *loop;
    struct mr_child *children; /* workers first, then helpers */
    uint32_t n_children;
    struct mr_timer resolve_wait;
    struct mr_timer pulse;  /* interval of pings */
    struct mr_timer news;   /* retries children whose channel was full */
    struct mr_ways ways_in; /* where clients of the previous team arrive */
    uint32_t transition;    /* number of the transition in which it hands over */
    bool workers_started;
    bool failed; /* a worker died in STARTING */
};

/** Takes the generation. */
struct mr_team *mr_team_new(const struct mr_generation *generation, struct mr_loop *loop,
                            const struct mr_team_hooks *hooks);

/** Starts the workers, once names are resolved, and optionally the admin process. */
void mr_team_start(struct mr_team *team, bool with_admin);

/** Starts the admin process later than mr_team_start, with the counters as they are then. */
void mr_team_start_admin(struct mr_team *team);

/** Workers finish what clients have sent, then end. */
void mr_team_dismiss(struct mr_team *team);

/** Ends everybody at once. */
void mr_team_quit(struct mr_team *team);

/** Kills the remaining processes. */
void mr_team_kill(struct mr_team *team);

/** Call it when the last child is gone. `heir` as in mr_generation_close; NULL is allowed. */
void mr_team_free(struct mr_team *team, const struct mr_generation *heir);

/**
 * Sends the log's descriptor and level to all children after a change. Children whose channel is
 * full get it later; so they do in the next function.
 */
void mr_team_share_log(struct mr_team *team);

/** Sends a server's address to all workers. */
void mr_team_share_address(struct mr_team *team, uint32_t server, const struct mr_addr *addr);

/** Handles the death of a child; false if the pid is not of this team. */
bool mr_team_bury(struct mr_team *team, pid_t pid, int status);

uint32_t mr_team_alive(const struct mr_team *team, int kind);
