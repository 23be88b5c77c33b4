/*
 * resolver.h - the process that resolves host names, so that no other has to wait for it.
 *
 * Names of servers come from the configuration; names by which servers of a cluster, or sentinels,
 * call others are asked for by workers, see upstream/hosts.h.
 */
#pragma once

#include "session/runtime.h"

/** True if there are, or may be, host names. */
bool mr_resolver_needed(const struct mr_config *config);

/**
 * Resolves every name at once, and again when its answer has expired. Sends an ADDRESS for each
 * server whose address is new or has changed, and ROUND_DONE once every name has been tried.
 * Returns when the other side closes the channel (taken).
 */
int mr_resolver_run(const struct mr_runtime *rt, int channel);

/**
 * Selects one of a name's `n` addresses for a server. It keeps its address (len 0: none yet) while
 * that is among the answers, in any order. If it has one of them and `fails`, it gets the next, so
 * that all are tried in turn. Otherwise it gets the first.
 */
const struct mr_addr *mr_resolver_choose(const struct mr_addr *answers, uint32_t n,
                                         const struct mr_addr *known, bool fails);

/**
 * Gives each of a service's `n` addresses to one of its places, while there are any. An address
 * keeps its place. A place without an address gets one with len 0, unless `partial`: then others
 * may exist, and it keeps what it has.
 */
void mr_resolver_share_out(const struct mr_addr *answers, uint32_t n, bool partial,
                           struct mr_addr *places, uint32_t n_places);
