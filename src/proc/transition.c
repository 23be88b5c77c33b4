/* transition.c - moves from one set of processes to the next without losing clients. */
#include "proc/transition.h"

#include "config/config.h"
#include "core/log.h"

#include <stddef.h>

#define NO_LIMIT  30000u /* for requests in flight of pools without a timeout */
#define STRAY_MS  1000u  /* for handshakes in progress when connections were redirected */
#define MARGIN_MS 1000u  /* added to every limit */

const char *mr_transition_name(enum mr_transition_step step)
{
    static const char *const NAMES[] = {"rest",     "starting", "claiming", "draining",
                                        "aborting", "strays",   "leaving",  "failing"};

    return NAMES[step];
}

static void on_deadline(struct mr_timer *timer)
{
    MR_CONTAINER_OF(timer, struct mr_transition, timer)->late = true;
}

void mr_transition_init(struct mr_transition *t, struct mr_loop *loop)
{
    *t = (struct mr_transition){.loop = loop, .timer = {.fire = on_deadline}};
}

static uint32_t patience_ms(const struct mr_side *side)
{
    return side != NULL ? side->patience_ms : 0;
}

/* Enters a step, or restarts its deadline. `limit_ms` 0: no deadline. */
static void enter(struct mr_transition *t, enum mr_transition_step step, uint64_t limit_ms)
{
    if (step != t->step)
        mr_log(MR_LOG_INFO, "%s_step from=%s to=%s", t->plan.kind->name,
               mr_transition_name(t->step), mr_transition_name(step));
    t->step = step;
    t->late = false;
    mr_timer_cancel(&t->timer);
    if (limit_ms > 0)
        mr_loop_timer(t->loop, &t->timer, limit_ms);
}

void mr_transition_begin(struct mr_transition *t, const struct mr_transition_plan *plan)
{
    MR_CHECK(t->step == MR_TRANSITION_REST);
    t->plan = *plan;
    t->number++;
    t->committed = t->released = false;
    t->began_us = t->loop->now_us;
    enter(t, MR_TRANSITION_STARTING, plan->kind->start_ms);
}

static void rest(struct mr_transition *t, void (*over)(struct mr_transition *))
{
    enter(t, MR_TRANSITION_REST, 0);
    mr_ways_close(&t->plan.ways_out);
    over(t);
}

static void fail(struct mr_transition *t, const char *reason)
{
    enter(t, MR_TRANSITION_FAILING, MARGIN_MS);
    t->plan.to->ops->drop(t->plan.to);
    t->plan.kind->failed(t, reason);
}

/* How long requests in flight may delay a change of the map. */
static uint32_t drain_limit_ms(const struct mr_config *config)
{
    uint32_t limit = 0;

    for (uint32_t i = 0; config != NULL && i < config->n_pools; i++) {
        const uint32_t ms = config->pools[i].timeout_ms;
        const uint32_t bound = ms == 0 ? NO_LIMIT : ms;
        if (bound > limit)
            limit = bound;
    }
    return limit + MARGIN_MS;
}

/* The new side is up. */
static void claim(struct mr_transition *t)
{
    struct mr_side *from = t->plan.from;

    enter(t, MR_TRANSITION_CLAIMING, t->plan.kind->start_ms);
    t->terms = (struct mr_side_terms){.transition = t->number};
    if (from == NULL)
        return;
    t->plan.to->ops->terms(t->plan.to, t->plan.before, &t->terms);
    if (from->ops->claim != NULL)
        from->ops->claim(from, &t->terms);
}

static void commit(struct mr_transition *t)
{
    t->committed = true;
    t->committed_us = t->loop->now_us;
    enter(t, MR_TRANSITION_DRAINING, drain_limit_ms(t->plan.before) + patience_ms(t->plan.from));
    t->plan.to->ops->commit(t->plan.to);
    if (t->plan.from != NULL)
        t->plan.from->ops->hand_over(t->plan.from, &t->terms, &t->plan.ways_out);
    mr_ways_close(&t->plan.ways_out); /* the workers have them */
    t->plan.kind->committed(t);
}

/* The old side ends with its last client. */
static void dismiss(struct mr_transition *t)
{
    const uint64_t limit_ms =
        t->plan.before != NULL ? t->plan.before->worker_shutdown_timeout_ms : 0;

    enter(t, MR_TRANSITION_LEAVING,
          limit_ms > 0 ? limit_ms + MARGIN_MS + patience_ms(t->plan.from) : 0);
    if (t->plan.from != NULL)
        t->plan.from->ops->dismiss(t->plan.from);
}

static void release(struct mr_transition *t)
{
    t->plan.to->ops->release(t->plan.to);
    if (t->plan.to->ops->failed(t->plan.to)) { /* it failed just now, without receiving this */
        fail(t, "the new processes exited; see their log");
        return;
    }
    t->released = true;
    if (t->plan.from != NULL)
        t->plan.from->ops->retire(t->plan.from);
    if (t->plan.before_slots > t->terms.slots)
        enter(t, MR_TRANSITION_STRAYS, STRAY_MS);
    else
        dismiss(t);
    t->plan.kind->released(t);
}

static const char *why_failed(const struct mr_transition *t)
{
    if (t->plan.to->ops->failed(t->plan.to))
        return "the new processes exited; see their log";
    if (t->plan.from != NULL && t->plan.from->ops->failed(t->plan.from))
        return "the old process cancelled it";
    return NULL;
}

static bool gone(const struct mr_side *side)
{
    return side == NULL || side->ops->gone(side);
}

static void kill_again(struct mr_transition *t, struct mr_side *side)
{
    enter(t, t->step, MARGIN_MS);
    if (side != NULL)
        side->ops->kill(side);
}

static void turn_starting(struct mr_transition *t)
{
    const bool ready = t->plan.to->ops->ready(t->plan.to);
    const char *reason = why_failed(t);

    if (reason == NULL && t->stopping)
        reason = "stopping";
    if (reason == NULL && t->late && !ready)
        reason = "the new processes did not start in time";
    if (reason != NULL)
        fail(t, reason);
    else if (ready)
        claim(t);
}

static void turn_claiming(struct mr_transition *t)
{
    const struct mr_side *from = t->plan.from;
    const char *reason = why_failed(t);

    if (reason != NULL)
        fail(t, reason);
    else if (from == NULL || from->ops->agrees == NULL || from->ops->agrees(from))
        commit(t);
    else if (t->late)
        fail(t, "the old process did not answer");
}

static void turn_draining(struct mr_transition *t)
{
    const char *reason = why_failed(t);

    if (reason != NULL) {
        fail(t, reason);
    } else if (t->plan.from == NULL || t->plan.from->ops->quiesced(t->plan.from)) {
        release(t);
    } else if (t->late && t->step == MR_TRANSITION_DRAINING) {
        mr_log(MR_LOG_WARN, "%s_slow doing=\"failing requests in flight\"", t->plan.kind->name);
        enter(t, MR_TRANSITION_ABORTING, MARGIN_MS + patience_ms(t->plan.from));
        t->plan.from->ops->abort(t->plan.from);
    } else if (t->late) {
        kill_again(t, t->plan.from);
    }
}

static void turn_leaving(struct mr_transition *t)
{
    if (gone(t->plan.from))
        rest(t, t->plan.kind->done);
    else if (t->late && t->step == MR_TRANSITION_STRAYS)
        dismiss(t);
    else if (t->late)
        kill_again(t, t->plan.from);
}

static void turn_failing(struct mr_transition *t)
{
    if (gone(t->plan.to)) {
        if (t->committed)
            t->plan.from->ops->resume(t->plan.from);
        rest(t, t->plan.kind->undone);
    } else if (t->late) {
        kill_again(t, t->plan.to);
    }
}

void mr_transition_turn(struct mr_transition *t)
{
    enum mr_transition_step before;

    do {
        before = t->step;
        switch (t->step) {
        case MR_TRANSITION_REST:
            break;
        case MR_TRANSITION_STARTING:
            turn_starting(t);
            break;
        case MR_TRANSITION_CLAIMING:
            turn_claiming(t);
            break;
        case MR_TRANSITION_DRAINING:
        case MR_TRANSITION_ABORTING:
            turn_draining(t);
            break;
        case MR_TRANSITION_STRAYS:
        case MR_TRANSITION_LEAVING:
            turn_leaving(t);
            break;
        case MR_TRANSITION_FAILING:
            turn_failing(t);
            break;
        }
    } while (t->step != before);
}

void mr_transition_stop(struct mr_transition *t)
{
    mr_timer_cancel(&t->timer);
    mr_ways_close(&t->plan.ways_out);
}
