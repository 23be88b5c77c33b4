/* admin.h - what the proxy tells about itself: the statistics port, and HTTP. */
#pragma once

#include "session/runtime.h"

/** Serves runtime->port_fds on the loop. Fits struct mr_admin_hook. */
void *mr_admin_attach(struct mr_loop *loop, const struct mr_runtime *runtime,
                      const struct mr_admin_control *control);

/** Accepts nothing more over HTTP and turns the loop until what has come is answered, or 300 ms. */
void mr_admin_finish(void *admin);

/** Stops; open connections are cut. Turn the loop once afterwards. */
void mr_admin_detach(void *admin);
