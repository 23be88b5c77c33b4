/* process.c - what every child of the master has. */
#include "proc/process.h"

#include "core/log.h"
#include "proc/files.h"
#include "proc/system.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

/* Children of a master leave the terminal's signals to it. */
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
        break;
    case SIGTTOU:
        mr_log_set_level(mr_log_level() - 1);
        break;
    case SIGHUP:
        if (!p->alone)
            break;
        mr_log(MR_LOG_WARN, "reload_unavailable reason=single_process");
        mr_files_reopen_log();
        break;
    case SIGUSR1:
        if (p->alone)
            mr_files_reopen_log();
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
        mr_watch_stop(&p->loop, watch);
        if (!p->alone)
            p->on_quit(p); /* without a master nobody runs: a new one must not find us here */
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
    p->channel.active = false;
    if (p->channel.fd >= 0)
        mr_watch_start(&p->loop, &p->channel);
    return MR_OK;
}

void mr_process_fini(struct mr_process *p)
{
    mr_watch_stop(&p->loop, &p->signals);
    (void)close(p->signals.fd);
    if (p->channel.fd >= 0) {
        mr_watch_stop(&p->loop, &p->channel);
        (void)close(p->channel.fd);
    }
    mr_loop_fini(&p->loop);
}
