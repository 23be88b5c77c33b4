/* stats_port.h - twemproxy's statistics port: connect, get the JSON, closed. */
#pragma once

#include "session/runtime.h"

/** Serves the first of runtime->port_fds on the loop. Fits struct mr_stats_hook. */
void *mr_stats_port_attach(struct mr_loop *loop, const struct mr_runtime *runtime);

/** Stops; open connections are cut. Turn the loop once afterwards. */
void mr_stats_port_detach(void *port);
