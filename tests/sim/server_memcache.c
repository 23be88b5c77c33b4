/* server_memcache.c - a model of memcached: text, meta and binary. */
#include "server.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 128u
#define HEADER    24u

/* ---- what all dialects do ---- */

struct found {
    struct mr_slice stored; /* where it is not made of the key */
    size_t size;
    uint32_t flags;
    uint64_t cas;
    bool made;
};

static bool find(struct sim_server *s, struct mr_slice key, struct found *f)
{
    const struct sim_stored *it;

    *f = (struct found){0};
    if (sim_key_size(key, &f->size)) {
        f->made = true;
        f->cas = 1;
        return true;
    }
    it = sim_server_find(s, key);
    if (it == NULL)
        return false;
    *f = (struct found){
        .stored = it->value, .size = it->value.len, .flags = it->flags, .cas = it->cas};
    return true;
}

static void put(struct sim_bytes *out, struct mr_slice key, const struct found *f)
{
    if (f->made)
        sim_bytes_add_value(out, key, f->size);
    else
        sim_bytes_add(out, f->stored.at, f->stored.len);
}

static void write_key(struct sim_server_conn *sc, struct mr_slice key)
{
    if (sim_on_write != NULL)
        sim_on_write(sc, key);
}

/* ---- text and meta ---- */

static bool is(struct mr_slice word, const char *name)
{
    return mr_slice_eq(word, mr_slice_of(name));
}

static uint32_t split(struct mr_slice line, struct mr_slice *words)
{
    uint32_t n = 0;

    for (size_t i = 0; i < line.len;) {
        const size_t from = i;
        while (i < line.len && line.at[i] != ' ')
            i++;
        SIM_CHECK(n < WORDS_MAX, "a server got a line of too many words");
        if (i > from)
            words[n++] = (struct mr_slice){line.at + from, i - from};
        while (i < line.len && line.at[i] == ' ')
            i++;
    }
    return n;
}

static size_t number(struct mr_slice word)
{
    size_t n = 0;

    for (size_t i = 0; i < word.len; i++) {
        SIM_CHECK(word.at[i] >= '0' && word.at[i] <= '9', "a server got a bad number: %.*s",
                  (int)word.len, word.at);
        n = n * 10 + (size_t)(word.at[i] - '0');
    }
    return n;
}

/* The value behind a line; NULL slice when it is not all there. */
static bool body(struct mr_slice in, size_t line, size_t len, struct mr_slice *value)
{
    if (in.len - line < len + 2)
        return false;
    *value = (struct mr_slice){in.at + line, len};
    SIM_CHECK(memcmp(in.at + line + len, "\r\n", 2) == 0,
              "a server got a value that does not end where it was said to");
    return true;
}

static void get(struct sim_server_conn *sc, const struct mr_slice *keys, uint32_t n, bool cas,
                struct sim_bytes *out)
{
    struct found f;

    for (uint32_t i = 0; i < n; i++) {
        if (!find(sc->server, keys[i], &f))
            continue;
        sim_bytes_addf(out, "VALUE %.*s %u %zu", (int)keys[i].len, keys[i].at, f.flags, f.size);
        if (cas)
            sim_bytes_addf(out, " %llu", (unsigned long long)f.cas);
        sim_bytes_add(out, "\r\n", 2);
        put(out, keys[i], &f);
        sim_bytes_add(out, "\r\n", 2);
    }
    sim_bytes_addf(out, "END\r\n");
}

static size_t set(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                  struct mr_slice in, size_t line, struct sim_bytes *out)
{
    struct mr_slice value;

    SIM_CHECK(n == 5, "a server got a storage command of %u words", n);
    if (!body(in, line, number(w[4]), &value))
        return 0;
    if (sim_server_errs()) {
        sim_bytes_addf(out, "SERVER_ERROR out of memory storing object\r\n");
    } else {
        const bool there = sim_server_find(sc->server, w[1]) != NULL;
        write_key(sc, w[1]);
        if (is(w[0], "set") || is(w[0], "replace") == there) {
            sim_server_store(sc->server, w[1], value, (uint32_t)number(w[2]));
            sim_bytes_addf(out, "STORED\r\n");
        } else {
            sim_bytes_addf(out, "NOT_STORED\r\n");
        }
    }
    return line + value.len + 2;
}

/* Flags of a meta command that come back in the reply. */
static void echo(const struct mr_slice *w, uint32_t first, uint32_t n, const struct found *f,
                 struct sim_bytes *out)
{
    for (uint32_t i = first; i < n; i++) {
        SIM_CHECK(w[i].at[0] != 'q', "a server got a quiet meta command");
        if (w[i].at[0] == 'k')
            sim_bytes_addf(out, " k%.*s", (int)w[1].len, w[1].at);
        else if (w[i].at[0] == 'O')
            sim_bytes_addf(out, " %.*s", (int)w[i].len, w[i].at);
        else if (w[i].at[0] == 's' && f != NULL)
            sim_bytes_addf(out, " s%zu", f->size);
    }
    sim_bytes_addf(out, "\r\n");
}

static bool has_flag(const struct mr_slice *w, uint32_t first, uint32_t n, char flag)
{
    for (uint32_t i = first; i < n; i++)
        if (w[i].at[0] == flag)
            return true;
    return false;
}

static void meta_get(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                     struct sim_bytes *out)
{
    struct found f;

    if (!find(sc->server, w[1], &f)) {
        sim_bytes_addf(out, "EN\r\n");
    } else if (has_flag(w, 2, n, 'v')) {
        sim_bytes_addf(out, "VA %zu", f.size);
        echo(w, 2, n, &f, out);
        put(out, w[1], &f);
        sim_bytes_add(out, "\r\n", 2);
    } else {
        sim_bytes_addf(out, "HD");
        echo(w, 2, n, &f, out);
    }
}

static size_t meta_set(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                       struct mr_slice in, size_t line, struct sim_bytes *out)
{
    struct mr_slice value;

    if (!body(in, line, number(w[2]), &value))
        return 0;
    if (sim_server_errs()) {
        sim_bytes_addf(out, "SERVER_ERROR out of memory storing object\r\n");
    } else {
        write_key(sc, w[1]);
        sim_server_store(sc->server, w[1], value, 0);
        sim_bytes_addf(out, "HD");
        echo(w, 3, n, NULL, out);
    }
    return line + value.len + 2;
}

static void meta_delete(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                        struct sim_bytes *out)
{
    write_key(sc, w[1]);
    sim_bytes_addf(out, sim_server_delete(sc->server, w[1]) ? "HD" : "NF");
    echo(w, 2, n, NULL, out);
}

static void command(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                    struct sim_bytes *out)
{
    if (is(w[0], "get") || is(w[0], "gets"))
        get(sc, w + 1, n - 1, w[0].len == 4, out);
    else if (is(w[0], "gat"))
        get(sc, w + 2, n - 2, false, out);
    else if (is(w[0], "delete")) {
        write_key(sc, w[1]);
        sim_bytes_addf(out, sim_server_delete(sc->server, w[1]) ? "DELETED\r\n" : "NOT_FOUND\r\n");
    } else if (is(w[0], "touch"))
        sim_bytes_addf(out, sim_server_find(sc->server, w[1]) ? "TOUCHED\r\n" : "NOT_FOUND\r\n");
    else if (is(w[0], "incr") || is(w[0], "decr"))
        sim_bytes_addf(out, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
    else if (is(w[0], "version"))
        sim_bytes_addf(out, "VERSION 1.6.99\r\n");
    else if (is(w[0], "flush_all"))
        sim_bytes_addf(out, "OK\r\n");
    else if (is(w[0], "stats"))
        sim_bytes_addf(out, "STAT pid 1\r\nSTAT curr_items 2\r\nEND\r\n");
    else if (is(w[0], "mg"))
        meta_get(sc, w, n, out);
    else if (is(w[0], "md"))
        meta_delete(sc, w, n, out);
    else if (is(w[0], "mn"))
        sim_bytes_addf(out, "MN\r\n");
    else
        sim_fail("a server got what is no request: %.*s", (int)w[0].len, w[0].at);
}

static size_t serve_text(struct sim_server_conn *sc, struct mr_slice in, struct sim_bytes *out)
{
    const char *nl = memchr(in.at, '\n', in.len);
    struct mr_slice words[WORDS_MAX];

    if (nl == NULL)
        return 0;
    const size_t line = (size_t)(nl - in.at) + 1;
    SIM_CHECK(line > 1 && nl[-1] == '\r', "a server got a line without CR LF");
    const uint32_t n = split((struct mr_slice){in.at, line - 2}, words);
    SIM_CHECK(n > 0, "a server got an empty line");
    if (is(words[0], "set") || is(words[0], "add") || is(words[0], "replace"))
        return set(sc, words, n, in, line, out);
    if (is(words[0], "ms"))
        return meta_set(sc, words, n, in, line, out);
    if (!is(words[0], "version") && !is(words[0], "mn") && sim_server_errs())
        sim_bytes_addf(out, "SERVER_ERROR a model of an error\r\n");
    else
        command(sc, words, n, out);
    return line;
}

/* ---- binary ---- */

enum {
    GET,
    SET,
    ADD,
    REPLACE,
    DELETE,
    INCR,
    DECR,
    QUIT,
    FLUSH,
    NOOP = 0x0a,
    VERSION,
    GETK = 0x0c,
    STAT = 0x10,
    TOUCH = 0x1c,
    GAT = 0x1d,
    GATK = 0x23
};

struct packet {
    uint8_t opcode;
    struct mr_slice key, value;
    uint32_t opaque;
};

static void reply(const struct packet *p, uint16_t status, struct mr_slice extras,
                  struct mr_slice key, const struct found *f, struct mr_slice text,
                  struct sim_bytes *out)
{
    char head[HEADER] = {(char)0x81, (char)p->opcode};
    const size_t size = f != NULL ? f->size : text.len;
    const uint16_t key_len = htons((uint16_t)key.len), wire_status = htons(status);
    const uint32_t body_len = htonl((uint32_t)(extras.len + key.len + size));

    memcpy(head + 2, &key_len, 2);
    head[4] = (char)extras.len;
    memcpy(head + 6, &wire_status, 2);
    memcpy(head + 8, &body_len, 4);
    memcpy(head + 12, &p->opaque, 4);
    sim_bytes_add(out, head, HEADER);
    sim_bytes_add(out, extras.at, extras.len);
    sim_bytes_add(out, key.at, key.len);
    if (f != NULL)
        put(out, p->key, f);
    else
        sim_bytes_add(out, text.at, text.len);
}

static void say(const struct packet *p, uint16_t status, const char *text, struct sim_bytes *out)
{
    const struct mr_slice none = {NULL, 0};

    reply(p, status, none, none, NULL, mr_slice_of(text), out);
}

static void get_binary(struct sim_server_conn *sc, const struct packet *p, struct sim_bytes *out)
{
    static const char FLAGS[4];
    struct found f;
    const bool with_key = p->opcode == GETK || p->opcode == GATK;
    const struct mr_slice none = {NULL, 0};

    if (find(sc->server, p->key, &f))
        reply(p, 0, (struct mr_slice){FLAGS, 4}, with_key ? p->key : none, &f, none, out);
    else
        reply(p, 1, none, with_key ? p->key : none, NULL, mr_slice_of(with_key ? "" : "Not found"),
              out);
}

static void serve_packet(struct sim_server_conn *sc, const struct packet *p, struct sim_bytes *out)
{
    const bool there = sim_server_find(sc->server, p->key) != NULL;

    if (p->opcode != NOOP && p->opcode != VERSION && sim_server_errs()) {
        say(p, 0x82, "Out of memory", out);
        return;
    }
    switch (p->opcode) {
    case GET:
    case GETK:
    case GAT:
    case GATK:
        get_binary(sc, p, out);
        break;
    case ADD:
    case REPLACE:
    case SET:
        write_key(sc, p->key);
        if (p->opcode != SET && (p->opcode == REPLACE) != there) {
            say(p, there ? 2 : 1, there ? "Data exists for key." : "Not found", out);
            break;
        }
        sim_server_store(sc->server, p->key, p->value, 0);
        say(p, 0, "", out);
        break;
    case DELETE:
        write_key(sc, p->key);
        say(p, sim_server_delete(sc->server, p->key) ? 0 : 1, there ? "" : "Not found", out);
        break;
    case TOUCH:
        say(p, there ? 0 : 1, there ? "" : "Not found", out);
        break;
    case NOOP:
    case FLUSH:
        say(p, 0, "", out);
        break;
    case VERSION:
        say(p, 0, "1.6.99", out);
        break;
    case STAT:
        reply(p, 0, (struct mr_slice){NULL, 0}, mr_slice_of("pid"), NULL, mr_slice_of("1"), out);
        say(p, 0, "", out);
        break;
    default:
        sim_fail("a server got a packet with the opcode %u", p->opcode);
    }
}

static size_t serve_binary(struct sim_server_conn *sc, struct mr_slice in, struct sim_bytes *out)
{
    struct packet p;
    uint16_t key_len;
    uint32_t body_len;

    if (in.len < HEADER)
        return 0;
    SIM_CHECK((uint8_t)in.at[0] == 0x80, "a server got what is no packet");
    memcpy(&key_len, in.at + 2, 2);
    memcpy(&body_len, in.at + 8, 4);
    memcpy(&p.opaque, in.at + 12, 4);
    key_len = ntohs(key_len);
    body_len = ntohl(body_len);
    const size_t extras = (uint8_t)in.at[4], total = HEADER + (size_t)body_len;
    if (in.len < total)
        return 0;
    SIM_CHECK(extras + key_len <= body_len, "a server got a packet of bad lengths");
    p.opcode = (uint8_t)in.at[1];
    p.key = (struct mr_slice){in.at + HEADER + extras, key_len};
    p.value = (struct mr_slice){p.key.at + key_len, body_len - extras - key_len};
    serve_packet(sc, &p, out);
    return total;
}

static size_t serve(struct sim_server_conn *sc, struct mr_slice in, struct sim_bytes *out)
{
    if (!sc->decided) {
        sc->decided = true;
        sc->binary = (uint8_t)in.at[0] == 0x80;
    }
    return sc->binary ? serve_binary(sc, in, out) : serve_text(sc, in, out);
}

const struct sim_server_proto SIM_SERVER_MEMCACHE = {.serve = serve};
