/* stats_port.h - twemproxy's statistics port: sends the JSON to whoever connects, and closes. */
#pragma once

#include "session/runtime.h"

/** Serves the first of runtime->port_fds on the loop. */
void *mr_stats_port_attach(struct mr_loop *loop, const struct mr_runtime *runtime);

/** Stops and cuts open connections. Turn the loop once afterwards. */
void mr_stats_port_detach(void *port);
