/* test_metrics.c - segments: sums, gauges of a new worker, latency buckets. */
#include "core/metrics.h"
#include "unit/test.h"

static void a_new_worker_keeps_counters(void **state)
{
    struct mr_metrics m;
    struct mr_error err;

    (void)state;
    assert_int_equal(mr_metrics_open(&m, 2, 3, &err), MR_OK);
    m.head->process.total_connections = 5;
    m.head->process.curr_connections = 4;
    m.pools[1].client_eof = 3;
    m.pools[1].client_connections = 9;
    m.servers[2].requests = 8;
    m.servers[2].out_queue = 7;
    m.servers[2].server_ejected_at = 6;
    m.servers[2].server_latency.counts[10] = 2;
    mr_metrics_reset_gauges(&m);
    assert_int_equal(m.head->process.total_connections, 5);
    assert_int_equal(m.head->process.curr_connections, 0);
    assert_int_equal(m.pools[1].client_eof, 3);
    assert_int_equal(m.pools[1].client_connections, 0);
    assert_int_equal(m.servers[2].requests, 8);
    assert_int_equal(m.servers[2].out_queue, 0);
    assert_int_equal(m.servers[2].server_ejected_at, 6);
    assert_int_equal(m.servers[2].server_latency.counts[10], 2);
    mr_metrics_close(&m);
}

static void sums_by_kind(void **state)
{
    struct mr_server_metrics a = {.requests = 1, .server_ejected_at = 50};
    const struct mr_server_metrics b = {.requests = 2, .server_ejected_at = 40, .out_queue = 3};

    (void)state;
    mr_metrics_add((uint64_t *)&a, (const uint64_t *)&b, MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
    assert_int_equal(a.requests, 3);
    assert_int_equal(a.server_ejected_at, 50);
    assert_int_equal(a.out_queue, 3);
}

static void buckets_are_inclusive(void **state)
{
    static const struct {
        uint64_t us;
        unsigned bucket;
    } CASES[] = {{0, 0},       {1000, 0},    {1001, 1},     {10000, 1},      {10001, 2},
                 {50000, 3},   {100000, 4},  {200001, 6},   {500000, 6},     {1000000, 7},
                 {2000000, 8}, {3000000, 9}, {3000001, 10}, {UINT64_MAX, 10}};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        struct mr_latency l = {{0}};
        mr_latency_add(&l, CASES[i].us);
        assert_int_equal(l.counts[CASES[i].bucket], 1);
    }
}

RUN(T(a_new_worker_keeps_counters), T(sums_by_kind), T(buckets_are_inclusive))
