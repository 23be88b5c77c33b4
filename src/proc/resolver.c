/* resolver.c - the process that resolves host names. */
#include "proc/resolver.h"

#include "core/clock.h"
#include "core/log.h"
#include "proc/channel.h"
#include "upstream/health.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWERS_MAX 64u /* addresses considered per name */

static bool has_name(const struct mr_server_config *server)
{
    return server->host != NULL && server->addr.len == 0;
}

bool mr_resolver_needed(const struct mr_config *config)
{
    for (uint32_t p = 0; p < config->n_pools; p++)
        for (uint32_t i = 0; i < config->pools[p].servers.n; i++)
            if (has_name(&config->pools[p].servers.at[i]))
                return true;
    return false;
}

const struct mr_addr *mr_resolver_choose(const struct mr_addr *answers, uint32_t n,
                                         const struct mr_addr *known, bool fails)
{
    const struct mr_addr *first = &answers[0], *next = NULL;
    bool is_known = false;

    for (uint32_t i = 0; i < n; i++) {
        const int c = known->len > 0 ? mr_addr_compare(&answers[i], known) : 1;
        is_known |= c == 0;
        if (c > 0 && (next == NULL || mr_addr_compare(&answers[i], next) < 0))
            next = &answers[i];
        if (mr_addr_compare(&answers[i], first) < 0)
            first = &answers[i];
    }
    if (!is_known)
        return &answers[0];
    if (!fails)
        return known;
    return next != NULL ? next : first;
}

/* Blocks if the master is slow to read: the resolver has nothing else to do. */
static void tell(int channel, struct mr_message *msg)
{
    struct pollfd p = {.fd = channel, .events = POLLOUT};
    struct mr_error err;

    while (mr_channel_send(channel, msg, -1, &err) != MR_OK && err.sys == EAGAIN)
        (void)poll(&p, 1, -1);
}

/* Resolves a name, and reports a new choice of address. */
static void look_up(const struct mr_server_config *server, uint32_t index,
                    const struct mr_health *health, struct mr_addr *known, int channel)
{
    struct mr_message msg = {.type = MR_MSG_ADDRESS_TYPE};
    struct mr_addr answers[ANSWERS_MAX];
    struct mr_error err;
    uint32_t n;

    if (mr_addr_resolve(answers, ANSWERS_MAX, &n, mr_slice_of(server->host), server->port, &err) !=
        MR_OK) {
        mr_log_limited(MR_LOG_WARN, "resolve_failed server=%s error=\"%s\" using=%s", server->name,
                       err.text, known->len > 0 ? known->text : "none");
        return;
    }
    const struct mr_addr *chosen =
        mr_resolver_choose(answers, n, known, mr_health_load(&health->failures) > 0);
    if (mr_addr_eq(chosen, known))
        return;
    msg.body.ADDRESS = (struct mr_address_payload){.server = index, .addr = *chosen};
    tell(channel, &msg);
    *known = *chosen;
}

static void one_round(const struct mr_runtime *rt, struct mr_addr *known, int channel)
{
    struct mr_message done = {.type = MR_MSG_ROUND_DONE_TYPE};

    for (uint32_t p = 0; p < rt->config->n_pools; p++) {
        const struct mr_pool_config *pool = &rt->config->pools[p];
        for (uint32_t i = 0; i < pool->servers.n; i++) {
            const uint32_t index = pool->first_server + i;
            if (has_name(&pool->servers.at[i]))
                look_up(&pool->servers.at[i], index, &rt->health[index], &known[index], channel);
        }
    }
    tell(channel, &done);
}

/* Waits for the next round. False if the other side is gone. Handles new log descriptors. */
static bool wait_for_round(uint64_t until_us, int channel)
{
    for (;;) {
        const uint64_t now = mr_clock_mono_us();
        if (now >= until_us)
            return true;
        struct pollfd p = {.fd = channel, .events = POLLIN};
        if (poll(&p, 1, (int)((until_us - now) / 1000u) + 1) <= 0)
            continue;
        struct mr_message msg;
        struct mr_error err;
        const enum mr_result rc = mr_channel_recv(channel, &msg, &err);
        if (rc == MR_ESYS)
            return false;
        if (rc == MR_OK && msg.type == MR_MSG_LOG_FD_TYPE && msg.fd >= 0)
            mr_log_take_fd(msg.fd);
        if (rc == MR_OK && msg.type == MR_MSG_LOG_LEVEL_TYPE)
            mr_log_set_level(msg.body.LOG_LEVEL.level);
    }
}

int mr_resolver_run(const struct mr_runtime *rt, int channel)
{
    const struct mr_config *config = rt->config;
    struct mr_addr *known = calloc(config->n_servers + 1, sizeof(*known));
    uint64_t next_us;

    MR_CHECK(known != NULL);
    memcpy(known, rt->addresses, config->n_servers * sizeof(*known));
    mr_channel_tell(channel, MR_MSG_READY_TYPE);
    do {
        one_round(rt, known, channel);
        next_us = mr_clock_mono_us() + (uint64_t)config->resolve_interval_ms * 1000u;
    } while (wait_for_round(next_us, channel));
    free(known);
    (void)close(channel);
    return 0;
}
