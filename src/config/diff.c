/* diff.c - describes the effects of a configuration change. */
#include "config/diff.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE 20000u /* keys; accurate to about one percent */

struct map {
    const struct mr_pool_config *pool;
    struct mr_ring_member *members; /* servers, or names of masters */
    uint32_t n;
    struct mr_ring ring;
    mr_hash_fn hash;
};

static bool open_map(struct map *m, const struct mr_pool_config *pool)
{
    struct mr_error err;

    m->pool = pool;
    m->n = pool->topology == MR_SENTINEL ? pool->master_names.n : pool->servers.n;
    m->members =
        pool->topology == MR_SENTINEL ? mr_config_name_members(pool) : mr_config_ring_members(pool);
    m->hash = mr_hash_function(pool->hash);
    if (mr_ring_build(&m->ring, pool->distribution, m->members, m->n, &err) == MR_OK)
        return true;
    free(m->members);
    return false;
}

static void close_map(struct map *m)
{
    mr_ring_free(&m->ring);
    free(m->members);
}

static uint32_t find(const struct map *m, const char *key)
{
    return m->n == 1 ? 0 : mr_ring_pick(&m->ring, m->hash(key, strlen(key)), 0);
}

static bool same_server(const struct mr_server_config *a, const struct mr_server_config *b)
{
    if (strcmp(a->name, b->name) != 0 || a->port != b->port)
        return false;
    if ((a->host == NULL) != (b->host == NULL))
        return false;
    return a->host == NULL ? mr_addr_eq(&a->addr, &b->addr) : strcmp(a->host, b->host) == 0;
}

/* Whether a key that is at `i` in one map is at the same place when it is at `j` in the other. */
static bool same_place(const struct map *a, uint32_t i, const struct map *b, uint32_t j)
{
    if (a->pool->topology == MR_SENTINEL)
        return strcmp(a->pool->master_names.at[i], b->pool->master_names.at[j]) == 0;
    return same_server(&a->pool->servers.at[i], &b->pool->servers.at[j]);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same_names(const struct mr_names *a, const struct mr_names *b)
{
    bool same = a->n == b->n;

    for (uint32_t i = 0; i < a->n && same; i++)
        same = strcmp(a->at[i], b->at[i]) == 0;
    return same;
}

bool mr_config_moves_keys(const struct mr_pool_config *now, const struct mr_pool_config *before)
{
    if (now->protocol != before->protocol || now->hash != before->hash ||
        now->distribution != before->distribution || now->has_hash_tag != before->has_hash_tag ||
        memcmp(now->hash_tag, before->hash_tag, sizeof(now->hash_tag)) != 0 ||
        now->redis_db != before->redis_db || now->cross_server != before->cross_server ||
        now->topology != before->topology)
        return true;
    if (now->topology == MR_CLUSTER) /* the cluster says where they are */
        return false;
    if (now->topology == MR_SENTINEL)
        return !same_names(&now->master_names, &before->master_names);
    if (now->servers.n != before->servers.n)
        return true;
    for (uint32_t i = 0; i < now->servers.n; i++) {
        const struct mr_server_config *a = &now->servers.at[i], *b = &before->servers.at[i];
        if (!same_text(a->name, b->name) || !same_text(a->host, b->host) || a->port != b->port ||
            a->weight != b->weight || !mr_addr_eq(&a->addr, &b->addr))
            return true;
    }
    return false;
}

double mr_config_moved_share(const struct mr_pool_config *now, const struct mr_pool_config *before)
{
    struct map a, b;
    uint32_t moved = 0;
    char key[32];

    if (now->redis_db != before->redis_db || now->protocol != before->protocol ||
        now->topology != before->topology)
        return 1;
    if (now->topology == MR_CLUSTER)
        return 0;
    if (now->topology == MR_REPLICATED) { /* all keys are on the master */
        const bool named = now->master != MR_NO_MASTER && before->master != MR_NO_MASTER;
        return named && same_server(&now->servers.at[now->master],
                                    &before->servers.at[before->master])
                   ? 0
                   : 1;
    }
    if (!open_map(&a, now))
        return 1;
    if (!open_map(&b, before)) {
        close_map(&a);
        return 1;
    }
    for (uint32_t i = 0; i < SAMPLE; i++) {
        /* random, like real keys; sequential ones would cluster */
        (void)snprintf(key, sizeof(key), "%x-key-%u", i * 2654435761u, i);
        moved += !same_place(&a, find(&a, key), &b, find(&b, key));
    }
    close_map(&a);
    close_map(&b);
    return (double)moved / SAMPLE;
}

/* ---- sentences ---- */

struct out {
    void (*line)(void *arg, const char *text);
    void *arg;
};

static void MR_PRINTF(2, 3) say(const struct out *o, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    o->line(o->arg, text);
}

static bool has_server(const struct mr_pool_config *pool, const struct mr_server_config *like)
{
    const struct mr_server_config *named = mr_config_server(pool, like->name);

    return named != NULL && same_server(named, like);
}

static void diff_listens(const struct out *o, const struct mr_config *of,
                         const struct mr_config *in, const char *what)
{
    for (uint32_t i = 0; i < of->n_pools; i++)
        for (uint32_t j = 0; j < of->pools[i].listens.n; j++)
            if (mr_config_listen(in, &of->pools[i].listens.at[j].addr) == NULL)
                say(o, "listener %s: %s (pool %s)", what, of->pools[i].listens.at[j].text,
                    of->pools[i].name);
}

static void diff_pool(const struct out *o, const struct mr_pool_config *now,
                      const struct mr_pool_config *before)
{
    if (!mr_config_moves_keys(now, before))
        return; /* no need to sample keys */
    for (uint32_t i = 0; i < now->servers.n; i++)
        if (!has_server(before, &now->servers.at[i]))
            say(o, "pool %s: server added: %s", now->name, now->servers.at[i].text);
    for (uint32_t i = 0; i < before->servers.n; i++)
        if (!has_server(now, &before->servers.at[i]))
            say(o, "pool %s: server removed: %s", now->name, before->servers.at[i].text);
    const double share = mr_config_moved_share(now, before);
    if (share > 0)
        say(o, "pool %s: %.1f %% of the keys move to another server", now->name, share * 100);
    if (now->hash != before->hash || now->distribution != before->distribution)
        say(o, "pool %s: the hash or distribution changes", now->name);
    if (now->has_hash_tag != before->has_hash_tag ||
        memcmp(now->hash_tag, before->hash_tag, sizeof(now->hash_tag)) != 0)
        say(o, "pool %s: the hash tag changes: keys that contain one move", now->name);
}

void mr_config_diff(const struct mr_config *now, const struct mr_config *before,
                    void (*line)(void *arg, const char *text), void *arg)
{
    const struct out o = {line, arg};

    if (now->worker_processes != before->worker_processes)
        say(&o, "the number of workers changes");
    for (uint32_t i = 0; i < now->n_pools; i++) {
        const struct mr_pool_config *old = mr_config_pool(before, now->pools[i].name);
        if (old == NULL)
            say(&o, "pool added: %s", now->pools[i].name);
        else
            diff_pool(&o, &now->pools[i], old);
    }
    for (uint32_t i = 0; i < before->n_pools; i++)
        if (mr_config_pool(now, before->pools[i].name) == NULL)
            say(&o, "pool removed: %s; its clients are disconnected", before->pools[i].name);
    diff_listens(&o, now, before, "added");
    diff_listens(&o, before, now, "removed");
}
