/* server_memcache.c - a model of memcached: text, meta and binary. */
#include "server.h"

#include <arpa/inet.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX  24u    /* memcached ignores further words */
#define LINE_MAX   1024u  /* a longer line makes it hang up, ... */
#define GET_MAX    16384u /* ... and so does a longer get */
#define HEADER     24u
#define NEVER_MADE 0xffffffffu /* expiry time of a counter that must not be created */

/* ---- what all dialects do ---- */

struct found {
    struct mr_slice stored; /* unless it is derived from the key */
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

/* Results of a change. */
enum outcome { DONE, ABSENT, PRESENT, OTHER_CAS, NO_NUMBER };

enum change { SET, ADD, REPLACE, APPEND, PREPEND };

static void write_key(struct sim_server_conn *sc, struct mr_slice key)
{
    if (sim_on_write != NULL)
        sim_on_write(sc, key);
}

static struct mr_slice glue(struct mr_slice a, struct mr_slice b)
{
    char *at = sim_alloc(a.len + b.len + 1);

    memcpy(at, a.at, a.len);
    memcpy(at + a.len, b.at, b.len);
    return (struct mr_slice){at, a.len + b.len};
}

/* `cas` 0: any. */
static enum outcome store(struct sim_server_conn *sc, enum change change, struct mr_slice key,
                          struct mr_slice value, uint32_t flags, uint64_t cas)
{
    const struct sim_stored *it = sim_server_find(sc->server, key);

    write_key(sc, key);
    if (it == NULL && (change > ADD || cas != 0))
        return ABSENT;
    if (it != NULL && change == ADD)
        return PRESENT;
    if (cas != 0 && it->cas != cas)
        return OTHER_CAS;
    if (change == APPEND || change == PREPEND) {
        value = change == APPEND ? glue(it->value, value) : glue(value, it->value);
        flags = it->flags;
    }
    sim_server_store(sc->server, key, value, flags);
    return DONE;
}

static bool read_number(struct mr_slice word, uint64_t *n)
{
    *n = 0;
    for (size_t i = 0; i < word.len; i++) {
        if (word.at[i] < '0' || word.at[i] > '9')
            return false;
        *n = *n * 10 + (uint64_t)(word.at[i] - '0');
    }
    return word.len > 0 && word.len <= 20;
}

/* Counts up or down. Without a counter, `initial` creates one unless it is NULL. */
static enum outcome count(struct sim_server_conn *sc, struct mr_slice key, bool down,
                          uint64_t delta, const uint64_t *initial, uint64_t *value)
{
    const struct sim_stored *it = sim_server_find(sc->server, key);
    uint32_t flags = 0;

    write_key(sc, key);
    if (it == NULL && initial == NULL)
        return ABSENT;
    if (it == NULL) {
        *value = *initial;
    } else {
        if (!read_number(it->value, value))
            return NO_NUMBER;
        flags = it->flags;
        *value = down ? *value - (delta < *value ? delta : *value) : *value + delta;
    }
    sim_server_store(sc->server, key, mr_slice_of(sim_text("%llu", (unsigned long long)*value)),
                     flags);
    return DONE;
}

/* ---- text and meta ---- */

static bool is(struct mr_slice word, const char *name)
{
    return mr_slice_eq(word, mr_slice_of(name));
}

/* The next word at *at; false if there is none. */
static bool next_word(const char **at, const char *end, struct mr_slice *word)
{
    while (*at < end && **at == ' ')
        (*at)++;
    const char *start = *at;
    while (*at < end && **at != ' ')
        (*at)++;
    *word = (struct mr_slice){start, (size_t)(*at - start)};
    return *at > start;
}

static uint64_t number(struct mr_slice word)
{
    uint64_t n;

    SIM_CHECK(read_number(word, &n), "a server got a bad number: %.*s", (int)word.len, word.at);
    return n;
}

/* The value after a line; false if it is incomplete. */
static bool body(struct mr_slice in, size_t line, size_t len, struct mr_slice *value)
{
    if (in.len - line < len + 2)
        return false;
    *value = (struct mr_slice){in.at + line, len};
    SIM_CHECK(memcmp(in.at + line + len, "\r\n", 2) == 0,
              "a server got a value that does not end where it was said to");
    return true;
}

/* Retrieves the keys from `at` on. */
static void get(struct sim_server_conn *sc, const char *at, const char *end, bool cas,
                struct sim_bytes *out)
{
    struct mr_slice key;
    struct found f;

    while (next_word(&at, end, &key)) {
        if (!find(sc->server, key, &f))
            continue;
        sim_bytes_addf(out, "VALUE %.*s %u %zu", (int)key.len, key.at, f.flags, f.size);
        if (cas)
            sim_bytes_addf(out, " %llu", (unsigned long long)f.cas);
        sim_bytes_add(out, "\r\n", 2);
        put(out, key, &f);
        sim_bytes_add(out, "\r\n", 2);
    }
    sim_bytes_addf(out, "END\r\n");
}

static enum change change_of(struct mr_slice verb)
{
    return is(verb, "add")       ? ADD
           : is(verb, "replace") ? REPLACE
           : is(verb, "append")  ? APPEND
           : is(verb, "prepend") ? PREPEND
                                 : SET;
}

static size_t set(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                  struct mr_slice in, size_t line, struct sim_bytes *out)
{
    static const char *const SAID[] = {[DONE] = "STORED\r\n",
                                       [ABSENT] = "NOT_STORED\r\n",
                                       [PRESENT] = "NOT_STORED\r\n",
                                       [OTHER_CAS] = "EXISTS\r\n"};
    const bool cas = is(w[0], "cas");
    struct mr_slice value;

    SIM_CHECK(n == (cas ? 6 : 5), "a server got a storage command of %u words", n);
    if (!body(in, line, number(w[4]), &value))
        return 0;
    if (sim_server_errs()) {
        sim_bytes_addf(out, "SERVER_ERROR out of memory storing object\r\n");
    } else {
        const enum outcome o =
            store(sc, change_of(w[0]), w[1], value, (uint32_t)number(w[2]), cas ? number(w[5]) : 0);
        sim_bytes_addf(out, "%s", cas && o == ABSENT ? "NOT_FOUND\r\n" : SAID[o]);
    }
    return line + value.len + 2;
}

static void arithmetic(struct sim_server_conn *sc, const struct mr_slice *w, struct sim_bytes *out)
{
    uint64_t value;

    switch (count(sc, w[1], is(w[0], "decr"), number(w[2]), NULL, &value)) {
    case DONE:
        sim_bytes_addf(out, "%llu\r\n", (unsigned long long)value);
        break;
    case NO_NUMBER:
        sim_bytes_addf(out, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
        break;
    default:
        sim_bytes_addf(out, "NOT_FOUND\r\n");
    }
}

/* Argument of a meta flag; a NULL slice if the flag is absent. */
static struct mr_slice flag(const struct mr_slice *w, uint32_t first, uint32_t n, char letter)
{
    for (uint32_t i = first; i < n; i++)
        if (w[i].at[0] == letter)
            return (struct mr_slice){w[i].at + 1, w[i].len - 1};
    return (struct mr_slice){NULL, 0};
}

/* The key as sent, or decoded from base64. */
static struct mr_slice meta_key(const struct mr_slice *w, uint32_t first, uint32_t n)
{
    return flag(w, first, n, 'b').at != NULL ? sim_from_base64(w[1]) : w[1];
}

/* Ends a reply with the flags to return; includes those of `found` unless it is NULL. */
static void echo(const struct mr_slice *w, uint32_t first, uint32_t n, const struct found *f,
                 struct sim_bytes *out)
{
    const bool base64 = flag(w, first, n, 'b').at != NULL;

    for (uint32_t i = first; i < n; i++) {
        SIM_CHECK(w[i].at[0] != 'q', "a server got a quiet meta command");
        if (w[i].at[0] == 'k')
            sim_bytes_addf(out, " k%.*s%s", (int)w[1].len, w[1].at, base64 ? " b" : "");
        else if (w[i].at[0] == 'O')
            sim_bytes_addf(out, " %.*s", (int)w[i].len, w[i].at);
        else if (w[i].at[0] == 's' && f != NULL)
            sim_bytes_addf(out, " s%zu", f->size);
        else if (w[i].at[0] == 'f' && f != NULL)
            sim_bytes_addf(out, " f%u", f->flags);
        else if (w[i].at[0] == 'c' && f != NULL)
            sim_bytes_addf(out, " c%llu", (unsigned long long)f->cas);
    }
    sim_bytes_addf(out, "\r\n");
}

static void meta_get(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                     struct sim_bytes *out)
{
    const struct mr_slice key = meta_key(w, 2, n);
    struct found f;

    if (!find(sc->server, key, &f)) {
        sim_bytes_addf(out, "EN");
        echo(w, 2, n, NULL, out);
    } else if (flag(w, 2, n, 'v').at != NULL) {
        sim_bytes_addf(out, "VA %zu", f.size);
        echo(w, 2, n, &f, out);
        put(out, key, &f);
        sim_bytes_add(out, "\r\n", 2);
    } else {
        sim_bytes_addf(out, "HD");
        echo(w, 2, n, &f, out);
    }
}

static size_t meta_set(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                       struct mr_slice in, size_t line, struct sim_bytes *out)
{
    static const char *const SAID[] = {
        [DONE] = "HD", [ABSENT] = "NS", [PRESENT] = "NS", [OTHER_CAS] = "EX"};
    const struct mr_slice mode = flag(w, 3, n, 'M'), flags = flag(w, 3, n, 'F'),
                          cas = flag(w, 3, n, 'C');
    struct mr_slice value;
    enum change change = SET;

    SIM_CHECK(!sc->server->is_old, "an old server got a meta set");
    if (!body(in, line, number(w[2]), &value))
        return 0;
    if (mode.at != NULL)
        change = mode.at[0] == 'E'   ? ADD
                 : mode.at[0] == 'R' ? REPLACE
                 : mode.at[0] == 'A' ? APPEND
                 : mode.at[0] == 'P' ? PREPEND
                                     : SET;
    if (sim_server_errs()) {
        sim_bytes_addf(out, "SERVER_ERROR out of memory storing object\r\n");
    } else {
        const enum outcome o =
            store(sc, change, meta_key(w, 3, n), value,
                  flags.at != NULL ? (uint32_t)number(flags) : 0, cas.at != NULL ? number(cas) : 0);
        sim_bytes_addf(out, "%s", cas.at != NULL && o == ABSENT ? "NF" : SAID[o]);
        echo(w, 3, n, NULL, out);
    }
    return line + value.len + 2;
}

static void meta_delete(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                        struct sim_bytes *out)
{
    const struct mr_slice key = meta_key(w, 2, n);

    write_key(sc, key);
    sim_bytes_addf(out, sim_server_delete(sc->server, key) ? "HD" : "NF");
    echo(w, 2, n, NULL, out);
}

static void meta_count(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                       struct sim_bytes *out)
{
    const struct mr_slice mode = flag(w, 2, n, 'M'), d = flag(w, 2, n, 'D'), j = flag(w, 2, n, 'J');
    const uint64_t initial = j.at != NULL ? number(j) : 0;
    const bool down = mode.at != NULL && (mode.at[0] == 'D' || mode.at[0] == '-');
    uint64_t value;

    switch (count(sc, meta_key(w, 2, n), down, d.at != NULL ? number(d) : 1,
                  flag(w, 2, n, 'N').at != NULL ? &initial : NULL, &value)) {
    case DONE:
        if (flag(w, 2, n, 'v').at == NULL) {
            sim_bytes_addf(out, "HD");
            echo(w, 2, n, NULL, out);
            break;
        }
        const char *text = sim_text("%llu", (unsigned long long)value);
        sim_bytes_addf(out, "VA %zu", strlen(text));
        echo(w, 2, n, NULL, out);
        sim_bytes_addf(out, "%s\r\n", text);
        break;
    case NO_NUMBER:
        sim_bytes_addf(out, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
        break;
    default:
        sim_bytes_addf(out, "NF");
        echo(w, 2, n, NULL, out);
    }
}

static void meta_debug(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                       struct sim_bytes *out)
{
    struct found f;

    if (find(sc->server, meta_key(w, 2, n), &f))
        sim_bytes_addf(out, "ME %.*s exp=-1 la=0 cas=%llu fetch=no cls=1 size=%zu\r\n",
                       (int)w[1].len, w[1].at, (unsigned long long)f.cas, f.size);
    else
        sim_bytes_addf(out, "EN\r\n");
}

static void meta(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                 struct sim_bytes *out)
{
    if (sc->server->is_old)
        sim_bytes_addf(out, "ERROR\r\n");
    else if (is(w[0], "mg"))
        meta_get(sc, w, n, out);
    else if (is(w[0], "md"))
        meta_delete(sc, w, n, out);
    else if (is(w[0], "ma"))
        meta_count(sc, w, n, out);
    else if (is(w[0], "me"))
        meta_debug(sc, w, n, out);
    else
        sim_fail("a server got what is no request: %.*s", (int)w[0].len, w[0].at);
}

static void command(struct sim_server_conn *sc, const struct mr_slice *w, uint32_t n,
                    struct sim_bytes *out)
{
    struct found f;

    if (is(w[0], "delete")) {
        write_key(sc, w[1]);
        sim_bytes_addf(out, sim_server_delete(sc->server, w[1]) ? "DELETED\r\n" : "NOT_FOUND\r\n");
    } else if (is(w[0], "touch")) {
        sim_bytes_addf(out, find(sc->server, w[1], &f) ? "TOUCHED\r\n" : "NOT_FOUND\r\n");
    } else if (is(w[0], "incr") || is(w[0], "decr")) {
        arithmetic(sc, w, out);
    } else if (is(w[0], "version")) {
        sim_bytes_addf(out, "VERSION %s\r\n", sc->server->is_old ? "1.4.39" : "1.6.18");
    } else if (is(w[0], "stats")) {
        sim_bytes_addf(out, "STAT pid 1\r\nSTAT curr_items 2\r\nEND\r\n");
    } else {
        meta(sc, w, n, out);
    }
}

static size_t serve_line(struct sim_server_conn *sc, struct mr_slice in, size_t line,
                         struct sim_bytes *out)
{
    const char *p = in.at, *end = in.at + line - 2;
    struct mr_slice words[WORDS_MAX];
    uint32_t n = 0;

    (void)next_word(&p, end, &words[n++]);
    const bool gat = is(words[0], "gat") || is(words[0], "gats");
    const bool gets = is(words[0], "get") || is(words[0], "gets");
    SIM_CHECK(line <= (gets ? GET_MAX : LINE_MAX), "a server got a line of %zu bytes: %.*s", line,
              40, in.at);
    if (gat)
        (void)next_word(&p, end, &words[n++]);
    if (gat || gets) {
        if (sim_server_errs())
            sim_bytes_addf(out, "SERVER_ERROR a model of an error\r\n");
        else
            get(sc, p, end, words[0].at[words[0].len - 1] == 's', out);
        return line;
    }
    while (n < WORDS_MAX && next_word(&p, end, &words[n]))
        n++;
    SIM_CHECK(n < WORDS_MAX, "a server got a line of too many words");
    if (is(words[0], "set") || is(words[0], "add") || is(words[0], "replace") ||
        is(words[0], "append") || is(words[0], "prepend") || is(words[0], "cas"))
        return set(sc, words, n, in, line, out);
    if (is(words[0], "ms"))
        return meta_set(sc, words, n, in, line, out);
    if (!is(words[0], "version") && sim_server_errs())
        sim_bytes_addf(out, "SERVER_ERROR a model of an error\r\n");
    else
        command(sc, words, n, out);
    return line;
}

static size_t serve_text(struct sim_server_conn *sc, struct mr_slice in, struct sim_bytes *out)
{
    const char *nl = memchr(in.at, '\n', in.len);

    if (nl == NULL)
        return 0;
    const size_t line = (size_t)(nl - in.at) + 1;
    SIM_CHECK(line > 2 && nl[-1] == '\r' && in.at[0] != ' ', "a server got no command line: %.*s",
              (int)line, in.at);
    return serve_line(sc, in, line, out);
}

/* ---- binary ---- */

enum opcode {
    OP_GET,
    OP_SET,
    OP_ADD,
    OP_REPLACE,
    OP_DELETE,
    OP_INCR,
    OP_DECR,
    OP_FLUSH = 0x08,
    OP_NOOP = 0x0a,
    OP_VERSION,
    OP_GETK = 0x0c,
    OP_APPEND = 0x0e,
    OP_PREPEND,
    OP_STAT = 0x10,
    OP_TOUCH = 0x1c,
    OP_GAT = 0x1d,
    OP_GATK = 0x23
};

struct packet {
    uint8_t opcode;
    struct mr_slice extras, key, value;
    uint32_t opaque;
    uint64_t cas;
};

static const struct mr_slice NOTHING;

/* The value is what was found, or the text. */
static void reply(const struct packet *p, uint16_t status, struct mr_slice extras,
                  struct mr_slice key, const struct found *f, struct mr_slice text,
                  struct sim_bytes *out)
{
    char head[HEADER] = {(char)0x81, (char)p->opcode};
    const size_t size = f != NULL ? f->size : text.len;
    const uint16_t key_len = htons((uint16_t)key.len), wire_status = htons(status);
    const uint32_t body_len = htonl((uint32_t)(extras.len + key.len + size));
    const uint64_t cas = htobe64(f != NULL ? f->cas : 0);

    memcpy(head + 2, &key_len, 2);
    head[4] = (char)extras.len;
    memcpy(head + 6, &wire_status, 2);
    memcpy(head + 8, &body_len, 4);
    memcpy(head + 12, &p->opaque, 4);
    memcpy(head + 16, &cas, 8);
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
    reply(p, status, NOTHING, NOTHING, NULL, mr_slice_of(text), out);
}

static void say_outcome(const struct packet *p, enum outcome o, struct sim_bytes *out)
{
    static const struct {
        uint16_t status;
        const char *text;
    } SAID[] = {[DONE] = {0, ""},
                [ABSENT] = {1, "Not found"},
                [PRESENT] = {2, "Data exists for key."},
                [OTHER_CAS] = {2, "Data exists for key."},
                [NO_NUMBER] = {6, "Non-numeric server-side value for incr or decr"}};

    if (o == ABSENT && (p->opcode == OP_APPEND || p->opcode == OP_PREPEND))
        say(p, 5, "Not stored.", out);
    else
        say(p, SAID[o].status, SAID[o].text, out);
}

static uint64_t wide(struct mr_slice extras, size_t at)
{
    uint64_t n;

    memcpy(&n, extras.at + at, 8);
    return be64toh(n);
}

static uint32_t narrow(struct mr_slice extras, size_t at)
{
    uint32_t n;

    memcpy(&n, extras.at + at, 4);
    return ntohl(n);
}

static void get_packet(struct sim_server_conn *sc, const struct packet *p, struct sim_bytes *out)
{
    const bool with_key = p->opcode == OP_GETK || p->opcode == OP_GATK;
    const struct mr_slice key = with_key ? p->key : NOTHING;
    struct found f;

    if (find(sc->server, p->key, &f)) {
        const uint32_t flags = htonl(f.flags);
        reply(p, 0, (struct mr_slice){(const char *)&flags, 4}, key, &f, NOTHING, out);
    } else {
        reply(p, 1, NOTHING, key, NULL, with_key ? NOTHING : mr_slice_of("Not found"), out);
    }
}

static void set_packet(struct sim_server_conn *sc, const struct packet *p, struct sim_bytes *out)
{
    static const enum change CHANGES[] = {[OP_SET] = SET,
                                          [OP_ADD] = ADD,
                                          [OP_REPLACE] = REPLACE,
                                          [OP_APPEND] = APPEND,
                                          [OP_PREPEND] = PREPEND};
    const bool glues = p->opcode == OP_APPEND || p->opcode == OP_PREPEND;

    SIM_CHECK(p->extras.len == (glues ? 0 : 8), "a server got a set with bad extras");
    say_outcome(
        p,
        store(sc, CHANGES[p->opcode], p->key, p->value, glues ? 0 : narrow(p->extras, 0), p->cas),
        out);
}

static void count_packet(struct sim_server_conn *sc, const struct packet *p, struct sim_bytes *out)
{
    SIM_CHECK(p->extras.len == 20, "a server got an increment with bad extras");
    const uint64_t initial = wide(p->extras, 8);
    const bool makes = narrow(p->extras, 16) != NEVER_MADE;
    uint64_t value;
    const enum outcome o = count(sc, p->key, p->opcode == OP_DECR, wide(p->extras, 0),
                                 makes ? &initial : NULL, &value);

    if (o != DONE) {
        say_outcome(p, o, out);
        return;
    }
    value = htobe64(value);
    reply(p, 0, NOTHING, NOTHING, NULL, (struct mr_slice){(const char *)&value, 8}, out);
}

static void serve_packet(struct sim_server_conn *sc, const struct packet *p, struct sim_bytes *out)
{
    struct found f;

    if (p->opcode != OP_NOOP && p->opcode != OP_VERSION && sim_server_errs()) {
        say(p, 0x82, "Out of memory", out);
        return;
    }
    switch ((enum opcode)p->opcode) {
    case OP_GET:
    case OP_GETK:
    case OP_GAT:
    case OP_GATK:
        get_packet(sc, p, out);
        break;
    case OP_SET:
    case OP_ADD:
    case OP_REPLACE:
    case OP_APPEND:
    case OP_PREPEND:
        set_packet(sc, p, out);
        break;
    case OP_INCR:
    case OP_DECR:
        count_packet(sc, p, out);
        break;
    case OP_DELETE:
        write_key(sc, p->key);
        say_outcome(p, sim_server_delete(sc->server, p->key) ? DONE : ABSENT, out);
        break;
    case OP_TOUCH:
        say_outcome(p, find(sc->server, p->key, &f) ? DONE : ABSENT, out);
        break;
    case OP_NOOP:
    case OP_FLUSH:
        say(p, 0, "", out);
        break;
    case OP_VERSION:
        say(p, 0, "1.6.18", out);
        break;
    case OP_STAT:
        reply(p, 0, NOTHING, mr_slice_of("pid"), NULL, mr_slice_of("1"), out);
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
    memcpy(&p.cas, in.at + 16, 8);
    p.cas = be64toh(p.cas);
    p.opcode = (uint8_t)in.at[1];
    p.extras = (struct mr_slice){in.at + HEADER, extras};
    p.key = (struct mr_slice){in.at + HEADER + extras, key_len};
    p.value = (struct mr_slice){p.key.at + key_len, body_len - extras - key_len};
    serve_packet(sc, &p, out);
    return total;
}

static size_t serve(struct sim_server_conn *sc, struct mr_slice in, struct sim_bytes *out)
{
    if (!sc->decided) {
        sc->decided = true;
        sim_note("connection %u: speaks %02x", sc->conn->id, (uint8_t)in.at[0]);
        sc->binary = (uint8_t)in.at[0] == 0x80;
    }
    return sc->binary ? serve_binary(sc, in, out) : serve_text(sc, in, out);
}

const struct sim_server_proto SIM_SERVER_MEMCACHE = {.serve = serve};
