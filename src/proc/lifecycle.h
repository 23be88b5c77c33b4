/*
 * lifecycle.h - what a worker is doing, and what a message of its master means then.
 *
 *               GO         HANDOVER      TERMINATE     RESUME    ABORT
 * HELD          SERVING    refused       HELD_ENDING   refused   refused
 * SERVING       -          HANDING_OVER  DRAINING      refused   refused
 * HANDING_OVER  refused    refused       LEAVING       SERVING   fails requests
 * HELD_ENDING   DRAINING   refused       -             refused   refused
 * DRAINING      -          LEAVING       -             refused   refused
 * LEAVING       refused    refused       -             DRAINING  fails requests
 *
 * "-": nothing to do. What is refused is logged, since the master does not send it. LEAVING ends
 * when the last client has gone. DRAINING ends when the last client has gone and no earlier worker
 * can send another one. From TERMINATE on there is a time limit.
 */
#pragma once

#include "proc/channel.h"

#include <stdbool.h>
#include <stdint.h>

enum mr_lifecycle_state {
    MR_LIFE_HELD,         /* pools whose keys move wait for GO, the others are served */
    MR_LIFE_SERVING,      /* all pools are */
    MR_LIFE_HANDING_OVER, /* dispatches nothing more; clients leave for new workers */
    MR_LIFE_HELD_ENDING,  /* HELD, to be DRAINING after GO: what clients have sent is answered */
    MR_LIFE_DRAINING,     /* clients end when they have all their replies */
    MR_LIFE_LEAVING,      /* HANDING_OVER, and this process ends with its last client */
};

/** What the lifecycle decides and the worker does. */
struct mr_lifecycle_ops {
    /** Stops dispatching and, unless the slot is retired, accepting. Takes `way`. */
    void (*hand_over)(void *arg, const struct mr_handover_payload *terms, int way);
    /** Gives the way up: dispatches and, unless it is draining, accepts again. */
    void (*resume)(void *arg);
    /** Dispatches for pools that were held and, unless it is draining, accepts. */
    void (*release)(void *arg);
    /** Accepts what is queued, then nothing more. */
    void (*stop_accepting)(void *arg);
    /** Fails requests in flight to pools whose keys move. */
    void (*abort)(void *arg);
    /** Sends clients that can travel; false when nobody is there to take them. */
    bool (*send_clients)(void *arg);
    /** Ends clients that have all their replies and sent nothing more. */
    void (*end_clients)(void *arg);
    /** Ends clients that wait for no reply, whatever they have sent: nobody will dispatch it. */
    void (*shed_clients)(void *arg);
    /** True when no request is in flight to a pool whose keys move. */
    bool (*quiesced)(const void *arg);
    /** True when no client is here, and none has been given to us by a neighbour. */
    bool (*empty)(void *arg);
    /** True while an earlier worker may still send clients. */
    bool (*expects_clients)(const void *arg);
    void (*tell_quiesced)(void *arg, uint32_t transition);
};

struct mr_lifecycle {
    enum mr_lifecycle_state state;
    const struct mr_lifecycle_ops *ops;
    void *arg;            /* of the ops */
    uint32_t limit_ms;    /* for ending; 0: none */
    uint32_t transition;  /* of the last HANDOVER */
    bool retired;         /* by it: others do not accept for this slot, we still do */
    bool told_quiesced;   /* about it */
    bool stranded;        /* there is nobody at the other end of the way */
    uint64_t deadline_us; /* once it is to end; UINT64_MAX: without limit */
};

/** `held`: there are pools that wait for GO. */
void mr_lifecycle_init(struct mr_lifecycle *life, const struct mr_lifecycle_ops *ops, void *arg,
                       uint32_t limit_ms, bool held);

/**
 * A message of the master. @return false when it is refused or none of those in the table: its
 * descriptor stays the caller's
 */
bool mr_lifecycle_message(struct mr_lifecycle *life, const struct mr_message *msg, uint64_t now_us);

/** After each turn of the loop. @return false when the worker has nothing left to do */
bool mr_lifecycle_turn(struct mr_lifecycle *life, uint64_t now_us);

/** True in the states that end by themselves. */
bool mr_lifecycle_ending(const struct mr_lifecycle *life);

/** True while clients leave for new workers. */
bool mr_lifecycle_handing_over(const struct mr_lifecycle *life);

const char *mr_lifecycle_name(enum mr_lifecycle_state state);
