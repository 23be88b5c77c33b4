/*
 * histogram.h - log-linear histograms of durations: 1 us to 60 s, at most 6.25 % error.
 *
 * Each value up to 16 us has its own bucket; above that, each power of two is split into 16. Plain
 * counters, so a histogram can live in shared memory and be summed.
 */
#pragma once

#include <stdint.h>

#define MR_HISTOGRAM_SUB     16u /* buckets per power of two */
#define MR_HISTOGRAM_MAX_US  60000000u
#define MR_HISTOGRAM_BUCKETS 366u

struct mr_histogram {
    uint64_t sum_us; /* exact sum of all durations */
    uint64_t counts[MR_HISTOGRAM_BUCKETS];
};

/** Bucket of a value. Values above the maximum count as the maximum. */
static inline uint32_t mr_histogram_index(uint64_t us)
{
    if (us > MR_HISTOGRAM_MAX_US)
        us = MR_HISTOGRAM_MAX_US;
    if (us < MR_HISTOGRAM_SUB)
        return (uint32_t)us;
    const uint32_t shift = 59u - (uint32_t)__builtin_clzll(us); /* keep the top five bits */
    return shift * MR_HISTOGRAM_SUB + (uint32_t)(us >> shift);
}

/** Single writer. Readers never see a torn count. */
static inline void mr_histogram_add(struct mr_histogram *h, uint64_t us)
{
    h->counts[mr_histogram_index(us)]++;
    h->sum_us += us;
}

/** Smallest value in a bucket, in microseconds. */
uint64_t mr_histogram_low(uint32_t index);

/** Largest value in a bucket, in microseconds. */
uint64_t mr_histogram_high(uint32_t index);

/** Adds all counts of `from`. */
void mr_histogram_merge(struct mr_histogram *sum, const struct mr_histogram *from);

uint64_t mr_histogram_total(const struct mr_histogram *h);

/**
 * Quantile `q` (0 to 1) in microseconds, rounded up to the end of its bucket; 0 if there are no
 * values.
 */
uint64_t mr_histogram_quantile(const struct mr_histogram *h, double q);
