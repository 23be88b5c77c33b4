/*
 * transition.h - from one set of processes to the next without losing a client. Private to
 * src/proc.
 *
 * One state machine for a start, a reload and both ends of a binary upgrade. They differ in who is
 * on either side (side.h) and in what is done and said on the way (struct mr_transition_kind).
 *
 *            to: ready    from: quiesced   to: failed   from: failed, stop   deadline
 * STARTING   DRAINING     -                FAILING      FAILING              FAILING
 * DRAINING   -            STRAYS, LEAVING  FAILING      FAILING, -           ABORTING
 * ABORTING   -            STRAYS, LEAVING  FAILING      FAILING, -           kill the late of from
 * STRAYS     -            -                -            -                    LEAVING
 * LEAVING    -            -                -            -                    kill from, again
 * FAILING    -            -                -            -                    kill to, again
 *
 * STRAYS and LEAVING end at REST when `from` is gone, FAILING when `to` is. Every state but REST
 * has a deadline, LEAVING where worker_shutdown_timeout sets one. What a state waits for is a fact
 * that is looked at once a turn, so none can come at the wrong time.
 *
 * STARTING: the new side comes up beside the old one, which serves as if nothing happened.
 * DRAINING: the old side dispatches nothing more and hands its clients over. The new one serves,
 *   but for pools whose keys move: these wait until nothing is in flight through the old map.
 * ABORTING: requests still in flight through the old map have had their time and are failed.
 * STRAYS: the new map is in force. Slots that go still accept what the kernel had for them.
 * LEAVING: the old side ends with its last client.
 * FAILING: the new side ends. Then the old one takes back what it had given away.
 *
 * Asked to stop, a transition in STARTING fails; later it goes on to its end, since clients are on
 * their way and what they have sent is to be answered.
 */
#pragma once

#include "net/loop.h"
#include "proc/side.h"

enum mr_transition_step {
    MR_TRANSITION_REST,
    MR_TRANSITION_STARTING,
    MR_TRANSITION_DRAINING,
    MR_TRANSITION_ABORTING,
    MR_TRANSITION_STRAYS,
    MR_TRANSITION_LEAVING,
    MR_TRANSITION_FAILING,
};

struct mr_transition;

/** What is done and said on the way. Each is called after the sides were told. */
struct mr_transition_kind {
    const char *name;
    uint32_t start_ms;                          /* for the new side to be ready */
    void (*committed)(struct mr_transition *t); /* clients move from now on */
    void (*released)(struct mr_transition *t);  /* the new map is in force */
    void (*failed)(struct mr_transition *t, const char *reason);
    void (*done)(struct mr_transition *t);   /* REST: `from` is gone */
    void (*undone)(struct mr_transition *t); /* REST: `to` is gone */
};

struct mr_transition_plan {
    const struct mr_transition_kind *kind;
    void *arg;            /* of the kind */
    struct mr_side *from; /* NULL: nobody serves yet */
    struct mr_side *to;
    const struct mr_config *before; /* of `from` */
    uint32_t before_slots;
    struct mr_ways ways_out; /* for the workers of `from`; none where they are another master's */
};

struct mr_transition {
    enum mr_transition_step step;
    struct mr_transition_plan plan;
    struct mr_loop *loop;
    uint32_t number; /* counts transitions */
    uint32_t slots;  /* of `to`, once committed */
    bool committed;  /* clients move */
    bool released;   /* the new map is in force */
    bool stopping;   /* set by the master: the proxy is to end */
    uint64_t began_us, committed_us;
    struct mr_timer timer; /* of the step */
    bool late;             /* it has fired */
};

void mr_transition_init(struct mr_transition *t, struct mr_loop *loop);

/** Begins, from REST. Takes the plan's `ways_out`. */
void mr_transition_begin(struct mr_transition *t, const struct mr_transition_plan *plan);

/** Once a turn: takes the steps that are due. */
void mr_transition_turn(struct mr_transition *t);

/** The master ends without waiting: no more of it. */
void mr_transition_stop(struct mr_transition *t);

const char *mr_transition_name(enum mr_transition_step step);
