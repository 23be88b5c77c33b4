/* remote.c - the other master of a binary upgrade, as a side of a transition. */
#include "proc/remote.h"

#include "core/log.h"
#include "proc/child.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

#define PATIENCE_MS 4000u /* longer than the other master's own limits */

static struct mr_remote *of_side(const struct mr_side *side)
{
    return MR_CONTAINER_OF(side, struct mr_remote, side);
}

static void take(struct mr_remote *r, const struct mr_message *msg)
{
    switch (msg->type) {
    case MR_MSG_TAKEOVER_TYPE:
        r->takeover = true;
        r->wants = msg->body.TAKEOVER;
        break;
    case MR_MSG_OPEN_TYPE:
        r->open = true;
        break;
    case MR_MSG_DRAINED_TYPE:
        r->drained = true;
        break;
    case MR_MSG_CANCEL_TYPE:
        r->cancelled = true;
        break;
    default:
        break;
    }
}

static void on_link(struct mr_watch *watch)
{
    struct mr_remote *r = MR_CONTAINER_OF(watch, struct mr_remote, link);
    struct mr_message msg;
    struct mr_error err;
    enum mr_result rc;

    while ((rc = mr_channel_recv(watch->fd, &msg, &err)) == MR_OK)
        take(r, &msg);
    if (rc == MR_AGAIN)
        return;
    if (rc == MR_EPROTO) { /* it is alive, so both must not conclude that they serve alone */
        mr_log(MR_LOG_ERR, "upgrade_link_failed error=\"%s\"", err.text);
        r->cancelled = true;
    }
    r->lost = true;
    mr_watch_stop(r->loop, watch);
}

static void say(struct mr_remote *r, struct mr_message *msg)
{
    struct mr_error err;

    if (r->lost || mr_channel_send(r->link.fd, msg, -1, &err) == MR_OK)
        return;
    mr_log(MR_LOG_ERR, "upgrade_link_failed error=\"%s\"", err.text);
    r->lost = true;
}

static void nothing(struct mr_side *side)
{
    (void)side;
}

static void kill_it(struct mr_side *side)
{
    const struct mr_remote *r = of_side(side);

    if (r->pid == 0)
        return;
    mr_log(MR_LOG_WARN, "master_killed pid=%d reason=does_not_answer", (int)r->pid);
    mr_signal(r->pid, SIGKILL);
}

/* ---- the new master, seen from the old one ---- */

static bool successor_ready(const struct mr_side *side)
{
    return of_side(side)->takeover;
}

static bool successor_failed(const struct mr_side *side)
{
    const struct mr_remote *r = of_side(side);

    return r->lost || r->pid == 0;
}

static bool successor_gone(const struct mr_side *side)
{
    return of_side(side)->pid == 0;
}

static void successor_terms(const struct mr_side *side, const struct mr_config *before,
                            struct mr_side_terms *terms)
{
    const struct mr_remote *r = of_side(side);

    (void)before;
    terms->slots = r->wants.slots;
    memcpy(terms->moves, r->wants.moves, sizeof(terms->moves));
}

static void tell(struct mr_side *side, enum mr_message_type type)
{
    struct mr_message msg = {.type = (uint16_t)type};

    say(of_side(side), &msg);
}

static void commit_successor(struct mr_side *side)
{
    tell(side, MR_MSG_OPEN_TYPE);
}

static void release_successor(struct mr_side *side)
{
    tell(side, MR_MSG_DRAINED_TYPE);
}

static void drop_successor(struct mr_side *side)
{
    tell(side, MR_MSG_CANCEL_TYPE);
}

static const struct mr_side_ops SUCCESSOR = {
    .ready = successor_ready,
    .failed = successor_failed,
    .gone = successor_gone,
    .terms = successor_terms,
    .commit = commit_successor,
    .release = release_successor,
    .drop = drop_successor,
    .kill = kill_it,
};

/* ---- the old master, seen from the new one ---- */

/* It cancelled the upgrade. If it died instead, the upgrade can go on. */
static bool predecessor_failed(const struct mr_side *side)
{
    return of_side(side)->cancelled;
}

static bool predecessor_agrees(const struct mr_side *side)
{
    return of_side(side)->open || of_side(side)->lost;
}

static bool predecessor_quiesced(const struct mr_side *side)
{
    return of_side(side)->drained || of_side(side)->lost;
}

static bool predecessor_gone(const struct mr_side *side)
{
    return of_side(side)->lost;
}

static void ask_predecessor(struct mr_side *side, const struct mr_side_terms *terms)
{
    struct mr_message msg = {.type = MR_MSG_TAKEOVER_TYPE};

    msg.body.TAKEOVER.slots = terms->slots;
    memcpy(msg.body.TAKEOVER.moves, terms->moves, sizeof(terms->moves));
    say(of_side(side), &msg);
}

/* It does so when it says OPEN. */
static void hand_over(struct mr_side *side, const struct mr_side_terms *terms,
                      const struct mr_ways *ways)
{
    (void)side;
    (void)terms;
    (void)ways; /* its own workers have them */
}

static const struct mr_side_ops PREDECESSOR = {
    .agrees = predecessor_agrees,
    .claim = ask_predecessor,
    .failed = predecessor_failed,
    .quiesced = predecessor_quiesced,
    .gone = predecessor_gone,
    .hand_over = hand_over,
    .abort = nothing,
    .retire = nothing,
    .dismiss = nothing,
    .resume = nothing,
    .kill = kill_it,
};

/* ---- common ---- */

static void init(struct mr_remote *r, struct mr_loop *loop, pid_t pid, int link)
{
    *r = (struct mr_remote){.side = {.patience_ms = PATIENCE_MS},
                            .loop = loop,
                            .pid = pid,
                            .link = {.on_ready = on_link, .fd = link}};
    mr_watch_start(loop, &r->link);
}

void mr_remote_init_successor(struct mr_remote *r, struct mr_loop *loop, pid_t pid, int link)
{
    init(r, loop, pid, link);
    r->side.ops = &SUCCESSOR;
}

void mr_remote_init_predecessor(struct mr_remote *r, struct mr_loop *loop, pid_t pid, int link)
{
    init(r, loop, pid, link);
    r->side.ops = &PREDECESSOR;
}

bool mr_remote_is_open(const struct mr_remote *r)
{
    return r->loop != NULL;
}

void mr_remote_close(struct mr_remote *r)
{
    if (!mr_remote_is_open(r))
        return;
    mr_watch_stop(r->loop, &r->link);
    mr_channel_close(r->link.fd);
    *r = (struct mr_remote){0};
}
