/* files.h - opens the log and the pid file as options and configuration say. */
#pragma once

#include "config/config.h"
#include "proc/options.h"
#include "proc/pidfile.h"

/** Path of the pid file (borrowed), or NULL. */
const char *mr_files_pid(const struct mr_options *options, const struct mr_config *config);

/** At start: sets the log level and opens the log. */
enum mr_result mr_files_open_log(const struct mr_options *options, const struct mr_config *config,
                                 struct mr_error *err) MR_MUST_USE;

/** Reopens the log after a rotation. Failures are logged; the old file then stays in use. */
void mr_files_reopen_log(void);

/**
 * Applies log file, log level and pid file of the new configuration `now`, which replaces `before`.
 * Failures are logged; the old file then stays in use.
 */
void mr_files_follow(const struct mr_options *options, const struct mr_config *now,
                     const struct mr_config *before, struct mr_pidfile *pidfile);
