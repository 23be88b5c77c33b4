/*
 * master.c - the process that owns the sockets and keeps the others running.
 *
 * Signals only set flags; after each turn of the loop `act` goes through them in order.
 */
#include "proc/master.h"

#include "core/log.h"
#include "net/loop.h"
#include "proc/process.h"
#include "proc/resolver.h"
#include "proc/system.h"
#include "proc/worker.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define QUICK_DEATH_US   1000000u /* a child that lived shorter may never live */
#define QUICK_DEATHS     5u       /* in a row, before its restarts slow down */
#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS   10000u
#define RESOLVE_WAIT_MS  2000u /* workers start without addresses after this */
#define KILL_AFTER_MS    2000u /* for children that do not stop when told to */

enum kind { WORKER, ADMIN, RESOLVER };

static const char *const KIND_NAMES[] = {"worker", "admin", "resolver"};

struct child {
    struct master *master;
    enum kind kind;
    uint32_t index; /* of the slot */
    pid_t pid;      /* 0: not running */
    struct mr_watch channel;
    struct mr_timer respawn;
    uint64_t started_us;
    uint32_t quick_deaths;
    bool ready;
};

enum phase { STARTING, RUNNING, DRAINING, QUITTING };

struct master {
    const struct mr_master_setup *setup;
    struct mr_loop loop;
    struct mr_watch signals;
    struct mr_timer resolve_wait;
    struct mr_timer kill_timer;
    struct child *children; /* the workers, then the helpers */
    uint32_t n_children;
    enum phase phase;
    bool workers_started;
    bool got_child, got_hup, got_term, got_int, got_usr1, got_usr2;
    int level_change;
    int status;
};

static const struct mr_config *config_of(const struct master *m)
{
    return m->setup->runtime->config;
}

static void tell_all(struct master *m, struct mr_message *msg, int fd, int kind)
{
    struct mr_error err;

    for (uint32_t i = 0; i < m->n_children; i++) {
        const struct child *c = &m->children[i];
        if (c->pid == 0 || (kind >= 0 && (int)c->kind != kind))
            continue;
        if (mr_channel_send(c->channel.fd, msg, fd, &err) != MR_OK)
            mr_log(MR_LOG_WARN, "channel_send_failed child=%s/%u error=\"%s\"", KIND_NAMES[c->kind],
                   c->index, err.text);
    }
}

/* ---- in the child ---- */

static void tell_ready(void *arg)
{
    mr_channel_tell(*(int *)arg, MR_MSG_READY_TYPE);
}

static void quit(struct mr_process *p)
{
    p->loop.stop = true;
}

static int run_admin(const struct master *m, int channel)
{
    struct mr_process p = {.channel = {.fd = channel}, .on_terminate = quit, .on_quit = quit};
    struct mr_error err;

    if (mr_process_init(&p, "epoll", &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "admin_failed error=\"%s\"", err.text);
        return 1;
    }
    void *stats = m->setup->stats.attach(&p.loop, m->setup->runtime);
    mr_channel_tell(channel, MR_MSG_READY_TYPE);
    mr_loop_run(&p.loop);
    m->setup->stats.detach(stats);
    mr_loop_turn(&p.loop, 0);
    mr_process_fini(&p);
    return 0;
}

static int run_worker(const struct master *m, uint32_t slot, int channel)
{
    const struct mr_worker_setup setup = {
        .runtime = m->setup->runtime,
        .slot = slot,
        .listen_fds = &m->setup->listeners->fds[slot * m->setup->listeners->n],
        .channel = channel,
        .on_ready = tell_ready,
        .on_ready_arg = &channel};

    return mr_worker_run(&setup);
}

/* Gives back everything of the master that this child has no business with. */
static void become(struct master *m, const struct child *self)
{
    struct mr_runtime *rt = m->setup->runtime;
    char role[24];

    (void)snprintf(role, sizeof(role), self->kind == WORKER ? "%s/%u" : "%s",
                   KIND_NAMES[self->kind], self->index);
    mr_log_set_role(role);
    (void)prctl(PR_SET_NAME, role);
    for (uint32_t i = 0; i < m->n_children; i++)
        if (m->children[i].pid != 0)
            (void)close(m->children[i].channel.fd);
    (void)close(m->signals.fd);
    mr_loop_abandon(&m->loop);
    mr_listeners_keep_slot(m->setup->listeners, self->kind == WORKER ? self->index : UINT32_MAX);
    if (self->kind != ADMIN)
        (void)close(rt->stats_fd);
    m->setup->in_child(m->setup->arg);
}

static _Noreturn void child_main(struct master *m, const struct child *self, int channel,
                                 pid_t master_pid)
{
    const struct mr_config *config = config_of(m);
    struct mr_error err;
    int status = 1;

    become(m, self);
    if (mr_become_user(config->user, config->group, &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "user_failed error=\"%s\"", err.text);
        _exit(1);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* after setuid, which clears it */
    if (getppid() != master_pid)
        _exit(1);
    switch (self->kind) {
    case WORKER:
        status = run_worker(m, self->index, channel);
        break;
    case ADMIN:
        status = run_admin(m, channel);
        break;
    case RESOLVER:
        status = mr_resolver_run(config, channel);
        break;
    }
    exit(status);
}

/* ---- children ---- */

static void spawn(struct child *c);

static void respawn(struct mr_timer *timer)
{
    spawn(MR_CONTAINER_OF(timer, struct child, respawn));
}

static void respawn_later(struct child *c)
{
    uint32_t delay = 0;

    if (c->quick_deaths >= QUICK_DEATHS) {
        const uint32_t doublings = c->quick_deaths - QUICK_DEATHS;
        delay = doublings > 6 ? BACKOFF_MAX_MS : BACKOFF_FIRST_MS << doublings;
        mr_log(MR_LOG_ERR, "child_keeps_dying child=%s/%u deaths=%u restart_in_ms=%u",
               KIND_NAMES[c->kind], c->index, c->quick_deaths, delay);
    }
    if (delay == 0)
        spawn(c);
    else
        mr_loop_timer(&c->master->loop, &c->respawn, delay);
}

static void start_workers(struct master *m)
{
    if (m->workers_started)
        return;
    m->workers_started = true;
    mr_timer_cancel(&m->resolve_wait);
    for (uint32_t i = 0; i < m->n_children; i++)
        if (m->children[i].kind == WORKER)
            spawn(&m->children[i]);
}

static void resolve_wait_over(struct mr_timer *timer)
{
    struct master *m = MR_CONTAINER_OF(timer, struct master, resolve_wait);

    mr_log(MR_LOG_WARN, "resolve_slow waited_ms=%u", RESOLVE_WAIT_MS);
    start_workers(m);
}

static void child_ready(struct child *c)
{
    struct master *m = c->master;

    c->ready = true;
    for (uint32_t i = 0; i < m->n_children; i++)
        if (m->children[i].kind == WORKER && !m->children[i].ready)
            return;
    if (m->phase != STARTING)
        return;
    m->phase = RUNNING;
    mr_log(MR_LOG_NOTICE, "started workers=%u pools=%u servers=%u layout=%s",
           m->setup->runtime->n_slots, config_of(m)->n_pools, config_of(m)->n_servers,
           config_of(m)->meitu ? "meitu" : "twemproxy");
    m->setup->on_ready(m->setup->arg);
}

static void handle_message(struct child *c, struct mr_message *msg)
{
    struct master *m = c->master;

    switch (msg->type) {
    case MR_MSG_READY_TYPE:
        child_ready(c);
        break;
    case MR_MSG_ADDRESS_TYPE:
        if (msg->body.ADDRESS.server >= config_of(m)->n_servers)
            break;
        m->setup->runtime->addresses[msg->body.ADDRESS.server] = msg->body.ADDRESS.addr;
        tell_all(m, msg, -1, WORKER);
        break;
    case MR_MSG_ROUND_DONE_TYPE:
        start_workers(m);
        break;
    default:
        break;
    }
}

static void on_channel(struct mr_watch *watch)
{
    struct child *c = MR_CONTAINER_OF(watch, struct child, channel);
    struct mr_message msg;
    struct mr_error err;
    enum mr_result rc;

    while ((rc = mr_channel_recv(watch->fd, &msg, &err)) == MR_OK)
        handle_message(c, &msg);
    if (rc != MR_AGAIN)
        mr_watch_stop(&c->master->loop, watch); /* SIGCHLD tells the rest */
}

static void spawn(struct child *c)
{
    struct master *m = c->master;
    const pid_t master_pid = getpid();
    struct mr_error err;
    int ends[2];

    c->ready = false;
    c->started_us = m->loop.now_us;
    if (mr_channel_open(ends, &err) != MR_OK) {
        mr_log(MR_LOG_ERR, "spawn_failed child=%s/%u error=\"%s\"", KIND_NAMES[c->kind], c->index,
               err.text);
        mr_loop_timer(&m->loop, &c->respawn, BACKOFF_FIRST_MS);
        return;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        (void)close(ends[0]);
        child_main(m, c, ends[1], master_pid);
    }
    (void)close(ends[1]);
    if (pid < 0) {
        mr_log(MR_LOG_ERR, "spawn_failed child=%s/%u error=\"fork: %s\"", KIND_NAMES[c->kind],
               c->index, strerror(errno));
        (void)close(ends[0]);
        mr_loop_timer(&m->loop, &c->respawn, BACKOFF_FIRST_MS);
        return;
    }
    c->pid = pid;
    c->channel = (struct mr_watch){.on_ready = on_channel, .fd = ends[0]};
    mr_watch_start(&m->loop, &c->channel);
    mr_log(MR_LOG_INFO, "spawned child=%s/%u pid=%d", KIND_NAMES[c->kind], c->index, (int)pid);
}

static void log_death(const struct child *c, int status)
{
    const bool expected = c->master->phase >= DRAINING;

    if (WIFSIGNALED(status))
        mr_log(expected ? MR_LOG_NOTICE : MR_LOG_ERR, "child_died child=%s/%u pid=%d signal=%d",
               KIND_NAMES[c->kind], c->index, (int)c->pid, WTERMSIG(status));
    else
        mr_log(expected ? MR_LOG_INFO : MR_LOG_ERR, "child_exited child=%s/%u pid=%d status=%d",
               KIND_NAMES[c->kind], c->index, (int)c->pid, WEXITSTATUS(status));
}

static void stop_now(struct master *m, int status)
{
    struct mr_message msg = {.type = MR_MSG_QUIT_TYPE};

    m->phase = QUITTING;
    m->status = status;
    tell_all(m, &msg, -1, -1);
    mr_loop_timer(&m->loop, &m->kill_timer, KILL_AFTER_MS);
}

static void bury(struct child *c, int status)
{
    struct master *m = c->master;

    log_death(c, status);
    mr_watch_stop(&m->loop, &c->channel);
    (void)close(c->channel.fd);
    c->pid = 0;
    if (c->kind == WORKER) {
        struct mr_metrics *metrics = &m->setup->runtime->slots[c->index];
        mr_metrics_reset_gauges(metrics); /* what the dead had open is closed */
        metrics->head->pid = 0;
    }
    if (m->phase == STARTING && c->kind == WORKER) {
        mr_log(MR_LOG_EMERG, "start_failed child=worker/%u", c->index);
        stop_now(m, 1);
    }
    if (m->phase >= DRAINING)
        return;
    const bool quick = m->loop.now_us - c->started_us < QUICK_DEATH_US;
    c->quick_deaths = quick ? c->quick_deaths + 1 : 0;
    respawn_later(c);
}

static void reap(struct master *m)
{
    pid_t pid;
    int status;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (uint32_t i = 0; i < m->n_children; i++)
            if (m->children[i].pid == pid)
                bury(&m->children[i], status);
}

static uint32_t alive(const struct master *m, bool workers_only)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n_children; i++)
        n += m->children[i].pid != 0 && (!workers_only || m->children[i].kind == WORKER);
    return n;
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

    for (uint32_t i = 0; i < m->n_children; i++)
        if (m->children[i].pid != 0) {
            mr_log(MR_LOG_WARN, "child_killed child=%s/%u pid=%d reason=does_not_stop",
                   KIND_NAMES[m->children[i].kind], m->children[i].index, (int)m->children[i].pid);
            (void)kill(m->children[i].pid, SIGKILL);
        }
}

static void drain(struct master *m)
{
    const uint32_t limit_ms = config_of(m)->worker_shutdown_timeout_ms;
    struct mr_message msg = {.type = MR_MSG_TERMINATE_TYPE};

    mr_log(MR_LOG_NOTICE, "stopping mode=graceful limit_ms=%u%s", limit_ms,
           limit_ms == 0 ? " (without limit)" : "");
    m->phase = DRAINING;
    tell_all(m, &msg, -1, WORKER);
    if (limit_ms > 0)
        mr_loop_timer(&m->loop, &m->kill_timer, (uint64_t)limit_ms + KILL_AFTER_MS);
}

static void pass_log_fd(void *arg, int fd)
{
    struct mr_message msg = {.type = MR_MSG_LOG_FD_TYPE};

    tell_all(arg, &msg, fd, -1);
}

static void change_level(struct master *m)
{
    struct mr_message msg = {.type = MR_MSG_LOG_LEVEL_TYPE};

    mr_log_set_level(mr_log_level() + m->level_change);
    mr_log(MR_LOG_NOTICE, "log_level level=%d", mr_log_level());
    msg.body.LOG_LEVEL.level = mr_log_level();
    tell_all(m, &msg, -1, -1);
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
    if (m->level_change != 0)
        change_level(m);
    if (m->got_hup)
        mr_log(MR_LOG_WARN, "reload_unavailable reason=\"this version cannot reload; restart to "
                            "apply the configuration\"");
    if (m->got_hup || m->got_usr1)
        mr_reopen_log(pass_log_fd, m);
    if (m->got_usr2)
        mr_log(MR_LOG_WARN, "upgrade_unavailable reason=\"this version cannot hand over to "
                            "another binary\"");
    if (m->got_term && m->phase < DRAINING)
        drain(m);
    if (m->got_int && m->phase < QUITTING) {
        mr_log(MR_LOG_NOTICE, "stopping mode=at_once");
        stop_now(m, 1);
    }
    m->got_child = m->got_hup = m->got_term = m->got_int = m->got_usr1 = m->got_usr2 = false;
    m->level_change = 0;
    if (m->phase == DRAINING && alive(m, true) == 0)
        stop_now(m, 0);
    return !(m->phase == QUITTING && alive(m, false) == 0);
}

static void add_child(struct master *m, enum kind kind, uint32_t index)
{
    m->children[m->n_children++] =
        (struct child){.master = m, .kind = kind, .index = index, .respawn = {.fire = respawn}};
}

static void start(struct master *m)
{
    const struct mr_runtime *rt = m->setup->runtime;
    const bool resolver = mr_resolver_needed(rt->config);

    m->children = calloc(rt->n_slots + 2, sizeof(*m->children));
    MR_CHECK(m->children != NULL);
    for (uint32_t i = 0; i < rt->n_slots; i++)
        add_child(m, WORKER, i);
    add_child(m, ADMIN, 0);
    if (resolver)
        add_child(m, RESOLVER, 0);
    for (uint32_t i = rt->n_slots; i < m->n_children; i++)
        spawn(&m->children[i]);
    m->resolve_wait.fire = resolve_wait_over;
    m->kill_timer.fire = kill_all;
    if (resolver)
        mr_loop_timer(&m->loop, &m->resolve_wait, RESOLVE_WAIT_MS);
    else
        start_workers(m);
}

int mr_master_run(const struct mr_master_setup *setup)
{
    struct master m = {.setup = setup};
    struct mr_error err;

    if (mr_loop_init(&m.loop, "epoll", &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "start_failed error=\"%s\"", err.text);
        return 1;
    }
    m.signals = (struct mr_watch){.on_ready = on_signals, .fd = mr_signal_fd()};
    MR_CHECK(m.signals.fd >= 0);
    mr_watch_start(&m.loop, &m.signals);
    start(&m);
    do
        mr_loop_turn(&m.loop, -1);
    while (act(&m));
    mr_watch_stop(&m.loop, &m.signals);
    (void)close(m.signals.fd);
    for (uint32_t i = 0; i < m.n_children; i++)
        mr_timer_cancel(&m.children[i].respawn);
    mr_timer_cancel(&m.kill_timer);
    mr_loop_fini(&m.loop);
    free(m.children);
    mr_log(MR_LOG_NOTICE, "stopped status=%d", m.status);
    return m.status;
}
