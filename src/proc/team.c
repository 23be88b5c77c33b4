/* team.c - the processes of one generation: starting, replacing and ending them. */
#include "proc/team.h"

#include "core/log.h"
#include "proc/process.h"
#include "proc/resolver.h"
#include "proc/system.h"
#include "proc/worker.h"
#include "session/handover.h"
#include "session/turnstile.h"

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
#define PINGS            4u    /* without an answer: the process hangs */
#define RESOLVE_WAIT_MS  2000u /* workers start without addresses after this */

const char *mr_child_kind_name(enum mr_child_kind kind)
{
    static const char *const NAMES[] = {"worker", "admin", "resolver"};

    return NAMES[kind];
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

static void ask_reload(void *arg)
{
    mr_channel_tell(*(int *)arg, MR_MSG_RELOAD_TYPE);
}

static int run_admin(const struct mr_team *team, int channel)
{
    const struct mr_admin_control control = {.reload = ask_reload, .arg = &channel};
    struct mr_process p = {.channel = {.fd = channel}, .on_terminate = quit, .on_quit = quit};
    struct mr_error err;

    if (mr_process_init(&p, "epoll", &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "admin_failed error=\"%s\"", err.text);
        return 1;
    }
    void *admin = team->hooks->admin.attach(&p.loop, &team->generation.runtime, &control);
    mr_channel_tell(channel, MR_MSG_READY_TYPE);
    mr_loop_run(&p.loop);
    team->hooks->admin.finish(admin);
    team->hooks->admin.detach(admin);
    mr_loop_settle(&p.loop);
    mr_process_fini(&p);
    return 0;
}

static int run_worker(const struct mr_team *team, uint32_t slot, int channel)
{
    const struct mr_generation *g = &team->generation;

    g->runtime.slots[slot].head->cpu_plus_1 = 0;
    if (g->runtime.n_cpus > 0) {
        const uint16_t cpu = g->runtime.cpus[slot % g->runtime.n_cpus];
        mr_run_on_cpu(cpu);
        g->runtime.slots[slot].head->cpu_plus_1 = cpu + 1u;
    }
    const struct mr_worker_setup setup = {.runtime = &g->runtime,
                                          .slot = slot,
                                          .listen_fds = &g->listeners.fds[slot * g->listeners.n],
                                          .channel = channel,
                                          .ways_in = team->ways_in,
                                          .n_ways = team->n_ways,
                                          .on_ready = tell_ready,
                                          .on_ready_arg = &channel};

    return mr_worker_run(&setup);
}

static void close_ways_out(struct mr_team *team)
{
    for (uint32_t i = 0; i < team->n_ways && team->ways_out != NULL; i++)
        (void)close(team->ways_out[i]);
    free(team->ways_out);
    team->ways_out = NULL;
}

enum mr_result mr_team_open_ways(struct mr_team *team, uint32_t n, struct mr_error *err)
{
    team->ways_in = malloc(n * sizeof(int));
    team->ways_out = malloc(n * sizeof(int));
    MR_CHECK(team->ways_in != NULL && team->ways_out != NULL);
    for (team->n_ways = 0; team->n_ways < n; team->n_ways++) {
        int ends[2];
        const enum mr_result rc = mr_handover_open(ends, err);
        if (rc != MR_OK)
            return rc;
        team->ways_out[team->n_ways] = ends[0];
        team->ways_in[team->n_ways] = ends[1];
    }
    return MR_OK;
}

void mr_team_take_ways(struct mr_team *team, int *ways_in, uint32_t n)
{
    team->ways_in = ways_in;
    team->n_ways = n;
}

void mr_team_ways_given(struct mr_team *team)
{
    close_ways_out(team);
}

void mr_team_ways_done(struct mr_team *team)
{
    for (uint32_t i = 0; i < team->n_ways; i++) {
        if (team->ways_in[i] >= 0)
            (void)close(team->ways_in[i]);
        team->ways_in[i] = -1;
    }
}

static uint32_t add_fds(int *to, uint32_t n, const int *fds, uint32_t n_fds)
{
    memcpy(to + n, fds, n_fds * sizeof(*fds));
    return n + n_fds;
}

/*
 * Of what the master has open a child has use for this alone. Nothing else is left to it: it would
 * count against its limit, and keep sockets open whose other end waits for their end.
 */
static void keep_own(const struct mr_child *self, int channel)
{
    const struct mr_team *team = self->team;
    const struct mr_generation *g = &team->generation;
    const struct mr_runtime *rt = &g->runtime;
    const int always[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, mr_log_fd(), channel};
    int *keep =
        malloc((MR_COUNT(always) + g->listeners.n + team->n_ways + rt->n_slots + 1 + g->ports.n) *
               sizeof(*keep));
    MR_CHECK(keep != NULL);
    uint32_t n = add_fds(keep, 0, always, MR_COUNT(always));

    if (self->kind == MR_WORKER) {
        n = add_fds(keep, n, &g->listeners.fds[self->index * g->listeners.n], g->listeners.n);
        for (uint32_t i = self->index; i < team->n_ways; i += rt->n_slots)
            keep[n++] = team->ways_in[i];
        if (rt->balance_in != NULL) {
            n = add_fds(keep, n, rt->balance_out, rt->n_slots);
            keep[n++] = rt->balance_in[self->index];
        }
    } else if (self->kind == MR_ADMIN) {
        n = add_fds(keep, n, g->ports.fds, g->ports.n);
    }
    mr_close_all_but(keep, n);
    free(keep);
}

static _Noreturn void child_main(struct mr_child *self, int channel, pid_t master_pid)
{
    struct mr_team *team = self->team;
    const struct mr_config *config = team->generation.config;
    struct mr_error err;
    char role[24];
    int status = 1;

    (void)snprintf(role, sizeof(role), self->kind == MR_WORKER ? "%s/%u" : "%s",
                   mr_child_kind_name(self->kind), self->index);
    mr_log_set_role(role);
    (void)prctl(PR_SET_NAME, role);
    team->hooks->in_child(team->hooks->arg);
    keep_own(self, channel);
    if (mr_become_user(config->user, config->group, &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "user_failed error=\"%s\"", err.text);
        _exit(1);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* after setuid, which clears it */
    if (getppid() != master_pid)
        _exit(1);
    switch (self->kind) {
    case MR_WORKER:
        status = run_worker(team, self->index, channel);
        break;
    case MR_ADMIN:
        status = run_admin(team, channel);
        break;
    case MR_RESOLVER:
        status = mr_resolver_run(config, channel);
        break;
    }
    exit(status);
}

/* ---- messages ---- */

bool mr_child_tell(struct mr_child *c, struct mr_message *msg, int fd)
{
    struct mr_error err;

    if (c->pid == 0)
        return false;
    if (mr_channel_send(c->channel.fd, msg, fd, &err) == MR_OK)
        return true;
    mr_log(MR_LOG_WARN, "channel_send_failed child=%s/%u error=\"%s\"", mr_child_kind_name(c->kind),
           c->index, err.text);
    return false;
}

void mr_team_tell(struct mr_team *team, struct mr_message *msg, int fd, int kind)
{
    for (uint32_t i = 0; i < team->n_children; i++)
        if (kind < 0 || (int)team->children[i].kind == kind)
            (void)mr_child_tell(&team->children[i], msg, fd);
}

void mr_team_share_log(struct mr_team *team)
{
    struct mr_message file = {.type = MR_MSG_LOG_FD_TYPE};
    struct mr_message level = {.type = MR_MSG_LOG_LEVEL_TYPE};

    level.body.LOG_LEVEL.level = mr_log_level();
    mr_team_tell(team, &file, mr_log_fd(), -1);
    mr_team_tell(team, &level, -1, -1);
}

static void start_workers(struct mr_team *team);

static void handle_message(struct mr_child *c, struct mr_message *msg)
{
    struct mr_team *team = c->team;

    switch (msg->type) {
    case MR_MSG_READY_TYPE:
        c->ready = true;
        team->hooks->on_ready(team->hooks->arg, c);
        break;
    case MR_MSG_PONG_TYPE:
        c->missed = 0;
        break;
    case MR_MSG_DRAINED_TYPE:
        c->drained = true;
        team->hooks->on_drained(team->hooks->arg, c);
        break;
    case MR_MSG_ADDRESS_TYPE:
        if (msg->body.ADDRESS.server >= team->generation.config->n_servers)
            break;
        team->generation.runtime.addresses[msg->body.ADDRESS.server] = msg->body.ADDRESS.addr;
        mr_team_tell(team, msg, -1, MR_WORKER);
        break;
    case MR_MSG_RELOAD_TYPE:
        team->hooks->on_reload_asked(team->hooks->arg);
        break;
    case MR_MSG_ROUND_DONE_TYPE:
        start_workers(team);
        break;
    default:
        break;
    }
}

static void on_channel(struct mr_watch *watch)
{
    struct mr_child *c = MR_CONTAINER_OF(watch, struct mr_child, channel);
    struct mr_message msg;
    struct mr_error err;
    enum mr_result rc;

    while ((rc = mr_channel_recv(watch->fd, &msg, &err)) == MR_OK)
        handle_message(c, &msg);
    if (rc != MR_AGAIN)
        mr_watch_stop(c->team->loop, watch); /* SIGCHLD tells the rest */
}

/* ---- children ---- */

static void spawn(struct mr_child *c)
{
    struct mr_loop *loop = c->team->loop;
    const pid_t master_pid = getpid();
    struct mr_error err;
    int ends[2];

    c->ready = false;
    c->missed = 0;
    c->started_us = loop->now_us;
    if (mr_channel_open(ends, &err) != MR_OK) {
        mr_log(MR_LOG_ERR, "spawn_failed child=%s/%u error=\"%s\"", mr_child_kind_name(c->kind),
               c->index, err.text);
        mr_loop_timer(loop, &c->respawn, BACKOFF_FIRST_MS);
        return;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        (void)close(ends[0]);
        child_main(c, ends[1], master_pid);
    }
    (void)close(ends[1]);
    if (pid < 0) {
        mr_log(MR_LOG_ERR, "spawn_failed child=%s/%u error=\"fork: %s\"",
               mr_child_kind_name(c->kind), c->index, strerror(errno));
        (void)close(ends[0]);
        mr_loop_timer(loop, &c->respawn, BACKOFF_FIRST_MS);
        return;
    }
    c->pid = pid;
    c->channel = (struct mr_watch){.on_ready = on_channel, .fd = ends[0]};
    mr_watch_start(loop, &c->channel);
    mr_log(MR_LOG_INFO, "spawned child=%s/%u pid=%d", mr_child_kind_name(c->kind), c->index,
           (int)pid);
}

/* A process that answers no ping is stuck or stopped: its clients wait, so it is replaced. */
static void check_pulse(struct mr_child *c)
{
    struct mr_message ping = {.type = MR_MSG_PING_TYPE};

    if (c->pid == 0 || c->kind == MR_RESOLVER) /* looking up may take its time */
        return;
    if (c->missed < PINGS) {
        c->missed++;
        (void)mr_child_tell(c, &ping, -1);
        return;
    }
    mr_log(MR_LOG_ERR, "child_hangs child=%s/%u pid=%d timeout_ms=%u", mr_child_kind_name(c->kind),
           c->index, (int)c->pid, c->team->generation.config->worker_hang_timeout_ms);
    (void)kill(c->pid, SIGKILL);
}

static void on_pulse(struct mr_timer *timer)
{
    struct mr_team *team = MR_CONTAINER_OF(timer, struct mr_team, pulse);

    for (uint32_t i = 0; i < team->n_children; i++)
        check_pulse(&team->children[i]);
    mr_loop_timer(team->loop, timer, team->generation.config->worker_hang_timeout_ms / PINGS);
}

static void respawn(struct mr_timer *timer)
{
    spawn(MR_CONTAINER_OF(timer, struct mr_child, respawn));
}

static void respawn_later(struct mr_child *c)
{
    uint32_t delay = 0;

    if (c->quick_deaths >= QUICK_DEATHS) {
        const uint32_t doublings = c->quick_deaths - QUICK_DEATHS;
        delay = doublings > 6 ? BACKOFF_MAX_MS : BACKOFF_FIRST_MS << doublings;
        if (c->kind == MR_WORKER)
            c->team->generation.runtime.slots[c->index].head->state = MR_SLOT_BACKOFF;
        mr_log(MR_LOG_ERR, "child_keeps_dying child=%s/%u deaths=%u restart_in_ms=%u",
               mr_child_kind_name(c->kind), c->index, c->quick_deaths, delay);
    }
    if (delay == 0)
        spawn(c);
    else
        mr_loop_timer(c->team->loop, &c->respawn, delay);
}

static void start_workers(struct mr_team *team)
{
    if (team->workers_started || team->leaving)
        return;
    team->workers_started = true;
    mr_timer_cancel(&team->resolve_wait);
    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].kind == MR_WORKER)
            spawn(&team->children[i]);
}

static void resolve_wait_over(struct mr_timer *timer)
{
    struct mr_team *team = MR_CONTAINER_OF(timer, struct mr_team, resolve_wait);

    mr_log(MR_LOG_WARN, "resolve_slow waited_ms=%u", RESOLVE_WAIT_MS);
    start_workers(team);
}

static void log_death(const struct mr_child *c, int status)
{
    const bool expected = c->team->leaving;

    if (WIFSIGNALED(status))
        mr_log(expected ? MR_LOG_NOTICE : MR_LOG_ERR, "child_died child=%s/%u pid=%d signal=%d",
               mr_child_kind_name(c->kind), c->index, (int)c->pid, WTERMSIG(status));
    else
        mr_log(expected ? MR_LOG_INFO : MR_LOG_ERR, "child_exited child=%s/%u pid=%d status=%d",
               mr_child_kind_name(c->kind), c->index, (int)c->pid, WEXITSTATUS(status));
}

static void bury(struct mr_child *c, int status)
{
    struct mr_team *team = c->team;

    const pid_t pid = c->pid;

    log_death(c, status);
    mr_watch_stop(team->loop, &c->channel);
    (void)close(c->channel.fd);
    c->pid = 0;
    c->ready = false;
    if (c->kind == MR_WORKER) {
        struct mr_metrics *metrics = &team->generation.runtime.slots[c->index];
        mr_metrics_reset_gauges(metrics); /* what the dead had open is closed */
        metrics->head->pid = 0;
        metrics->head->state = MR_SLOT_DOWN;
        metrics->head->deaths += !team->leaving;
        if (team->generation.runtime.accept_holder != NULL)
            mr_turnstile_free(team->generation.runtime.accept_holder, (uint64_t)pid);
        metrics->head->clients = 0;
    }
    if (!team->hooks->on_death(team->hooks->arg, c) || team->leaving)
        return;
    const bool quick = team->loop->now_us - c->started_us < QUICK_DEATH_US;
    c->quick_deaths = quick ? c->quick_deaths + 1 : 0;
    respawn_later(c);
}

bool mr_team_bury(struct mr_team *team, pid_t pid, int status)
{
    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].pid == pid) {
            bury(&team->children[i], status);
            return true;
        }
    return false;
}

void mr_team_kill(struct mr_team *team)
{
    for (uint32_t i = 0; i < team->n_children; i++) {
        const struct mr_child *c = &team->children[i];
        if (c->pid == 0)
            continue;
        mr_log(MR_LOG_WARN, "child_killed child=%s/%u pid=%d reason=does_not_stop",
               mr_child_kind_name(c->kind), c->index, (int)c->pid);
        (void)kill(c->pid, SIGKILL);
    }
}

uint32_t mr_team_alive(const struct mr_team *team, int kind)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < team->n_children; i++)
        n += team->children[i].pid != 0 && (kind < 0 || (int)team->children[i].kind == kind);
    return n;
}

bool mr_team_ready(const struct mr_team *team)
{
    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].kind == MR_WORKER && !team->children[i].ready)
            return false;
    return true;
}

bool mr_team_drained(const struct mr_team *team)
{
    for (uint32_t i = 0; i < team->n_children; i++) {
        const struct mr_child *c = &team->children[i];
        if (c->kind == MR_WORKER && c->pid != 0 && !c->drained)
            return false;
    }
    return true;
}

/* ---- the team ---- */

static void add_child(struct mr_team *team, enum mr_child_kind kind, uint32_t index)
{
    team->children[team->n_children++] =
        (struct mr_child){.team = team, .kind = kind, .index = index, .respawn = {.fire = respawn}};
}

struct mr_team *mr_team_new(const struct mr_generation *generation, struct mr_loop *loop,
                            const struct mr_team_hooks *hooks)
{
    struct mr_team *team = calloc(1, sizeof(*team));

    MR_CHECK(team != NULL);
    team->generation = *generation;
    team->hooks = hooks;
    team->loop = loop;
    team->resolve_wait.fire = resolve_wait_over;
    const struct mr_runtime *rt = &team->generation.runtime;
    team->children = calloc(rt->n_slots + 2, sizeof(*team->children));
    MR_CHECK(team->children != NULL);
    for (uint32_t i = 0; i < rt->n_slots; i++)
        add_child(team, MR_WORKER, i);
    add_child(team, MR_ADMIN, 0);
    if (mr_resolver_needed(team->generation.config))
        add_child(team, MR_RESOLVER, 0);
    return team;
}

static struct mr_child *helper(struct mr_team *team, enum mr_child_kind kind)
{
    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].kind == kind)
            return &team->children[i];
    return NULL;
}

void mr_team_start_admin(struct mr_team *team)
{
    spawn(helper(team, MR_ADMIN));
}

void mr_team_start(struct mr_team *team, bool with_admin)
{
    struct mr_child *resolver = helper(team, MR_RESOLVER);
    const uint32_t hang_ms = team->generation.config->worker_hang_timeout_ms;

    team->pulse.fire = on_pulse;
    if (hang_ms > 0)
        mr_loop_timer(team->loop, &team->pulse, hang_ms / PINGS);
    if (with_admin)
        mr_team_start_admin(team);
    if (resolver == NULL) {
        start_workers(team);
        return;
    }
    spawn(resolver);
    mr_loop_timer(team->loop, &team->resolve_wait, RESOLVE_WAIT_MS);
}

void mr_team_leave(struct mr_team *team)
{
    team->leaving = true;
    mr_timer_cancel(&team->resolve_wait);
    for (uint32_t i = 0; i < team->n_children; i++)
        mr_timer_cancel(&team->children[i].respawn);
}

void mr_team_hand_over(struct mr_team *team, const int *ways_out, uint32_t n_slots,
                       const uint8_t *moves)
{
    mr_team_leave(team);
    for (uint32_t i = 0; i < team->n_children; i++) {
        struct mr_child *c = &team->children[i];
        struct mr_message msg = {.type = MR_MSG_HANDOVER_TYPE};
        if (c->kind != MR_WORKER)
            continue;
        msg.body.HANDOVER.retired = c->index >= n_slots;
        memcpy(msg.body.HANDOVER.moves, moves, sizeof(msg.body.HANDOVER.moves));
        (void)mr_child_tell(c, &msg, ways_out[c->index]); /* which logs its failure */
    }
}

void mr_team_free(struct mr_team *team, const struct mr_generation *heir)
{
    mr_team_leave(team);
    mr_timer_cancel(&team->pulse);
    mr_team_ways_done(team);
    close_ways_out(team);
    free(team->ways_in);
    mr_generation_close(&team->generation, heir);
    free(team->children);
    free(team);
}
