/* resolver.h - the process that resolves host names, so that no other has to block. */
#pragma once

#include "session/runtime.h"

/** True if the configuration has servers with host names. */
bool mr_resolver_needed(const struct mr_config *config);

/**
 * Resolves every name at once and then every resolve_interval; sends an ADDRESS for each that is
 * new or has changed. Returns when the other side closes the channel (taken).
 */
int mr_resolver_run(const struct mr_runtime *rt, int channel);

/**
 * Selects one of a name's `n` addresses for a server. It keeps its address (len 0: none yet) while
 * that is among the answers, in any order. If it has one of them and `fails`, it gets the next, so
 * that all are tried in turn. Otherwise it gets the first.
 */
const struct mr_addr *mr_resolver_choose(const struct mr_addr *answers, uint32_t n,
                                         const struct mr_addr *known, bool fails);
