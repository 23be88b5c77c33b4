/* resolver.h - the helper process that looks host names up, so that nobody else has to wait. */
#pragma once

#include "session/runtime.h"

/** True when a server of the configuration is given by name. */
bool mr_resolver_needed(const struct mr_config *config);

/**
 * Looks every name up at once and then every resolve_interval, and sends an ADDRESS for each that
 * is new or has changed. Returns when the channel (taken) is closed by the other side.
 */
int mr_resolver_run(const struct mr_runtime *rt, int channel);

/**
 * Which of a name's `n` addresses a server gets: the one it has (len 0: none yet) while that is
 * still an answer, whatever the order of the answers. When it has one of them and `fails`, the next
 * one, so that all are tried in turn. Else the first answer.
 */
const struct mr_addr *mr_resolver_choose(const struct mr_addr *answers, uint32_t n,
                                         const struct mr_addr *known, bool fails);
