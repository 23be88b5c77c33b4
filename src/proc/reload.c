/* reload.c - moves from one configuration to the next, between two teams of this master. */
#include "proc/reload.h"

#include "config/diff.h"
#include "core/clock.h"
#include "core/log.h"
#include "proc/files.h"
#include "proc/notify.h"

#include <stdio.h>

#define START_MS 10000u /* time for new workers to start */

static struct mr_reload *reload_of(const struct mr_transition *t)
{
    return t->plan.arg;
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

static void log_plan(const struct mr_generation *g, const struct mr_generation *old)
{
    mr_log(MR_LOG_NOTICE,
           "reload_begins generation=%u pools=%u moved=%u added=%u removed=%u workers=%u",
           g->number, g->config->n_pools, count_moved(g), count_missing(old, g),
           count_missing(g, old), g->runtime.n_slots);
    mr_config_diff(g->config, old->config, log_change, NULL);
    mr_generation_log_findings(g);
}

/* ---- progress ---- */

static void note_failure(struct mr_reload *r, const char *reason)
{
    struct mr_reloads *seen = (*r->serving)->generation.runtime.reloads;

    seen->failed_at_us = mr_clock_wall_us();
    (void)snprintf(seen->reason, sizeof(seen->reason), "%s", reason);
    seen->failed++;
    mr_log(MR_LOG_ERR, "reload_failed reason=\"%s\" using=old_configuration", reason);
    mr_notify("READY=1\nSTATUS=the last reload failed; the old configuration is in force");
}

static void failed(struct mr_transition *t, const char *reason)
{
    note_failure(reload_of(t), reason);
}

static void committed(struct mr_transition *t)
{
    struct mr_reload *r = reload_of(t);
    struct mr_team *old = *r->serving;

    *r->serving = r->beside;
    r->beside = old;
    mr_listeners_steer(&(*r->serving)->generation.listeners, &old->generation.listeners);
}

static void released(struct mr_transition *t)
{
    struct mr_reload *r = reload_of(t);
    struct mr_team *team = *r->serving;
    const struct mr_generation *g = &team->generation;
    const uint64_t now_us = t->loop->now_us;

    mr_generation_inherit_counters(&team->generation, &r->beside->generation);
    mr_generation_retire(&r->beside->generation, g);
    mr_team_start_admin(team);
    mr_files_follow(r->options, g->config, r->beside->generation.config, r->pidfile);
    mr_team_share_log(team);
    mr_team_share_log(r->beside);
    g->runtime.reloads->done++;
    mr_log(MR_LOG_NOTICE, "reloaded generation=%u workers=%u pools=%u paused_ms=%.3f took_ms=%.3f",
           g->number, g->runtime.n_slots, g->config->n_pools,
           (double)(now_us - t->committed_us) / 1e3, (double)(now_us - r->asked_us) / 1e3);
    mr_notify("READY=1\nSTATUS=serving");
}

static void done(struct mr_transition *t)
{
    struct mr_reload *r = reload_of(t);
    struct mr_team *team = *r->serving;
    const uint32_t number = r->beside->generation.number;

    mr_generation_inherit_counters(&team->generation, &r->beside->generation);
    mr_ways_close(&team->ways_in);
    mr_team_free(r->beside, &team->generation);
    r->beside = NULL;
    mr_log(MR_LOG_INFO, "generation_gone generation=%u", number);
}

static void undone(struct mr_transition *t)
{
    struct mr_reload *r = reload_of(t);

    mr_team_free(r->beside, &(*r->serving)->generation);
    r->beside = NULL;
}

static const struct mr_transition_kind RELOAD = {.name = "reload",
                                                 .start_ms = START_MS,
                                                 .committed = committed,
                                                 .released = released,
                                                 .failed = failed,
                                                 .done = done,
                                                 .undone = undone};

/* ---- start ---- */

static enum mr_result make_team(struct mr_reload *r, struct mr_ways *ways_out, struct mr_error *err)
{
    const struct mr_generation *old = &(*r->serving)->generation;
    struct mr_ways ways_in;
    struct mr_generation g;
    enum mr_result rc = mr_generation_load(&g, r->options, r->conf_file, err);

    if (rc != MR_OK) {
        mr_generation_log_findings(&g);
        mr_findings_fini(&g.findings);
        return rc;
    }
    rc = mr_generation_open(&g, r->options, old, err);
    if (rc == MR_OK)
        rc = mr_ways_open(&ways_in, ways_out, old->runtime.n_slots, err);
    if (rc != MR_OK) {
        mr_generation_close(&g, old);
        return rc;
    }
    r->beside = mr_team_new(&g, r->transition->loop, r->hooks);
    r->beside->ways_in = ways_in;
    return MR_OK;
}

void mr_reload_begin(struct mr_reload *r)
{
    struct mr_team *old = *r->serving;
    struct mr_transition_plan plan = {.kind = &RELOAD,
                                      .arg = r,
                                      .from = &old->side,
                                      .before = old->generation.config,
                                      .before_slots = old->generation.runtime.n_slots};
    struct mr_error err;

    r->asked_us = mr_clock_mono_us();
    mr_notify_reloading();
    if (make_team(r, &plan.ways_out, &err) != MR_OK) {
        note_failure(r, err.text);
        return;
    }
    log_plan(&r->beside->generation, &old->generation);
    plan.to = &r->beside->side;
    mr_transition_begin(r->transition, &plan);
    mr_team_start(r->beside, false);
}
