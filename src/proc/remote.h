/*
 * remote.h - the other master of a binary upgrade, as a side of a transition. Private to src/proc.
 *
 * For the old master, the new one is the side that takes over; for the new master, the old one is
 * the side that hands over. Both run the same transition and tell each other its steps over the
 * link: TAKEOVER (my workers are up: hand over), OPEN (agreed: clients move), DRAINED (mine are
 * quiesced: release), CANCEL (the upgrade is off). When the link closes, the other master and its
 * workers have ended.
 */
#pragma once

#include "net/loop.h"
#include "proc/side.h"

#include <sys/types.h>

struct mr_remote {
    struct mr_side side;
    struct mr_loop *loop;
    struct mr_watch link;
    pid_t pid;                               /* of the other master; 0 once reaped */
    bool takeover, open, drained, cancelled; /* messages received */
    bool lost; /* the link has closed, or got a message that is not understood */
    struct mr_takeover_payload wants; /* received with TAKEOVER */
};

/** The new master, a child of this one. Takes the link's descriptor. */
void mr_remote_init_successor(struct mr_remote *r, struct mr_loop *loop, pid_t pid, int link);

/** The old master, our parent. Takes the link's descriptor. */
void mr_remote_init_predecessor(struct mr_remote *r, struct mr_loop *loop, pid_t pid, int link);

/** Closes the link. Does nothing if it is not open. */
void mr_remote_close(struct mr_remote *r);

/** True while the link is open. */
bool mr_remote_is_open(const struct mr_remote *r);
