/* admin.h - serves the statistics port and the admin addresses. */
#pragma once

#include "session/runtime.h"

/** Serves runtime->port_fds on the loop. Matches struct mr_admin_hook. */
void *mr_admin_attach(struct mr_loop *loop, const struct mr_runtime *runtime,
                      const struct mr_admin_control *control);

/** Stops accepting HTTP and runs the loop until received requests are answered, at most 300 ms. */
void mr_admin_finish(void *admin);

/** Stops and cuts open connections. Turn the loop once afterwards. */
void mr_admin_detach(void *admin);
