/* server.c - model servers: connections, habits and memory. */
#include "server.h"

#include <arpa/inet.h>
#include <string.h>

#define SERVERS  16u
#define SLOW_US  1000000u
#define BATCH    32u      /* maximum requests served at once */
#define BLOCK_US 3000000u /* maximum time without reading */

struct sim_server_habits sim_habits;
void (*sim_on_write)(struct sim_server_conn *sc, struct mr_slice key);

static struct sim_server *all[SERVERS];
static uint32_t n_all;

struct sim_server *sim_server_new(const struct sim_server_proto *proto, uint16_t port)
{
    struct sim_server *s = sim_alloc(sizeof(*s));

    MR_CHECK(n_all < SERVERS);
    s->name = sim_text("server:%u", port);
    s->proto = proto;
    s->port = port;
    all[n_all++] = s;
    return s;
}

void sim_servers_end(void)
{
    n_all = 0;
    sim_on_write = NULL;
}

/* ---- serving ---- */

static void end(struct sim_server_conn *sc, bool hard)
{
    struct sim_server_conn **at = &sc->server->conns;

    sim_event_cancel(&sc->work);
    sim_event_cancel(&sc->wake);
    if (hard)
        sim_reset(sc->conn);
    else
        sim_close(sc->conn);
    while (*at != sc)
        at = &(*at)->next;
    *at = sc->next;
}

static void work(void *arg);

static void expect_work(struct sim_server_conn *sc)
{
    uint32_t us = sim_below(sim_habits.delay_us + 1);

    if (sim_once_in(sim_habits.slow)) {
        us = sim_between(1, sim_habits.slow_us > 0 ? sim_habits.slow_us : SLOW_US);
        if (sim_habits.slow_us > 0)
            sim_note("%s takes %u us", sc->server->name, us);
        else
            sim_trouble("%s takes %u us", sc->server->name, us);
    }
    if (sc->work.place == 0)
        sim_event_set(&sc->work, us, work, sc);
}

static void unblock(void *arg)
{
    struct sim_server_conn *sc = arg;

    sc->blocked = false;
    (void)sim_bytes_read(&sc->in, sc->conn, SIZE_MAX);
    work(sc);
}

/* Sends the reply, or what the server's mood makes of it. False if the connection is over. */
static bool answer(struct sim_server_conn *sc, struct sim_bytes *out)
{
    const size_t len = out->end - out->start;

    if (sim_once_in(sim_habits.dies)) {
        out->end = out->start + sim_below((uint32_t)len + 1);
        sim_trouble("%s ends a connection in a reply", sc->server->name);
        sim_bytes_send(out, sc->conn);
        end(sc, sim_once_in(2));
        return false;
    }
    if (sim_once_in(sim_habits.silent)) {
        sim_trouble("%s falls silent", sc->server->name);
        sc->silent = true;
        out->start = out->end = 0;
    }
    sim_bytes_send(out, sc->conn);
    if (sim_once_in(sim_habits.shuts)) {
        sim_trouble("%s shuts its side of a connection", sc->server->name);
        sc->silent = true;
        sim_shut(sc->conn);
    }
    return true;
}

static void work(void *arg)
{
    struct sim_server_conn *sc = arg;
    struct sim_bytes out = {0};
    bool more = true; /* complete requests */

    for (uint32_t n = 0; n < BATCH && !sc->silent && !sc->blocked && !sc->closing && !sc->waiting;
         n++) {
        const struct mr_slice in = sim_bytes_slice(&sc->in);
        const size_t used = in.len > 0 ? sc->server->proto->serve(sc, in, &out) : 0;
        if (used == 0) {
            more = false;
            break;
        }
        sim_bytes_drop(&sc->in, used);
        sc->served += used;
        if (!answer(sc, &out))
            return;
        if (sim_once_in(sim_habits.blocked)) {
            sim_trouble("%s stops reading", sc->server->name);
            sc->blocked = true;
            sim_event_set(&sc->work, sim_between(1, BLOCK_US), unblock, sc);
            return;
        }
        if (sim_habits.delay_us > 0 && sim_once_in(4))
            break;
    }
    if (sc->silent || sc->waiting)
        return;
    if (sc->closing || (sim_at_end(sc->conn) && (!more || sc->in.end == sc->in.start)))
        end(sc, false);
    else if (more && sc->in.end > sc->in.start && sc->work.place == 0)
        expect_work(sc);
}

void sim_server_go_on(struct sim_server_conn *sc, struct sim_bytes *out)
{
    sim_event_cancel(&sc->wake);
    sc->waiting = false;
    if (!sc->silent && answer(sc, out) && sc->work.place == 0)
        expect_work(sc);
}

static void on_bytes(struct sim_conn *c)
{
    struct sim_server_conn *sc = c->owner;

    if (c->reset || (sc->waiting && sim_at_end(c))) {
        end(sc, false);
        return;
    }
    if (sc->blocked)
        return;
    if (sim_bytes_read(&sc->in, c, SIZE_MAX) > 0 && !sc->silent)
        expect_work(sc);
    if (sim_at_end(c) && (sc->silent || sc->work.place == 0))
        end(sc, false);
}

static void on_open(struct sim_conn *c)
{
    (void)c;
}

static const struct sim_conn_ops OPS = {.on_open = on_open, .on_bytes = on_bytes};

/* ---- connections ---- */

enum sim_connect_outcome sim_server_connect(struct sim_conn *c, const struct sockaddr *addr)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)addr;
    struct sim_server *s = NULL;

    for (uint32_t i = 0; i < n_all; i++)
        if (ntohs(in->sin_port) == all[i]->port)
            s = all[i];
    SIM_CHECK(s != NULL, "a connect to port %u, where nobody is", ntohs(in->sin_port));
    if (s->down || sim_once_in(sim_habits.refuses)) {
        sim_trouble("%s refuses", s->name);
        return sim_once_in(8) ? SIM_FAILS_AT_ONCE : SIM_REFUSES;
    }
    if (sim_once_in(sim_habits.unreachable)) {
        sim_trouble("%s cannot be reached", s->name);
        return SIM_NO_ANSWER;
    }
    struct sim_server_conn *sc = sim_alloc(sizeof(*sc));
    sc->server = s;
    sc->conn = c;
    sc->next = s->conns;
    s->conns = sc;
    c->ops = &OPS;
    c->owner = sc;
    sim_note("connection %u: %s connects to %s", c->id, sim_name(sim_self()), s->name);
    return SIM_CONNECTS;
}

void sim_server_down(struct sim_server *s)
{
    sim_trouble("%s goes down", s->name);
    s->down = true;
    while (s->conns != NULL)
        end(s->conns, sim_once_in(2));
}

void sim_server_up(struct sim_server *s)
{
    if (!s->down)
        return;
    sim_trouble("%s is up again", s->name);
    s->down = false;
}

void sim_servers_calm(void)
{
    struct sim_server_conn *sc, *next;

    sim_habits = (struct sim_server_habits){.delay_us = sim_habits.delay_us};
    for (uint32_t i = 0; i < n_all; i++) {
        sim_server_up(all[i]);
        for (sc = all[i]->conns; sc != NULL; sc = next) {
            next = sc->next;
            if (!sc->silent)
                continue;
            sim_trouble("%s ends a silent connection", all[i]->name);
            end(sc, true);
        }
    }
}

bool sim_server_errs(void)
{
    if (!sim_once_in(sim_habits.wrong))
        return false;
    sim_trouble("a server answers with an error");
    return true;
}

/* ---- memory ---- */

static struct sim_stored **bucket(struct sim_server *s, struct mr_slice key)
{
    uint32_t h = 5381;

    if (s->memory != NULL)
        s = s->memory;
    for (size_t i = 0; i < key.len; i++)
        h = h * 33 ^ (uint8_t)key.at[i];
    return &s->stored[h % SIM_STORED_BUCKETS];
}

struct sim_stored *sim_server_find(struct sim_server *s, struct mr_slice key)
{
    for (struct sim_stored *it = *bucket(s, key); it != NULL; it = it->next)
        if (mr_slice_eq(it->key, key))
            return it;
    return NULL;
}

static struct mr_slice copy(struct mr_slice from)
{
    char *at = sim_alloc(from.len + 1);

    memcpy(at, from.at, from.len);
    return (struct mr_slice){at, from.len};
}

void sim_server_store(struct sim_server *s, struct mr_slice key, struct mr_slice value,
                      uint32_t flags)
{
    struct sim_stored *it = sim_server_find(s, key);

    if (it == NULL) {
        struct sim_stored **at = bucket(s, key);
        it = sim_alloc(sizeof(*it));
        it->key = copy(key);
        it->next = *at;
        *at = it;
    }
    it->value = copy(value);
    it->flags = flags;
    it->cas = ++s->cas;
}

bool sim_server_delete(struct sim_server *s, struct mr_slice key)
{
    struct sim_stored **at = bucket(s, key);

    for (; *at != NULL; at = &(*at)->next)
        if (mr_slice_eq((*at)->key, key)) {
            *at = (*at)->next;
            return true;
        }
    return false;
}
