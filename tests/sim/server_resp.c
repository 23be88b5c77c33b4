/* server_resp.c - a model of Redis. */
#include "server.h"

#include <stdio.h>
#include <string.h>

#define ARGS_MAX 256u

/* Parses "<type><number>\r\n" at *at; -1 if incomplete. */
static int64_t read_head(struct mr_slice in, size_t *at, char type)
{
    const char *nl = memchr(in.at + *at, '\n', in.len - *at);
    int64_t n = 0;

    if (nl == NULL)
        return -1;
    SIM_CHECK(in.at[*at] == type, "a server got what is no request: %.*s",
              (int)(in.len - *at < 60 ? in.len - *at : 60), in.at + *at);
    for (const char *p = in.at + *at + 1; *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (*p - '0');
    *at = (size_t)(nl - in.at) + 1;
    return n;
}

static size_t read_request(struct mr_slice in, struct mr_slice *args, uint32_t *n_args)
{
    size_t at = 0;
    const int64_t n = read_head(in, &at, '*');

    SIM_CHECK(n <= ARGS_MAX, "a server got a request of %lld words", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t len = at < in.len ? read_head(in, &at, '$') : -1;
        if (len < 0 || in.len - at < (size_t)len + 2)
            return 0;
        args[i] = (struct mr_slice){in.at + at, (size_t)len};
        at += (size_t)len;
        SIM_CHECK(memcmp(in.at + at, "\r\n", 2) == 0, "a server got a string without an end");
        at += 2;
    }
    *n_args = (uint32_t)n;
    return n < 0 ? 0 : at;
}

static void put_value(struct sim_server *s, struct mr_slice key, struct sim_bytes *out)
{
    const struct sim_stored *it = sim_server_find(s, key);
    size_t size;

    if (sim_key_size(key, &size)) {
        sim_bytes_addf(out, "$%zu\r\n", size);
        sim_bytes_add_value(out, key, size);
        sim_bytes_add(out, "\r\n", 2);
    } else if (it != NULL) {
        sim_bytes_addf(out, "$%zu\r\n", it->value.len);
        sim_bytes_add(out, it->value.at, it->value.len);
        sim_bytes_add(out, "\r\n", 2);
    } else {
        sim_bytes_add(out, "$-1\r\n", 5);
    }
}

static void write_key(struct sim_server_conn *sc, struct mr_slice key)
{
    if (sim_on_write != NULL)
        sim_on_write(sc, key);
}

/*
 * Rejects what only a master accepts. Replicas may be asked by clients that missed a role change.
 */
static bool is_read_only(const struct sim_server_conn *sc, struct sim_bytes *out)
{
    if (sc->server->memory == NULL || sc->server->is_master)
        return false;
    sim_bytes_addf(out, "-READONLY You can't write against a read only replica.\r\n");
    return true;
}

static bool is(struct mr_slice word, const char *name)
{
    return mr_slice_eq_nocase(word, name);
}

static void set(struct sim_server_conn *sc, const struct mr_slice *args, uint32_t n,
                struct sim_bytes *out)
{
    for (uint32_t i = 1; i + 1 < n; i += 2)
        write_key(sc, args[i]);
    if (is_read_only(sc, out))
        return;
    for (uint32_t i = 1; i + 1 < n; i += 2)
        sim_server_store(sc->server, args[i], args[i + 1], 0);
    sim_bytes_add(out, "+OK\r\n", 5);
}

static void delete (struct sim_server_conn *sc, const struct mr_slice *args, uint32_t n,
                    struct sim_bytes *out)
{
    uint32_t gone = 0;

    for (uint32_t i = 1; i < n; i++)
        write_key(sc, args[i]);
    if (is_read_only(sc, out))
        return;
    for (uint32_t i = 1; i < n; i++)
        gone += sim_server_delete(sc->server, args[i]);
    sim_bytes_addf(out, ":%u\r\n", gone);
}

static void role(const struct sim_server *s, struct sim_bytes *out)
{
    if (s->is_master)
        sim_bytes_addf(out, "*3\r\n$6\r\nmaster\r\n:100\r\n*0\r\n");
    else
        sim_bytes_addf(out, "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n"
                            ":100\r\n");
}

/* ---- keys that are brought to another pool; nobody checks who may write there ---- */

static void dump(struct sim_server *s, struct mr_slice key, struct sim_bytes *out)
{
    const struct sim_stored *it = sim_server_find(s, key);

    if (it == NULL) {
        sim_bytes_add(out, "$-1\r\n", 5);
        return;
    }
    sim_bytes_addf(out, "$%zu\r\n", it->value.len);
    sim_bytes_add(out, it->value.at, it->value.len);
    sim_bytes_add(out, "\r\n", 2);
}

static bool transfer(struct sim_server *s, const struct mr_slice *args, uint32_t n,
                     struct sim_bytes *out)
{
    if (is(args[0], "pttl")) {
        sim_bytes_addf(out, sim_server_find(s, args[1]) != NULL ? ":-1\r\n" : ":-2\r\n");
    } else if (is(args[0], "dump")) {
        dump(s, args[1], out);
    } else if (is(args[0], "restore") && n == 5) {
        sim_server_store(s, args[1], args[3], 0);
        sim_bytes_addf(out, "+OK\r\n");
    } else if (is(args[0], "unlink")) {
        sim_bytes_addf(out, ":%d\r\n", sim_server_delete(s, args[1]));
    } else {
        return false;
    }
    return true;
}

/* ---- transactions and blocking ---- */

/* State of a connection beyond its requests. */
struct session {
    uint64_t id;
    bool open, aborted;
    uint32_t n_queued;
    struct sim_bytes queue;
    struct mr_slice watched; /* one key at a time is enough */
    uint64_t watched_cas;
    struct mr_slice popped; /* waited for by a blocking command */
};

static struct session *session_of(struct sim_server_conn *sc)
{
    if (sc->session == NULL) {
        struct session *s = sim_alloc(sizeof(*s));
        s->id = sc->conn->id + UINT64_C(1);
        sc->session = s;
    }
    return sc->session;
}

static uint64_t cas_of(struct sim_server *s, struct mr_slice key)
{
    const struct sim_stored *it = sim_server_find(s, key);

    return it != NULL ? it->cas : 0;
}

static void run(struct sim_server_conn *sc, const struct mr_slice *args, uint32_t n,
                struct sim_bytes *out);

static void end_transaction(struct session *s)
{
    s->open = s->aborted = false;
    s->n_queued = 0;
    s->queue.start = s->queue.end = 0;
    s->watched.len = 0;
}

static void execute(struct sim_server_conn *sc, struct session *s, struct sim_bytes *out)
{
    struct mr_slice args[ARGS_MAX], left = sim_bytes_slice(&s->queue);
    const bool broken = s->watched.len > 0 && cas_of(sc->server, s->watched) != s->watched_cas;
    uint32_t n;

    if (!s->open) {
        sim_bytes_addf(out, "-ERR EXEC without MULTI\r\n");
        return;
    }
    if (broken) {
        sim_bytes_addf(out, "*-1\r\n");
    } else {
        sim_bytes_addf(out, "*%u\r\n", s->n_queued);
        while (left.len > 0) {
            const size_t used = read_request(left, args, &n);
            run(sc, args, n, out);
            left = (struct mr_slice){left.at + used, left.len - used};
        }
    }
    end_transaction(s);
}

/* Something was pushed, or the time is over. */
static void pop_now(void *arg)
{
    struct sim_server_conn *sc = arg;
    struct session *s = session_of(sc);
    struct sim_bytes out = {0};

    if (sim_once_in(3)) {
        sim_bytes_addf(&out, "*-1\r\n");
    } else {
        SIM_CHECK(sim_server_find(sc->server, s->popped) == NULL || sim_may_fail(sim_now_us),
                  "%.*s is popped twice", (int)s->popped.len, s->popped.at);
        sim_server_store(sc->server, s->popped, s->popped, 0);
        sim_bytes_addf(&out, "*2\r\n$%zu\r\n%.*s\r\n$%zu\r\n%.*s\r\n", s->popped.len,
                       (int)s->popped.len, s->popped.at, s->popped.len, (int)s->popped.len,
                       s->popped.at);
    }
    sim_server_go_on(sc, &out);
}

static void block(struct sim_server_conn *sc, struct mr_slice key)
{
    char *copy = sim_alloc(key.len + 1);

    memcpy(copy, key.at, key.len);
    session_of(sc)->popped = (struct mr_slice){copy, key.len};
    sc->waiting = true;
    sim_event_set(&sc->wake, sim_magnitude(100, 2000000), pop_now, sc);
}

static void unblock(struct sim_server_conn *asker, struct mr_slice id, struct sim_bytes *out)
{
    for (struct sim_server_conn *sc = asker->server->conns; sc != NULL; sc = sc->next) {
        const struct session *s = sc->session;
        if (s == NULL || !sc->waiting ||
            !mr_slice_eq(id, mr_slice_of(sim_text("%llu", (unsigned long long)s->id))))
            continue;
        struct sim_bytes error = {0};
        sim_bytes_addf(&error, "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
        sim_server_go_on(sc, &error);
        sim_bytes_addf(out, ":1\r\n");
        return;
    }
    sim_bytes_addf(out, ":0\r\n");
}

/* True if it was a step of a transaction, or part of one. `bytes` is the whole request. */
static bool take_step(struct sim_server_conn *sc, const struct mr_slice *args, uint32_t n,
                      struct mr_slice bytes, struct sim_bytes *out)
{
    struct session *s = sc->session;

    if (is(args[0], "multi")) {
        session_of(sc)->open = true;
        sim_bytes_addf(out, "+OK\r\n");
    } else if (is(args[0], "exec")) {
        execute(sc, session_of(sc), out);
    } else if (is(args[0], "watch") && n == 2) {
        s = session_of(sc);
        char *copy = sim_alloc(args[1].len + 1);
        memcpy(copy, args[1].at, args[1].len);
        s->watched = (struct mr_slice){copy, args[1].len};
        s->watched_cas = cas_of(sc->server, args[1]);
        sim_bytes_addf(out, "+OK\r\n");
    } else if (is(args[0], "unwatch")) {
        session_of(sc)->watched.len = 0;
        sim_bytes_addf(out, "+OK\r\n");
    } else if (s != NULL && s->open) {
        sim_bytes_add(&s->queue, bytes.at, bytes.len);
        s->n_queued++;
        sim_bytes_addf(out, "+QUEUED\r\n");
    } else {
        return false;
    }
    return true;
}

static void run(struct sim_server_conn *sc, const struct mr_slice *args, uint32_t n,
                struct sim_bytes *out)
{
    if (is(args[0], "get") && n == 2) {
        put_value(sc->server, args[1], out);
    } else if (is(args[0], "mget")) {
        sim_bytes_addf(out, "*%u\r\n", n - 1);
        for (uint32_t i = 1; i < n; i++)
            put_value(sc->server, args[i], out);
    } else if ((is(args[0], "set") && n == 3) || is(args[0], "mset")) {
        set(sc, args, n, out);
    } else if (is(args[0], "del")) {
        delete (sc, args, n, out);
    } else if (!transfer(sc->server, args, n, out)) {
        sim_bytes_addf(out, "-ERR unknown command for a model\r\n");
    }
}

static size_t serve(struct sim_server_conn *sc, struct mr_slice in, struct sim_bytes *out)
{
    struct mr_slice args[ARGS_MAX];
    uint32_t n = 0;
    const size_t used = read_request(in, args, &n);

    if (used == 0 || n == 0)
        return used;
    if (is(args[0], "auth")) {
        sc->authed = n == 2 && mr_slice_eq(args[1], mr_slice_of(sc->server->password));
        sim_bytes_addf(out, sc->authed ? "+OK\r\n" : "-ERR invalid password\r\n");
    } else if (sc->server->password != NULL && !sc->authed) {
        sim_bytes_addf(out, "-NOAUTH Authentication required.\r\n");
    } else if (sim_server_pubsub(sc, args, n, out)) {
        ;
    } else if (is(args[0], "ping")) {
        sim_bytes_addf(out, "+PONG\r\n");
    } else if (is(args[0], "role")) {
        role(sc->server, out);
    } else if (is(args[0], "select")) {
        sim_bytes_addf(out, "+OK\r\n");
    } else if (is(args[0], "client") && n == 2 && is(args[1], "id")) {
        sim_bytes_addf(out, ":%llu\r\n", (unsigned long long)session_of(sc)->id);
    } else if (is(args[0], "client") && n == 4) {
        unblock(sc, args[2], out);
    } else if (take_step(sc, args, n, (struct mr_slice){in.at, used}, out)) {
        ;
    } else if (is(args[0], "blpop") && n == 3) {
        block(sc, args[1]);
    } else if (sim_server_errs()) {
        sim_bytes_addf(out, "-LOADING a model of an error\r\n");
    } else {
        run(sc, args, n, out);
    }
    return used;
}

const struct sim_server_proto SIM_SERVER_RESP = {.serve = serve};
