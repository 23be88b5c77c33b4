/* team.c - the processes of a generation: starts, replaces and ends them. */
#include "proc/team.h"

#include "core/log.h"
#include "proc/resolver.h"
#include "session/turnstile.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define QUICK_DEATH_US   1000000u /* a child that dies sooner may never work */
#define QUICK_DEATHS     5u       /* consecutive ones before restarts slow down */
#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS   10000u
#define PINGS            4u     /* unanswered: the process hangs */
#define RESOLVE_WAIT_MS  2000u  /* then workers start without addresses */
#define NEWS_BYTES       98304u /* limit in a channel, so that commands always fit */
#define NEWS_AGAIN_MS    10u

static struct mr_team *of_side(const struct mr_side *side)
{
    return MR_CONTAINER_OF(side, struct mr_team, side);
}

/* True if children that die are replaced. */
static bool replaces(const struct mr_team *team)
{
    switch (team->state) {
    case MR_TEAM_STARTING:
    case MR_TEAM_HELD:
    case MR_TEAM_SERVING:
        return true;
    case MR_TEAM_HANDING_OVER:
    case MR_TEAM_LEAVING:
    case MR_TEAM_QUITTING:
        return false;
    }
    return false;
}

static struct mr_child *helper(struct mr_team *team, enum mr_child_kind kind)
{
    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].kind == kind)
            return &team->children[i];
    return NULL;
}

/* ---- messages to children ---- */

bool mr_child_tell(struct mr_child *c, struct mr_message *msg, int fd)
{
    struct mr_error err;

    if (c->pid == 0)
        return false;
    if (mr_channel_send(c->channel.fd, msg, fd, &err) == MR_OK || err.sys == EPIPE ||
        err.sys == ECONNRESET)
        return true; /* it is gone; SIGCHLD reports that */
    mr_log_limited(MR_LOG_WARN, "channel_send_failed child=%s/%u error=\"%s\"",
                   mr_child_kind_name(c->kind), c->index, err.text);
    return false;
}

void mr_child_command(struct mr_child *c, struct mr_message *msg, int fd)
{
    if (c->pid == 0 || mr_child_tell(c, msg, fd))
        return;
    mr_log(MR_LOG_ERR, "child_killed child=%s/%u pid=%d reason=takes_no_message",
           mr_child_kind_name(c->kind), c->index, (int)c->pid);
    mr_child_kill(c);
}

/* ---- state that children must know; resent if a channel was full ---- */

static bool has_room(const struct mr_child *c)
{
    return mr_channel_queued(c->channel.fd) < NEWS_BYTES;
}

static bool tell_log(struct mr_child *c)
{
    struct mr_message file = {.type = MR_MSG_LOG_FD_TYPE};
    struct mr_message level = {.type = MR_MSG_LOG_LEVEL_TYPE};

    level.body.LOG_LEVEL.level = mr_log_level();
    return has_room(c) && mr_child_tell(c, &file, mr_log_fd()) && mr_child_tell(c, &level, -1);
}

static bool tell_address(struct mr_child *c, uint32_t server)
{
    struct mr_message msg = {.type = MR_MSG_ADDRESS_TYPE};

    msg.body.ADDRESS = (struct mr_address_payload){
        .server = server, .addr = c->team->generation.runtime.addresses[server]};
    if (msg.body.ADDRESS.addr.len == 0 && msg.body.ADDRESS.addr.text[0] == '\0')
        return true; /* it has never had one */
    return has_room(c) && mr_child_tell(c, &msg, -1);
}

/* True if the child is up to date. Children inherit the state when they are started. */
static bool catch_up(struct mr_child *c)
{
    const uint32_t n_servers = c->team->generation.config->n_servers;

    if (c->pid == 0)
        return true;
    c->log_due = c->log_due && !tell_log(c);
    while (c->address_due < n_servers && tell_address(c, c->address_due))
        c->address_due++;
    return !c->log_due && c->address_due == n_servers;
}

static void tell_news(struct mr_timer *timer)
{
    struct mr_team *team = MR_CONTAINER_OF(timer, struct mr_team, news);
    bool all = true;

    for (uint32_t i = 0; i < team->n_children; i++)
        all &= catch_up(&team->children[i]);
    if (!all)
        mr_loop_timer(team->loop, timer, NEWS_AGAIN_MS);
}

void mr_team_share_log(struct mr_team *team)
{
    for (uint32_t i = 0; i < team->n_children; i++)
        team->children[i].log_due = true;
    tell_news(&team->news);
}

void mr_team_share_address(struct mr_team *team, uint32_t server, const struct mr_addr *addr)
{
    team->generation.runtime.addresses[server] = *addr;
    for (uint32_t i = 0; i < team->n_children; i++) {
        struct mr_child *c = &team->children[i];
        if (c->kind != MR_WORKER || c->pid == 0 || c->address_due <= server ||
            tell_address(c, server))
            continue;
        if (c->address_due == team->generation.config->n_servers)
            mr_log(MR_LOG_INFO, "child_behind child=%s/%u pid=%d reason=channel_full",
                   mr_child_kind_name(c->kind), c->index, (int)c->pid);
        c->address_due = server;
        if (!mr_timer_is_set(&team->news))
            mr_loop_timer(team->loop, &team->news, NEWS_AGAIN_MS);
    }
}

/* ---- messages ---- */

static void command(struct mr_team *team, enum mr_message_type type, enum mr_child_kind kind)
{
    struct mr_message msg = {.type = (uint16_t)type};

    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].kind == kind)
            mr_child_command(&team->children[i], &msg, -1);
}

/* It has nothing to finish, and cannot react during a lookup, which may take minutes. */
static void end_resolver(struct mr_team *team)
{
    const struct mr_child *resolver = helper(team, MR_RESOLVER);

    if (resolver != NULL)
        mr_child_kill(resolver);
}

static void start_workers(struct mr_team *team);

static void handle_message(struct mr_child *c, struct mr_message *msg)
{
    struct mr_team *team = c->team;

    switch (msg->type) {
    case MR_MSG_READY_TYPE:
        if (c->state == MR_CHILD_STARTING)
            c->state = MR_CHILD_UP;
        break;
    case MR_MSG_PONG_TYPE:
        c->missed = 0;
        break;
    case MR_MSG_QUIESCED_TYPE: /* possibly for an earlier attempt */
        if (c->state == MR_CHILD_HANDING_OVER && msg->body.QUIESCED.transition == team->transition)
            c->state = MR_CHILD_QUIESCED;
        break;
    case MR_MSG_ADDRESS_TYPE:
        if (msg->body.ADDRESS.server < team->generation.config->n_servers)
            mr_team_share_address(team, msg->body.ADDRESS.server, &msg->body.ADDRESS.addr);
        break;
    case MR_MSG_RELOAD_TYPE:
        team->hooks->on_reload_asked(team->hooks->arg);
        break;
    case MR_MSG_ROUND_DONE_TYPE:
        start_workers(team);
        break;
    case MR_MSG_ASK_TYPE:
    case MR_MSG_ANSWER_TYPE:
        team->hooks->on_question(team->hooks->arg, c, msg);
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

    while ((rc = mr_channel_recv(watch->fd, &msg, &err)) == MR_OK) {
        handle_message(c, &msg);
        if (msg.fd >= 0)
            (void)close(msg.fd);
    }
    if (rc != MR_AGAIN)
        mr_watch_stop(c->team->loop, watch); /* the rest happens on SIGCHLD */
}

/* ---- children ---- */

static void spawn(struct mr_child *c)
{
    struct mr_loop *loop = c->team->loop;
    struct mr_error err;

    c->missed = 0;
    c->log_due = false;
    c->address_due = c->team->generation.config->n_servers;
    c->started_us = loop->now_us;
    if (mr_child_fork(c, &err) != MR_OK) {
        mr_log(MR_LOG_ERR, "spawn_failed child=%s/%u error=\"%s\"", mr_child_kind_name(c->kind),
               c->index, err.text);
        mr_loop_timer(loop, &c->respawn, BACKOFF_FIRST_MS);
        return;
    }
    c->state = MR_CHILD_STARTING;
    c->channel = (struct mr_watch){.on_ready = on_channel, .fd = c->channel.fd};
    mr_watch_start(loop, &c->channel);
    mr_log(MR_LOG_INFO, "spawned child=%s/%u pid=%d", mr_child_kind_name(c->kind), c->index,
           (int)c->pid);
}

/* A process that answers no pings hangs or is stopped. Its clients wait, so it is replaced. */
static void check_pulse(struct mr_child *c)
{
    struct mr_message ping = {.type = MR_MSG_PING_TYPE};

    if (c->pid == 0 || c->kind == MR_RESOLVER) /* lookups may take long */
        return;
    if (c->missed < PINGS) {
        c->missed++;
        (void)mr_child_tell(c, &ping, -1);
        return;
    }
    mr_log(MR_LOG_ERR, "child_hangs child=%s/%u pid=%d timeout_ms=%u", mr_child_kind_name(c->kind),
           c->index, (int)c->pid, c->team->generation.config->worker_hang_timeout_ms);
    mr_child_kill(c);
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
    const bool quick = c->team->loop->now_us - c->started_us < QUICK_DEATH_US;
    uint32_t delay = 0;

    c->quick_deaths = quick ? c->quick_deaths + 1 : 0;
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
    if (team->workers_started || !replaces(team))
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
    const bool expected = !replaces(c->team);
    const enum mr_log_level usual = c->kind == MR_RESOLVER ? MR_LOG_INFO : MR_LOG_NOTICE;

    if (WIFSIGNALED(status))
        mr_log(expected ? usual : MR_LOG_ERR, "child_died child=%s/%u pid=%d signal=%d",
               mr_child_kind_name(c->kind), c->index, (int)c->pid, WTERMSIG(status));
    else
        mr_log(expected ? MR_LOG_INFO : MR_LOG_ERR, "child_exited child=%s/%u pid=%d status=%d",
               mr_child_kind_name(c->kind), c->index, (int)c->pid, WEXITSTATUS(status));
}

/* Closes what a dead worker had open, and releases the accept lock. */
static void clear_slot(struct mr_team *team, uint32_t index, pid_t pid)
{
    struct mr_metrics *metrics = &team->generation.runtime.slots[index];

    mr_metrics_reset_gauges(metrics);
    metrics->head->pid = 0;
    metrics->head->state = MR_SLOT_DOWN;
    metrics->head->deaths += replaces(team);
    if (team->generation.runtime.accept_holder != NULL)
        mr_turnstile_free(team->generation.runtime.accept_holder, (uint64_t)pid);
    metrics->head->clients = 0;
}

/* Nobody will receive clients for this slot; the senders must notice. */
static void close_ways_of(struct mr_team *team, uint32_t slot)
{
    for (uint32_t i = slot; i < team->ways_in.n; i += team->generation.runtime.n_slots)
        mr_ways_close_one(&team->ways_in, i);
}

static void bury(struct mr_child *c, int status)
{
    struct mr_team *team = c->team;
    const pid_t pid = c->pid;

    log_death(c, status);
    mr_watch_stop(team->loop, &c->channel);
    mr_channel_close(c->channel.fd);
    c->pid = 0;
    c->state = MR_CHILD_DOWN;
    if (c->kind == MR_WORKER)
        clear_slot(team, c->index, pid);
    if (c->kind == MR_WORKER && team->state == MR_TEAM_STARTING)
        team->failed = true;
    else if (replaces(team))
        respawn_later(c);
    else if (c->kind == MR_WORKER)
        close_ways_of(team, c->index);
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

static void kill_child(const struct mr_child *c)
{
    if (c->pid == 0)
        return;
    mr_log(MR_LOG_WARN, "child_killed child=%s/%u pid=%d reason=does_not_stop",
           mr_child_kind_name(c->kind), c->index, (int)c->pid);
    mr_child_kill(c);
}

void mr_team_kill(struct mr_team *team)
{
    for (uint32_t i = 0; i < team->n_children; i++)
        kill_child(&team->children[i]);
}

uint32_t mr_team_alive(const struct mr_team *team, int kind)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < team->n_children; i++)
        n += team->children[i].pid != 0 && (kind < 0 || (int)team->children[i].kind == kind);
    return n;
}

/* ---- as a side of a transition ---- */

static bool ready(const struct mr_side *side)
{
    const struct mr_team *team = of_side(side);

    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].kind == MR_WORKER && team->children[i].state < MR_CHILD_UP)
            return false;
    return true;
}

static bool failed(const struct mr_side *side)
{
    return of_side(side)->failed;
}

static bool quiesced(const struct mr_side *side)
{
    const struct mr_team *team = of_side(side);

    for (uint32_t i = 0; i < team->n_children; i++) {
        const struct mr_child *c = &team->children[i];
        if (c->kind == MR_WORKER && c->state != MR_CHILD_DOWN && c->state != MR_CHILD_QUIESCED)
            return false;
    }
    return true;
}

static bool gone(const struct mr_side *side)
{
    return mr_team_alive(of_side(side), -1) == 0;
}

static void terms(const struct mr_side *side, const struct mr_config *before,
                  struct mr_side_terms *t)
{
    const struct mr_generation *g = &of_side(side)->generation;

    t->slots = g->runtime.n_slots;
    for (uint32_t i = 0; i < before->n_pools && i < MR_HANDOVER_POOLS; i++) {
        const struct mr_pool_config *pool = mr_config_pool(g->config, before->pools[i].name);
        if (pool == NULL || g->runtime.held[pool - g->config->pools])
            t->moves[i / 8] |= (uint8_t)(1u << (i % 8));
    }
}

static void commit(struct mr_side *side)
{
    of_side(side)->state = MR_TEAM_HELD;
    command(of_side(side), MR_MSG_OPEN_TYPE, MR_WORKER);
}

static void release(struct mr_side *side)
{
    struct mr_team *team = of_side(side);
    struct mr_runtime *rt = &team->generation.runtime;

    team->state = MR_TEAM_SERVING;
    memset(rt->held, 0, team->generation.config->n_pools * sizeof(*rt->held));
    command(team, MR_MSG_GO_TYPE, MR_WORKER);
}

static void stop_replacing(struct mr_team *team, enum mr_team_state state)
{
    team->state = state;
    mr_timer_cancel(&team->resolve_wait);
    for (uint32_t i = 0; i < team->n_children; i++)
        mr_timer_cancel(&team->children[i].respawn);
}

static void hand_over(struct mr_side *side, const struct mr_side_terms *t,
                      const struct mr_ways *ways)
{
    struct mr_team *team = of_side(side);

    stop_replacing(team, MR_TEAM_HANDING_OVER);
    team->transition = t->transition;
    for (uint32_t i = 0; i < team->n_children; i++) {
        struct mr_child *c = &team->children[i];
        struct mr_message msg = {.type = MR_MSG_HANDOVER_TYPE};
        if (c->kind != MR_WORKER || c->pid == 0)
            continue;
        msg.body.HANDOVER.transition = t->transition;
        msg.body.HANDOVER.retired = c->index >= t->slots;
        memcpy(msg.body.HANDOVER.moves, t->moves, sizeof(t->moves));
        c->state = MR_CHILD_HANDING_OVER;
        mr_child_command(c, &msg, ways->fds[c->index]);
    }
}

static void abort_requests(struct mr_side *side)
{
    command(of_side(side), MR_MSG_ABORT_TYPE, MR_WORKER);
}

static void retire(struct mr_side *side)
{
    command(of_side(side), MR_MSG_QUIT_TYPE, MR_ADMIN);
    end_resolver(of_side(side));
}

static void dismiss(struct mr_side *side)
{
    mr_team_dismiss(of_side(side));
}

void mr_team_dismiss(struct mr_team *team)
{
    stop_replacing(team, MR_TEAM_LEAVING);
    command(team, MR_MSG_TERMINATE_TYPE, MR_WORKER);
    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->children[i].kind == MR_WORKER && team->children[i].pid == 0)
            close_ways_of(team, team->children[i].index);
}

/* Starts replacements for workers that died; the others take back their clients. */
static void resume(struct mr_side *side)
{
    struct mr_team *team = of_side(side);
    struct mr_message msg = {.type = MR_MSG_RESUME_TYPE};

    team->state = MR_TEAM_SERVING;
    for (uint32_t i = 0; i < team->n_children; i++) {
        struct mr_child *c = &team->children[i];
        if (c->pid == 0) {
            spawn(c);
        } else if (c->kind == MR_WORKER) {
            c->state = MR_CHILD_UP;
            mr_child_command(c, &msg, -1);
        }
    }
}

static void drop(struct mr_side *side)
{
    mr_team_quit(of_side(side));
}

void mr_team_quit(struct mr_team *team)
{
    stop_replacing(team, MR_TEAM_QUITTING);
    command(team, MR_MSG_QUIT_TYPE, MR_WORKER);
    command(team, MR_MSG_QUIT_TYPE, MR_ADMIN);
    end_resolver(team);
}

/* Spares workers that have quiesced: they delay nobody and may still have clients. */
static void kill_late(struct mr_side *side)
{
    struct mr_team *team = of_side(side);

    for (uint32_t i = 0; i < team->n_children; i++)
        if (team->state != MR_TEAM_HANDING_OVER || team->children[i].state == MR_CHILD_HANDING_OVER)
            kill_child(&team->children[i]);
}

static const struct mr_side_ops OPS = {
    .ready = ready,
    .failed = failed,
    .quiesced = quiesced,
    .gone = gone,
    .terms = terms,
    .commit = commit,
    .release = release,
    .drop = drop,
    .hand_over = hand_over,
    .abort = abort_requests,
    .retire = retire,
    .dismiss = dismiss,
    .resume = resume,
    .kill = kill_late,
};

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
    team->side.ops = &OPS;
    team->generation = *generation;
    team->hooks = hooks;
    team->loop = loop;
    team->resolve_wait.fire = resolve_wait_over;
    const struct mr_runtime *rt = &team->generation.runtime;
    team->news.fire = tell_news;
    team->children = calloc(rt->n_slots + 2, sizeof(*team->children));
    MR_CHECK(team->children != NULL);
    for (uint32_t i = 0; i < rt->n_slots; i++)
        add_child(team, MR_WORKER, i);
    add_child(team, MR_ADMIN, 0);
    if (mr_resolver_needed(team->generation.config))
        add_child(team, MR_RESOLVER, 0);
    return team;
}

void mr_team_start(struct mr_team *team, bool with_admin)
{
    struct mr_child *resolver = helper(team, MR_RESOLVER);
    const uint32_t hang_ms = team->generation.config->worker_hang_timeout_ms;

    team->pulse.fire = on_pulse;
    if (hang_ms > 0)
        mr_loop_timer(team->loop, &team->pulse, hang_ms / PINGS);
    if (with_admin)
        spawn(helper(team, MR_ADMIN));
    if (resolver == NULL) {
        start_workers(team);
        return;
    }
    spawn(resolver);
    mr_loop_timer(team->loop, &team->resolve_wait, RESOLVE_WAIT_MS);
}

void mr_team_start_admin(struct mr_team *team)
{
    spawn(helper(team, MR_ADMIN));
}

void mr_team_free(struct mr_team *team, const struct mr_generation *heir)
{
    if (team == NULL)
        return;
    stop_replacing(team, MR_TEAM_QUITTING);
    mr_timer_cancel(&team->pulse);
    mr_timer_cancel(&team->news);
    mr_ways_close(&team->ways_in);
    mr_generation_close(&team->generation, heir);
    free(team->children);
    free(team);
}
