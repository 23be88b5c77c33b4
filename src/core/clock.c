/* clock.c - monotonic and wall-clock time. */
#include "core/clock.h"

#include <time.h>

static uint64_t read_us(clockid_t id)
{
    struct timespec ts;

    (void)clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

uint64_t mr_clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

uint64_t mr_clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}
