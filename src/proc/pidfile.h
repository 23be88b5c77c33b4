/* pidfile.h - a locked file with the process id. */
#pragma once

#include "core/result.h"

#include <sys/types.h>

struct mr_pidfile {
    char *path; /* owned; NULL: no file */
    int fd;
};

/**
 * Opens and locks; the lock lives as long as a process that inherited the descriptor. A file that
 * another process holds is left alone and is an error, as is anything but a regular file.
 */
enum mr_result mr_pidfile_lock(struct mr_pidfile *f, const char *path,
                               struct mr_error *err) MR_MUST_USE;

/** Takes a descriptor that holds the lock already: of the process before this one. */
void mr_pidfile_adopt(struct mr_pidfile *f, const char *path, int fd);

/** Replaces the content by the decimal process id, without a newline. */
enum mr_result mr_pidfile_write(const struct mr_pidfile *f, pid_t pid,
                                struct mr_error *err) MR_MUST_USE;

/**
 * From now on the file is at `path` (NULL for none): locks and writes the new one, then removes the
 * old one. On failure nothing has changed.
 */
enum mr_result mr_pidfile_move(struct mr_pidfile *f, const char *path,
                               struct mr_error *err) MR_MUST_USE;

/** Removes the file, if it is still ours, and gives the lock back; fine when there is none. */
void mr_pidfile_remove(struct mr_pidfile *f);

/** Gives the descriptor back in a process that must not keep the lock. */
void mr_pidfile_forget(struct mr_pidfile *f);

/** The process id in a pid file. */
enum mr_result mr_pidfile_read(const char *path, pid_t *pid, struct mr_error *err) MR_MUST_USE;
