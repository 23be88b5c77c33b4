/* stats.h - the statistics of several servers as those of one. */
#pragma once

#include "proto/proto.h"

/** What can be asked for: `stats <words>`. */
enum mr_mc_stats {
    MR_MC_STATS_GENERAL, /* no word */
    MR_MC_STATS_ITEMS,
    MR_MC_STATS_SLABS,
    MR_MC_STATS_SIZES,
    MR_MC_STATS_SETTINGS,
    MR_MC_STATS_RESET,
    MR_MC_STATS_SERVERS,   /* the general ones, of each server for itself */
    MR_MC_STATS_PROXY,     /* of the proxy */
    MR_MC_STATS_DETAIL_ON, /* counters for each prefix of keys: the proxy leaves them off */
    MR_MC_STATS_DETAIL_OFF,
    MR_MC_STATS_DETAIL_DUMP,
    MR_MC_STATS_UNKNOWN,
};

enum mr_mc_stats mr_mc_stats_group(struct mr_slice word);

/** True for what is answered without a server. */
bool mr_mc_stats_local(enum mr_mc_stats stats);

/** The word that servers are asked with. */
const char *mr_mc_stats_ask(enum mr_mc_stats stats);

/** One statistic in the dialect of the ticket. */
void mr_mc_put_stat(uint64_t ticket, struct mr_slice name, struct mr_slice value,
                    struct mr_slab *slab, struct mr_buf *out);

/** What ends a list of them. */
void mr_mc_end_stats(uint64_t ticket, struct mr_slab *slab, struct mr_buf *out);

/** join of struct mr_proto for them; at least one part has a reply. */
void mr_mc_join_stats(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);
