/* clock.h - time, in microseconds unless the name says otherwise. */
#pragma once

#include <stdint.h>

/** Monotonic time in microseconds; a call costs a vDSO read. Loops cache it once per turn. */
uint64_t mr_clock_mono_us(void);

/** Wall-clock time in microseconds since the Unix epoch. */
uint64_t mr_clock_wall_us(void);
