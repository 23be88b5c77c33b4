/* metrics.c - counters in shared memory. */
#include "core/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC   0x6d72736du
#define VERSION 6u

_Static_assert(sizeof(struct mr_pool_metrics) % 8 == 0 && sizeof(struct mr_server_metrics) % 8 == 0,
               "copied word by word");

#define ROW(name, kind, unit, prometheus, help)                                                    \
    {#name, MR_METRIC_##kind, MR_METRIC_##unit, prometheus, help},

const struct mr_metric_desc MR_PROXY_METRICS[] = {
#define X_PROXY ROW
#include "core/metrics.def"
};

const struct mr_metric_desc MR_WORKER_METRICS[] = {
#define X_WORKER ROW
#include "core/metrics.def"
};

const struct mr_metric_desc MR_DISCOVERY_METRICS[] = {
#define X_DISCOVERY ROW
#include "core/metrics.def"
};

const struct mr_metric_desc MR_HEALTH_METRICS[] = {
#define X_HEALTH ROW
#include "core/metrics.def"
};

const struct mr_metric_desc MR_PROCESS_METRICS[] = {
#define X_PROCESS ROW
#include "core/metrics.def"
};

const struct mr_metric_desc MR_POOL_METRICS[] = {
#define X_POOL ROW
#include "core/metrics.def"
};

const struct mr_metric_desc MR_SERVER_METRICS[] = {
#define X_SERVER ROW
#include "core/metrics.def"
};

const char *mr_class_name(enum mr_class class)
{
    static const char *const NAMES[MR_CLASSES] = {"read", "write", "other"};

    return NAMES[class];
}

const char *mr_slot_state_name(uint64_t state)
{
    static const char *const NAMES[MR_SLOT_STATES] = {"down", "starting", "serving", "draining",
                                                      "backoff"};

    return state < MR_SLOT_STATES ? NAMES[state] : "unknown";
}

static size_t segment_size(uint32_t n_pools, uint32_t n_servers)
{
    return sizeof(struct mr_metrics_head) + n_pools * sizeof(struct mr_pool_metrics) +
           n_servers * sizeof(struct mr_server_metrics);
}

static void map_at(struct mr_metrics *m, int fd, struct mr_metrics_head *at, size_t size)
{
    m->fd = fd;
    m->size = size;
    m->head = at;
    m->pools = (struct mr_pool_metrics *)(at + 1);
    m->servers = (struct mr_server_metrics *)(m->pools + at->n_pools);
}

enum mr_result mr_metrics_open(struct mr_metrics *m, uint32_t n_pools, uint32_t n_servers,
                               struct mr_error *err)
{
    const size_t size = segment_size(n_pools, n_servers);
    enum mr_result rc;

    const int fd = memfd_create("millrace-metrics", MFD_CLOEXEC);
    if (fd < 0)
        return mr_fail_sys(err, "memfd_create for metrics");
    if (ftruncate(fd, (off_t)size) < 0) {
        rc = mr_fail_sys(err, "metrics segment of %zu bytes", size);
        goto close_fd;
    }
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        rc = mr_fail_sys(err, "mmap of the metrics segment");
        goto close_fd;
    }
    struct mr_metrics_head *head = at;
    head->magic = MAGIC;
    head->version = VERSION;
    head->n_pools = n_pools;
    head->n_servers = n_servers;
    map_at(m, fd, head, size);
    return MR_OK;

close_fd:
    (void)close(fd);
    return rc;
}

enum mr_result mr_metrics_attach(struct mr_metrics *m, int fd, uint32_t n_pools, uint32_t n_servers,
                                 struct mr_error *err)
{
    const size_t size = segment_size(n_pools, n_servers);
    struct stat st;

    if (fstat(fd, &st) < 0)
        return mr_fail_sys(err, "metrics segment");
    if (st.st_size != (off_t)size)
        return mr_fail(err, MR_EPROTO, "a metrics segment has %lld bytes instead of %zu",
                       (long long)st.st_size, size);
    struct mr_metrics_head *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return mr_fail_sys(err, "mmap of a metrics segment");
    if (at->magic != MAGIC || at->version != VERSION || at->n_pools != n_pools ||
        at->n_servers != n_servers) {
        (void)munmap(at, size);
        return mr_fail(err, MR_EPROTO, "a metrics segment is of another version");
    }
    map_at(m, fd, at, size);
    return MR_OK;
}

void mr_metrics_close(struct mr_metrics *m)
{
    (void)munmap(m->head, m->size);
    (void)close(m->fd);
    *m = (struct mr_metrics){.fd = -1};
}

void mr_metrics_clear(struct mr_metrics *m)
{
    memset(&m->head->process, 0, sizeof(m->head->process));
    m->head->deaths = 0;
    memset(m->pools, 0, m->head->n_pools * sizeof(*m->pools));
    memset(m->servers, 0, m->head->n_servers * sizeof(*m->servers));
}

void mr_metrics_init(struct mr_metrics *m, uint32_t n_pools, uint32_t n_servers)
{
    const size_t size = segment_size(n_pools, n_servers);
    struct mr_metrics_head *head = calloc(1, size);

    MR_CHECK(head != NULL);
    head->n_pools = n_pools;
    head->n_servers = n_servers;
    map_at(m, -1, head, size);
}

void mr_metrics_fini(struct mr_metrics *m)
{
    free(m->head);
    *m = (struct mr_metrics){.fd = -1};
}

/* Word by word, so that readers never see a torn value; memcpy gives no such guarantee. */
static void copy(void *to, const void *from, size_t bytes)
{
    uint64_t *t = to;
    const uint64_t *f = from;

    for (size_t i = 0; i < bytes / sizeof(*t); i++)
        __atomic_store_n(&t[i], f[i], __ATOMIC_RELAXED);
}

void mr_metrics_copy(struct mr_metrics *to, const struct mr_metrics *from)
{
    MR_CHECK(to->size == from->size);
    copy(&to->head->process, &from->head->process, sizeof(to->head->process));
    copy(&to->head->deaths, &from->head->deaths, sizeof(to->head->deaths));
    copy(to->pools, from->pools, to->head->n_pools * sizeof(*to->pools));
    copy(to->servers, from->servers, to->head->n_servers * sizeof(*to->servers));
}

static void reset(uint64_t *values, const struct mr_metric_desc *desc, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (desc[i].kind == MR_METRIC_GAUGE)
            values[i] = 0;
}

void mr_metrics_reset_gauges(struct mr_metrics *m)
{
    reset((uint64_t *)&m->head->process, MR_PROCESS_METRICS, MR_PROCESS_METRIC_COUNT);
    for (uint32_t i = 0; i < m->head->n_pools; i++)
        reset((uint64_t *)&m->pools[i], MR_POOL_METRICS, MR_POOL_METRIC_COUNT);
    for (uint32_t i = 0; i < m->head->n_servers; i++)
        reset((uint64_t *)&m->servers[i], MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
}

void mr_metrics_add(uint64_t *sum, const uint64_t *from, const struct mr_metric_desc *desc,
                    size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (desc[i].kind != MR_METRIC_TIMESTAMP)
            sum[i] += from[i];
        else if (from[i] > sum[i])
            sum[i] = from[i];
    }
}

static void add_latency(struct mr_latency *sum, const struct mr_latency *from)
{
    for (unsigned i = 0; i < MR_LATENCY_BUCKETS; i++)
        sum->counts[i] += from->counts[i];
}

void mr_pool_metrics_add(struct mr_pool_metrics *sum, const struct mr_pool_metrics *from)
{
    mr_metrics_add((uint64_t *)sum, (const uint64_t *)from, MR_POOL_METRICS, MR_POOL_METRIC_COUNT);
    add_latency(&sum->request_latency, &from->request_latency);
    for (unsigned c = 0; c < MR_CLASSES; c++)
        mr_histogram_merge(&sum->request_times[c], &from->request_times[c]);
}

void mr_server_metrics_add(struct mr_server_metrics *sum, const struct mr_server_metrics *from)
{
    mr_metrics_add((uint64_t *)sum, (const uint64_t *)from, MR_SERVER_METRICS,
                   MR_SERVER_METRIC_COUNT);
    add_latency(&sum->server_latency, &from->server_latency);
    for (unsigned c = 0; c < MR_CLASSES; c++)
        mr_histogram_merge(&sum->server_times[c], &from->server_times[c]);
}
