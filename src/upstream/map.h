/*
 * map.h - which servers have which keys, where that is discovered; shared by all workers.
 *
 * struct mr_node_map is in memory shared by all workers. Only the worker that has claimed the next
 * look (see discovery.h) writes it; others copy it when mr_health_changed tells them. If a writer
 * dies midway, nobody copies the map, and the next look writes it again.
 */
#pragma once

#include "config/config.h"
#include "upstream/health.h"

/** Servers are represented by their number in the pool plus 1; 0 is none. */
struct mr_node_table {
    uint16_t owner[MR_SLOTS];
    uint16_t master_of[]; /* per server: its master */
};

struct mr_node_map {
    uint64_t version;    /* of the table: odd while it is being written; 0: empty */
    uint64_t due_us;     /* loop time of the next look; advancing it claims the look */
    uint64_t looked_us;  /* when the last look was claimed */
    uint64_t added_us;   /* when a node was last added; advancing it claims the next */
    uint64_t learned_us; /* when a look last succeeded; 0: never */
    uint64_t looks;      /* successful looks */
    uint64_t failures;   /* failed looks */
    uint64_t in_a_row;   /* consecutive failures */
    uint64_t changes;    /* of the table */
    uint64_t covered;    /* slots with an owner */
    uint64_t no_room;    /* nodes without a free place, at the last look */
    struct mr_node_table table;
};

/** Size of a pool's map, and of its table alone; multiples of 8. */
size_t mr_node_map_bytes(const struct mr_pool_config *config);
size_t mr_node_table_bytes(const struct mr_pool_config *config);

/** Copies the table. False while it is being written, or if it is empty. */
bool mr_node_map_copy(const struct mr_node_map *map, struct mr_node_table *to, size_t bytes);

/** Replaces the table. Only for the worker that claimed the look. */
void mr_node_map_write(struct mr_node_map *map, const struct mr_node_table *from, size_t bytes);

/**
 * Takes over what was discovered with an earlier configuration: nodes that have slots or are
 * replicas, and the table. `health` and `old_health` are those of the pools' first servers.
 */
void mr_node_map_keep(const struct mr_pool_config *config, struct mr_node_map *map,
                      struct mr_health *health, const struct mr_pool_config *old_config,
                      const struct mr_node_map *old, const struct mr_health *old_health);
