/* diff.h - describes the effects of a configuration change. */
#pragma once

#include "config/config.h"

/** True if keys of the pool may be on another server than before. */
bool mr_config_moves_keys(const struct mr_pool_config *now, const struct mr_pool_config *before);

/**
 * Estimates from a sample the share (0 to 1) of the pool's keys that are on another server than
 * before. Servers are the same if name, address and database are.
 */
double mr_config_moved_share(const struct mr_pool_config *now, const struct mr_pool_config *before);

/** Calls `line` with a sentence for each effect of the change; never if there is none. */
void mr_config_diff(const struct mr_config *now, const struct mr_config *before,
                    void (*line)(void *arg, const char *text), void *arg);
