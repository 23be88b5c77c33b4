/* daemon.h - runs the proxy in the background, while the foreground reports how the start went. */
#pragma once

#include "core/result.h"

/**
 * Forks into the background: double fork, setsid, standard input and output to /dev/null. The
 * foreground process waits for mr_daemon_started and exits 0, or exits 1 if the background process
 * dies first. Until then standard error stays on the terminal. The working directory is unchanged.
 * @return MR_OK in the background process, with *notify for mr_daemon_started
 */
enum mr_result mr_daemonize(int *notify, struct mr_error *err) MR_MUST_USE;

/** In a child of the background process: closes the pipe and the terminal. */
void mr_daemon_forget(int notify);

/**
 * Opens /dev/null for closed standard descriptors, so that no socket gets their numbers and the
 * output meant for them. Call it first.
 */
void mr_hold_standard_descriptors(void);

/** Lets the foreground process exit with success, and closes standard error. */
void mr_daemon_started(int notify);
