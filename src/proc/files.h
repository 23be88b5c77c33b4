/* files.h - the log and the pid file, where the command line and the configuration want them. */
#pragma once

#include "config/config.h"
#include "proc/options.h"
#include "proc/pidfile.h"

/** Path of the pid file, borrowed; NULL for none. */
const char *mr_files_pid(const struct mr_options *options, const struct mr_config *config);

/** At the start: sets the level and opens the log. */
enum mr_result mr_files_open_log(const struct mr_options *options, const struct mr_config *config,
                                 struct mr_error *err) MR_MUST_USE;

/** Opens the log's path again, after a rotation. What fails is logged; the old file goes on. */
void mr_files_reopen_log(void);

/**
 * The configuration `now` is in force instead of `before`: follows its log file, its level and its
 * pid file. What fails is logged; the old file stays in use.
 */
void mr_files_follow(const struct mr_options *options, const struct mr_config *now,
                     const struct mr_config *before, struct mr_pidfile *pidfile);
