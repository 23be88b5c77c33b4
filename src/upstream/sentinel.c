/*
 * sentinel.c - asks sentinels for masters and their replicas.
 *
 * All sentinels are asked at the same time. Unless all name the present master, every server that
 * one of them names is asked for its role, and so is the present master. Of those that say they are
 * masters, the one with the highest configuration epoch is chosen, or of these the one that most
 * sentinels name. While the present master still says that it is one, this must be a replica of it
 * that was promoted in a later epoch, or most sentinels must agree.
 */
#include "core/log.h"
#include "upstream/discovery.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_BYTES (1u << 20)
#define ENOUGH_MS    100u /* then sentinels that have not answered are not waited for */

enum what { MASTER, REPLICAS, ROLE };

struct question {
    struct mr_call call;
    struct mr_look *look;
    struct mr_server *server;
    struct mr_buf answer;
    uint32_t name;
    enum what what;
    bool answered;
};

/* A server that sentinels take for a master. */
struct candidate {
    struct mr_server *server;
    const struct mr_server *sentinel; /* with the highest epoch */
    uint64_t epoch;
    uint32_t votes;       /* 0: nobody names it, but it is the present master */
    struct question role; /* its own view */
};

/* Those of one name. */
struct election {
    struct candidate *candidates;
    uint32_t n;
    uint32_t n_votes;
    bool verified; /* they were asked for their roles */
};

struct mr_look {
    struct mr_pool *pool;
    struct mr_discovery *discovery; /* NULL: nobody waits for it any more */
    struct mr_timer timer;
    struct mr_node_table *before;
    struct mr_reading reading;
    struct question *questions;
    uint32_t n_questions;
    struct election *elections; /* per name */
    uint32_t n_open;            /* questions in flight, and one while they are being sent */
    bool verifying;
};

static const struct mr_proto *protocol_of(const struct mr_look *look)
{
    return look->pool->config->protocol;
}

static uint32_t n_names(const struct mr_look *look)
{
    return look->pool->config->master_names.n;
}

static void free_election(struct election *e, struct mr_slab *slab)
{
    for (uint32_t i = 0; i < e->n; i++)
        mr_buf_clear(&e->candidates[i].role.answer, slab);
    free(e->candidates);
}

static void free_look(struct mr_look *look)
{
    struct mr_slab *slab = &look->pool->loop->slab;

    mr_timer_cancel(&look->timer);
    for (uint32_t i = 0; i < look->n_questions; i++)
        mr_buf_clear(&look->questions[i].answer, slab);
    for (uint32_t i = 0; i < n_names(look); i++)
        free_election(&look->elections[i], slab);
    mr_reading_fini(&look->reading);
    free(look->before);
    free(look->questions);
    free(look->elections);
    free(look);
}

static struct mr_server *master_before(const struct mr_look *look, uint32_t name)
{
    const uint16_t owner = look->before->owner[name];

    return owner > 0 ? &look->pool->servers[owner - 1] : NULL;
}

/* ---- what sentinels say ---- */

static struct candidate *candidate_of(struct election *e, struct mr_server *server)
{
    for (uint32_t i = 0; i < e->n; i++)
        if (e->candidates[i].server == server)
            return &e->candidates[i];
    e->candidates[e->n] = (struct candidate){.server = server};
    return &e->candidates[e->n++];
}

static void count_vote(struct mr_look *look, const struct question *q)
{
    struct election *e = &look->elections[q->name];
    struct mr_sentinel_view view;

    if (q->what != MASTER || !q->answered ||
        !protocol_of(look)->sentinel.read_master(mr_buf_slice(&q->answer), &view))
        return;
    look->reading.by = q->server;
    struct mr_server *server = mr_reading_node(&look->reading, view.host, view.port);
    if (server == NULL)
        return;
    struct candidate *c = candidate_of(e, server);
    if (c->votes == 0 || view.epoch > c->epoch) {
        c->epoch = view.epoch;
        c->sentinel = q->server;
    }
    c->votes++;
    e->n_votes++;
}

struct replicas {
    struct mr_look *look;
    struct mr_server *master;
};

static void take_replica(void *arg, const struct mr_sentinel_view *view)
{
    const struct replicas *r = arg;

    if (view->down)
        return;
    struct mr_server *server = mr_reading_node(&r->look->reading, view->host, view->port);
    if (server != NULL)
        mr_reading_set_replica(&r->look->reading, server, r->master);
}

/* As the sentinel says that has told the master. */
static void take_replicas(struct mr_look *look, uint32_t name, const struct mr_server *sentinel,
                          struct mr_server *master)
{
    struct replicas r = {look, master};

    for (uint32_t i = 0; i < look->n_questions; i++) {
        const struct question *q = &look->questions[i];
        if (q->name == name && q->what == REPLICAS && q->server == sentinel && q->answered)
            (void)protocol_of(look)->sentinel.read_replicas(mr_buf_slice(&q->answer), take_replica,
                                                            &r);
    }
}

/* ---- the end ---- */

static bool is_master(const struct mr_look *look, const struct question *q)
{
    struct mr_probe found = {0};

    return q->answered &&
           protocol_of(look)->server.check_probe(mr_buf_slice(&q->answer), &found) == NULL &&
           found.role == MR_ROLE_MASTER;
}

static bool is_better(const struct candidate *a, const struct candidate *b)
{
    return b == NULL || a->epoch > b->epoch || (a->epoch == b->epoch && a->votes > b->votes);
}

/* A failover makes a replica the master before the former one is told. */
static bool succeeds(const struct mr_look *look, const struct candidate *c,
                     const struct candidate *present)
{
    const struct mr_server *servers = look->pool->servers;

    return look->before->master_of[c->server - servers] == present->server - servers + 1 &&
           c->epoch > present->epoch;
}

/* NULL if there is no master. */
static const struct candidate *elect(struct mr_look *look, uint32_t name)
{
    struct election *e = &look->elections[name];
    const struct candidate *best = NULL, *present = NULL;

    for (uint32_t i = 0; i < e->n; i++) {
        const struct candidate *c = &e->candidates[i];
        if (c->server == master_before(look, name))
            present = c;
        if (c->votes > 0 && (!e->verified || is_master(look, &c->role)) && is_better(c, best))
            best = c;
        else if (e->verified && c->votes > 0 && !is_master(look, &c->role))
            mr_log_limited(MR_LOG_WARN,
                           "master_doubtful pool=%s server=%s sentinel=%s "
                           "reason=\"it does not say that it is one\"",
                           look->pool->config->name, c->server->name, c->sentinel->name);
    }
    if (best == NULL || best == present || present == NULL || !is_master(look, &present->role) ||
        succeeds(look, best, present) || 2 * best->votes > e->n_votes)
        return best != NULL ? best : present;
    return present;
}

static void conclude(struct mr_look *look)
{
    struct mr_discovery *d = look->discovery;
    bool any = false;

    look->discovery = NULL;
    mr_timer_cancel(&look->timer);
    for (uint32_t name = 0; name < n_names(look); name++) {
        const struct candidate *c = elect(look, name);
        struct mr_server *master = c != NULL ? c->server : master_before(look, name);
        if (master == NULL)
            continue;
        any = any || look->elections[name].n_votes > 0;
        mr_reading_set_master(&look->reading, name, name, master);
        if (c != NULL && c->sentinel != NULL)
            take_replicas(look, name, c->sentinel, master);
    }
    mr_discovery_over(d, any ? &look->reading : NULL);
}

static void question_over(struct question *q, bool answered);

static void on_reply(struct mr_call *call, const char *bytes, size_t len, bool done)
{
    struct question *q = MR_CONTAINER_OF(call, struct question, call);

    if (mr_buf_len(&q->answer) + len <= ANSWER_BYTES)
        mr_buf_put(&q->answer, &q->look->pool->loop->slab, bytes, len);
    if (done)
        question_over(q, !mr_buf_failed(&q->answer));
}

static void on_fail(struct mr_call *call, const char *reason)
{
    (void)reason;
    question_over(MR_CONTAINER_OF(call, struct question, call), false);
}

static const struct mr_call_ops CALL_OPS = {.on_reply = on_reply, .on_fail = on_fail};

static void put(struct question *q, struct mr_slice request)
{
    q->call.ops = &CALL_OPS;
    q->call.class = MR_CLASS_OTHER;
    q->look->n_open++;
    if (mr_server_send(q->server, 0, 0, &q->call, request) != NULL)
        q->look->n_open--;
}

/* ---- verifying ---- */

static void ask_roles(struct mr_look *look, struct election *e)
{
    e->verified = true;
    for (uint32_t i = 0; i < e->n; i++) {
        struct question *q = &e->candidates[i].role;
        *q = (struct question){.look = look, .server = e->candidates[i].server, .what = ROLE};
        put(q, mr_slice_of(protocol_of(look)->sentinel.ask_role));
    }
}

static void verify(struct mr_look *look)
{
    look->verifying = true;
    mr_loop_timer(look->pool->loop, &look->timer, ENOUGH_MS);
    for (uint32_t i = 0; i < look->n_questions; i++)
        count_vote(look, &look->questions[i]);
    for (uint32_t name = 0; name < n_names(look); name++) {
        struct election *e = &look->elections[name];
        struct mr_server *present = master_before(look, name);
        if (present != NULL)
            (void)candidate_of(e, present);
        if (e->n > 1 || present == NULL)
            ask_roles(look, e);
    }
}

/* All have answered or failed, or those that have not are not waited for. */
static void go_on(struct mr_look *look)
{
    if (look->discovery == NULL)
        return;
    if (!look->verifying) {
        look->n_open++;
        verify(look);
        look->n_open--;
        if (look->n_open > 0)
            return;
    }
    conclude(look);
}

static void one_less(struct mr_look *look)
{
    if (--look->n_open > 0)
        return;
    go_on(look);
    if (look->n_open == 0)
        free_look(look);
}

static void question_over(struct question *q, bool answered)
{
    q->answered = answered;
    one_less(q->look);
}

static bool has_answers(const struct mr_look *look)
{
    for (uint32_t i = 0; i < look->n_questions; i++)
        if (look->questions[i].answered)
            return true;
    return false;
}

static void on_time(struct mr_timer *timer)
{
    struct mr_look *look = MR_CONTAINER_OF(timer, struct mr_look, timer);

    if (!look->verifying && !has_answers(look)) {
        mr_loop_timer(look->pool->loop, timer, ENOUGH_MS);
        return;
    }
    look->n_open++;
    go_on(look);
    if (--look->n_open == 0)
        free_look(look);
}

/* ---- the beginning ---- */

static struct mr_look *new_look(struct mr_discovery *d)
{
    struct mr_pool *pool = d->pool;
    const size_t bytes = mr_node_table_bytes(pool->config);
    struct mr_look *look = calloc(1, sizeof(*look));

    MR_CHECK(look != NULL);
    look->pool = pool;
    look->discovery = d;
    look->timer.fire = on_time;
    look->before = calloc(1, bytes);
    look->elections = calloc(n_names(look), sizeof(*look->elections));
    look->questions =
        calloc((size_t)2 * n_names(look) * pool->config->servers.named, sizeof(*look->questions));
    MR_CHECK(look->before != NULL && look->elections != NULL && look->questions != NULL);
    for (uint32_t i = 0; i < n_names(look); i++) {
        look->elections[i].candidates =
            calloc(pool->config->servers.named + 1, sizeof(struct candidate));
        MR_CHECK(look->elections[i].candidates != NULL);
    }
    (void)mr_node_map_copy(pool->nodes, look->before, bytes);
    mr_reading_init(&look->reading, pool, &pool->servers[0]);
    return look;
}

static void ask_sentinel(struct mr_look *look, struct mr_server *sentinel, uint32_t name,
                         enum what what)
{
    struct question *q = &look->questions[look->n_questions++];
    struct mr_slab *slab = &look->pool->loop->slab;
    struct mr_buf request = {0};

    *q = (struct question){.look = look, .server = sentinel, .name = name, .what = what};
    protocol_of(look)->sentinel.ask(look->pool->config->master_names.at[name], what == REPLICAS,
                                    slab, &request);
    put(q, mr_buf_slice(&request));
    mr_buf_clear(&request, slab);
}

static void ask(struct mr_discovery *d)
{
    struct mr_look *look = new_look(d);

    d->look = look;
    look->n_open = 1;
    for (uint32_t i = 0; i < d->pool->config->servers.named; i++)
        for (uint32_t name = 0; name < n_names(look) && d->pool->servers[i].addr.len > 0; name++) {
            ask_sentinel(look, &d->pool->servers[i], name, MASTER);
            ask_sentinel(look, &d->pool->servers[i], name, REPLICAS);
        }
    mr_loop_timer(d->pool->loop, &look->timer, ENOUGH_MS);
    one_less(look);
}

static void forget(struct mr_look *look)
{
    look->discovery = NULL;
    mr_timer_cancel(&look->timer);
}

const struct mr_discovery_ops MR_DISCOVERY_SENTINEL = {.ask = ask, .forget = forget};
