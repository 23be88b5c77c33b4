/* clock.h - time, in microseconds unless the name says otherwise. */
#pragma once

#include <stdint.h>

/** Monotonic time. One vDSO call; loops cache it once per turn. */
uint64_t mr_clock_mono_us(void);

/** Wall-clock time since the Unix epoch. */
uint64_t mr_clock_wall_us(void);
