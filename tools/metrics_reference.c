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
        "Workers count in shared memory; what they have counted stays when one of them dies, when "
        "the\n"
        "configuration is read again, and when the program is upgraded. Nobody is asked when the "
        "numbers\n"
        "are read, so reading them costs no request anything.\n"
        "\n"
        "| where | what |\n"
        "|---|---|\n"
        "| the statistics port (`-a`, `-s`) | JSON in twemproxy's shape, in Meitu's when the "
        "configuration has\n"
        "Meitu's layout |\n"
        "| `/stats.json` at an `admin:` address | everything, with quantiles of the latencies, the "
        "workers and the reloads |\n"
        "| `/metrics` at an `admin:` address | the text format of Prometheus |\n"
        "| `millrace --describe-stats` | names and meanings of what twemproxy has |\n"
        "\n"
        "## Process\n");
    table(MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
    puts("\n## Pools\n\nLabel at `/metrics`: `pool`.\n");
    table(MR_POOL_METRICS, MR_POOL_METRIC_COUNT);
    puts("\n## Servers\n\nLabels at `/metrics`: `pool`, `server` (its name). At `/metrics` times "
         "are "
         "in seconds.\n");
    table(MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
    puts("\n## Health of servers\n\nWhat probes find, in `/stats.json` and `/metrics` (labels as "
         "above); absent at `/metrics` for\nservers that were not probed and have not failed.\n");
    table(MR_HEALTH_METRICS, MR_HEALTH_METRIC_COUNT);
    puts(
        "\n## Workers\n\nIn `/stats.json`, with `pid`, `cpu` and `state` (down, starting, serving, "
        "draining, backoff), and at\n`/metrics` with the label `worker`.\n");
    table(MR_WORKER_METRICS, MR_WORKER_METRIC_COUNT);
    puts("\n## The proxy as a whole\n\nIn `/stats.json`, with `last_reload_failure`, and at "
         "`/metrics`.\n");
    table(MR_PROXY_METRICS, MR_PROXY_METRIC_COUNT);
    puts(
        "\n"
        "## Latencies\n"
        "\n"
        "| name | Prometheus | labels | from | to |\n"
        "|---|---|---|---|---|\n"
        "| `latency` of a pool | `millrace_request_duration_seconds` | `pool`, `class` | the "
        "request is parsed | the client has taken the reply |\n"
        "| `latency` of a server | `millrace_server_duration_seconds` | `pool`, `server`, `class` "
        "| the request is queued for the server | the reply is parsed |\n"
        "\n"
        "`class` is `read`, `write` or `other` (answered by the proxy, or without a key); "
        "`/stats.json`\n"
        "adds `all`, and of each `count`, `sum_us` and quantiles. Durations are counted in buckets "
        "of at\n"
        "most 6.25 % width from 1 us to 60 s, so `p50_us`, `p90_us`, `p99_us`, `p999_us` and "
        "`max_us` are\n"
        "at most that much too high. `/metrics` shows powers of two from 16 us to 33.6 s. Sums are "
        "exact.\n"
        "\n"
        "A slow server, or a slow network to it, shows in both. A client that takes its replies "
        "slowly\n"
        "shows in the pool's alone: a reply counts as taken when the kernel has room for all of "
        "it, "
        "and\n"
        "what fits into the socket's buffer is taken at once.\n"
        "\n"
        "In Meitu's shape these are arrays (`request_latency`, `server_latency`) of eleven counts: "
        "up to\n"
        "1, 10, 20, 50, 100, 200, 500, 1000, 2000, 3000 ms, and above.\n"
        "\n"
        "At `/metrics` there is also `millrace_info`, with version and engine as labels.");
    return 0;
}
