/*
 * master.c - the process that owns the sockets and keeps the others running.
 *
 * Signals, messages and deaths only set flags; after each turn of the loop, mr_master_act handles
 * them in order.
 */
#include "proc/master.h"

#include "core/log.h"
#include "net/loop.h"
#include "proc/files.h"
#include "proc/notify.h"
#include "proc/question.h"
#include "proc/reload.h"
#include "proc/remote.h"
#include "proc/system.h"
#include "proc/team.h"
#include "proc/transition.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define KILL_AFTER_MS    2000u  /* then children that ignore a stop are killed */
#define START_MS         30000u /* time for workers to start */
#define UPGRADE_START_MS 30000u /* time for a new master and its workers to start */

enum phase {
    RUNNING,
    STOPPING, /* answering what clients have sent */
    QUITTING, /* children are exiting */
};

struct mr_master {
    const struct mr_master_setup *setup;
    struct mr_loop loop;
    struct mr_watch signals;
    struct mr_timer kill_timer;
    struct mr_timer watchdog; /* of the supervisor */
    struct mr_team_hooks hooks;
    struct mr_questions questions; /* of workers to each other */
    struct mr_team *team;          /* the one that serves, or will first */
    struct mr_transition transition;
    struct mr_reload reload;
    struct mr_upgrade upgrade;
    struct mr_remote other; /* other master, during an upgrade */
    enum phase phase;
    bool wants_reload, wants_upgrade; /* start after the current transition */
    bool upgrade_reloads; /* a reload was requested, and the current upgrade includes it */
    bool got_child, got_hup, got_term, got_int, got_usr1, got_usr2;
    int level_change;
    bool handed_over; /* the new master serves */
    bool overdue;     /* the time for stopping is over */
    int status;
};

static struct mr_master *master_of(const struct mr_transition *t)
{
    return t->plan.arg;
}

/* The serving team, and during a reload the one beside it. */
static uint32_t teams(const struct mr_master *m, struct mr_team *all[2])
{
    uint32_t n = 0;

    all[n++] = m->team;
    if (m->reload.beside != NULL)
        all[n++] = m->reload.beside;
    return n;
}

static uint32_t alive(const struct mr_master *m, int kind)
{
    struct mr_team *all[2];
    uint32_t sum = 0;

    for (uint32_t n = teams(m, all); n-- > 0;)
        sum += mr_team_alive(all[n], kind);
    return sum;
}

static void in_child(void *arg)
{
    struct mr_master *m = arg;

    mr_loop_abandon(&m->loop);
    m->setup->in_child(m->setup->arg);
}

static void on_reload_asked(void *arg)
{
    struct mr_master *m = arg;

    mr_log(MR_LOG_NOTICE, "reload_asked by=admin");
    m->wants_reload = true; /* like HUP, but without reopening the log */
}

static void on_question(void *arg, struct mr_child *from, struct mr_message *msg)
{
    struct mr_master *m = arg;
    struct mr_team *all[2];

    mr_questions_pass(&m->questions, all, teams(m, all), from, msg);
}

static const struct mr_transition_kind UPGRADE_TO, UPGRADE_FROM;

/* A new master that does not serve yet ends with this one. */
static bool has_unborn_successor(const struct mr_master *m)
{
    return m->transition.plan.kind == &UPGRADE_TO && m->other.pid != 0 && !m->handed_over;
}

/* Only one process reports to the supervisor: in an upgrade, none until the new one serves. */
static void tell_supervisor(const struct mr_master *m, const char *state)
{
    const struct mr_transition *t = &m->transition;

    if (!m->handed_over && (t->plan.kind != &UPGRADE_FROM || t->released))
        mr_notify(state);
}

static void stop_now(struct mr_master *m, int status)
{
    struct mr_team *all[2];

    tell_supervisor(m, "STOPPING=1");
    m->phase = QUITTING;
    m->status = status;
    mr_transition_stop(&m->transition);
    for (uint32_t n = teams(m, all); n-- > 0;)
        mr_team_quit(all[n]);
    if (has_unborn_successor(m))
        m->other.side.ops->drop(&m->other.side);
    mr_loop_timer(&m->loop, &m->kill_timer, KILL_AFTER_MS);
}

/* ---- the start, alone or after another master ---- */

/* This process serves now. */
static void started(struct mr_transition *t)
{
    struct mr_master *m = master_of(t);
    char state[64];

    mr_generation_log_started(&m->team->generation);
    (void)snprintf(state, sizeof(state), "READY=1\nMAINPID=%d\nSTATUS=serving", (int)getpid());
    tell_supervisor(m, state);
    m->setup->on_ready(m->setup->arg);
}

static void start_failed(struct mr_transition *t, const char *reason)
{
    mr_log(MR_LOG_EMERG, "start_failed reason=\"%s\"", reason);
    stop_now(master_of(t), t->stopping ? 0 : 1);
}

static void nothing(struct mr_transition *t)
{
    (void)t;
}

static const struct mr_transition_kind START = {.name = "start",
                                                .start_ms = START_MS,
                                                .committed = nothing,
                                                .released = started,
                                                .failed = start_failed,
                                                .done = nothing,
                                                .undone = nothing};

static void follow(struct mr_transition *t)
{
    struct mr_master *m = master_of(t);

    mr_listeners_steer(&m->team->generation.listeners, &m->setup->inheritance->previous.listeners);
}

static void followed(struct mr_transition *t)
{
    struct mr_master *m = master_of(t);
    const struct mr_generation *before = &m->setup->inheritance->previous;

    mr_generation_inherit_counters(&m->team->generation, before);
    mr_generation_retire(before, &m->team->generation);
    mr_team_start_admin(m->team);
    started(t);
}

static void predecessor_gone(struct mr_transition *t)
{
    struct mr_master *m = master_of(t);
    struct mr_generation *g = &m->team->generation;

    mr_generation_inherit_counters(g, &m->setup->inheritance->previous);
    mr_log(MR_LOG_NOTICE, "upgraded old_binary=gone");
    mr_ways_close(&m->team->ways_in);
    mr_inheritance_close(m->setup->inheritance, g);
    mr_remote_close(&m->other);
}

static const struct mr_transition_kind UPGRADE_FROM = {.name = "upgrade",
                                                       .start_ms = START_MS,
                                                       .committed = follow,
                                                       .released = followed,
                                                       .failed = start_failed,
                                                       .done = predecessor_gone,
                                                       .undone = nothing};

static void begin_start(struct mr_master *m)
{
    struct mr_inheritance *in = m->setup->inheritance;
    struct mr_transition_plan plan = {.kind = &START, .arg = m, .to = &m->team->side};

    if (in->link >= 0) {
        mr_remote_init_predecessor(&m->other, &m->loop, in->pid, in->link);
        m->team->ways_in = in->ways_in;
        in->ways_in = (struct mr_ways){0};
        plan.kind = &UPGRADE_FROM;
        plan.from = &m->other.side;
        plan.before = in->previous.config;
        plan.before_slots = in->previous.runtime.n_slots;
    }
    mr_transition_begin(&m->transition, &plan);
    mr_team_start(m->team, plan.from == NULL);
}

/* ---- an upgrade, in the old master ---- */

static void upgrade_failed(struct mr_master *m, const char *reason)
{
    char state[128];

    m->wants_reload |= m->upgrade_reloads;
    m->upgrade_reloads = false;

    mr_log(MR_LOG_ERR, "upgrade_failed reason=\"%s\" serving=old_binary", reason);
    (void)snprintf(state, sizeof(state),
                   "READY=1\nMAINPID=%d\nSTATUS=the last upgrade failed; the old binary serves",
                   (int)getpid());
    tell_supervisor(m, state);
}

/* The pid file must name the process that serves. */
static void write_pid(const struct mr_master *m, pid_t pid)
{
    struct mr_error err;

    if (mr_pidfile_write(m->setup->pidfile, pid, &err) != MR_OK)
        mr_log(MR_LOG_ERR, "pid_file_failed error=\"%s\"", err.text);
}

static void successor_failed(struct mr_transition *t, const char *reason)
{
    struct mr_master *m = master_of(t);

    if (m->handed_over)
        write_pid(m, getpid());
    m->handed_over = false;
    upgrade_failed(m, reason);
}

static void successor_takes_over(struct mr_transition *t)
{
    struct mr_master *m = master_of(t);
    char state[32];

    m->handed_over = true;
    write_pid(m, m->other.pid);
    (void)snprintf(state, sizeof(state), "MAINPID=%d", (int)m->other.pid);
    mr_notify(state); /* our last report, unless the upgrade fails */
}

static void successor_serves(struct mr_transition *t)
{
    mr_log(MR_LOG_NOTICE, "handed_over to_pid=%d", (int)master_of(t)->other.pid);
}

/* New connections go to all our slots again. */
static void successor_gone(struct mr_transition *t)
{
    struct mr_master *m = master_of(t);
    const struct mr_listeners *l = &m->team->generation.listeners;

    mr_listeners_steer(l, l);
    mr_remote_close(&m->other);
}

/* Our last client has left, so nobody needs to be stopped. */
static void all_handed_over(struct mr_transition *t)
{
    master_of(t)->phase = QUITTING;
}

static const struct mr_transition_kind UPGRADE_TO = {.name = "upgrade",
                                                     .start_ms = UPGRADE_START_MS,
                                                     .committed = successor_takes_over,
                                                     .released = successor_serves,
                                                     .failed = successor_failed,
                                                     .done = all_handed_over,
                                                     .undone = successor_gone};

static void begin_upgrade(struct mr_master *m)
{
    const struct mr_generation *g = &m->team->generation;
    struct mr_transition_plan plan = {.kind = &UPGRADE_TO,
                                      .arg = m,
                                      .from = &m->team->side,
                                      .to = &m->other.side,
                                      .before = g->config,
                                      .before_slots = g->runtime.n_slots};
    struct mr_ways ways_in;
    struct mr_error err;
    pid_t pid;
    int link;

    m->upgrade_reloads = m->wants_reload;
    m->wants_reload = m->wants_upgrade = false;
    mr_log(MR_LOG_NOTICE, "upgrade_begins exe=%s", m->setup->exe);
    mr_notify_reloading();
    if (mr_ways_open(&ways_in, &plan.ways_out, g->runtime.n_slots, &err) != MR_OK) {
        upgrade_failed(m, err.text);
        return;
    }
    const enum mr_result rc = mr_upgrade_start(&m->upgrade, g, &ways_in, &pid, &link, &err);
    mr_ways_close(&ways_in); /* the new process has them */
    if (rc != MR_OK) {
        mr_ways_close(&plan.ways_out);
        upgrade_failed(m, err.text);
        return;
    }
    mr_remote_init_successor(&m->other, &m->loop, pid, link);
    mr_transition_begin(&m->transition, &plan);
}

/* ---- children ---- */

static void bury(struct mr_master *m, pid_t pid, int status)
{
    struct mr_team *all[2];
    const uint32_t n = teams(m, all);

    if (m->transition.plan.kind == &UPGRADE_TO && pid == m->other.pid) {
        mr_log(m->transition.released ? MR_LOG_WARN : MR_LOG_INFO,
               "new_master_ended pid=%d status=%d", (int)pid, status);
        m->other.pid = 0;
        return;
    }
    for (uint32_t i = 0; i < n && !mr_team_bury(all[i], pid, status); i++)
        ;
    mr_questions_end(&m->questions, all, n, pid);
}

static void reap(struct mr_master *m)
{
    pid_t pid;
    int status;

    while ((pid = mr_reap(&status)) != 0)
        bury(m, pid, status);
}

static void kill_all(struct mr_master *m)
{
    struct mr_team *all[2];

    for (uint32_t n = teams(m, all); n-- > 0;)
        mr_team_kill(all[n]);
    if (has_unborn_successor(m))
        m->other.side.ops->kill(&m->other.side);
}

/* ---- signals and phases ---- */

static void on_signals(struct mr_watch *watch)
{
    struct mr_master *m = MR_CONTAINER_OF(watch, struct mr_master, signals);
    int signo;

    while ((signo = mr_next_signal(watch->fd)) != 0) {
        m->got_child |= signo == SIGCHLD;
        m->got_hup |= signo == SIGHUP;
        m->got_term |= signo == SIGTERM || signo == SIGQUIT;
        m->got_int |= signo == SIGINT;
        m->got_usr1 |= signo == SIGUSR1;
        m->got_usr2 |= signo == SIGUSR2;
        m->level_change += (signo == SIGTTIN) - (signo == SIGTTOU);
    }
}

static void on_overdue(struct mr_timer *timer)
{
    MR_CONTAINER_OF(timer, struct mr_master, kill_timer)->overdue = true;
}

static void pet_watchdog(struct mr_timer *timer)
{
    struct mr_master *m = MR_CONTAINER_OF(timer, struct mr_master, watchdog);

    if (!m->handed_over) /* otherwise the new master sends it */
        mr_notify("WATCHDOG=1");
    mr_loop_timer(&m->loop, timer, mr_notify_watchdog_ms());
}

/* Not while pools are held, nor if another team or master has the clients. */
static void dismiss_serving(struct mr_master *m)
{
    if (m->phase == STOPPING && m->team->state == MR_TEAM_SERVING)
        mr_team_dismiss(m->team);
}

/* A transition that has just begun fails, others complete; then the workers finish. */
static void begin_stop(struct mr_master *m)
{
    const uint32_t limit_ms = m->team->generation.config->worker_shutdown_timeout_ms;

    mr_log(MR_LOG_NOTICE, "stopping mode=graceful limit_ms=%u%s", limit_ms,
           limit_ms == 0 ? " (without limit)" : "");
    tell_supervisor(m, "STOPPING=1\nSTATUS=finishing what clients have sent");
    m->phase = STOPPING;
    m->transition.stopping = true;
    dismiss_serving(m);
    if (limit_ms > 0)
        mr_loop_timer(&m->loop, &m->kill_timer, (uint64_t)limit_ms + KILL_AFTER_MS);
}

/* Changes log level or file, here and in all children. */
static void change_log(struct mr_master *m)
{
    struct mr_team *all[2];
    const uint32_t n = teams(m, all);

    if (m->level_change != 0) {
        mr_log_set_level(mr_log_level() + m->level_change);
        mr_log(MR_LOG_NOTICE, "log_level level=%d", mr_log_level());
    }
    if (m->got_hup || m->got_usr1)
        mr_files_reopen_log();
    for (uint32_t i = 0; i < n; i++)
        mr_team_share_log(all[i]);
}

/* The new master serves, so requests go to it. */
static void pass_on(struct mr_master *m)
{
    if (m->other.pid != 0 && m->wants_reload)
        mr_signal(m->other.pid, SIGHUP);
    if (m->other.pid != 0 && m->wants_upgrade)
        mr_signal(m->other.pid, SIGUSR2);
    m->wants_reload = m->wants_upgrade = false;
}

/* Starts one transition at a time; further requests wait. An upgrade includes a reload. */
static void begin_wanted(struct mr_master *m)
{
    if (m->phase != RUNNING)
        return;
    if (m->handed_over && m->transition.released)
        pass_on(m);
    if (m->wants_upgrade && m->transition.step == MR_TRANSITION_REST)
        begin_upgrade(m);
    if (m->wants_reload && m->transition.step == MR_TRANSITION_REST) {
        m->wants_reload = false;
        mr_reload_begin(&m->reload);
    }
}

static void take_signals(struct mr_master *m)
{
    /* first, because a supervisor may have signalled the children too, which must stay dead then */
    if (m->got_term && m->phase == RUNNING)
        begin_stop(m);
    if (m->got_int && m->phase != QUITTING) {
        mr_log(MR_LOG_NOTICE, "stopping mode=at_once");
        stop_now(m, 1);
    }
    if (m->got_child)
        reap(m);
    if (m->level_change != 0 || m->got_hup || m->got_usr1)
        change_log(m);
    m->wants_upgrade |= m->got_usr2;
    m->wants_reload |= m->got_hup;
    m->got_child = m->got_hup = m->got_term = m->got_int = m->got_usr1 = m->got_usr2 = false;
    m->level_change = 0;
}

bool mr_master_act(struct mr_master *m)
{
    take_signals(m);
    if (m->phase != QUITTING)
        mr_transition_turn(&m->transition);
    begin_wanted(m);
    dismiss_serving(m);
    if (m->phase == STOPPING &&
        (m->overdue || (m->transition.step == MR_TRANSITION_REST && alive(m, MR_WORKER) == 0)))
        stop_now(m, 0);
    if (m->overdue) {
        kill_all(m);
        m->overdue = false;
        mr_loop_timer(&m->loop, &m->kill_timer, KILL_AFTER_MS);
    }
    return !(m->phase == QUITTING && alive(m, -1) == 0 && !has_unborn_successor(m));
}

/* ---- the whole ---- */

static void set_up_parts(struct mr_master *m)
{
    const struct mr_master_setup *setup = m->setup;

    m->kill_timer.fire = on_overdue;
    m->watchdog.fire = pet_watchdog;
    m->hooks = (struct mr_team_hooks){.in_child = in_child,
                                      .on_reload_asked = on_reload_asked,
                                      .on_question = on_question,
                                      .arg = m,
                                      .admin = setup->admin};
    m->upgrade =
        (struct mr_upgrade){.exe = setup->exe, .argv = setup->argv, .pidfile = setup->pidfile};
    m->reload = (struct mr_reload){.transition = &m->transition,
                                   .hooks = &m->hooks,
                                   .options = setup->options,
                                   .conf_file = setup->conf_file,
                                   .pidfile = setup->pidfile,
                                   .serving = &m->team};
    mr_questions_init(&m->questions);
    mr_transition_init(&m->transition, &m->loop);
}

struct mr_master *mr_master_new(const struct mr_master_setup *setup)
{
    struct mr_master *m = calloc(1, sizeof(*m));
    struct mr_error err;

    MR_CHECK(m != NULL);
    m->setup = setup;
    if (mr_loop_init(&m->loop, "epoll", &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "start_failed error=\"%s\"", err.text);
        free(m);
        return NULL;
    }
    set_up_parts(m);
    m->signals = (struct mr_watch){.on_ready = on_signals, .fd = mr_signal_fd()};
    MR_CHECK(m->signals.fd >= 0);
    mr_watch_start(&m->loop, &m->signals);
    m->team = mr_team_new(setup->generation, &m->loop, &m->hooks);
    begin_start(m);
    if (mr_notify_watchdog_ms() > 0)
        mr_loop_timer(&m->loop, &m->watchdog, 0);
    return m;
}

/* Files of unix sockets stay if another process serves them. */
static const struct mr_generation *heir_of(const struct mr_master *m)
{
    if (m->handed_over)
        return &m->team->generation;
    if (m->transition.plan.kind == &UPGRADE_FROM && !m->transition.released &&
        (!m->other.lost || m->other.cancelled))
        return &m->setup->inheritance->previous;
    return NULL;
}

int mr_master_free(struct mr_master *m)
{
    const struct mr_generation *heir = heir_of(m);
    const int status = m->status;

    mr_watch_stop(&m->loop, &m->signals);
    (void)close(m->signals.fd);
    mr_timer_cancel(&m->kill_timer);
    mr_timer_cancel(&m->watchdog);
    mr_transition_stop(&m->transition);
    mr_remote_close(&m->other);
    if (m->handed_over)
        m->setup->on_handed_over(m->setup->arg);
    mr_team_free(m->reload.beside, heir);
    mr_team_free(m->team, heir);
    mr_questions_fini(&m->questions);
    mr_inheritance_close(m->setup->inheritance, heir);
    mr_loop_fini(&m->loop);
    free(m);
    mr_log(MR_LOG_NOTICE, "stopped status=%d", status);
    return status;
}

struct mr_loop *mr_master_loop(struct mr_master *m)
{
    return &m->loop;
}

const struct mr_transition *mr_master_transition(const struct mr_master *m)
{
    return &m->transition;
}

int mr_master_run(const struct mr_master_setup *setup)
{
    struct mr_master *m = mr_master_new(setup);

    if (m == NULL)
        return 1;
    do
        mr_loop_turn(&m->loop, -1);
    while (mr_master_act(m));
    return mr_master_free(m);
}
