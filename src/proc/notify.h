/*
 * notify.h - tells the supervisor (systemd, by the socket in $NOTIFY_SOCKET) how the proxy is.
 * Without a supervisor all of it does nothing.
 */
#pragma once

#include <stdint.h>

/** Remembers the socket and takes it out of the environment, so that no child speaks for us. */
void mr_notify_init(void);

/** In a child that becomes the main process: puts back what mr_notify_init took. */
void mr_notify_export(void);

/** Sends state lines such as "READY=1"; failures are ignored, as sd_notify(3) suggests. */
void mr_notify(const char *state);

/** Tells that a reload begins; READY=1 ends it. */
void mr_notify_reloading(void);

/** Milliseconds between two WATCHDOG=1 that the supervisor wants; 0 for none. */
uint32_t mr_notify_watchdog_ms(void);
