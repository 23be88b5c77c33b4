/* process.c - the common part of the master's children. */
#include "proc/process.h"

#include "core/log.h"
#include "proc/files.h"
#include "proc/system.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RENEW_MS 1000u /* before a lone process starts its helper again */

/* The helper of a lone process follows its log. */
static void share_log(struct mr_process *p)
{
    struct mr_message file = {.type = MR_MSG_LOG_FD_TYPE};
    struct mr_message level = {.type = MR_MSG_LOG_LEVEL_TYPE};
    struct mr_error err;

    if (!p->alone || p->channel.fd < 0)
        return;
    level.body.LOG_LEVEL.level = mr_log_level();
    if (mr_channel_send(p->channel.fd, &file, mr_log_fd(), &err) != MR_OK ||
        mr_channel_send(p->channel.fd, &level, -1, &err) != MR_OK)
        mr_log_limited(MR_LOG_WARN, "channel_send_failed error=\"%s\"", err.text);
}

/* Children leave the terminal's signals to the master. */
static void handle_signal(struct mr_process *p, int signo)
{
    switch (signo) {
    case SIGTERM:
    case SIGQUIT:
        p->on_terminate(p);
        break;
    case SIGINT:
        if (p->alone)
            p->on_quit(p);
        break;
    case SIGTTIN:
        mr_log_set_level(mr_log_level() + 1);
        share_log(p);
        break;
    case SIGTTOU:
        mr_log_set_level(mr_log_level() - 1);
        share_log(p);
        break;
    case SIGCHLD:
        while (p->alone && waitpid(-1, NULL, WNOHANG) > 0)
            ;
        break;
    case SIGHUP:
        if (!p->alone)
            break;
        mr_log(MR_LOG_WARN, "reload_unavailable reason=single_process");
        mr_files_reopen_log();
        share_log(p);
        break;
    case SIGUSR1:
        if (!p->alone)
            break;
        mr_files_reopen_log();
        share_log(p);
        break;
    default:
        break;
    }
}

static void on_signals(struct mr_watch *watch)
{
    struct mr_process *p = MR_CONTAINER_OF(watch, struct mr_process, signals);
    int signo;

    while ((signo = mr_next_signal(watch->fd)) != 0)
        handle_signal(p, signo);
}

static void handle_message(struct mr_process *p, const struct mr_message *msg)
{
    switch (msg->type) {
    case MR_MSG_TERMINATE_TYPE:
        p->on_terminate(p);
        break;
    case MR_MSG_QUIT_TYPE:
        p->on_quit(p);
        break;
    case MR_MSG_PING_TYPE:
        mr_channel_tell(p->channel.fd, MR_MSG_PONG_TYPE);
        break;
    case MR_MSG_LOG_LEVEL_TYPE:
        mr_log_set_level(msg->body.LOG_LEVEL.level);
        break;
    case MR_MSG_LOG_FD_TYPE:
        if (msg->fd >= 0)
            mr_log_take_fd(msg->fd);
        break;
    default:
        if (p->on_message != NULL)
            p->on_message(p, msg);
        break;
    }
}

static void renew(struct mr_timer *timer)
{
    struct mr_process *p = MR_CONTAINER_OF(timer, struct mr_process, renewal);

    p->channel.fd = p->renew_channel(p);
    if (p->channel.fd >= 0)
        mr_watch_start(&p->loop, &p->channel);
    else
        mr_loop_timer(&p->loop, timer, RENEW_MS);
}

static void lose_channel(struct mr_process *p)
{
    mr_watch_stop(&p->loop, &p->channel);
    if (!p->alone) {
        p->on_quit(p); /* a new master must not meet us */
        return;
    }
    (void)close(p->channel.fd);
    p->channel.fd = -1;
    mr_loop_timer(&p->loop, &p->renewal, RENEW_MS);
}

static void on_channel(struct mr_watch *watch)
{
    struct mr_process *p = MR_CONTAINER_OF(watch, struct mr_process, channel);
    struct mr_message msg;
    struct mr_error err;
    enum mr_result rc;

    while (watch->active && (rc = mr_channel_recv(watch->fd, &msg, &err)) != MR_AGAIN) {
        if (rc == MR_OK) {
            handle_message(p, &msg);
            continue;
        }
        mr_log(MR_LOG_ERR, "channel_lost error=\"%s\"", err.text);
        lose_channel(p);
    }
}

enum mr_result mr_process_init(struct mr_process *p, const char *engine, struct mr_error *err)
{
    const enum mr_result rc = mr_loop_init(&p->loop, engine, err);

    if (rc != MR_OK)
        return rc;
    p->signals = (struct mr_watch){.on_ready = on_signals, .fd = mr_signal_fd()};
    if (p->signals.fd < 0) {
        mr_loop_fini(&p->loop);
        return mr_fail_sys(err, "signalfd");
    }
    mr_watch_start(&p->loop, &p->signals);
    p->channel.on_ready = on_channel;
    p->renewal.fire = renew;
    p->channel.active = false;
    if (p->channel.fd >= 0)
        mr_watch_start(&p->loop, &p->channel);
    return MR_OK;
}

void mr_process_fini(struct mr_process *p)
{
    mr_timer_cancel(&p->renewal);
    mr_watch_stop(&p->loop, &p->signals);
    (void)close(p->signals.fd);
    if (p->channel.fd >= 0) {
        mr_watch_stop(&p->loop, &p->channel);
        (void)close(p->channel.fd);
    }
    mr_loop_fini(&p->loop);
}
