/* prometheus.h - the metrics in the text format of Prometheus,
 * https://prometheus.io/docs/instrumenting/exposition_formats/ */
#pragma once

#include "session/runtime.h"

/** The whole document; caller frees. */
char *mr_prometheus_text(const struct mr_runtime *runtime);
