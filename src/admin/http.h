/* http.h - the admin interface: metrics, statistics, health and commands over HTTP. */
#pragma once

#include "session/runtime.h"

struct mr_http;

/**
 * Serves every port after the first on the loop.
 * @param control borrowed, outlives the server
 * @return NULL if there are none
 */
struct mr_http *mr_http_attach(struct mr_loop *loop, const struct mr_runtime *runtime,
                               const struct mr_admin_control *control);

/** See mr_admin_finish. NULL is allowed. */
void mr_http_finish(struct mr_http *http);

/** Stops and cuts open connections. NULL is allowed. */
void mr_http_detach(struct mr_http *http);
