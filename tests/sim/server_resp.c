/* server_resp.c - a model of Redis. */
#include "server.h"

#include <stdio.h>
#include <string.h>

#define ARGS_MAX 256u

/* Reads "<type><number>\r\n" at *at; -1: not all there. */
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

/* What only a master takes; a replica is asked by whoever has not heard yet that it is one. */
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
    } else if (is(args[0], "ping")) {
        sim_bytes_addf(out, "+PONG\r\n");
    } else if (is(args[0], "role")) {
        role(sc->server, out);
    } else if (is(args[0], "select")) {
        sim_bytes_addf(out, "+OK\r\n");
    } else if (sim_server_errs()) {
        sim_bytes_addf(out, "-LOADING a model of an error\r\n");
    } else if (is(args[0], "get") && n == 2) {
        put_value(sc->server, args[1], out);
    } else if (is(args[0], "mget")) {
        sim_bytes_addf(out, "*%u\r\n", n - 1);
        for (uint32_t i = 1; i < n; i++)
            put_value(sc->server, args[i], out);
    } else if ((is(args[0], "set") && n == 3) || is(args[0], "mset")) {
        set(sc, args, n, out);
    } else if (is(args[0], "del")) {
        delete (sc, args, n, out);
    } else {
        sim_bytes_addf(out, "-ERR unknown command for a model\r\n");
    }
    return used;
}

const struct sim_server_proto SIM_SERVER_RESP = {.serve = serve};
