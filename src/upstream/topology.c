/* topology.c - selects the topology of a pool. */
#include "upstream/topology.h"

const struct mr_topology_ops *mr_topology_of(const struct mr_pool_config *config)
{
    static const struct mr_topology_ops *const TABLES[] = {
        [MR_SHARDS] = &MR_TOPOLOGY_SHARDS,
        [MR_REPLICATED] = &MR_TOPOLOGY_REPLICATED,
        [MR_CLUSTER] = &MR_TOPOLOGY_CLUSTER,
        [MR_SENTINEL] = &MR_TOPOLOGY_SENTINEL,
    };

    if (mr_proto_is_relayed(config->protocol))
        return &MR_TOPOLOGY_BALANCED;
    return TABLES[config->topology];
}
