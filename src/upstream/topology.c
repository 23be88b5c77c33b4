/* topology.c - which table a pool's configuration asks for. */
#include "upstream/topology.h"

const struct mr_topology_ops *mr_topology_of(const struct mr_pool_config *config)
{
    static const struct mr_topology_ops *const TABLES[] = {
        [MR_SHARDS] = &MR_TOPOLOGY_SHARDS,
        [MR_REPLICATED] = &MR_TOPOLOGY_REPLICATED,
    };

    return TABLES[config->topology];
}
