/*
 * master.c - the process that owns the sockets and keeps the others running.
 *
 * Signals only set flags; after each turn of the loop `act` goes through them in order.
 */
#include "proc/master.h"

#include "core/log.h"
#include "net/loop.h"
#include "proc/files.h"
#include "proc/notify.h"
#include "proc/reload.h"
#include "proc/system.h"
#include "proc/team.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILL_AFTER_MS 2000u /* for children that do not stop when told to */

enum phase { STARTING, RUNNING, DRAINING, QUITTING };

struct master {
    const struct mr_master_setup *setup;
    struct mr_loop loop;
    struct mr_watch signals;
    struct mr_timer kill_timer;
    struct mr_timer watchdog; /* of the supervisor */
    struct mr_team_hooks hooks;
    struct mr_team *team; /* that serves */
    struct mr_reload reload;
    struct mr_upgrade upgrade;
    struct mr_watch link; /* to the master before this one, while it has clients */
    enum phase phase;
    bool got_reload;
    bool got_child, got_hup, got_term, got_int, got_usr1, got_usr2;
    int level_change;
    bool handed_back; /* an upgrade to this process failed: the old one has the files */
    int status;
};

/* The serving team and those beside it during a reload. */
static uint32_t teams(const struct master *m, struct mr_team *all[3])
{
    uint32_t n = 0;

    all[n++] = m->team;
    if (m->reload.incoming != NULL)
        all[n++] = m->reload.incoming;
    if (m->reload.outgoing != NULL)
        all[n++] = m->reload.outgoing;
    return n;
}

static void tell_all(struct master *m, struct mr_message *msg, int fd, int kind)
{
    struct mr_team *all[3];
    const uint32_t n = teams(m, all);

    for (uint32_t i = 0; i < n; i++)
        mr_team_tell(all[i], msg, fd, kind);
}

static uint32_t alive(const struct master *m, int kind)
{
    struct mr_team *all[3];
    const uint32_t n = teams(m, all);
    uint32_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += mr_team_alive(all[i], kind);
    return sum;
}

/* ---- what the teams tell ---- */

static void in_child(void *arg)
{
    struct master *m = arg;

    mr_loop_abandon(&m->loop);
    m->setup->in_child(m->setup->arg);
}

static void stop_now(struct master *m, int status);

/* This process serves. */
static void started(struct master *m)
{
    const struct mr_generation *g = &m->team->generation;
    char state[64];

    m->phase = RUNNING;
    mr_generation_log_started(g);
    (void)snprintf(state, sizeof(state), "READY=1\nMAINPID=%d\nSTATUS=serving", (int)getpid());
    mr_notify(state);
    m->setup->on_ready(m->setup->arg);
}

/* The old master's workers have handed over all that the new map needs. */
static void take_over(struct master *m)
{
    const struct mr_inheritance *in = m->setup->inheritance;

    if (m->phase != STARTING)
        return;
    mr_reload_release(m->team);
    mr_generation_inherit_counters(&m->team->generation, &in->previous);
    started(m);
}

static void old_master_is_gone(struct master *m)
{
    struct mr_inheritance *in = m->setup->inheritance;

    mr_watch_stop(&m->loop, &m->link);
    if (!mr_team_ready(m->team)) {
        mr_log(MR_LOG_EMERG, "start_failed reason=\"the old process has given the upgrade up\"");
        m->handed_back = true;
        stop_now(m, 1);
    } else {
        take_over(m); /* it died with its workers: nothing is in flight */
        mr_generation_inherit_counters(&m->team->generation, &in->previous);
        mr_log(MR_LOG_NOTICE, "upgraded old_binary=gone");
    }
    mr_team_ways_done(m->team);
    if (!m->handed_back)
        mr_inheritance_close(in, &m->team->generation);
}

static void on_link(struct mr_watch *watch)
{
    struct master *m = MR_CONTAINER_OF(watch, struct master, link);
    struct mr_message msg;
    struct mr_error err;
    enum mr_result rc;

    while (watch->active && (rc = mr_channel_recv(watch->fd, &msg, &err)) != MR_AGAIN) {
        if (rc != MR_OK)
            old_master_is_gone(m);
        else if (msg.type == MR_MSG_DRAINED_TYPE)
            take_over(m);
    }
}

static void on_ready(void *arg, struct mr_child *child)
{
    struct master *m = arg;
    const struct mr_generation *g = &m->team->generation;
    struct mr_error err;

    mr_reload_ready(&m->reload, child);
    if (m->phase != STARTING || !mr_team_ready(m->team))
        return;
    if (!m->link.active) {
        started(m);
        return;
    }
    mr_listeners_steer(&g->listeners, &m->setup->inheritance->previous.listeners);
    if (mr_inheritance_ready(m->setup->inheritance, g, &err) != MR_OK)
        old_master_is_gone(m);
}

static void on_drained(void *arg, struct mr_child *child)
{
    struct master *m = arg;

    (void)child;
    mr_reload_drained(&m->reload);
    mr_upgrade_drained(&m->upgrade);
}

static void on_reload_asked(void *arg)
{
    struct master *m = arg;

    mr_log(MR_LOG_NOTICE, "reload_asked by=admin");
    m->got_reload = true; /* as if HUP had come, but the log stays as it is */
}

static void stop_now(struct master *m, int status)
{
    struct mr_message msg = {.type = MR_MSG_QUIT_TYPE};

    mr_notify("STOPPING=1");
    m->phase = QUITTING;
    m->status = status;
    mr_reload_stop(&m->reload);
    mr_upgrade_stop(&m->upgrade);
    mr_team_leave(m->team);
    tell_all(m, &msg, -1, -1);
    mr_loop_timer(&m->loop, &m->kill_timer, KILL_AFTER_MS);
}

static bool on_death(void *arg, struct mr_child *child)
{
    struct master *m = arg;

    if (m->phase == STARTING && child->kind == MR_WORKER) {
        mr_log(MR_LOG_EMERG, "start_failed child=worker/%u", child->index);
        m->handed_back = m->link.active;
        stop_now(m, 1);
    }
    mr_upgrade_drained(&m->upgrade);
    return m->phase < DRAINING && mr_reload_death(&m->reload, child);
}

static void reap(struct master *m)
{
    struct mr_team *all[3];
    pid_t pid;
    int status;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        const uint32_t n = teams(m, all);
        if (mr_upgrade_bury(&m->upgrade, pid, status))
            continue;
        for (uint32_t i = 0; i < n && !mr_team_bury(all[i], pid, status); i++)
            ;
    }
}

/* ---- signals and phases ---- */

static void on_signals(struct mr_watch *watch)
{
    struct master *m = MR_CONTAINER_OF(watch, struct master, signals);
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

static void kill_all(struct mr_timer *timer)
{
    struct master *m = MR_CONTAINER_OF(timer, struct master, kill_timer);
    struct mr_team *all[3];
    const uint32_t n = teams(m, all);

    for (uint32_t i = 0; i < n; i++)
        mr_team_kill(all[i]);
}

static void pet_watchdog(struct mr_timer *timer)
{
    mr_notify("WATCHDOG=1");
    mr_loop_timer(&MR_CONTAINER_OF(timer, struct master, watchdog)->loop, timer,
                  mr_notify_watchdog_ms());
}

static void drain(struct master *m)
{
    const uint32_t limit_ms = m->team->generation.config->worker_shutdown_timeout_ms;
    struct mr_message msg = {.type = MR_MSG_TERMINATE_TYPE};
    struct mr_message go = {.type = MR_MSG_GO_TYPE};

    mr_log(MR_LOG_NOTICE, "stopping mode=graceful limit_ms=%u%s", limit_ms,
           limit_ms == 0 ? " (without limit)" : "");
    mr_notify("STOPPING=1\nSTATUS=finishing what clients have sent");
    m->phase = DRAINING;
    mr_reload_stop(&m->reload);
    mr_upgrade_stop(&m->upgrade);
    mr_team_leave(m->team);
    tell_all(m, &go, -1, MR_WORKER); /* clients that a reload has brought over are answered too */
    tell_all(m, &msg, -1, MR_WORKER);
    if (limit_ms > 0)
        mr_loop_timer(&m->loop, &m->kill_timer, (uint64_t)limit_ms + KILL_AFTER_MS);
}

/* A signal asks for another level, or for the log to be opened again: so for everybody. */
static void change_log(struct master *m)
{
    struct mr_team *all[3];
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

static void begin_reload(struct master *m)
{
    if (m->phase == RUNNING && m->upgrade.step == MR_UPGRADE_NONE)
        mr_reload_begin(&m->reload);
    else if (m->phase < DRAINING)
        mr_log(MR_LOG_WARN, "reload_ignored reason=%s",
               m->phase == STARTING ? "starting" : "upgrade_under_way");
}

static void begin_upgrade(struct master *m)
{
    if (m->phase == RUNNING && m->reload.step == MR_RELOAD_NONE && !m->link.active)
        mr_upgrade_begin(&m->upgrade);
    else if (m->phase < DRAINING)
        mr_log(MR_LOG_WARN, "upgrade_ignored reason=%s",
               m->phase == STARTING ? "starting" : "reload_or_upgrade_under_way");
}

/* What the signals of the last turn ask for, in this order. False when all is over. */
static bool act(struct master *m)
{
    /* stopping first: a supervisor may have told the children too, and they stay dead then */
    if (m->got_term && m->phase < DRAINING)
        drain(m);
    if (m->got_int && m->phase < QUITTING) {
        mr_log(MR_LOG_NOTICE, "stopping mode=at_once");
        stop_now(m, 1);
    }
    if (m->got_child)
        reap(m);
    if (m->level_change != 0 || m->got_hup || m->got_usr1)
        change_log(m);
    if (m->got_hup || m->got_reload)
        begin_reload(m);
    if (m->got_usr2)
        begin_upgrade(m);
    m->got_reload = m->got_child = m->got_hup = m->got_term = m->got_int = m->got_usr1 =
        m->got_usr2 = false;
    m->level_change = 0;
    if (m->phase == RUNNING)
        mr_reload_tidy(&m->reload);
    if (m->phase == DRAINING && alive(m, MR_WORKER) == 0)
        stop_now(m, 0);
    if (m->upgrade.step == MR_UPGRADE_GONE && m->phase == RUNNING && alive(m, -1) == 0)
        return false;
    return !(m->phase == QUITTING && alive(m, -1) == 0);
}

static void fini(struct master *m)
{
    struct mr_team *all[3];

    mr_watch_stop(&m->loop, &m->signals);
    (void)close(m->signals.fd);
    mr_timer_cancel(&m->kill_timer);
    mr_timer_cancel(&m->watchdog);
    struct mr_inheritance *in = m->setup->inheritance;
    mr_watch_stop(&m->loop, &m->link);
    const bool handed_over = m->upgrade.step == MR_UPGRADE_GONE;
    mr_upgrade_stop(&m->upgrade);
    if (handed_over)
        m->setup->on_handed_over(m->setup->arg);
    /* files of unix sockets stay when another process serves them */
    const struct mr_generation *heir = handed_over      ? &m->team->generation
                                       : m->handed_back ? &in->previous
                                                        : NULL;
    for (uint32_t n = teams(m, all); n-- > 0;)
        if (all[n] != m->team)
            mr_team_free(all[n], heir);
    mr_team_free(m->team, heir);
    mr_inheritance_close(in, heir);
    mr_loop_fini(&m->loop);
}

int mr_master_run(const struct mr_master_setup *setup)
{
    struct master m = {.setup = setup,
                       .kill_timer = {.fire = kill_all},
                       .watchdog = {.fire = pet_watchdog},
                       .hooks = {.in_child = in_child,
                                 .on_ready = on_ready,
                                 .on_drained = on_drained,
                                 .on_death = on_death,
                                 .on_reload_asked = on_reload_asked,
                                 .arg = &m,
                                 .admin = setup->admin}};
    struct mr_error err;

    if (mr_loop_init(&m.loop, "epoll", &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "start_failed error=\"%s\"", err.text);
        return 1;
    }
    m.signals = (struct mr_watch){.on_ready = on_signals, .fd = mr_signal_fd()};
    MR_CHECK(m.signals.fd >= 0);
    mr_watch_start(&m.loop, &m.signals);
    m.team = mr_team_new(setup->generation, &m.loop, &m.hooks);
    m.upgrade = (struct mr_upgrade){.loop = &m.loop,
                                    .exe = setup->exe,
                                    .argv = setup->argv,
                                    .conf_file = setup->conf_file,
                                    .pidfile = setup->pidfile,
                                    .team = &m.team,
                                    .link = {.fd = -1}};
    if (setup->inheritance->link >= 0) {
        const uint32_t n_ways = setup->inheritance->previous.runtime.n_slots;
        mr_team_take_ways(m.team, setup->inheritance->ways_in, n_ways);
        m.link = (struct mr_watch){.on_ready = on_link, .fd = setup->inheritance->link};
        mr_watch_start(&m.loop, &m.link);
    }
    m.reload = (struct mr_reload){.loop = &m.loop,
                                  .hooks = &m.hooks,
                                  .options = setup->options,
                                  .conf_file = setup->conf_file,
                                  .pidfile = setup->pidfile,
                                  .current = &m.team};
    mr_team_start(m.team, !m.link.active);
    if (mr_notify_watchdog_ms() > 0)
        mr_loop_timer(&m.loop, &m.watchdog, 0);
    do
        mr_loop_turn(&m.loop, -1);
    while (act(&m));
    const int status = m.status;
    fini(&m);
    mr_log(MR_LOG_NOTICE, "stopped status=%d", status);
    return status;
}
