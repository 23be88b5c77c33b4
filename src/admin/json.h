/* json.h - the statistics as JSON. */
#pragma once

#include "session/runtime.h"

/** In our own shape: workers, pools and servers with their latencies; caller frees. */
char *mr_stats_json_own(const struct mr_runtime *runtime);

/**
 * In the shape that twemproxy's or Meitu's collectors expect, by the layout of the configuration;
 * the whole document, with its line end where the original has one; caller frees.
 */
char *mr_stats_json(const struct mr_runtime *runtime);
