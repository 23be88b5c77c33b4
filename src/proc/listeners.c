/* listeners.c - every listening socket of a configuration. */
#include "proc/listeners.h"

#include "net/listener.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_unix(const struct mr_listen_config *listen)
{
    return listen->addr.sa.any.sa_family == AF_UNIX;
}

/* One address: a socket for each slot, or one for all. */
static enum mr_result open_address(struct mr_listeners *l, uint32_t index,
                                   const struct mr_pool_config *pool,
                                   const struct mr_listen_config *listen, struct mr_error *err)
{
    const struct mr_listen_options options = {.backlog = (int)pool->backlog,
                                              .reuse_port = l->n_slots > 1 || pool->reuseport,
                                              .keepalive = pool->tcpkeepalive,
                                              .mode = listen->mode};
    enum mr_result rc = MR_OK;

    if (!pool->reuseport)
        rc = mr_listen_probe(&listen->addr, err);
    for (uint32_t s = 0; s < l->n_slots && rc == MR_OK; s++) {
        int *fd = &l->fds[s * l->n + index];
        if (s > 0 && is_unix(listen))
            *fd = l->fds[index];
        else
            rc = mr_listen(fd, &listen->addr, &options, err);
    }
    if (rc != MR_OK)
        mr_error_prefix(err, "pool '%s'", pool->name);
    return rc;
}

enum mr_result mr_listeners_open(struct mr_listeners *l, const struct mr_config *config,
                                 uint32_t n_slots, struct mr_error *err)
{
    enum mr_result rc = MR_OK;
    uint32_t index = 0;

    *l = (struct mr_listeners){.config = config, .n_slots = n_slots};
    for (uint32_t p = 0; p < config->n_pools; p++)
        l->n += config->pools[p].listens.n;
    l->fds = malloc((size_t)n_slots * l->n * sizeof(int));
    MR_CHECK(l->fds != NULL);
    memset(l->fds, 0xff, (size_t)n_slots * l->n * sizeof(int));
    for (uint32_t p = 0; p < config->n_pools; p++) {
        const struct mr_pool_config *pool = &config->pools[p];
        for (uint32_t i = 0; i < pool->listens.n && rc == MR_OK; i++)
            rc = open_address(l, index++, pool, &pool->listens.at[i], err);
    }
    if (rc != MR_OK)
        mr_listeners_close(l);
    return rc;
}

static bool shared(const struct mr_listeners *l, uint32_t slot, uint32_t index)
{
    return slot > 0 && l->fds[slot * l->n + index] == l->fds[index];
}

static void close_slot(struct mr_listeners *l, uint32_t slot, uint32_t keep)
{
    for (uint32_t i = 0; i < l->n; i++) {
        int *fd = &l->fds[slot * l->n + i];
        if (*fd < 0 || shared(l, slot, i))
            continue;
        if (keep < l->n_slots && *fd == l->fds[keep * l->n + i])
            continue; /* slot 0 owns the shared ones */
        (void)close(*fd);
        *fd = -1;
    }
}

void mr_listeners_keep_slot(struct mr_listeners *l, uint32_t slot)
{
    for (uint32_t s = l->n_slots; s-- > 0;)
        if (s != slot)
            close_slot(l, s, slot);
}

void mr_listeners_close(struct mr_listeners *l)
{
    uint32_t index = 0;

    for (uint32_t p = 0; p < l->config->n_pools; p++)
        for (uint32_t i = 0; i < l->config->pools[p].listens.n; i++, index++)
            if (is_unix(&l->config->pools[p].listens.at[i]) && l->fds[index] >= 0)
                (void)unlink(l->config->pools[p].listens.at[i].addr.sa.un.sun_path);
    for (uint32_t s = l->n_slots; s-- > 0;)
        close_slot(l, s, UINT32_MAX);
    free(l->fds);
    l->fds = NULL;
}
