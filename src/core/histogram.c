/* histogram.c - log-linear histograms of durations. */
#include "core/histogram.h"

uint64_t mr_histogram_low(uint32_t index)
{
    if (index < 2 * MR_HISTOGRAM_SUB)
        return index;
    const uint32_t shift = index / MR_HISTOGRAM_SUB - 1;
    return (uint64_t)(index % MR_HISTOGRAM_SUB + MR_HISTOGRAM_SUB) << shift;
}

uint64_t mr_histogram_high(uint32_t index)
{
    return mr_histogram_low(index + 1) - 1;
}

void mr_histogram_merge(struct mr_histogram *sum, const struct mr_histogram *from)
{
    sum->sum_us += from->sum_us;
    for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++)
        sum->counts[i] += from->counts[i];
}

uint64_t mr_histogram_total(const struct mr_histogram *h)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++)
        total += h->counts[i];
    return total;
}

uint64_t mr_histogram_quantile(const struct mr_histogram *h, double q)
{
    const uint64_t total = mr_histogram_total(h);
    uint64_t seen = 0;

    if (total == 0)
        return 0;
    for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if ((double)seen >= q * (double)total && seen > 0)
            return mr_histogram_high(i);
    }
    return MR_HISTOGRAM_MAX_US;
}
