/* system.h - what the process asks of the operating system at start. */
#pragma once

#include "core/result.h"

#include <stdint.h>

/** CPUs this process may use: the affinity mask, cut by the cgroup's CPU quota; at least 1. */
uint32_t mr_usable_cpus(void);

/**
 * CPUs by a setting: `none`, `auto`, or a list such as `0,2,4-7`. Only those of the affinity mask
 * are allowed. *cpus is owned by the caller (free); *n is 0 for none.
 */
enum mr_result mr_choose_cpus(const char *setting, uint16_t **cpus, uint32_t *n,
                              struct mr_error *err) MR_MUST_USE;

/** Keeps this process on one CPU; logs when that fails. */
void mr_run_on_cpu(uint16_t cpu);

/**
 * Raises RLIMIT_NOFILE to `wanted` as far as it can be had; never lowers it.
 * @return the limit in force
 */
uint32_t mr_raise_openfiles(uint32_t wanted);

/**
 * Checks that `user` and `group` exist; NULL is fine. With a user and no group, the user's primary
 * group is meant.
 */
enum mr_result mr_check_user(const char *user, const char *group, struct mr_error *err) MR_MUST_USE;

/** Becomes the user and group when running as root; does nothing otherwise. */
enum mr_result mr_become_user(const char *user, const char *group,
                              struct mr_error *err) MR_MUST_USE;

/** Writes a line and a backtrace to the log on a fatal signal, then lets it be fatal. */
void mr_catch_crashes(void);

/** In a child: closes every descriptor but these `n`, which it sorts; -1 stands for none. */
void mr_close_all_but(int *keep, uint32_t n);

/** A write to a pipe without a reader, or beyond the limit of a file's size, fails and no more. */
void mr_ignore_write_signals(void);

/** Blocks every signal that a process waits for with mr_signal_fd. */
void mr_block_signals(void);

/** A non-blocking descriptor that reads the blocked signals; -1 on failure, errno set. */
int mr_signal_fd(void);

/** The next pending signal, 0 for none. */
int mr_next_signal(int fd);
