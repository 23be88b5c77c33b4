/* json.h - the statistics in the shapes that twemproxy's and Meitu's collectors expect. */
#pragma once

#include "session/runtime.h"

/** The whole document with its line end where the original has one; caller frees. */
char *mr_stats_json(const struct mr_runtime *runtime);
