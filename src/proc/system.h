/* system.h - operating system services: CPUs, resource limits, users and signals. */
#pragma once

#include "core/result.h"

#include <stdint.h>

/** CPUs this process may use: the affinity mask, limited by the cgroup's quota; at least 1. */
uint32_t mr_usable_cpus(void);

/**
 * CPUs for `none`, `auto`, or a list such as `0,2,4-7`, which must be in the affinity mask. *cpus
 * is owned by the caller (free); *n is 0 for none.
 */
enum mr_result mr_choose_cpus(const char *setting, uint16_t **cpus, uint32_t *n,
                              struct mr_error *err) MR_MUST_USE;

/** Pins this process to a CPU. Failures are logged. */
void mr_run_on_cpu(uint16_t cpu);

/**
 * Raises RLIMIT_NOFILE to `wanted`, as far as permitted; never lowers it.
 * @return the limit in force
 */
uint32_t mr_raise_openfiles(uint32_t wanted);

/**
 * Checks that `user` and `group` exist; both may be NULL. With a user but no group, the user's
 * primary group is meant.
 */
enum mr_result mr_check_user(const char *user, const char *group, struct mr_error *err) MR_MUST_USE;

/** Changes to the user and group if running as root; otherwise does nothing. */
enum mr_result mr_become_user(const char *user, const char *group,
                              struct mr_error *err) MR_MUST_USE;

/** On a fatal signal, logs a line and a backtrace before the process dies. */
void mr_catch_crashes(void);

/**
 * In a child: closes all descriptors except these `n`, which get sorted; -1 entries are ignored.
 */
void mr_close_all_but(int *keep, uint32_t n);

/**
 * Call it first: makes writes to a pipe without a reader, or beyond the file size limit, fail
 * without a signal, and has the kernel report children that end, which it does not for a program
 * started with SIGCHLD ignored.
 */
void mr_settle_signals(void);

/** Blocks the signals that mr_signal_fd delivers. */
void mr_block_signals(void);

/** A non-blocking descriptor for the blocked signals; -1 on failure, with errno. */
int mr_signal_fd(void);

/** The next pending signal, or 0. */
int mr_next_signal(int fd);
