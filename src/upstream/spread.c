/* spread.c - which servers have the keys of a message, or all keys. */
#include "upstream/pool.h"

bool mr_pool_keeps_together(struct mr_pool *pool, const struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;
    bool any = false;
    uint32_t first = 0;

    while (pool->config->protocol->keys.next(msg, &walk, &key)) {
        const struct mr_target to = mr_pool_route(pool, key, MR_TO_MASTER, NULL);
        if (to.server == NULL)
            return !any;
        if (any && to.group != first)
            return false;
        first = to.group;
        any = true;
    }
    return true;
}

void mr_pool_plan_walk(struct mr_pool *pool)
{
    mr_walk_fini(&pool->walk);
    mr_walk_init(&pool->walk, pool->n_servers);
    if (pool->topology->plan_walk != NULL)
        pool->topology->plan_walk(pool, &pool->walk);
    else if (pool->n_servers < (UINT32_C(1) << MR_PLACE_BITS) - MR_PLACES)
        for (uint32_t i = 0; i < pool->n_servers; i++)
            mr_walk_add(&pool->walk, mr_walk_place(pool->servers[i].name), i);
    mr_walk_close(&pool->walk);
}

uint32_t mr_pool_holders(struct mr_pool *pool, uint32_t *servers)
{
    if (pool->topology->holders != NULL)
        return pool->topology->holders(pool, servers);
    for (uint32_t i = 0; i < pool->n_servers; i++)
        servers[i] = i;
    return pool->n_servers;
}
