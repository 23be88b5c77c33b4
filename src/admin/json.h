/* json.h - statistics as JSON. */
#pragma once

#include "session/runtime.h"

/** In our own format: workers, pools and servers with latencies. The caller frees the text. */
char *mr_stats_json_own(const struct mr_runtime *runtime);

/**
 * In the format that collectors for twemproxy or Meitu's fork expect, depending on the layout of
 * the configuration: the whole document, with a final newline if the original has one. The caller
 * frees the text.
 */
char *mr_stats_json(const struct mr_runtime *runtime);
