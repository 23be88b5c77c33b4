/* pidfile.h - the pid file, which is locked. */
#pragma once

#include "core/result.h"

#include <sys/types.h>

struct mr_pidfile {
    char *path; /* owned; NULL: no file */
    int fd;
};

/**
 * Opens and locks the file. The lock lasts as long as any process that inherited the descriptor.
 * Fails, leaving the file alone, if another process holds it or if it is not a regular file.
 */
enum mr_result mr_pidfile_lock(struct mr_pidfile *f, const char *path,
                               struct mr_error *err) MR_MUST_USE;

/** Takes over a descriptor from the previous process, already locked. */
void mr_pidfile_adopt(struct mr_pidfile *f, const char *path, int fd);

/** Replaces the content by the process id in decimal, without a newline. */
enum mr_result mr_pidfile_write(const struct mr_pidfile *f, pid_t pid,
                                struct mr_error *err) MR_MUST_USE;

/**
 * Moves the pid file to `path` (NULL for none): locks and writes the new file, then removes the old
 * one. On failure nothing changes.
 */
enum mr_result mr_pidfile_move(struct mr_pidfile *f, const char *path,
                               struct mr_error *err) MR_MUST_USE;

/** Removes the file if it is still ours, and unlocks it. Does nothing if there is none. */
void mr_pidfile_remove(struct mr_pidfile *f);

/** Closes the descriptor in a process that must not keep the lock. */
void mr_pidfile_forget(struct mr_pidfile *f);

/** Reads the process id from a pid file. */
enum mr_result mr_pidfile_read(const char *path, pid_t *pid, struct mr_error *err) MR_MUST_USE;
