/* daemon.c - runs the proxy in the background. */
#include "proc/daemon.h"

#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void to_null(int fd)
{
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        return;
    (void)dup2(null, fd);
    (void)close(null);
}

/* In the foreground: waits for the byte that reports success. */
static _Noreturn void wait_for_start(int fd, pid_t child)
{
    char byte;
    ssize_t n;

    (void)waitpid(child, NULL, 0); /* the first fork exits at once */
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        _exit(0);
    (void)fputs("millrace: failed to start; see the log\n", stderr);
    _exit(1);
}

enum mr_result mr_daemonize(int *notify, struct mr_error *err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return mr_fail_sys(err, "pipe for the start in the background");
    const pid_t pid = fork();
    if (pid < 0)
        return mr_fail_sys(err, "fork to the background");
    if (pid > 0) {
        (void)close(ends[1]);
        wait_for_start(ends[0], pid);
    }
    (void)close(ends[0]);
    if (setsid() < 0)
        return mr_fail_sys(err, "setsid");
    const pid_t second = fork(); /* not a session leader any more, so it cannot get a terminal */
    if (second < 0)
        return mr_fail_sys(err, "fork to the background");
    if (second > 0)
        _exit(0);
    to_null(STDIN_FILENO);
    to_null(STDOUT_FILENO);
    *notify = ends[1];
    return MR_OK;
}

void mr_daemon_forget(int notify)
{
    struct mr_error err;

    (void)close(notify);
    to_null(STDERR_FILENO);
    if (mr_log_path()[0] == '\0' && mr_log_reopen(&err) != MR_OK) /* the log was stderr */
        mr_log_take_fd(STDERR_FILENO);
}

void mr_hold_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        (void)close(fd);
}

void mr_daemon_started(int notify)
{
    const ssize_t n = write(notify, "+", 1);

    (void)n;
    mr_daemon_forget(notify);
}
