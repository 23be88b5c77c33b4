/*
 * descriptors.c - divides the descriptor limit: how many the proxy needs, and what is left for
 * clients.
 */
#include "proc/descriptors.h"

#include "proc/system.h"

#define MASTER_FDS    32u /* standard streams, log, pid file, signals, loop, links, files it reads */
#define WORKER_FDS    16u /* standard streams, log, channel, signals, engine, a client coming in */
#define PORT_FDS      3u  /* the listening socket and what libmicrohttpd needs */
#define PORT_SHARE    16u /* one port may use up to this fraction of the limit */
#define PORT_MAX      64u
#define PORT_MIN      4u
#define SLOT_FDS      5u /* in the master: two segments, a channel, both ends of a handover socket */
#define HELPERS       2u
#define HANDOVER_ENDS 2u

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Server connections, doubled: old ones may finish their work while new ones replace them. */
static uint64_t connections(const struct mr_config *config)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < config->n_pools; i++) {
        const struct mr_pool_config *pool = &config->pools[i];
        const uint64_t each = (uint64_t)pool->server_connections * pool->protocol->server.lanes +
                              (pool->health_checks != MR_HEALTH_OFF);
        n += 2 * pool->servers.n * each;
    }
    return n;
}

/* Statistics port and admin addresses. */
static uint64_t n_ports(const struct mr_config *config)
{
    return UINT64_C(1) + config->admin.n;
}

static uint64_t ports(const struct mr_generation *g)
{
    return n_ports(g->config) * (PORT_FDS + g->runtime.port_connections);
}

/* All but clients, including the channels to other workers and from the previous generation. */
static uint64_t of_worker(const struct mr_generation *g, const struct mr_generation *previous)
{
    const uint32_t n_slots = g->runtime.n_slots;
    const uint32_t before = previous != NULL ? previous->runtime.n_slots : n_slots;

    return WORKER_FDS + connections(g->config) + g->config->n_listens + n_slots + 1 +
           (before + n_slots - 1) / n_slots + (g->runtime.single ? ports(g) : 0);
}

static uint64_t held_by_master(const struct mr_generation *g)
{
    return (uint64_t)g->runtime.n_slots * (g->config->n_listens + SLOT_FDS + HANDOVER_ENDS) +
           n_ports(g->config) + HELPERS;
}

/* All doubled, for a reload or an upgrade. */
static uint64_t of_master(const struct mr_generation *g, const struct mr_generation *previous)
{
    const uint64_t now = held_by_master(g);

    return MASTER_FDS + now + max(now, previous != NULL ? held_by_master(previous) : 0);
}

/*
 * How many connections may wait in a worker's listen queues, doubled for those arriving meanwhile.
 */
static uint64_t burst(const struct mr_config *config)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < config->n_pools; i++)
        n += 2 * (uint64_t)config->pools[i].listens.n * config->pools[i].backlog;
    return n < UINT32_MAX ? n : UINT32_MAX;
}

enum mr_result mr_divide_descriptors(struct mr_generation *g, const struct mr_generation *previous,
                                     struct mr_error *err)
{
    struct mr_runtime *rt = &g->runtime;
    const uint32_t limit = mr_raise_openfiles(g->config->max_openfiles);
    const uint32_t share = limit / PORT_SHARE;

    rt->port_connections = share < PORT_MIN ? PORT_MIN : share > PORT_MAX ? PORT_MAX : share;
    rt->accept_burst = (uint32_t)burst(g->config);
    const uint64_t worker = of_worker(g, previous);
    const uint64_t others = max(rt->single ? 0 : of_master(g, previous), WORKER_FDS + ports(g));
    if (limit <= worker || limit < others)
        return mr_fail(err, MR_ELIMIT,
                       "the limit of open files (%u) is too low: servers, listeners and reserve "
                       "need %llu; raise it with ulimit -n or max_openfiles",
                       limit, (unsigned long long)max(worker + 1, others));
    rt->max_clients = (uint32_t)(limit - worker);
    return MR_OK;
}
