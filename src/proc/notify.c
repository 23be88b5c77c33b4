/* notify.c - reports the state of the proxy to its supervisor. */
#include "proc/notify.h"

#include "core/clock.h"
#include "core/number.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un supervisor;
static socklen_t supervisor_len; /* 0: no supervisor */
static uint64_t watchdog_us;
static char socket_path[sizeof(supervisor.sun_path)];

void mr_notify_init(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    uint64_t v;

    if (path != NULL && (path[0] == '/' || path[0] == '@') &&
        strlen(path) < sizeof(supervisor.sun_path)) {
        (void)snprintf(socket_path, sizeof(socket_path), "%s", path);
        supervisor.sun_family = AF_UNIX;
        memcpy(supervisor.sun_path, path, strlen(path));
        supervisor_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
        if (path[0] == '@')
            supervisor.sun_path[0] = '\0'; /* abstract socket */
    }
    if (usec != NULL && mr_parse_uint(mr_slice_of(usec), UINT64_MAX, &v) &&
        (pid == NULL || strtol(pid, NULL, 10) == getpid()))
        watchdog_us = v;
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
}

void mr_notify_export(void)
{
    char usec[24];

    if (supervisor_len == 0)
        return;
    (void)setenv("NOTIFY_SOCKET", socket_path, 1);
    (void)snprintf(usec, sizeof(usec), "%llu", (unsigned long long)watchdog_us);
    if (watchdog_us > 0)
        (void)setenv("WATCHDOG_USEC", usec, 1);
}

void mr_notify(const char *state)
{
    if (supervisor_len == 0)
        return;
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
                 (const struct sockaddr *)&supervisor, supervisor_len);
    (void)close(fd);
}

void mr_notify_reloading(void)
{
    char state[64];

    (void)snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu",
                   (unsigned long long)mr_clock_mono_us());
    mr_notify(state);
}

uint32_t mr_notify_watchdog_ms(void)
{
    const uint64_t ms = watchdog_us / 2000; /* twice as often as required */

    return supervisor_len == 0 || ms > UINT32_MAX ? 0 : (uint32_t)ms;
}
