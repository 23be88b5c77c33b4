/* map.c - the map of discovered servers that workers share. */
#include "upstream/map.h"

#include "core/check.h"

#include <stdlib.h>
#include <string.h>

size_t mr_node_table_bytes(const struct mr_pool_config *config)
{
    const size_t bytes = sizeof(struct mr_node_table) + config->servers.n * sizeof(uint16_t);

    return (bytes + 7) & ~(size_t)7;
}

size_t mr_node_map_bytes(const struct mr_pool_config *config)
{
    return offsetof(struct mr_node_map, table) + mr_node_table_bytes(config);
}

bool mr_node_map_copy(const struct mr_node_map *map, struct mr_node_table *to, size_t bytes)
{
    const uint64_t version = __atomic_load_n(&map->version, __ATOMIC_ACQUIRE);

    if (version == 0 || version % 2 == 1)
        return false;
    memcpy(to, &map->table, bytes);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&map->version, __ATOMIC_RELAXED) == version;
}

void mr_node_map_write(struct mr_node_map *map, const struct mr_node_table *from, size_t bytes)
{
    const uint64_t before = mr_health_load(&map->version);

    mr_health_store(&map->version, before | 1u);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(&map->table, from, bytes);
    __atomic_store_n(&map->version, (before | 1u) + 1, __ATOMIC_RELEASE);
}

/* ---- from one reading of the configuration to the next ---- */

static const struct mr_addr *address_of(const struct mr_pool_config *config,
                                        const struct mr_health *health, uint32_t server)
{
    if (mr_health_is_known(&health[server]))
        return &health[server].addr;
    return &config->servers.at[server].addr;
}

/* The server's number plus 1, assigning one if necessary; 0 if there is no room. */
static uint16_t number_of(const struct mr_pool_config *config, struct mr_health *health,
                          const struct mr_addr *addr)
{
    if (addr->len == 0)
        return 0;
    for (uint32_t i = 0; i < config->servers.n; i++) {
        const struct mr_addr *other = address_of(config, health, i);
        if (other->len > 0 && mr_addr_eq(other, addr))
            return (uint16_t)(i + 1);
    }
    for (uint32_t i = config->servers.named; i < config->servers.n; i++)
        if (!mr_health_is_known(&health[i])) {
            health[i].addr = *addr;
            health[i].node = MR_NODE_KNOWN;
            return (uint16_t)(i + 1);
        }
    return 0;
}

void mr_node_map_keep(const struct mr_pool_config *config, struct mr_node_map *map,
                      struct mr_health *health, const struct mr_pool_config *old_config,
                      const struct mr_node_map *old, const struct mr_health *old_health)
{
    const size_t old_bytes = mr_node_table_bytes(old_config);
    struct mr_node_table *from = malloc(old_bytes);
    uint16_t *number = calloc(old_config->servers.n + 1, sizeof(*number));

    MR_CHECK(from != NULL && number != NULL);
    if (mr_node_map_copy(old, from, old_bytes)) {
        struct mr_node_table *to = calloc(1, mr_node_table_bytes(config));
        MR_CHECK(to != NULL);
        for (uint32_t s = 0; s < MR_SLOTS; s++) {
            const uint16_t owner = from->owner[s];
            if (owner > 0 && number[owner] == 0)
                number[owner] =
                    number_of(config, health, address_of(old_config, old_health, owner - 1u));
            to->owner[s] = number[owner];
        }
        for (uint32_t i = 0; i < old_config->servers.n; i++) {
            const uint16_t master = from->master_of[i];
            if (master == 0 || number[master] == 0)
                continue;
            const uint16_t replica =
                number_of(config, health, address_of(old_config, old_health, i));
            if (replica > 0)
                to->master_of[replica - 1] = number[master];
        }
        mr_node_map_write(map, to, mr_node_table_bytes(config));
        map->learned_us = old->learned_us;
        map->covered = old->covered;
        map->looks = old->looks;
        map->failures = old->failures;
        map->changes = old->changes;
        free(to);
    }
    free(number);
    free(from);
}
