/* stats.h - merges the statistics of several servers. */
#pragma once

#include "proto/proto.h"

/** What `stats <word>` asks for. */
enum mr_mc_stats {
    MR_MC_STATS_GENERAL, /* without a word */
    MR_MC_STATS_ITEMS,
    MR_MC_STATS_SLABS,
    MR_MC_STATS_SIZES,
    MR_MC_STATS_SETTINGS,
    MR_MC_STATS_RESET,
    MR_MC_STATS_SERVERS,   /* general ones, per server */
    MR_MC_STATS_PROXY,     /* of the proxy */
    MR_MC_STATS_DETAIL_ON, /* counters per key prefix; always off here */
    MR_MC_STATS_DETAIL_OFF,
    MR_MC_STATS_DETAIL_DUMP,
    MR_MC_STATS_UNKNOWN,
};

enum mr_mc_stats mr_mc_stats_group(struct mr_slice word);

/** True if the proxy answers it alone. */
bool mr_mc_stats_local(enum mr_mc_stats stats);

/** The word sent to servers. */
const char *mr_mc_stats_ask(enum mr_mc_stats stats);

/** Appends one statistic in the dialect of the ticket. */
void mr_mc_put_stat(uint64_t ticket, struct mr_slice name, struct mr_slice value,
                    struct mr_slab *slab, struct mr_buf *out);

/** Appends the end of the list. */
void mr_mc_end_stats(uint64_t ticket, struct mr_slab *slab, struct mr_buf *out);

/** mr_proto.join for statistics. At least one part has a reply. */
void mr_mc_join_stats(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);
