/* child.c - starts, signals and ends the master's child processes, and runs them. */
#include "proc/child.h"

#include "core/log.h"
#include "proc/process.h"
#include "proc/resolver.h"
#include "proc/system.h"
#include "proc/team.h"
#include "proc/worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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
    const struct mr_runtime *rt = &g->runtime;

    rt->slots[slot].head->cpu_plus_1 = 0;
    if (rt->n_cpus > 0) {
        const uint16_t cpu = rt->cpus[slot % rt->n_cpus];
        mr_run_on_cpu(cpu);
        rt->slots[slot].head->cpu_plus_1 = cpu + 1u;
    }
    const struct mr_worker_setup setup = {.runtime = rt,
                                          .slot = slot,
                                          .listen_fds = &g->listeners.fds[slot * g->listeners.n],
                                          .ways_in = team->ways_in.fds,
                                          .n_ways = team->ways_in.n,
                                          .closed = team->state == MR_TEAM_STARTING,
                                          .channel = channel,
                                          .on_ready = tell_ready,
                                          .arg = &channel};

    return mr_worker_run(&setup);
}

static uint32_t add_fds(int *to, uint32_t n, const int *fds, uint32_t n_fds)
{
    memcpy(to + n, fds, n_fds * sizeof(*fds));
    return n + n_fds;
}

/*
 * Closes all descriptors the child does not use. They would count against its limit, and keep
 * sockets open whose peers wait for the close.
 */
static void keep_own(const struct mr_child *self, int channel)
{
    const struct mr_team *team = self->team;
    const struct mr_generation *g = &team->generation;
    const struct mr_runtime *rt = &g->runtime;
    const int always[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, mr_log_fd(), channel};
    int *keep = malloc(
        (MR_COUNT(always) + g->listeners.n + team->ways_in.n + rt->n_slots + 1 + g->ports.n) *
        sizeof(*keep));
    MR_CHECK(keep != NULL);
    uint32_t n = add_fds(keep, 0, always, MR_COUNT(always));

    if (self->kind == MR_WORKER) {
        n = add_fds(keep, n, &g->listeners.fds[self->index * g->listeners.n], g->listeners.n);
        for (uint32_t i = self->index; i < team->ways_in.n; i += rt->n_slots)
            keep[n++] = team->ways_in.fds[i];
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
        status = mr_resolver_run(&team->generation.runtime, channel);
        break;
    }
    exit(status);
}

/* ---- in the master ---- */

enum mr_result mr_child_fork(struct mr_child *child, struct mr_error *err)
{
    const pid_t master_pid = getpid();
    int ends[2];
    const enum mr_result rc = mr_channel_open(ends, err);

    if (rc != MR_OK)
        return rc;
    const pid_t pid = fork();
    if (pid == 0) {
        mr_channel_close(ends[0]);
        child_main(child, ends[1], master_pid);
    }
    mr_channel_close(ends[1]);
    if (pid < 0) {
        (void)mr_fail_sys(err, "fork");
        mr_channel_close(ends[0]);
        return MR_ESYS;
    }
    child->pid = pid;
    child->channel.fd = ends[0];
    return MR_OK;
}

void mr_child_kill(const struct mr_child *child)
{
    if (child->pid != 0)
        (void)kill(child->pid, SIGKILL);
}

pid_t mr_reap(int *status)
{
    const pid_t pid = waitpid(-1, status, WNOHANG);

    return pid > 0 ? pid : 0;
}

void mr_signal(pid_t pid, int signo)
{
    (void)kill(pid, signo);
}
