/*
 * side.h - what a transition needs from the processes that hand over the service and from those
 * that take it over: a team of this master, or the other master of an upgrade. Private to src/proc.
 */
#pragma once

#include "proc/channel.h"
#include "proc/ways.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_config;
struct mr_side;

struct mr_side_terms {
    uint32_t transition;                  /* number of the transition */
    uint32_t slots;                       /* of the side that takes over */
    uint8_t moves[MR_HANDOVER_POOLS / 8]; /* bit per old pool whose keys move */
};

/** The first five are facts, queried once per turn; the others are commands. None may block. */
struct mr_side_ops {
    bool (*ready)(const struct mr_side *side);  /* able to take over */
    bool (*failed)(const struct mr_side *side); /* will never be able to, or will never hand over */
    bool (*agrees)(const struct mr_side *side); /* confirms a claim; NULL: at any time */
    bool (*quiesced)(const struct mr_side *side); /* nothing that moves is in flight */
    bool (*gone)(const struct mr_side *side);     /* no process is left */

    /* side that takes over */
    void (*terms)(const struct mr_side *side, const struct mr_config *before,
                  struct mr_side_terms *terms);
    void (*commit)(struct mr_side *side);  /* clients arrive from now on */
    void (*release)(struct mr_side *side); /* the old map is idle */
    void (*drop)(struct mr_side *side);    /* not wanted any more: end at once */

    /* side that hands over */
    void (*claim)(struct mr_side *side, const struct mr_side_terms *terms); /* NULL: needs none */
    void (*hand_over)(struct mr_side *side, const struct mr_side_terms *terms,
                      const struct mr_ways *ways);
    void (*abort)(struct mr_side *side);   /* requests in flight are out of time: fail them */
    void (*retire)(struct mr_side *side);  /* the other side serves: helpers end */
    void (*dismiss)(struct mr_side *side); /* end with the last client */
    void (*resume)(struct mr_side *side);  /* nobody takes over: serve again */

    void (*kill)(struct mr_side *side); /* kill the processes that delay the transition */
};

struct mr_side {
    const struct mr_side_ops *ops;
    uint32_t patience_ms; /* allowed in addition to the side's own limits */
};
