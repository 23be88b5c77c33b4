/*
 * reload.h - from one configuration to the next without losing a client. Private to src/proc.
 *
 * 1. The new configuration is read and its sockets are opened; an error leaves all as it was.
 * 2. New workers start beside the old ones and report READY. One that fails ends the attempt.
 * 3. The old workers get HANDOVER: they dispatch nothing more and hand each client over as soon
 *    as its replies are out. When no request to a pool whose keys move is in flight, DRAINED.
 * 4. When all have, the new workers get GO and dispatch for those pools too. Other pools did not
 *    wait.
 */
#pragma once

#include "proc/pidfile.h"
#include "proc/team.h"

enum mr_reload_step { MR_RELOAD_NONE, MR_RELOAD_STARTING, MR_RELOAD_DRAINING, MR_RELOAD_LEAVING };

struct mr_reload {
    enum mr_reload_step step;
    struct mr_loop *loop;
    const struct mr_team_hooks *hooks;
    const struct mr_options *options;
    const char *conf_file;
    struct mr_pidfile *pidfile;
    struct mr_team **current; /* the master's: the team that serves */
    struct mr_team *incoming; /* STARTING */
    struct mr_team *outgoing; /* DRAINING and LEAVING */
    struct mr_timer timer;    /* of the step */
    uint64_t asked_us, paused_us;
    bool last_call; /* the old workers have been told all; next they are killed */
    bool again;     /* asked for meanwhile */
};

/** How long requests in flight may hold a change of the configuration up, in milliseconds. */
uint32_t mr_reload_drain_limit_ms(const struct mr_config *config);

/** Sets a bit for each pool of `before` whose keys move, or which is gone, with `now`. */
void mr_reload_moves(uint8_t *bits, const struct mr_generation *now,
                     const struct mr_config *before);

/** The new map is in force: releases the team's held pools and starts its admin process. */
void mr_reload_release(struct mr_team *team);

/** Begins, or notes that another one is wanted after the one that is under way. */
void mr_reload_begin(struct mr_reload *r);

/** What happened to a child of a team that is not the serving one, or to one of it. */
void mr_reload_ready(struct mr_reload *r, struct mr_child *child);
void mr_reload_drained(struct mr_reload *r);

/** Says whether the dead child is replaced. */
bool mr_reload_death(struct mr_reload *r, struct mr_child *child);

/** Once a turn, after children were buried: frees a team that is gone. */
void mr_reload_tidy(struct mr_reload *r);

/** The proxy stops: no more of it. */
void mr_reload_stop(struct mr_reload *r);
