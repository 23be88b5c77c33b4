/* metrics_reference.c - prints docs/metrics.md from the table of metrics. */
#include "core/metrics.h"

#include <stdio.h>

static void table(const struct mr_metric_desc *desc, size_t n)
{
    static const char *const KINDS[] = {"counter", "gauge", "time"};
    static const char *const UNITS[] = {"", "bytes", "microseconds"};

    puts("| name | Prometheus | type | unit | meaning |\n|---|---|---|---|---|");
    for (size_t i = 0; i < n; i++)
        printf("| `%s` | `millrace_%s` | %s | %s | %s |\n", desc[i].name, desc[i].prometheus,
               KINDS[desc[i].kind], UNITS[desc[i].unit], desc[i].help);
}

int main(void)
{
    puts(
        "# Metrics\n"
        "\n"
        "This page is generated from `src/core/metrics.def` by `./dev docs`.\n"
        "\n"
        "Workers count in shared memory. Counters survive the death of a worker, reloads and\n"
        "upgrades. Reading them involves no worker, so it costs requests nothing.\n"
        "\n"
        "| where | what |\n"
        "|---|---|\n"
        "| the statistics port (`-a`, `-s`) | JSON in twemproxy's format, or in Meitu's if the "
        "configuration has Meitu's layout |\n"
        "| `/stats.json` at an `admin:` address | everything, including latency quantiles, workers "
        "and reloads |\n"
        "| `/metrics` at an `admin:` address | Prometheus's text format |\n"
        "| `millrace --describe-stats` | names and descriptions of the metrics |\n"
        "\n"
        "## Process\n");
    table(MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
    puts("\n## Pools\n\nLabel at `/metrics`: `pool`.\n");
    table(MR_POOL_METRICS, MR_POOL_METRIC_COUNT);
    puts("\n## Servers\n\nLabels at `/metrics`: `pool`, `server` (its name). At `/metrics` times "
         "are "
         "in seconds.\n");
    table(MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
    puts("\n## Health of servers\n\nResults of probes, in `/stats.json` and `/metrics` (labels as "
         "above); absent from `/metrics` for\nservers that were never probed and have not "
         "failed.\n");
    table(MR_HEALTH_METRICS, MR_HEALTH_METRIC_COUNT);
    puts("\n## Discovery\n\nOf clusters and pools with sentinels, in `/stats.json` and at "
         "`/metrics` "
         "(label `pool`).\n");
    table(MR_DISCOVERY_METRICS, MR_DISCOVERY_METRIC_COUNT);
    puts(
        "\n## Workers\n\nIn `/stats.json`, with `pid`, `cpu` and `state` (down, starting, serving, "
        "draining, backoff), and at\n`/metrics` with the label `worker`.\n");
    table(MR_WORKER_METRICS, MR_WORKER_METRIC_COUNT);
    puts("\n## The proxy as a whole\n\nIn `/stats.json`, with `last_reload_failure`, and at "
         "`/metrics`.\n");
    table(MR_PROXY_METRICS, MR_PROXY_METRIC_COUNT);
    puts("\n"
         "## Latencies\n"
         "\n"
         "| name | Prometheus | labels | from | to |\n"
         "|---|---|---|---|---|\n"
         "| `latency` of a pool | `millrace_request_duration_seconds` | `pool`, `class` | the "
         "request is parsed | the kernel has taken the whole reply |\n"
         "| `latency` of a server | `millrace_server_duration_seconds` | `pool`, `server`, `class` "
         "| the request is queued for the server | the reply is parsed |\n"
         "\n"
         "`class` is `read`, `write` or `other` (answered by the proxy, or without a key).\n"
         "`/stats.json` also has `all`, and gives `count`, `sum_us` and quantiles for each. "
         "Durations\n"
         "from 1 us to 60 s are counted in buckets at most 6.25 % wide, so `p50_us`, `p90_us`,\n"
         "`p99_us`, `p999_us` and `max_us` are too high by at most that much. `/metrics` has "
         "bounds\n"
         "at powers of two, from 16 us to 33.6 s. Sums are exact.\n"
         "\n"
         "A slow server, or a slow network to it, shows in both. A client that reads its replies\n"
         "slowly shows only in the pool's latency, and only beyond what fits into the socket's\n"
         "buffer.\n"
         "\n"
         "In Meitu's format these are arrays (`request_latency`, `server_latency`) of eleven "
         "counts:\n"
         "up to 1, 10, 20, 50, 100, 200, 500, 1000, 2000 and 3000 ms, and above.\n"
         "\n"
         "`/metrics` also has `millrace_info`, labelled with version and engine.");
    return 0;
}
