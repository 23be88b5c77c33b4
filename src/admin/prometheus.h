/*
 * prometheus.h - metrics in Prometheus's text format,
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */
#pragma once

#include "session/runtime.h"

/** The whole document. The caller frees it. */
char *mr_prometheus_text(const struct mr_runtime *runtime);
