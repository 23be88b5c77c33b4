/* snapshot.c - looks things up in a configuration, and frees it. */
#include "config/config.h"

#include "config/internal.h"
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

struct mr_ring_member *mr_config_name_members(const struct mr_pool_config *pool)
{
    struct mr_ring_member *members = calloc(pool->master_names.n + 1, sizeof(*members));

    MR_CHECK(members != NULL);
    for (uint32_t i = 0; i < pool->master_names.n; i++)
        members[i] = (struct mr_ring_member){
            .name = mr_slice_of(pool->master_names.at[i]), .weight = 1, .live = true};
    return members;
}

int mr_config_compare_names(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);

    return n != m ? (n < m ? -1 : 1) : memcmp(a, b, n);
}

static int pool_is(const void *name, const void *pool)
{
    return mr_config_compare_names(name, ((const struct mr_pool_config *)pool)->name);
}

const struct mr_pool_config *mr_config_pool(const struct mr_config *config, const char *name)
{
    return bsearch(name, config->pools, config->n_pools, sizeof(*config->pools), pool_is);
}

static int server_is(const void *name, const void *server)
{
    return mr_config_compare_names(name, ((const struct mr_server_config *)server)->name);
}

const struct mr_server_config *mr_config_server(const struct mr_pool_config *pool, const char *name)
{
    const struct mr_servers *s = &pool->servers;
    const bool has_master = pool->master != MR_NO_MASTER; /* it is last, out of order */

    if (has_master && strcmp(name, s->at[pool->master].name) == 0)
        return &s->at[pool->master];
    return bsearch(name, s->at, s->named - has_master, sizeof(*s->at), server_is);
}

static int by_address(const void *a, const void *b)
{
    return mr_addr_compare(&((const struct mr_listen_ref *)a)->listen->addr,
                           &((const struct mr_listen_ref *)b)->listen->addr);
}

static int listens_at(const void *addr, const void *ref)
{
    return mr_addr_compare(addr, &((const struct mr_listen_ref *)ref)->listen->addr);
}

void mr_config_sort_listens(struct mr_config *config)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < config->n_pools; i++)
        config->n_listens += config->pools[i].listens.n;
    config->listens = calloc(config->n_listens + 1, sizeof(*config->listens));
    MR_CHECK(config->listens != NULL);
    for (uint32_t i = 0; i < config->n_pools; i++)
        for (uint32_t j = 0; j < config->pools[i].listens.n; j++, n++)
            config->listens[n] =
                (struct mr_listen_ref){&config->pools[i], &config->pools[i].listens.at[j], n};
    qsort(config->listens, n, sizeof(*config->listens), by_address);
}

const struct mr_listen_ref *mr_config_listen(const struct mr_config *config,
                                             const struct mr_addr *addr)
{
    return bsearch(addr, config->listens, config->n_listens, sizeof(*config->listens), listens_at);
}

static void free_names(struct mr_names *names)
{
    for (uint32_t i = 0; i < names->n; i++)
        free(names->at[i]);
    free(names->at);
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
    for (uint32_t i = 0; i < pool->commands.n; i++)
        mr_value_command_fini(&pool->commands.at[i]);
    free(pool->commands.at);
    free(pool->name);
    free(pool->redis_auth);
    free(pool->sentinel_auth);
    free_names(&pool->master_names);
    free_names(&pool->announced);
    free_names(&pool->zones);
    free(pool->announced_name);
    free(pool->mirror_to);
    free(pool->users.at);
}

void mr_config_free(struct mr_config *config)
{
    if (config == NULL)
        return;
    for (uint32_t i = 0; i < config->n_pools; i++)
        free_pool(&config->pools[i]);
    mr_config_free_users(config);
    free(config->pools);
    free(config->listens);
    free(config->zone);
    free(config->nameservers);
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
