/* discovery.c - when to look, and what to do with the result. */
#include "upstream/discovery.h"

#include "core/log.h"

#include <stdlib.h>
#include <string.h>

#define ADD_US      5000u    /* minimum interval between nodes that redirects lead to */
#define GAP_US      100000u  /* minimum interval */
#define TROUBLE_US  250000u  /* interval while a master does not answer */
#define PATIENCE_US 1000000u /* then another worker, or this one, starts another look */
#define BACKOFF_US  2000000u /* maximum interval while nobody answers */

static uint64_t now_us(const struct mr_discovery *d)
{
    return d->pool->loop->now_us;
}

/* Varies by up to a tenth, so that many proxies do not ask at the same time. */
static uint64_t about(const struct mr_discovery *d, uint64_t us)
{
    return us - us / 10 + (uint32_t)(now_us(d) * UINT64_C(2654435761)) % (us / 5 + 1);
}

static void set_timer(struct mr_discovery *d)
{
    const uint64_t due = mr_health_load(&d->pool->nodes->due_us), now = now_us(d);

    if (!d->pool->closing)
        mr_loop_timer(d->pool->loop, &d->timer, due > now ? (due - now) / 1000u + 1 : 1);
}

static void set_due(struct mr_discovery *d, uint64_t in_us)
{
    mr_health_store(&d->pool->nodes->due_us, now_us(d) + in_us);
    set_timer(d);
}

void mr_discovery_want(struct mr_discovery *d)
{
    struct mr_node_map *map = d->pool->nodes;
    const uint64_t due = mr_health_load(&map->due_us);
    uint64_t soon = mr_health_load(&map->looked_us) + GAP_US;

    if (soon < now_us(d))
        soon = now_us(d);
    if (due > soon)
        (void)mr_health_claim(&map->due_us, due, soon);
    set_timer(d);
}

static void on_timer(struct mr_timer *timer)
{
    struct mr_discovery *d = MR_CONTAINER_OF(timer, struct mr_discovery, timer);
    struct mr_node_map *map = d->pool->nodes;
    const uint64_t now = now_us(d), due = mr_health_load(&map->due_us);

    if (now >= due && mr_health_claim(&map->due_us, due, now + PATIENCE_US)) {
        mr_health_store(&map->looked_us, now);
        if (d->look != NULL) { /* nobody has answered it */
            d->ops->forget(d->look);
            mr_discovery_over(d, NULL);
            mr_health_store(&map->due_us, now + PATIENCE_US);
        }
        d->ops->ask(d);
    }
    set_timer(d);
}

void mr_discovery_init(struct mr_discovery *d, struct mr_pool *pool,
                       const struct mr_discovery_ops *ops, uint64_t interval_us)
{
    *d = (struct mr_discovery){
        .pool = pool, .ops = ops, .interval_us = interval_us, .timer.fire = on_timer};
    d->turn = (uint32_t)pool->loop->now_us;
}

void mr_discovery_start(struct mr_discovery *d)
{
    set_timer(d);
}

void mr_discovery_stop(struct mr_discovery *d)
{
    mr_timer_cancel(&d->timer);
    if (d->look != NULL)
        d->ops->forget(d->look);
    d->look = NULL;
}

/* ---- addresses ---- */

enum mr_host_answer mr_discovery_address(const struct mr_server *by, struct mr_slice host,
                                         uint16_t port, struct mr_addr *addr)
{
    if (host.len == 0)
        return mr_addr_inet(addr, &by->addr.sa.any, by->addr.len, port) ? MR_HOST_IS_KNOWN
                                                                        : MR_HOST_IS_UNKNOWN;
    if (mr_addr_numeric(addr, host, port))
        return MR_HOST_IS_KNOWN;
    return mr_hosts_find(by->pool->hosts, host, port, by->pool->loop->now_us, addr);
}

struct mr_server *mr_discovery_find(struct mr_pool *pool, const struct mr_addr *addr)
{
    for (uint32_t i = 0; i < pool->n_servers; i++) {
        const struct mr_server *s = &pool->servers[i];
        const struct mr_addr *known = mr_health_is_known(s->health) ? &s->health->addr : &s->addr;
        if (!s->config->is_sentinel && known->len > 0 && mr_addr_eq(known, addr))
            return &pool->servers[i];
    }
    return NULL;
}

void mr_discovery_adopt(struct mr_pool *pool)
{
    for (uint32_t i = pool->config->servers.named; i < pool->n_servers; i++) {
        struct mr_server *s = &pool->servers[i];
        if (mr_server_is_known(s) || !mr_health_is_known(s->health))
            continue;
        s->name = s->health->addr.text;
        mr_server_set_address(s, &s->health->addr);
    }
}

/* Assigns a number to a newly discovered node. Two that add the same at a time cost a place. */
static struct mr_server *add(struct mr_pool *pool, const struct mr_addr *addr)
{
    for (uint32_t i = pool->config->servers.named; i < pool->n_servers; i++) {
        struct mr_health *h = pool->servers[i].health;
        if (!mr_health_claim(&h->node, MR_NODE_NONE, MR_NODE_TAKEN))
            continue;
        h->addr = *addr;
        __atomic_store_n(&h->node, MR_NODE_KNOWN, __ATOMIC_RELEASE);
        mr_log(MR_LOG_NOTICE, "node_discovered pool=%s server=%s", pool->config->name, addr->text);
        mr_discovery_adopt(pool);
        return &pool->servers[i];
    }
    return NULL;
}

struct mr_server *mr_discovery_meet(struct mr_pool *pool, const struct mr_addr *addr)
{
    struct mr_server *server = mr_discovery_find(pool, addr);
    const uint64_t now = pool->loop->now_us, seen = mr_health_load(&pool->nodes->added_us);

    if (server == NULL && now >= seen + ADD_US &&
        mr_health_claim(&pool->nodes->added_us, seen, now))
        server = add(pool, addr);
    return server;
}

/* ---- readings ---- */

void mr_reading_init(struct mr_reading *r, struct mr_pool *pool, const struct mr_server *by)
{
    *r = (struct mr_reading){.pool = pool, .by = by};
    r->table = calloc(1, mr_node_table_bytes(pool->config));
    MR_CHECK(r->table != NULL);
}

void mr_reading_fini(struct mr_reading *r)
{
    free(r->table);
}

struct mr_server *mr_reading_node(struct mr_reading *r, struct mr_slice host, uint16_t port)
{
    struct mr_addr addr;
    const enum mr_host_answer found =
        port > 0 ? mr_discovery_address(r->by, host, port, &addr) : MR_HOST_IS_UNKNOWN;

    switch (found) {
    case MR_HOST_IS_KNOWN:
        return mr_reading_server(r, &addr);
    case MR_HOST_IS_PENDING:
        r->pending++;
        return NULL;
    case MR_HOST_IS_UNKNOWN:
        mr_log_limited(MR_LOG_WARN, "node_unreachable pool=%s host=\"%.*s\" port=%u reason=\"%s\"",
                       r->pool->config->name, (int)(host.len < 200 ? host.len : 200),
                       host.len > 0 ? host.at : "", port,
                       port > 0 ? "it does not resolve" : "no port");
        return NULL;
    }
    return NULL;
}

struct mr_server *mr_reading_server(struct mr_reading *r, const struct mr_addr *addr)
{
    struct mr_server *server = mr_discovery_find(r->pool, addr);

    if (server == NULL)
        server = add(r->pool, addr);
    r->no_room += server == NULL;
    return server;
}

void mr_reading_set_master(struct mr_reading *r, uint32_t first, uint32_t last,
                           struct mr_server *master)
{
    mr_health_store(&master->health->role, MR_ROLE_MASTER);
    for (uint32_t group = first; group <= last; group++)
        r->table->owner[group] = (uint16_t)(master->index + 1);
}

void mr_reading_set_replica(struct mr_reading *r, struct mr_server *replica,
                            const struct mr_server *master)
{
    if (replica == master)
        return;
    mr_health_store(&replica->health->role, MR_ROLE_REPLICA);
    r->table->master_of[replica->index] = (uint16_t)(master->index + 1);
}

/* ---- the end of a look ---- */

static void look_failed(struct mr_discovery *d)
{
    struct mr_node_map *map = d->pool->nodes;
    const uint64_t row = mr_health_load(&map->in_a_row);
    uint64_t wait = GAP_US << (row < 8 ? row : 8);

    mr_health_store(&map->failures, map->failures + 1);
    mr_health_store(&map->in_a_row, row + 1);
    if (wait > BACKOFF_US)
        wait = BACKOFF_US;
    if (!d->pool->closing)
        set_due(d, about(d, wait));
}

static bool is_new(const struct mr_node_map *map, const struct mr_node_table *table, size_t bytes)
{
    const uint64_t version = mr_health_load(&map->version);

    return version == 0 || version % 2 == 1 || memcmp(&map->table, table, bytes) != 0;
}

static uint64_t count_covered(const struct mr_reading *r)
{
    uint64_t n = 0;

    for (uint32_t group = 0; group < r->pool->n_groups; group++)
        n += r->table->owner[group] > 0;
    return n;
}

/* True if a master does not answer or groups have no master: a replica may be promoted now. */
static bool is_in_trouble(const struct mr_reading *r, uint64_t covered)
{
    if (covered < r->pool->n_groups)
        return true;
    for (uint32_t group = 0; group < r->pool->n_groups; group++)
        if (mr_health_load(&r->pool->servers[r->table->owner[group] - 1].health->failures) > 0)
            return true;
    return false;
}

static void publish(const struct mr_reading *r, uint64_t covered)
{
    struct mr_pool *pool = r->pool;
    struct mr_node_map *map = pool->nodes;
    const size_t bytes = mr_node_table_bytes(pool->config);

    mr_health_store(&map->learned_us, pool->loop->now_us);
    mr_health_store(&map->looks, map->looks + 1);
    mr_health_store(&map->in_a_row, 0);
    mr_health_store(&map->covered, covered);
    if (r->no_room > 0 && mr_health_load(&map->no_room) == 0)
        mr_log(MR_LOG_ERR,
               "nodes_without_room pool=%s nodes=%u cluster_nodes=%u "
               "hint=\"raise cluster_nodes\"",
               pool->config->name, r->no_room, pool->config->cluster_nodes);
    mr_health_store(&map->no_room, r->no_room);
    if (!is_new(map, r->table, bytes))
        return;
    mr_node_map_write(map, r->table, bytes);
    mr_health_store(&map->changes, map->changes + 1);
    mr_log(MR_LOG_NOTICE, "map_changed pool=%s covered=%llu asked=%s", pool->config->name,
           (unsigned long long)covered, r->by->name);
    mr_health_changed(pool->servers[0].health);
    mr_pool_refresh(pool);
}

void mr_discovery_over(struct mr_discovery *d, const struct mr_reading *reading)
{
    d->look = NULL;
    if (reading == NULL) {
        look_failed(d);
        return;
    }
    const uint64_t covered = count_covered(reading);
    publish(reading, covered);
    uint64_t wait_us = d->interval_us;
    if (is_in_trouble(reading, covered) && wait_us > TROUBLE_US)
        wait_us = TROUBLE_US;
    if (reading->pending > 0 && wait_us > GAP_US)
        wait_us = GAP_US;
    set_due(d, about(d, wait_us));
}
