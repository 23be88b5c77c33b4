/* daemon.h - going to the background, with the outcome of the start told in the foreground. */
#pragma once

#include "core/result.h"

/**
 * Forks into the background: double fork, setsid, standard input and output to /dev/null. The
 * foreground process waits for mr_daemon_started and exits 0, or exits 1 when the background dies
 * before. Standard error stays with the terminal until then. The working directory stays.
 * @return MR_OK in the background process, with *notify to be given to mr_daemon_started
 */
enum mr_result mr_daemonize(int *notify, struct mr_error *err) MR_MUST_USE;

/** In a child of the background process: gives back the pipe and the terminal. */
void mr_daemon_forget(int notify);

/**
 * First of all: what the caller has closed of standard input, output and error becomes /dev/null,
 * so that no socket gets their numbers and with them what is meant for a terminal.
 */
void mr_hold_standard_descriptors(void);

/** Lets the foreground process end well, and standard error go. */
void mr_daemon_started(int notify);
