/* info.c - INFO: what clients and dashboards look up, about the proxy in place of a server. */
#include "core/clock.h"
#include "proto/resp/local.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define US_PER_S   UINT64_C(1000000)
#define S_PER_DAY  UINT64_C(86400)
#define KIB        UINT64_C(1024)
#define MIB        (KIB * KIB)
#define HUMAN_TEXT 32 /* bytes of an amount for humans */

struct info {
    const struct mr_resp_answer *a;
    struct mr_buf text;
};

#define PUT(info, ...) mr_buf_printf(&(info)->text, (info)->a->ctx->slab, __VA_ARGS__)

static void put_server(struct info *info)
{
    const uint64_t now = mr_clock_wall_us(), since = info->a->ctx->facts->started_us;
    const uint64_t up = now > since ? (now - since) / US_PER_S : 0;

    PUT(info,
        "redis_version:%s\r\nredis_git_sha1:00000000\r\nredis_git_dirty:0\r\n"
        "redis_mode:%s\r\nserver_name:millrace\r\n"
        "arch_bits:%zu\r\nprocess_id:%d\r\nuptime_in_seconds:%" PRIu64 "\r\nuptime_in_days:%" PRIu64
        "\r\n",
        mr_resp_server_version(info->a), mr_resp_mode(info->a), 8 * sizeof(void *), (int)getpid(),
        up, up / S_PER_DAY);
}

/* A counter of the pool, over all workers. */
static uint64_t counter(const struct info *info, const char *wanted)
{
    const struct mr_proto_facts *facts = info->a->ctx->facts;
    const char *name;
    uint32_t i = 0;
    uint64_t value;

    while (facts->next(facts, &i, &name, &value))
        if (strcmp(name, wanted) == 0)
            return value;
    return 0;
}

static void put_clients(struct info *info)
{
    PUT(info, "connected_clients:%" PRIu64 "\r\nblocked_clients:%" PRIu64 "\r\n",
        counter(info, "client_connections"), counter(info, "blocked_clients"));
}

static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    uint64_t pages = 0;

    if (f == NULL)
        return 0;
    if (fscanf(f, "%*u %" SCNu64, &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void put_amount(struct info *info, const char *name, uint64_t bytes)
{
    char human[HUMAN_TEXT];

    if (bytes < MIB)
        snprintf(human, sizeof(human), "%.2fK", (double)bytes / (double)KIB);
    else
        snprintf(human, sizeof(human), "%.2fM", (double)bytes / (double)MIB);
    PUT(info, "%s:%" PRIu64 "\r\n%s_human:%s\r\n", name, bytes, name, human);
}

static void put_memory(struct info *info)
{
    const uint64_t resident = resident_bytes();
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage); /* its maximum lags behind */
    const uint64_t peak = (uint64_t)usage.ru_maxrss * KIB;
    put_amount(info, "used_memory", resident);
    put_amount(info, "used_memory_rss", resident);
    put_amount(info, "used_memory_peak", peak > resident ? peak : resident);
    PUT(info, "maxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n");
}

static void put_persistence(struct info *info)
{
    PUT(info, "loading:0\r\nasync_loading:0\r\n");
}

static void put_replication(struct info *info)
{
    PUT(info, "role:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n");
}

static void put_cpu(struct info *info)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    PUT(info, "used_cpu_sys:%lld.%06ld\r\nused_cpu_user:%lld.%06ld\r\n",
        (long long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec,
        (long long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec);
}

static void put_cluster(struct info *info)
{
    PUT(info, "cluster_enabled:%d\r\n", info->a->ctx->options->present_as == MR_PRESENT_CLUSTER);
}

static const struct {
    const char *name, *title;
    void (*put)(struct info *info);
} SECTIONS[] = {
    {"server", "Server", put_server},
    {"clients", "Clients", put_clients},
    {"memory", "Memory", put_memory},
    {"persistence", "Persistence", put_persistence},
    {"replication", "Replication", put_replication},
    {"cpu", "CPU", put_cpu},
    {"cluster", "Cluster", put_cluster},
};

/* Whether the request asks for the section. */
static bool wants(const struct mr_resp_answer *a, const char *name)
{
    struct mr_key_walk walk = {0};

    for (uint32_t i = 1; i < a->msg->n_args; i++) {
        const struct mr_slice word = mr_resp_arg(a->msg, &walk, i);
        if (mr_slice_eq_nocase(word, name) || mr_slice_eq_nocase(word, "default") ||
            mr_slice_eq_nocase(word, "all") || mr_slice_eq_nocase(word, "everything"))
            return true;
    }
    return a->msg->n_args == 1;
}

/* Servers tell their version when they are greeted in RESP3. */
static bool waits_for_version(const struct mr_resp_answer *a)
{
    const struct mr_proto_facts *facts = a->ctx->facts;

    return facts->version[0] == '\0' && facts->any_lane(facts, MR_RESP_3) == MR_LANE_UNKNOWN;
}

enum mr_outcome mr_resp_answer_info(const struct mr_resp_answer *a)
{
    struct info info = {.a = a};

    if (wants(a, "server") && waits_for_version(a))
        return MR_ASK_LATER;
    for (size_t i = 0; i < MR_COUNT(SECTIONS); i++)
        if (wants(a, SECTIONS[i].name)) {
            PUT(&info, "%s# %s\r\n", mr_buf_empty(&info.text) ? "" : "\r\n", SECTIONS[i].title);
            SECTIONS[i].put(&info);
        }
    if (mr_buf_failed(&info.text))
        mr_resp_add(a, MR_RESP_NO_MEMORY);
    else
        mr_resp_add_verbatim(a, mr_buf_slice(&info.text));
    mr_buf_clear(&info.text, a->ctx->slab);
    return MR_KEEP_CLIENT;
}
