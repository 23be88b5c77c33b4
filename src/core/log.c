/* log.c - the log sink. */
#include "core/log.h"

#include "core/clock.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES   1024
#define LINES_PER_SECOND 5u

static struct {
    int fd;
    int level;
    char role[24];
    char path[4096];
} sink = {.fd = STDERR_FILENO, .level = MR_LOG_NOTICE, .role = "main"};

static const char *const LEVEL_NAMES[] = {"emerg", "alert",  "crit", "error",
                                          "warn",  "notice", "info", "debug"};

static int open_append(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
}

enum mr_result mr_log_open(const char *path, struct mr_error *err)
{
    if (path == NULL || path[0] == '\0') {
        sink.path[0] = '\0';
        mr_log_take_fd(STDERR_FILENO);
        return MR_OK;
    }
    if (strlen(path) >= sizeof(sink.path))
        return mr_fail(err, MR_ELIMIT, "log file: the path is too long");
    const int fd = open_append(path);
    if (fd < 0)
        return mr_fail_sys(err, "log file '%s'", path);
    memcpy(sink.path, path, strlen(path) + 1);
    mr_log_take_fd(fd);
    return MR_OK;
}

enum mr_result mr_log_reopen(struct mr_error *err)
{
    if (sink.path[0] == '\0')
        return MR_OK;
    const int fd = open_append(sink.path);
    if (fd < 0)
        return mr_fail_sys(err, "log file '%s'", sink.path);
    mr_log_take_fd(fd);
    return MR_OK;
}

void mr_log_take_fd(int fd)
{
    if (sink.fd != fd && sink.fd != STDERR_FILENO)
        (void)close(sink.fd);
    sink.fd = fd;
}

const char *mr_log_path(void)
{
    return sink.path;
}

int mr_log_fd(void)
{
    return sink.fd;
}

void mr_log_set_level(int level)
{
    sink.level = level < 0 ? 0 : level > MR_LOG_MAX ? MR_LOG_MAX : level;
}

int mr_log_level(void)
{
    return sink.level;
}

void mr_log_set_role(const char *role)
{
    (void)snprintf(sink.role, sizeof(sink.role), "%s", role);
}

bool mr_log_allowed(struct mr_log_site *site)
{
    const uint64_t now = mr_clock_mono_us();

    if (now - site->window_us >= 1000000u) {
        const uint32_t dropped = site->dropped;
        site->window_us = now;
        site->count = 0;
        site->dropped = 0;
        if (dropped > 0)
            mr_log(MR_LOG_WARN, "log_suppressed lines=%u reason=rate", dropped);
    }
    if (site->count >= LINES_PER_SECOND) {
        site->dropped++;
        return false;
    }
    site->count++;
    return true;
}

static size_t stamp(char *at, size_t size, enum mr_log_level level)
{
    const uint64_t wall = mr_clock_wall_us();
    const time_t seconds = (time_t)(wall / 1000000u);
    struct tm tm;

    (void)localtime_r(&seconds, &tm);
    size_t n = strftime(at, size, "[%Y-%m-%d %H:%M:%S", &tm);
    n += (size_t)snprintf(at + n, size - n, ".%03u] %s %s[%d] ", (unsigned)(wall / 1000u % 1000u),
                          LEVEL_NAMES[level <= MR_LOG_DEBUG ? level : MR_LOG_DEBUG], sink.role,
                          (int)getpid());
    return n;
}

void mr_log_line(enum mr_log_level level, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES];
    va_list ap;

    const size_t head = stamp(line, sizeof(line) - 1, level);
    va_start(ap, fmt);
    const int n = vsnprintf(line + head, sizeof(line) - 1 - head, fmt, ap);
    va_end(ap);
    size_t len = head + (n < 0 ? 0 : (size_t)n);
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    for (size_t i = head; i < len; i++) {
        const unsigned char c = (unsigned char)line[i];
        if (c < 0x20 || c == 0x7f)
            line[i] = '?';
    }
    line[len++] = '\n';
    const ssize_t written = write(sink.fd, line, len); /* a full disk must not stop the service */
    (void)written;
}
