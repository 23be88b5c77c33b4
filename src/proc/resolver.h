/* resolver.h - the helper process that looks host names up, so that nobody else has to wait. */
#pragma once

#include "config/config.h"

/** True when a server of the configuration is given by name. */
bool mr_resolver_needed(const struct mr_config *config);

/**
 * Looks every name up at once and then every resolve_interval, and sends an ADDRESS for each that
 * is new or has changed. Returns when the channel (taken) is closed by the other side.
 */
int mr_resolver_run(const struct mr_config *config, int channel);
