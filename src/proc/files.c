/* files.c - opens the log and the pid file as options and configuration say. */
#include "proc/files.h"

#include "core/log.h"

#include <string.h>

const char *mr_files_pid(const struct mr_options *options, const struct mr_config *config)
{
    return options->pid_file != NULL ? options->pid_file : config->pid_file;
}

/* "" for standard error. */
static const char *log_file(const struct mr_options *options, const struct mr_config *config)
{
    const char *path = options->log_file != NULL ? options->log_file : config->log_file;

    return path != NULL ? path : "";
}

enum mr_result mr_files_open_log(const struct mr_options *options, const struct mr_config *config,
                                 struct mr_error *err)
{
    mr_log_set_level(options->log_level >= 0 ? options->log_level : (int)config->log_level);
    return mr_log_open(log_file(options, config), err);
}

void mr_files_reopen_log(void)
{
    struct mr_error err;

    if (mr_log_reopen(&err) == MR_OK)
        mr_log(MR_LOG_NOTICE, "log_reopened");
    else
        mr_log(MR_LOG_ERR, "log_reopen_failed error=\"%s\" using=old_file", err.text);
}

void mr_files_follow(const struct mr_options *options, const struct mr_config *now,
                     const struct mr_config *before, struct mr_pidfile *pidfile)
{
    const char *log = log_file(options, now);
    struct mr_error err;

    if (options->log_level < 0 && now->log_level != before->log_level) /* else signals rule */
        mr_log_set_level((int)now->log_level);
    if (strcmp(log, mr_log_path()) != 0 && mr_log_open(log, &err) != MR_OK)
        mr_log(MR_LOG_ERR, "log_open_failed error=\"%s\" using=old_file", err.text);
    if (mr_pidfile_move(pidfile, mr_files_pid(options, now), &err) != MR_OK)
        mr_log(MR_LOG_ERR, "pid_file_failed error=\"%s\" using=old_file", err.text);
}
