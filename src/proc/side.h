/*
 * side.h - what a transition asks of the processes that give the service away and of those that
 * take it: a team of this master, or the other master of an upgrade. Private to src/proc.
 */
#pragma once

#include "proc/channel.h"
#include "proc/ways.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_config;
struct mr_side;

struct mr_side_terms {
    uint32_t transition;                  /* counts them */
    uint32_t slots;                       /* of the side that takes over */
    uint8_t moves[MR_HANDOVER_POOLS / 8]; /* a bit for each pool of the old side whose keys move */
};

/** The first four are facts, asked for once a turn; the others are told. None may block. */
struct mr_side_ops {
    bool (*ready)(const struct mr_side *side);    /* can take over */
    bool (*failed)(const struct mr_side *side);   /* never will, or never gives */
    bool (*quiesced)(const struct mr_side *side); /* nothing that moves is in flight */
    bool (*gone)(const struct mr_side *side);     /* no process is left */

    /* the side that takes over */
    void (*terms)(const struct mr_side *side, const struct mr_config *before,
                  struct mr_side_terms *terms);
    void (*commit)(struct mr_side *side);  /* clients come from now on */
    void (*release)(struct mr_side *side); /* the old map is at rest */
    void (*drop)(struct mr_side *side);    /* it is not wanted: ends at once */

    /* the side that gives */
    void (*hand_over)(struct mr_side *side, const struct mr_side_terms *terms,
                      const struct mr_ways *ways);
    void (*abort)(struct mr_side *side);   /* requests in flight have had their time */
    void (*retire)(struct mr_side *side);  /* the other one serves: helpers end */
    void (*dismiss)(struct mr_side *side); /* ends when its last client has gone */
    void (*resume)(struct mr_side *side);  /* nobody takes over: serves again */

    void (*kill)(struct mr_side *side); /* those that keep the transition waiting */
};

struct mr_side {
    const struct mr_side_ops *ops;
    uint32_t patience_ms; /* over what it has itself for each step */
};
