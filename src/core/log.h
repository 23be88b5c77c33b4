/*
 * log.h - the log sink: one line per event, `event key=value`, one write(2) each.
 *
 * Levels carry twemproxy's numbers. A line is written if its level is at or below the verbosity.
 * Control bytes are replaced, so peers cannot forge lines. The sink never waits: a line that cannot
 * be written at once (a full disk, a full pipe) is lost, and the next line that succeeds reports
 * how many were.
 */
#pragma once

#include "core/result.h"

#include <stdbool.h>
#include <stdint.h>

enum mr_log_level {
    MR_LOG_EMERG = 0,
    MR_LOG_ALERT = 1,
    MR_LOG_CRIT = 2,
    MR_LOG_ERR = 3,
    MR_LOG_WARN = 4,
    MR_LOG_NOTICE = 5,
    MR_LOG_INFO = 6,
    MR_LOG_DEBUG = 7,
    MR_LOG_MAX = 11,
};

/** Rate limit of one call site. Zeroed means ready to use. */
struct mr_log_site {
    uint64_t window_us; /* start of the site's current one-second window */
    uint32_t count;     /* lines in this window */
    uint32_t dropped;   /* lines suppressed since the last one written */
};

/**
 * Sends the log to `path` (created with mode 0644, appended to), or to stderr if `path` is NULL or
 * "". A named pipe must have a reader. On failure the old file stays in use.
 */
enum mr_result mr_log_open(const char *path, struct mr_error *err) MR_MUST_USE;

/**
 * Reopens the log, for example after logrotate renamed it. On failure the old file stays in use.
 */
enum mr_result mr_log_reopen(struct mr_error *err) MR_MUST_USE;

/**
 * Switches the log to an open descriptor and owns it from now on (workers get it from the master).
 */
void mr_log_take_fd(int fd);

/** Path of the log file, "" for stderr. Borrowed. */
const char *mr_log_path(void);

/** The descriptor in use, borrowed. */
int mr_log_fd(void);

/** Verbosity, clamped to 0..11. */
void mr_log_set_level(int level);
int mr_log_level(void);

/** Short name that marks this process's lines: "master", "worker/3". Copied. */
void mr_log_set_role(const char *role);

void mr_log_line(enum mr_log_level level, const char *fmt, ...) MR_PRINTF(2, 3);

/** True if this site may log now: five lines a second pass, the rest are counted. */
bool mr_log_allowed(struct mr_log_site *site);

#define mr_log(level, ...)                                                                         \
    do {                                                                                           \
        if ((int)(level) <= mr_log_level())                                                        \
            mr_log_line((level), __VA_ARGS__);                                                     \
    } while (0)

/** For events that a peer can cause: rate-limited per call site. */
#define mr_log_limited(level, ...)                                                                 \
    do {                                                                                           \
        static struct mr_log_site mr_site;                                                         \
        if ((int)(level) <= mr_log_level() && mr_log_allowed(&mr_site))                            \
            mr_log_line((level), __VA_ARGS__);                                                     \
    } while (0)
