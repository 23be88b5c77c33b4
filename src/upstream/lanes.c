/* lanes.c - what is known of a server's lanes; see struct mr_lane. */
#include "upstream/pool.h"

#include <stdlib.h>

#define REFUSED_WAIT_US 200000u /* delay before a refused lane is tried again */

bool mr_server_plans(const struct mr_server *server, uint8_t lane)
{
    return lane < server->pool->config->protocol->server.lanes;
}

struct mr_lane *mr_server_lane(struct mr_server *server, uint8_t lane)
{
    struct mr_lane **l = &server->lanes[lane];

    if (*l == NULL) {
        const uint32_t n = server->pool->config->server_connections;
        *l = calloc(1, sizeof(**l) + n * sizeof((*l)->slots[0]));
        MR_CHECK(*l != NULL);
        (*l)->server = server;
        (*l)->n_slots = n;
    }
    return *l;
}

void mr_server_refused(struct mr_server *server, uint8_t lane, const char *reason)
{
    struct mr_lane *l = mr_server_lane(server, lane);

    l->spoken = false;
    l->refusal = reason;
    l->retry_us = server->pool->loop->now_us + REFUSED_WAIT_US;
}

void mr_server_greeted(struct mr_server *server, uint8_t lane, bool answered)
{
    struct mr_lane *l = mr_server_lane(server, lane);

    l->spoken |= answered;
    l->refusal = NULL;
    l->retry_us = 0;
}

void mr_pool_lane_known(struct mr_pool *pool)
{
    if (!pool->lane_awaited)
        return;
    pool->lane_awaited = false;
    pool->on_lane_known(pool);
}

uint8_t mr_server_probe_lane(const struct mr_server *server)
{
    /* in the first database, because a server may lack others */
    const uint8_t lane = (uint8_t)(server->lane % server->pool->config->protocol->server.lanes);
    const struct mr_lane *l = server->lanes[lane];

    return l != NULL && l->refusal == NULL ? lane : 0;
}
