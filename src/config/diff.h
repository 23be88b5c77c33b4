/* diff.h - what a change from one configuration to another will do. */
#pragma once

#include "config/config.h"

/** True when keys of the pool may be found elsewhere than before. */
bool mr_config_moves_keys(const struct mr_pool_config *now, const struct mr_pool_config *before);

/**
 * Share (0 to 1) of all keys that the pool finds on another server than before, from a sample.
 * Servers are the same when their name, address and database are.
 */
double mr_config_moved_share(const struct mr_pool_config *now, const struct mr_pool_config *before);

/** Calls `line` with each sentence of what will change; with none when nothing does. */
void mr_config_diff(const struct mr_config *now, const struct mr_config *before,
                    void (*line)(void *arg, const char *text), void *arg);
