/* snapshot.c - asking a configuration, and freeing it. */
#include "config/config.h"

#include "config/value.h"

#include <stdlib.h>
#include <string.h>

struct mr_ring_member *mr_config_ring_members(const struct mr_pool_config *pool)
{
    struct mr_ring_member *members = calloc(pool->servers.n + 1, sizeof(*members));

    MR_CHECK(members != NULL);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        members[i] = (struct mr_ring_member){.name = mr_slice_of(pool->servers.at[i].name),
                                             .weight = pool->servers.at[i].weight,
                                             .live = i != pool->master};
    return members;
}

const struct mr_pool_config *mr_config_pool(const struct mr_config *config, const char *name)
{
    for (uint32_t i = 0; i < config->n_pools; i++)
        if (strcmp(config->pools[i].name, name) == 0)
            return &config->pools[i];
    return NULL;
}

static void free_listens(struct mr_listens *listens)
{
    for (uint32_t i = 0; i < listens->n; i++)
        mr_listen_config_fini(&listens->at[i]);
    free(listens->at);
}

static void free_pool(struct mr_pool_config *pool)
{
    free_listens(&pool->listens);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        mr_server_config_fini(&pool->servers.at[i]);
    free(pool->servers.at);
    free(pool->name);
    free(pool->redis_auth);
}

void mr_config_free(struct mr_config *config)
{
    if (config == NULL)
        return;
    for (uint32_t i = 0; i < config->n_pools; i++)
        free_pool(&config->pools[i]);
    for (uint32_t i = 0; i < config->n_warnings; i++)
        free(config->warnings[i]);
    free(config->pools);
    free(config->warnings);
    free(config->user);
    free(config->group);
    free(config->source);
    free(config->engine);
    free(config->worker_cpu_affinity);
    free(config->accept);
    free(config->pid_file);
    free(config->log_file);
    free(config->stats_addr);
    free_listens(&config->admin);
    free(config->admin_token);
    free(config);
}
