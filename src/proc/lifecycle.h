/*
 * lifecycle.h - the states of a worker, and what messages from the master do in each.
 *
 *               GO         HANDOVER      TERMINATE     RESUME    ABORT
 * HELD          SERVING    refused       HELD_ENDING   refused   refused
 * SERVING       -          HANDING_OVER  DRAINING      refused   refused
 * HANDING_OVER  refused    refused       LEAVING       SERVING   fails requests
 * HELD_ENDING   DRAINING   refused       -             refused   refused
 * DRAINING      -          LEAVING       -             refused   refused
 * LEAVING       refused    refused       -             DRAINING  fails requests
 *
 * "-": no effect. Refused messages are logged, because the master should not send them. LEAVING
 * ends with the last client; DRAINING too, but not while earlier workers may send more. From
 * TERMINATE on there is a time limit.
 */
#pragma once

#include "proc/channel.h"

#include <stdbool.h>
#include <stdint.h>

enum mr_lifecycle_state {
    MR_LIFE_HELD,         /* pools whose keys move wait for GO; the others are served */
    MR_LIFE_SERVING,      /* all pools are served */
    MR_LIFE_HANDING_OVER, /* dispatches nothing; clients move to new workers */
    MR_LIFE_HELD_ENDING,  /* like HELD, but becomes DRAINING after GO, so that received requests are
                             answered */
    MR_LIFE_DRAINING,     /* closes clients once they have all their replies */
    MR_LIFE_LEAVING,      /* like HANDING_OVER, but the process ends with its last client */
};

/** What the worker does for the lifecycle. */
struct mr_lifecycle_ops {
    /** Stops dispatching, and accepting unless the slot is retired. Takes `way`. */
    void (*hand_over)(void *arg, const struct mr_handover_payload *terms, int way);
    /** Cancels the handover: dispatches, and accepts unless draining. */
    void (*resume)(void *arg);
    /** Starts dispatching for held pools, and accepting unless draining. */
    void (*release)(void *arg);
    /** Accepts what is queued, then stops. */
    void (*stop_accepting)(void *arg);
    /** Fails requests in flight to pools whose keys move. */
    void (*abort)(void *arg);
    /** Sends clients that can move. False if nobody takes them. */
    bool (*send_clients)(void *arg);
    /** Closes clients that have all their replies and have sent nothing more. */
    void (*end_clients)(void *arg);
    /**
     * Closes clients that wait for no reply, even with unread input, which nobody would dispatch.
     */
    void (*shed_clients)(void *arg);
    /** True if no request is in flight to a pool whose keys move. */
    bool (*quiesced)(const void *arg);
    /** True without clients, and with none being passed to this worker. */
    bool (*empty)(void *arg);
    /** True while earlier workers may still send clients. */
    bool (*expects_clients)(const void *arg);
    void (*tell_quiesced)(void *arg, uint32_t transition);
};

struct mr_lifecycle {
    enum mr_lifecycle_state state;
    const struct mr_lifecycle_ops *ops;
    void *arg;           /* for the ops */
    uint32_t limit_ms;   /* time for ending; 0: no limit */
    uint32_t transition; /* of the last HANDOVER */
    bool retired; /* the slot is removed: nobody else accepts for it, so this worker still does */
    bool told_quiesced;   /* QUIESCED was sent */
    bool stranded;        /* nobody receives clients any more */
    uint64_t deadline_us; /* while ending; UINT64_MAX: no limit */
};

/** `held`: there are pools that wait for GO. */
void mr_lifecycle_init(struct mr_lifecycle *life, const struct mr_lifecycle_ops *ops, void *arg,
                       uint32_t limit_ms, bool held);

/**
 * Handles a message from the master.
 * @return false if the message is refused or unknown: its descriptor then stays with the caller
 */
bool mr_lifecycle_message(struct mr_lifecycle *life, const struct mr_message *msg, uint64_t now_us);

/**
 * Call after each turn of the loop.
 * @return false if the worker is done
 */
bool mr_lifecycle_turn(struct mr_lifecycle *life, uint64_t now_us);

/** True in states that lead to the end. */
bool mr_lifecycle_ending(const struct mr_lifecycle *life);

/** True while clients move to new workers. */
bool mr_lifecycle_handing_over(const struct mr_lifecycle *life);

const char *mr_lifecycle_name(enum mr_lifecycle_state state);
