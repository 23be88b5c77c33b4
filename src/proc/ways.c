/* ways.c - the sockets for handovers between old and new workers. */
#include "proc/ways.h"

#include "session/handover.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void prepare(struct mr_ways *ways, uint32_t n)
{
    *ways = (struct mr_ways){.fds = malloc(n * sizeof(int)), .n = n};
    MR_CHECK(ways->fds != NULL);
    memset(ways->fds, 0xff, n * sizeof(int));
}

enum mr_result mr_ways_open(struct mr_ways *in, struct mr_ways *out, uint32_t n,
                            struct mr_error *err)
{
    prepare(in, n);
    prepare(out, n);
    for (uint32_t i = 0; i < n; i++) {
        int ends[2];
        const enum mr_result rc = mr_handover_open(ends, err);
        if (rc != MR_OK) {
            mr_ways_close(in);
            mr_ways_close(out);
            return rc;
        }
        out->fds[i] = ends[0];
        in->fds[i] = ends[1];
    }
    return MR_OK;
}

void mr_ways_close_one(struct mr_ways *ways, uint32_t i)
{
    if (ways->fds[i] >= 0)
        (void)close(ways->fds[i]);
    ways->fds[i] = -1;
}

void mr_ways_close(struct mr_ways *ways)
{
    for (uint32_t i = 0; i < ways->n; i++)
        mr_ways_close_one(ways, i);
    free(ways->fds);
    *ways = (struct mr_ways){0};
}
