/*
 * remote.h - the other master of a binary upgrade as a side of a transition. Private to src/proc.
 *
 * In the old master the new one is the side that takes over, in the new master the old one is the
 * side that gives. Both run the same transition; over the link they tell each other the steps:
 * TAKEOVER (my workers are up: hand over), DRAINED (mine are quiesced: release), CANCEL (the
 * upgrade is off). The end of the link is the end of the other master and of its workers.
 */
#pragma once

#include "net/loop.h"
#include "proc/side.h"

#include <sys/types.h>

struct mr_remote {
    struct mr_side side;
    struct mr_loop *loop;
    struct mr_watch link;
    pid_t pid;                         /* of the other master; 0 once it was reaped */
    bool takeover, drained, cancelled; /* what it has said */
    bool lost;                         /* the link has ended or tells what is not understood */
    struct mr_takeover_payload wants;  /* with TAKEOVER */
};

/** The new master, our child. Takes the descriptor of the link. */
void mr_remote_init_successor(struct mr_remote *r, struct mr_loop *loop, pid_t pid, int link);

/** The old master, our parent. Takes the descriptor of the link. */
void mr_remote_init_predecessor(struct mr_remote *r, struct mr_loop *loop, pid_t pid, int link);

/** Closes the link; fine for one that was never set up or is closed. */
void mr_remote_close(struct mr_remote *r);

/** True while there is a link. */
bool mr_remote_is_open(const struct mr_remote *r);
