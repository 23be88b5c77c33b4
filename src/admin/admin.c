/* admin.c - serves the statistics port and the admin addresses. */
#include "admin/admin.h"

#include "admin/http.h"
#include "admin/stats_port.h"

#include <stdlib.h>

struct admin {
    void *stats_port;
    struct mr_http *http; /* NULL: no admin address */
    struct mr_admin_control control;
};

void *mr_admin_attach(struct mr_loop *loop, const struct mr_runtime *runtime,
                      const struct mr_admin_control *control)
{
    struct admin *a = calloc(1, sizeof(*a));

    MR_CHECK(a != NULL);
    a->control = *control;
    a->stats_port = mr_stats_port_attach(loop, runtime);
    a->http = mr_http_attach(loop, runtime, &a->control);
    return a;
}

void mr_admin_finish(void *admin)
{
    mr_http_finish(((struct admin *)admin)->http);
}

void mr_admin_detach(void *admin)
{
    struct admin *a = admin;

    mr_stats_port_detach(a->stats_port);
    mr_http_detach(a->http);
    free(a);
}
