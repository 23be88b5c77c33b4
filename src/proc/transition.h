/*
 * transition.h - moves from one set of processes to the next without losing clients. Private to
 * src/proc.
 *
 * One state machine for a start, a reload and both ends of a binary upgrade. These differ in the
 * two sides (side.h) and in what they do and log along the way (struct mr_transition_kind).
 *
 *            to: ready    from: quiesced   to: failed   from: failed, stop   deadline
 * STARTING   CLAIMING     -                FAILING      FAILING              FAILING
 * CLAIMING   -            -                FAILING      FAILING, -           FAILING
 * DRAINING   -            STRAYS, LEAVING  FAILING      FAILING, -           ABORTING
 * ABORTING   -            STRAYS, LEAVING  FAILING      FAILING, -           kill late ones of from
 * STRAYS     -            -                -            -                    LEAVING
 * LEAVING    -            -                -            -                    kill from, again
 * FAILING    -            -                -            -                    kill to, again
 *
 * CLAIMING ends at DRAINING when `from` agrees; STRAYS and LEAVING end at REST when `from` is gone,
 * FAILING when `to` is. Every state but REST has a deadline; LEAVING only if
 * worker_shutdown_timeout sets one. States wait for facts, which are checked once per turn, rather
 * than for events, which could come at the wrong time.
 *
 * STARTING: the new side starts while the old one serves normally.
 * CLAIMING: the new side is up and has asked for the service. Another master has to agree first, so
 *   that it never calls the upgrade off while clients arrive here.
 * DRAINING: the old side stops dispatching and hands over its clients. The new one serves, except
 *   for pools whose keys move: these wait until nothing is in flight through the old map.
 * ABORTING: requests in flight through the old map are out of time and fail.
 * STRAYS: the new map is in force. Removed slots still accept connections queued for them.
 * LEAVING: the old side ends with its last client.
 * FAILING: the new side ends. Then the old one resumes service.
 *
 * When told to stop, a transition in STARTING fails. Later it completes, because clients are
 * moving and must get their answers.
 */
#pragma once

#include "net/loop.h"
#include "proc/side.h"

enum mr_transition_step {
    MR_TRANSITION_REST,
    MR_TRANSITION_STARTING,
    MR_TRANSITION_CLAIMING,
    MR_TRANSITION_DRAINING,
    MR_TRANSITION_ABORTING,
    MR_TRANSITION_STRAYS,
    MR_TRANSITION_LEAVING,
    MR_TRANSITION_FAILING,
};

struct mr_transition;

/** What differs between kinds of transitions. Callbacks run after the sides were told. */
struct mr_transition_kind {
    const char *name;
    uint32_t start_ms;                          /* time for the new side to get ready */
    void (*committed)(struct mr_transition *t); /* clients start moving */
    void (*released)(struct mr_transition *t);  /* the new map is in force */
    void (*failed)(struct mr_transition *t, const char *reason);
    void (*done)(struct mr_transition *t);   /* at REST: `from` is gone */
    void (*undone)(struct mr_transition *t); /* at REST: `to` is gone */
};

struct mr_transition_plan {
    const struct mr_transition_kind *kind;
    void *arg;            /* for the kind */
    struct mr_side *from; /* NULL: nobody serves yet */
    struct mr_side *to;
    const struct mr_config *before; /* configuration of `from` */
    uint32_t before_slots;
    struct mr_ways ways_out; /* for the workers of `from`; empty if they are another master's */
};

struct mr_transition {
    enum mr_transition_step step;
    struct mr_transition_plan plan;
    struct mr_loop *loop;
    uint32_t number;            /* number of the transition */
    struct mr_side_terms terms; /* of `to`, once committed */
    bool committed;             /* clients are moving */
    bool released;              /* the new map is in force */
    bool stopping;              /* set by the master: the proxy is stopping */
    uint64_t began_us, committed_us;
    struct mr_timer timer; /* deadline of the step */
    bool late;             /* the deadline has passed */
};

void mr_transition_init(struct mr_transition *t, struct mr_loop *loop);

/** Starts a transition, from REST. Takes the plan's `ways_out`. */
void mr_transition_begin(struct mr_transition *t, const struct mr_transition_plan *plan);

/** Call once per turn: takes the steps that are due. */
void mr_transition_turn(struct mr_transition *t);

/** Abandons the transition because the master ends. */
void mr_transition_stop(struct mr_transition *t);

const char *mr_transition_name(enum mr_transition_step step);
