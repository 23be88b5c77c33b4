/*
 * notify.h - reports the state of the proxy to its supervisor (systemd, through $NOTIFY_SOCKET).
 * Without a supervisor these functions do nothing.
 */
#pragma once

#include <stdint.h>

/** Remembers the socket and removes it from the environment, so that children cannot use it. */
void mr_notify_init(void);

/**
 * In a child that becomes the main process: restores the environment that mr_notify_init removed.
 */
void mr_notify_export(void);

/** Sends state lines such as "READY=1". Failures are ignored, as sd_notify(3) suggests. */
void mr_notify(const char *state);

/** Reports the start of a reload; READY=1 ends it. */
void mr_notify_reloading(void);

/** Milliseconds between WATCHDOG=1 messages; 0 if none are wanted. */
uint32_t mr_notify_watchdog_ms(void);
