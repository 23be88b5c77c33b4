/* log.c - the log sink. */
#include "core/log.h"

#include "core/clock.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES   1024
#define LINES_PER_SECOND 5u

static struct {
    int fd;
    bool is_socket;
    bool torn;     /* the last line was written only in part */
    uint64_t lost; /* lines lost since the last successful write */
    int level;
    char role[24];
    char path[4096];
} sink = {.fd = STDERR_FILENO, .level = MR_LOG_NOTICE, .role = "main"};

static const char *const LEVEL_NAMES[] = {"emerg", "alert",  "crit", "error",
                                          "warn",  "notice", "info", "debug"};

/* Non-blocking: a full pipe or terminal loses lines rather than stall the service. */
static int open_append(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
}

/* Reopened rather than set to non-blocking: other programs share the open file description. */
static int open_stderr(void)
{
    struct stat st;
    int fd = -1;

    if (fstat(STDERR_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
        fd = open_append("/proc/self/fd/2");
    return fd >= 0 ? fd : STDERR_FILENO;
}

enum mr_result mr_log_open(const char *path, struct mr_error *err)
{
    if (path == NULL || path[0] == '\0') {
        sink.path[0] = '\0';
        mr_log_take_fd(open_stderr());
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
    const int fd = sink.path[0] != '\0' ? open_append(sink.path) : open_stderr();
    if (fd < 0)
        return mr_fail_sys(err, "log file '%s'", sink.path);
    mr_log_take_fd(fd);
    return MR_OK;
}

void mr_log_take_fd(int fd)
{
    struct stat st;

    if (sink.fd != fd && sink.fd != STDERR_FILENO)
        (void)close(sink.fd);
    sink.fd = fd;
    sink.is_socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    sink.torn = false;
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

/* One write. Returns false if it was short: the disk is full, or the pipe is not read. */
static bool put(const char *line, size_t len)
{
    const ssize_t n = sink.is_socket ? send(sink.fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL)
                                     : write(sink.fd, line, len);

    if (n > 0)
        sink.torn = (size_t)n < len;
    return n == (ssize_t)len;
}

static bool vput_line(enum mr_log_level level, const char *fmt, va_list ap)
{
    char line[LINE_MAX_BYTES];

    line[0] = '\n'; /* in case the previous line was cut short */
    const size_t head = 1 + stamp(line + 1, sizeof(line) - 2, level);
    const int n = vsnprintf(line + head, sizeof(line) - 1 - head, fmt, ap);
    size_t len = head + (n < 0 ? 0 : (size_t)n);
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    for (size_t i = head; i < len; i++) {
        const unsigned char c = (unsigned char)line[i];
        if (c < 0x20 || c == 0x7f)
            line[i] = '?';
    }
    line[len++] = '\n';
    return sink.torn ? put(line, len) : put(line + 1, len - 1);
}

static bool MR_PRINTF(2, 3) put_line(enum mr_log_level level, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    const bool ok = vput_line(level, fmt, ap);
    va_end(ap);
    return ok;
}

void mr_log_line(enum mr_log_level level, const char *fmt, ...)
{
    va_list ap;

    if (sink.lost > 0 && put_line(MR_LOG_WARN, "log_lost lines=%llu reason=not_writable",
                                  (unsigned long long)sink.lost))
        sink.lost = 0;
    va_start(ap, fmt);
    sink.lost += !vput_line(level, fmt, ap);
    va_end(ap);
}
