/* lifecycle.c - the states of a worker, and what messages from the master do in each. */
#include "proc/lifecycle.h"

#include "core/log.h"

const char *mr_lifecycle_name(enum mr_lifecycle_state state)
{
    static const char *const NAMES[] = {"held",        "serving",  "handing_over",
                                        "held_ending", "draining", "leaving"};

    return NAMES[state];
}

void mr_lifecycle_init(struct mr_lifecycle *life, const struct mr_lifecycle_ops *ops, void *arg,
                       uint32_t limit_ms, bool held)
{
    *life = (struct mr_lifecycle){.state = held ? MR_LIFE_HELD : MR_LIFE_SERVING,
                                  .ops = ops,
                                  .arg = arg,
                                  .limit_ms = limit_ms};
}

bool mr_lifecycle_ending(const struct mr_lifecycle *life)
{
    return life->deadline_us != 0;
}

bool mr_lifecycle_handing_over(const struct mr_lifecycle *life)
{
    return life->state == MR_LIFE_HANDING_OVER || life->state == MR_LIFE_LEAVING;
}

/* ---- messages ---- */

static bool go(struct mr_lifecycle *life)
{
    switch (life->state) {
    case MR_LIFE_HELD:
        life->state = MR_LIFE_SERVING;
        life->ops->release(life->arg);
        return true;
    case MR_LIFE_HELD_ENDING:
        life->state = MR_LIFE_DRAINING;
        life->ops->release(life->arg);
        life->ops->stop_accepting(life->arg);
        return true;
    case MR_LIFE_SERVING:
    case MR_LIFE_DRAINING:
        return true;
    case MR_LIFE_HANDING_OVER:
    case MR_LIFE_LEAVING:
        return false;
    }
    return false;
}

static bool hand_over(struct mr_lifecycle *life, const struct mr_message *msg)
{
    if (msg->fd < 0)
        return false;
    switch (life->state) {
    case MR_LIFE_SERVING:
        life->state = MR_LIFE_HANDING_OVER;
        break;
    case MR_LIFE_DRAINING:
        life->state = MR_LIFE_LEAVING;
        break;
    case MR_LIFE_HELD:
    case MR_LIFE_HELD_ENDING:
    case MR_LIFE_HANDING_OVER:
    case MR_LIFE_LEAVING:
        return false;
    }
    life->transition = msg->body.HANDOVER.transition;
    life->retired = msg->body.HANDOVER.retired;
    life->told_quiesced = false;
    life->stranded = false;
    life->ops->hand_over(life->arg, &msg->body.HANDOVER, msg->fd);
    return true;
}

static bool terminate(struct mr_lifecycle *life, uint64_t now_us)
{
    switch (life->state) {
    case MR_LIFE_HELD:
        life->state = MR_LIFE_HELD_ENDING;
        break;
    case MR_LIFE_SERVING:
        life->state = MR_LIFE_DRAINING;
        life->ops->stop_accepting(life->arg);
        break;
    case MR_LIFE_HANDING_OVER:
        life->state = MR_LIFE_LEAVING;
        if (life->retired) /* otherwise the queues belong to the new workers */
            life->ops->stop_accepting(life->arg);
        break;
    case MR_LIFE_HELD_ENDING:
    case MR_LIFE_DRAINING:
    case MR_LIFE_LEAVING:
        return true;
    }
    life->deadline_us =
        life->limit_ms == 0 ? UINT64_MAX : now_us + (uint64_t)life->limit_ms * 1000u;
    return true;
}

static bool resume(struct mr_lifecycle *life)
{
    switch (life->state) {
    case MR_LIFE_HANDING_OVER:
        life->state = MR_LIFE_SERVING;
        break;
    case MR_LIFE_LEAVING:
        life->state = MR_LIFE_DRAINING;
        break;
    case MR_LIFE_HELD:
    case MR_LIFE_SERVING:
    case MR_LIFE_HELD_ENDING:
    case MR_LIFE_DRAINING:
        return false;
    }
    life->ops->resume(life->arg);
    if (life->state == MR_LIFE_DRAINING)
        life->ops->stop_accepting(life->arg);
    return true;
}

static bool abort_requests(struct mr_lifecycle *life)
{
    if (!mr_lifecycle_handing_over(life))
        return false;
    life->ops->abort(life->arg);
    return true;
}

bool mr_lifecycle_message(struct mr_lifecycle *life, const struct mr_message *msg, uint64_t now_us)
{
    const enum mr_lifecycle_state before = life->state;
    bool taken;

    switch (msg->type) {
    case MR_MSG_GO_TYPE:
        taken = go(life);
        break;
    case MR_MSG_HANDOVER_TYPE:
        taken = hand_over(life, msg);
        break;
    case MR_MSG_TERMINATE_TYPE:
        taken = terminate(life, now_us);
        break;
    case MR_MSG_RESUME_TYPE:
        taken = resume(life);
        break;
    case MR_MSG_ABORT_TYPE:
        taken = abort_requests(life);
        break;
    default:
        return false;
    }
    if (!taken)
        mr_log(MR_LOG_ERR, "message_refused type=%s state=%s",
               mr_message_name((enum mr_message_type)msg->type), mr_lifecycle_name(life->state));
    else if (life->state != before)
        mr_log(MR_LOG_INFO, "worker_state from=%s to=%s", mr_lifecycle_name(before),
               mr_lifecycle_name(life->state));
    return taken;
}

/* ---- turns ---- */

/*
 * Sends clients away. If nobody takes them, they stay for a RESUME, or are closed once it is too
 * late.
 */
static void send_clients(struct mr_lifecycle *life)
{
    if (!life->stranded && !life->ops->send_clients(life->arg)) {
        life->stranded = true;
        mr_log(MR_LOG_WARN, "handover_stranded");
    }
    if (life->stranded && life->state == MR_LIFE_LEAVING)
        life->ops->shed_clients(life->arg);
    if (!life->told_quiesced && life->ops->quiesced(life->arg)) {
        life->told_quiesced = true;
        life->ops->tell_quiesced(life->arg, life->transition);
    }
}

bool mr_lifecycle_turn(struct mr_lifecycle *life, uint64_t now_us)
{
    bool over = false;

    switch (life->state) {
    case MR_LIFE_HELD:
    case MR_LIFE_SERVING:
    case MR_LIFE_HELD_ENDING:
        break;
    case MR_LIFE_HANDING_OVER:
        send_clients(life);
        break;
    case MR_LIFE_LEAVING:
        send_clients(life);
        over = life->ops->empty(life->arg);
        break;
    case MR_LIFE_DRAINING:
        life->ops->end_clients(life->arg);
        over = life->ops->empty(life->arg) && !life->ops->expects_clients(life->arg);
        break;
    }
    if (!over && mr_lifecycle_ending(life) && now_us >= life->deadline_us) {
        mr_log(MR_LOG_WARN, "worker_drain_timeout state=%s", mr_lifecycle_name(life->state));
        over = true;
    }
    return !over;
}
