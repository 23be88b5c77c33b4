/*
 * log.h - the log sink: one line per event, `event key=value`, one write(2) each.
 *
 * Levels carry twemproxy's numbers. A line is written when its level is at or below the verbosity.
 * Control bytes are replaced, so nothing that a peer sends can forge a line. A line that the file
 * does not take (a full disk, a pipe that nobody reads) is lost; nobody waits. The next one that is
 * taken tells how many were.
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

/** One call site's rate limit; a zeroed one is ready. */
struct mr_log_site {
    uint64_t window_us; /* start of the current second of this site */
    uint32_t count;     /* lines in the window */
    uint32_t dropped;   /* lines not written since the last one that was */
};

/**
 * Sends the log to `path` (created 0644, appended to), or to stderr for NULL or "". A named pipe
 * must have a reader. On failure the old file stays in use.
 */
enum mr_result mr_log_open(const char *path, struct mr_error *err) MR_MUST_USE;

/** Opens the path again, after it was moved away, or stderr. On failure the old file stays in use.
 */
enum mr_result mr_log_reopen(struct mr_error *err) MR_MUST_USE;

/** Takes an open descriptor for the log (a worker gets it from the master). */
void mr_log_take_fd(int fd);

/** The file that is written to, "" for stderr; borrowed. */
const char *mr_log_path(void);

/** The descriptor in use, borrowed. */
int mr_log_fd(void);

/** Verbosity, clamped to 0..11. */
void mr_log_set_level(int level);
int mr_log_level(void);

/** A short name that marks the lines of this process: "master", "worker/3". Copied. */
void mr_log_set_role(const char *role);

void mr_log_line(enum mr_log_level level, const char *fmt, ...) MR_PRINTF(2, 3);

/** True when this site may write now: five lines a second, the rest are counted. */
bool mr_log_allowed(struct mr_log_site *site);

#define mr_log(level, ...)                                                                         \
    do {                                                                                           \
        if ((int)(level) <= mr_log_level())                                                        \
            mr_log_line((level), __VA_ARGS__);                                                     \
    } while (0)

/** For everything that a peer can cause: limited for each call site. */
#define mr_log_limited(level, ...)                                                                 \
    do {                                                                                           \
        static struct mr_log_site mr_site;                                                         \
        if ((int)(level) <= mr_log_level() && mr_log_allowed(&mr_site))                            \
            mr_log_line((level), __VA_ARGS__);                                                     \
    } while (0)
