/* test_histogram.c - log-linear histograms of durations. */
#include "core/histogram.h"
#include "unit/test.h"

static void every_value_has_a_narrow_bucket(void **state)
{
    uint32_t before = 0;

    (void)state;
    for (uint64_t us = 0; us <= MR_HISTOGRAM_MAX_US; us += us / 5000 + 1) {
        const uint32_t i = mr_histogram_index(us);
        assert_true(i < MR_HISTOGRAM_BUCKETS && i >= before);
        assert_true(mr_histogram_low(i) <= us && us <= mr_histogram_high(i));
        assert_true((double)(mr_histogram_high(i) - mr_histogram_low(i)) <= 0.0625 * (double)us);
        before = i;
    }
    assert_int_equal(mr_histogram_index(MR_HISTOGRAM_MAX_US + 1), mr_histogram_index(UINT64_MAX));
    assert_true(mr_histogram_index(MR_HISTOGRAM_MAX_US) < MR_HISTOGRAM_BUCKETS - 1);
}

static void buckets_join(void **state)
{
    (void)state;
    for (uint32_t i = 1; i < MR_HISTOGRAM_BUCKETS; i++) {
        assert_int_equal(mr_histogram_low(i), mr_histogram_high(i - 1) + 1);
        if (mr_histogram_low(i) <= MR_HISTOGRAM_MAX_US)
            assert_int_equal(mr_histogram_index(mr_histogram_low(i)), i);
    }
}

static void quantiles(void **state)
{
    struct mr_histogram h = {0}, sum = {.sum_us = 1};

    (void)state;
    assert_int_equal(mr_histogram_quantile(&h, 0.5), 0);
    for (uint64_t us = 1; us <= 1000; us++)
        mr_histogram_add(&h, us);
    assert_int_equal(mr_histogram_total(&h), 1000);
    assert_in_range(mr_histogram_quantile(&h, 0.5), 500, 532);
    assert_in_range(mr_histogram_quantile(&h, 0.99), 990, 1052);
    assert_in_range(mr_histogram_quantile(&h, 0), 1, 1);
    assert_in_range(mr_histogram_quantile(&h, 1), 1000, 1063);
    assert_int_equal(h.sum_us, 500500);
    mr_histogram_merge(&sum, &h);
    assert_int_equal(sum.sum_us, 500501);
    assert_int_equal(mr_histogram_total(&sum), 1000);
}

RUN(T(every_value_has_a_narrow_bucket), T(buckets_join), T(quantiles))
