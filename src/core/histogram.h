/*
 * histogram.h - log-linear counts of durations: 1 us to 60 s with at most 6.25 % of error.
 *
 * Up to 16 us each value has its own bucket; above, every power of two is split into 16. Plain
 * counters, so that it can live in shared memory and be summed.
 */
#pragma once

#include <stdint.h>

#define MR_HISTOGRAM_SUB     16u /* buckets for each power of two */
#define MR_HISTOGRAM_MAX_US  60000000u
#define MR_HISTOGRAM_BUCKETS 366u

struct mr_histogram {
    uint64_t sum_us; /* of all durations, to the microsecond */
    uint64_t counts[MR_HISTOGRAM_BUCKETS];
};

/** The bucket of a value; what is above the maximum counts as the maximum. */
static inline uint32_t mr_histogram_index(uint64_t us)
{
    if (us > MR_HISTOGRAM_MAX_US)
        us = MR_HISTOGRAM_MAX_US;
    if (us < MR_HISTOGRAM_SUB)
        return (uint32_t)us;
    const uint32_t shift = 59u - (uint32_t)__builtin_clzll(us); /* the top five bits remain */
    return shift * MR_HISTOGRAM_SUB + (uint32_t)(us >> shift);
}

/** One writer; readers see each count whole. */
static inline void mr_histogram_add(struct mr_histogram *h, uint64_t us)
{
    h->counts[mr_histogram_index(us)]++;
    h->sum_us += us;
}

/** Smallest value of a bucket, in microseconds. */
uint64_t mr_histogram_low(uint32_t index);

/** Largest value of a bucket, in microseconds. */
uint64_t mr_histogram_high(uint32_t index);

/** Adds all counts of `from`. */
void mr_histogram_merge(struct mr_histogram *sum, const struct mr_histogram *from);

uint64_t mr_histogram_total(const struct mr_histogram *h);

/** The value, in microseconds, that the share `q` (0 to 1) of all does not exceed; 0 of none. */
uint64_t mr_histogram_quantile(const struct mr_histogram *h, double q);
