/* reload.c - from one configuration to the next without losing a client. */
#include "proc/reload.h"

#include "config/diff.h"
#include "core/clock.h"
#include "core/log.h"
#include "proc/files.h"
#include "proc/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_MS  10000u /* for new workers to report READY */
#define NO_LIMIT  30000u /* for requests in flight where a pool has no timeout */
#define STRAY_MS  1000u  /* for handshakes that were under way when connections were steered */
#define MARGIN_MS 1000u

static void next_if_asked(struct mr_reload *r)
{
    r->step = MR_RELOAD_NONE;
    mr_timer_cancel(&r->timer);
    if (!r->again)
        return;
    r->again = false;
    mr_reload_begin(r);
}

/* ---- what will change ---- */

static uint32_t count_moved(const struct mr_generation *g)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->config->n_pools; i++)
        n += g->runtime.held[i];
    return n;
}

static uint32_t count_missing(const struct mr_generation *in, const struct mr_generation *of)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < of->config->n_pools; i++)
        n += mr_config_pool(in->config, of->config->pools[i].name) == NULL;
    return n;
}

static void log_change(void *arg, const char *text)
{
    (void)arg;
    mr_log(MR_LOG_NOTICE, "reload_change text=\"%s\"", text);
}

/* ---- 1 and 2: the new team ---- */

static void fail(struct mr_reload *r, const char *reason)
{
    struct mr_reloads *seen = (*r->current)->generation.runtime.reloads;

    seen->failed_at_us = mr_clock_wall_us();
    (void)snprintf(seen->reason, sizeof(seen->reason), "%s", reason);
    seen->failed++;
    mr_log(MR_LOG_ERR, "reload_failed reason=\"%s\" using=old_configuration", reason);
    mr_notify("READY=1\nSTATUS=the last reload failed; the old configuration is in force");
    if (r->incoming != NULL) {
        struct mr_message msg = {.type = MR_MSG_QUIT_TYPE};
        mr_team_leave(r->incoming);
        mr_team_tell(r->incoming, &msg, -1, -1);
        r->outgoing = r->incoming; /* freed when its last child is gone */
        r->incoming = NULL;
        r->step = MR_RELOAD_LEAVING;
        r->last_call = true;
        mr_loop_timer(r->loop, &r->timer, MARGIN_MS);
        return;
    }
    next_if_asked(r);
}

static void step_over(struct mr_timer *timer);

void mr_reload_begin(struct mr_reload *r)
{
    const struct mr_generation *old = &(*r->current)->generation;
    struct mr_generation g;
    struct mr_error err;

    if (r->step != MR_RELOAD_NONE) {
        r->again = true;
        return;
    }
    r->asked_us = mr_clock_mono_us();
    if (mr_generation_load(&g, r->options, r->conf_file, &err) != MR_OK) {
        fail(r, err.text);
        return;
    }
    if (mr_generation_open(&g, r->options, old, &err) != MR_OK) {
        mr_generation_close(&g, old);
        fail(r, err.text);
        return;
    }
    mr_notify_reloading();
    mr_log(MR_LOG_NOTICE,
           "reload_begins generation=%u pools=%u moved=%u added=%u removed=%u workers=%u", g.number,
           g.config->n_pools, count_moved(&g), count_missing(old, &g), count_missing(&g, old),
           g.runtime.n_slots);
    mr_config_diff(g.config, old->config, log_change, NULL);
    for (uint32_t i = 0; i < g.config->n_warnings; i++)
        mr_log(MR_LOG_WARN, "conf_warning text=\"%s\"", g.config->warnings[i]);
    r->step = MR_RELOAD_STARTING;
    r->timer.fire = step_over;
    mr_loop_timer(r->loop, &r->timer, START_MS);
    r->incoming = mr_team_new(&g, r->loop, r->hooks);
    if (mr_team_open_ways(r->incoming, old->runtime.n_slots, &err) != MR_OK) {
        fail(r, err.text);
        return;
    }
    mr_team_start(r->incoming, false);
}

/* ---- 3: clients move ---- */

uint32_t mr_reload_drain_limit_ms(const struct mr_config *config)
{
    uint32_t limit = 0;

    for (uint32_t i = 0; i < config->n_pools; i++) {
        const uint32_t ms = config->pools[i].timeout_ms;
        const uint32_t bound = ms == 0 ? NO_LIMIT : ms;
        if (bound > limit)
            limit = bound;
    }
    return limit + MARGIN_MS;
}

void mr_reload_moves(uint8_t *bits, const struct mr_generation *now, const struct mr_config *before)
{
    for (uint32_t i = 0; i < before->n_pools && i < MR_HANDOVER_POOLS; i++) {
        const struct mr_pool_config *pool = mr_config_pool(now->config, before->pools[i].name);
        if (pool == NULL || now->runtime.held[pool - now->config->pools])
            bits[i / 8] |= (uint8_t)(1u << (i % 8));
    }
}

static void hand_over(struct mr_reload *r)
{
    struct mr_team *old = *r->current;

    r->step = MR_RELOAD_DRAINING;
    r->last_call = false;
    r->outgoing = old;
    *r->current = r->incoming;
    r->incoming = NULL;
    r->paused_us = mr_clock_mono_us();
    mr_listeners_steer(&(*r->current)->generation.listeners, &old->generation.listeners);
    struct mr_handover_payload body = {0};
    mr_reload_moves(body.moves, &(*r->current)->generation, old->generation.config);
    mr_team_hand_over(old, (*r->current)->ways_out, (*r->current)->generation.runtime.n_slots,
                      body.moves);
    mr_team_ways_given(*r->current);
    mr_loop_timer(r->loop, &r->timer, mr_reload_drain_limit_ms(old->generation.config));
    mr_reload_drained(r); /* there may be nobody left who could say so */
}

void mr_reload_ready(struct mr_reload *r, struct mr_child *child)
{
    if (r->step == MR_RELOAD_STARTING && child->team == r->incoming && mr_team_ready(r->incoming))
        hand_over(r);
}

/* ---- 4: the new map is in force ---- */

void mr_reload_release(struct mr_team *team)
{
    struct mr_message go = {.type = MR_MSG_GO_TYPE};
    struct mr_runtime *rt = &team->generation.runtime;

    memset(rt->held, 0, team->generation.config->n_pools * sizeof(*rt->held));
    mr_team_tell(team, &go, -1, MR_WORKER);
    mr_team_start_admin(team);
}

/* The old workers end when their last client has gone. */
static void dismiss(struct mr_reload *r)
{
    struct mr_message msg = {.type = MR_MSG_TERMINATE_TYPE};
    const uint32_t limit_ms = r->outgoing->generation.config->worker_shutdown_timeout_ms;

    r->last_call = true;
    mr_team_tell(r->outgoing, &msg, -1, MR_WORKER);
    if (limit_ms > 0)
        mr_loop_timer(r->loop, &r->timer, (uint64_t)limit_ms + MARGIN_MS);
}

void mr_reload_drained(struct mr_reload *r)
{
    struct mr_message quit = {.type = MR_MSG_QUIT_TYPE};
    struct mr_team *team = *r->current;

    if (r->step != MR_RELOAD_DRAINING || !mr_team_drained(r->outgoing))
        return;
    r->step = MR_RELOAD_LEAVING;
    r->last_call = false;
    mr_timer_cancel(&r->timer);
    mr_reload_release(team);
    mr_generation_inherit_counters(&team->generation, &r->outgoing->generation);
    mr_team_tell(r->outgoing, &quit, -1, MR_ADMIN);
    mr_team_tell(r->outgoing, &quit, -1, MR_RESOLVER);
    mr_files_follow(r->options, team->generation.config, r->outgoing->generation.config,
                    r->pidfile);
    mr_team_share_log(team);
    mr_team_share_log(r->outgoing);
    const uint64_t now_us = mr_clock_mono_us();
    (*r->current)->generation.runtime.reloads->done++;
    mr_log(MR_LOG_NOTICE, "reloaded generation=%u workers=%u pools=%u paused_ms=%.3f took_ms=%.3f",
           team->generation.number, team->generation.runtime.n_slots,
           team->generation.config->n_pools, (double)(now_us - r->paused_us) / 1e3,
           (double)(now_us - r->asked_us) / 1e3);
    mr_notify("READY=1\nSTATUS=serving");
    if (r->outgoing->generation.runtime.n_slots > team->generation.runtime.n_slots)
        mr_loop_timer(r->loop, &r->timer, STRAY_MS); /* retired sockets may still get some */
    else
        dismiss(r);
}

/* The time of a step is over. */
static void step_over(struct mr_timer *timer)
{
    struct mr_reload *r = MR_CONTAINER_OF(timer, struct mr_reload, timer);
    struct mr_message abort_ = {.type = MR_MSG_ABORT_TYPE};

    if (r->step == MR_RELOAD_STARTING) {
        fail(r, "new workers do not start");
    } else if (r->last_call) {
        mr_team_kill(r->outgoing);
    } else if (r->step == MR_RELOAD_DRAINING) {
        mr_log(MR_LOG_WARN, "reload_slow doing=\"requests in flight are failed\"");
        r->last_call = true;
        mr_team_tell(r->outgoing, &abort_, -1, MR_WORKER);
        mr_loop_timer(r->loop, &r->timer, MARGIN_MS);
    } else if (r->step == MR_RELOAD_LEAVING) {
        dismiss(r);
    }
}

bool mr_reload_death(struct mr_reload *r, struct mr_child *child)
{
    if (r->step == MR_RELOAD_STARTING && child->team == r->incoming && child->kind == MR_WORKER) {
        fail(r, "a new worker died while starting");
        return false;
    }
    if (child->team == r->outgoing)
        mr_reload_drained(r);
    return child->team == *r->current || child->team == r->incoming;
}

void mr_reload_tidy(struct mr_reload *r)
{
    struct mr_team *team = *r->current;

    if (r->step != MR_RELOAD_LEAVING || mr_team_alive(r->outgoing, -1) > 0)
        return;
    const uint32_t number = r->outgoing->generation.number;
    if (number < team->generation.number) {
        mr_generation_inherit_counters(&team->generation, &r->outgoing->generation);
        mr_team_ways_done(team);
    }
    mr_team_free(r->outgoing, &team->generation);
    r->outgoing = NULL;
    if (number < team->generation.number) /* not one that never served */
        mr_log(MR_LOG_INFO, "generation_gone generation=%u", number);
    next_if_asked(r);
}

void mr_reload_stop(struct mr_reload *r)
{
    mr_timer_cancel(&r->timer);
    r->again = false;
    if (r->outgoing != NULL)
        mr_team_leave(r->outgoing);
    if (r->incoming != NULL)
        mr_team_leave(r->incoming);
}
