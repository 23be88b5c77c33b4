/* client_text.c - scripted clients of memcached's text protocol, including meta commands. */
#include "client_text.h"

#include <stdlib.h>
#include <string.h>

#define KEYS_MAX  12u
#define KEYS_MANY 4000u
#define LONG_LINE 20000u
#define BAD_KEY   251u
#define CHANGES   (SIM_TOUCH + 1u)

bool sim_starts(struct mr_slice bytes, const char *with)
{
    const size_t n = strlen(with);

    return bytes.len >= n && memcmp(bytes.at, with, n) == 0;
}

/* ---- requests ---- */

static struct sim_expect *want_text(struct sim_client *c, enum sim_want want, const char *text)
{
    struct sim_expect *e = sim_expect_add(c, want);

    e->text = text;
    e->reply_bytes = strlen(text);
    return e;
}

static void end_line(struct sim_client *c, const struct sim_expect *e)
{
    sim_bytes_addf(&c->out, e->silent ? " noreply\r\n" : "\r\n");
}

static void be_silent(struct sim_expect *e)
{
    e->silent = e->optional = sim_once_in(5);
}

static const char *retrieval(void)
{
    static const char *const VERBS[] = {"get", "get", "gets", "gat 0", "gats 100"};

    return VERBS[sim_below(MR_COUNT(VERBS))];
}

/* A retrieval of values that servers derive from the keys. */
static void ask_made(struct sim_client *c, uint32_t n)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_VALUES);
    size_t size;

    sim_set_keys(e, n);
    sim_bytes_addf(&c->out, "%s", retrieval());
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 && sim_once_in(10)) { /* the same key again */
            e->keys[i] = e->keys[i - 1];
            (void)sim_key_size(e->keys[i], &size);
        } else {
            e->keys[i] = sim_made_key(c, n > KEYS_MAX ? 40 : SIZE_MAX, &size);
        }
        e->reply_bytes += size + 40;
        sim_bytes_addf(&c->out, " %.*s", (int)e->keys[i].len, e->keys[i].at);
    }
    sim_bytes_addf(&c->out, "\r\n");
}

static void ask_stored(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_STORED);

    sim_plan_read(c, e);
    e->reply_bytes = c->plan.size + 40;
    sim_bytes_addf(&c->out, "%s %.*s\r\n", retrieval(), (int)e->keys[0].len, e->keys[0].at);
}

static void store(struct sim_client *c, const struct sim_expect *e, const char *verb)
{
    const struct mr_slice value = sim_bytes_slice(&c->value);

    sim_bytes_addf(&c->out, "%s %.*s %u 0 %zu", verb, (int)e->keys[0].len, e->keys[0].at,
                   e->own != NULL ? e->version : 0, value.len);
    if (strcmp(verb, "cas") == 0)
        sim_bytes_addf(&c->out, " %llu", (unsigned long long)e->own->cas);
    end_line(c, e);
    sim_bytes_add(&c->out, value.at, value.len);
    sim_bytes_add(&c->out, "\r\n", 2);
}

static void change(struct sim_client *c, enum sim_change how)
{
    static const char *const VERBS[CHANGES] = {"set", "add",    "replace", "append",
                                               "cas", "delete", "touch"};
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_STORE);

    be_silent(e);
    e->opcode = (uint8_t)how;
    e->reply_bytes = 12;
    if (how == SIM_CAS && !sim_plan_cas(c, e))
        e->opcode = SIM_SET;
    if (e->opcode != SIM_CAS)
        sim_plan_change(c, e, (enum sim_change)e->opcode);
    if (how != SIM_DELETE && how != SIM_TOUCH) {
        store(c, e, VERBS[e->opcode]);
        return;
    }
    sim_bytes_addf(&c->out, "%s %.*s%s", VERBS[how], (int)e->keys[0].len, e->keys[0].at,
                   how == SIM_TOUCH ? " 100"
                   : sim_once_in(4) ? " 0"
                                    : "");
    end_line(c, e);
}

static void count(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_COUNT);
    const uint32_t n = sim_below(1000);

    be_silent(e);
    e->reply_bytes = 12;
    if (c->counter.version != 0 && !sim_once_in(6)) {
        const bool down = sim_once_in(3);
        sim_plan_count(c, e, down, n, NULL);
        sim_bytes_addf(&c->out, "%s %.*s %u", down ? "decr" : "incr", (int)e->keys[0].len,
                       e->keys[0].at, n);
        end_line(c, e);
        return;
    }
    e->want = SIM_WANT_STORE;
    sim_plan_counter(c, e, n);
    c->value.start = c->value.end = 0;
    sim_bytes_addf(&c->value, "%u", n);
    store(c, e, "set");
}

/* Requests that the proxy answers itself, or for all servers. */
static void ask_proxy(struct sim_client *c)
{
    switch (sim_below(3)) {
    case 0:
        (void)want_text(c, SIM_WANT_START, "VERSION ");
        sim_bytes_addf(&c->out, "version\r\n");
        break;
    case 1:
        (void)want_text(c, SIM_WANT_TEXT, "OK\r\n");
        sim_bytes_addf(&c->out, "verbosity 1\r\n");
        break;
    default:
        (void)want_text(c, SIM_WANT_START, "STAT ");
        sim_bytes_addf(&c->out, sim_once_in(2) ? "stats\r\n" : "stats proxy\r\n");
    }
}

/* Refused with one error; the value must not be executed. */
static void refused(struct sim_client *c)
{
    static const char *const REQUESTS[] = {"nosuchcommand\r\n",
                                           "get\r\n",
                                           "flush_all\r\n",
                                           "set k 0 0 x\r\n",
                                           "set k 0 0\r\n",
                                           "slabs reassign 1 2\r\n",
                                           "set k x 0 9\r\nversion\r\n\r\n",
                                           "cas k 0 0 9 x\r\nversion\r\n\r\n",
                                           "set k 0 0 5\r\nstatsxx",
                                           "ms k 7 !\r\nversion\r\n",
                                           "ms k 7 b\r\nversion\r\n",
                                           "incr k x\r\n",
                                           "touch k x\r\n",
                                           "mx k\r\n"};

    (void)want_text(c, SIM_WANT_ERROR, "");
    if (sim_once_in(8)) { /* no memcached accepts such a key */
        sim_bytes_addf(&c->out, "set ");
        sim_bytes_add_value(&c->out, mr_slice_of("key"), BAD_KEY);
        sim_bytes_addf(&c->out, " 0 0 7\r\nversion\r\n");
        return;
    }
    sim_bytes_addf(&c->out, "%s", REQUESTS[sim_below(MR_COUNT(REQUESTS))]);
}

/* A value that the proxy skips. */
static void too_large(struct sim_client *c)
{
    const size_t size = c->plan.pool->max_item_bytes + 1 + sim_below(1000);

    (void)want_text(c, SIM_WANT_ERROR, "");
    sim_bytes_addf(&c->out, "set large 0 0 %zu\r\n", size);
    sim_bytes_add_value(&c->out, mr_slice_of("version\r\n"), size);
    sim_bytes_addf(&c->out, "\r\n");
}

static void request(struct sim_client *c)
{
    if (sim_below(16) < c->plan.meta) {
        sim_meta_request(c);
        return;
    }
    switch (sim_below(16)) {
    case 0:
        ask_proxy(c);
        break;
    case 1:
        refused(c);
        break;
    case 2:
        count(c);
        break;
    case 3:
    case 4:
        ask_made(c, sim_once_in(60) ? sim_between(1, KEYS_MANY) : sim_between(1, KEYS_MAX));
        break;
    case 5:
    case 6:
        change(c, SIM_SET);
        break;
    case 7:
    case 8:
    case 9:
        change(c, (enum sim_change)sim_below(CHANGES));
        break;
    case 10:
    case 11:
    case 12:
        ask_stored(c);
        break;
    case 13:
        if (c->plan.huge > 0 && c->plan.pool->max_item_bytes < 1000000) {
            too_large(c);
            break;
        }
        ask_made(c, 1);
        break;
    default:
        ask_made(c, 1);
        break;
    }
}

static void quit(struct sim_client *c)
{
    sim_bytes_addf(&c->out, sim_once_in(2) ? "quit\r\n" : "GET / HTTP/1.1\r\n");
}

static void garbage(struct sim_client *c)
{
    (void)want_text(c, SIM_WANT_ERROR, "");
    if (sim_once_in(2))
        sim_bytes_add_value(&c->out, mr_slice_of("noline"), LONG_LINE);
    else
        sim_bytes_addf(&c->out, "set k 0 0 +2\r\nab\r\n");
}

/* ---- replies ---- */

size_t sim_line_bytes(struct mr_slice in)
{
    const char *nl = memchr(in.at, '\n', in.len);

    return nl != NULL ? (size_t)(nl - in.at) + 1 : 0;
}

uint64_t sim_number_at(const char *at)
{
    return strtoull(at, NULL, 10);
}

const char *sim_word_at(struct mr_slice line, uint32_t i)
{
    const char *p = line.at;

    for (; i > 0 && p != NULL; i--) {
        p = memchr(p, ' ', (size_t)(line.at + line.len - p));
        if (p != NULL)
            p++;
    }
    return p;
}

/* Size of a line and its value, whose length is in word `i`. */
static size_t value_bytes(const struct sim_client *c, struct mr_slice in, size_t line, uint32_t i)
{
    const char *size = sim_word_at((struct mr_slice){in.at, line}, i);

    SIM_CHECK(size != NULL, "client %u: a value without a length: %.*s", c->id, (int)line, in.at);
    const size_t end = line + sim_number_at(size) + 2;
    return end <= in.len ? end : 0;
}

static size_t length(struct sim_client *c, struct mr_slice in)
{
    for (;;) {
        const struct mr_slice rest = {in.at + c->scanned, in.len - c->scanned};
        const size_t line = sim_line_bytes(rest);
        if (line == 0)
            return 0;
        const bool listed = sim_starts(rest, "VALUE "), stat = sim_starts(rest, "STAT ");
        const size_t n = listed                    ? value_bytes(c, rest, line, 3)
                         : sim_starts(rest, "VA ") ? value_bytes(c, rest, line, 1)
                                                   : line;
        if (n == 0)
            return 0;
        SIM_CHECK(rest.at[n - 2] == '\r' && rest.at[n - 1] == '\n',
                  "client %u: a reply without an end: %.*s", c->id, (int)line, rest.at);
        c->scanned += n;
        if (!listed && !stat)
            return c->scanned;
    }
}

static bool is_error(struct mr_slice reply)
{
    return sim_starts(reply, "ERROR") || sim_starts(reply, "CLIENT_ERROR") ||
           sim_starts(reply, "SERVER_ERROR");
}

static bool is_for(const struct sim_expect *e, struct mr_slice reply)
{
    return is_error(reply) || sim_meta_is_for(e, reply);
}

/* Takes a value off *at if it belongs to the key. */
static bool take_value(const struct sim_client *c, const struct sim_expect *e, struct mr_slice *at,
                       struct mr_slice key, struct mr_slice *value)
{
    const size_t line = sim_line_bytes(*at);
    const struct mr_slice head = {at->at, line};

    if (!sim_starts(*at, "VALUE ") || at->len < 6 + key.len + 1 ||
        memcmp(at->at + 6, key.at, key.len) != 0 || at->at[6 + key.len] != ' ')
        return false;
    const size_t n = value_bytes(c, *at, line, 3);
    *value = (struct mr_slice){at->at + line, n - line - 2};
    sim_check_flags(c, e, (uint32_t)sim_number_at(sim_word_at(head, 2)), head);
    if (sim_word_at(head, 4) != NULL)
        sim_learn_cas(e, sim_number_at(sim_word_at(head, 4)));
    *at = (struct mr_slice){at->at + n, at->len - n};
    return true;
}

static void check_list(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    struct mr_slice at = reply, value;

    for (uint32_t i = 0; i < e->n_keys; i++) {
        const bool there = take_value(c, e, &at, e->keys[i], &value);
        if (!there)
            value = (struct mr_slice){NULL, 0};
        if (e->want == SIM_WANT_STORED)
            sim_check_stored(c, e, value);
        else if (there)
            sim_check_made(c, e, i, value);
        else
            sim_check_miss(c, e, "a value is missing");
    }
    if (!mr_slice_eq(at, mr_slice_of("END\r\n")))
        sim_wrong(c, e, at, "more in a list than was asked for");
}

static void check_change(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    static const struct {
        const char *yes, *no[2];
    } SAID[CHANGES] = {
        [SIM_SET] = {"STORED\r\n", {"STORED\r\n", ""}},
        [SIM_ADD] = {"STORED\r\n", {"NOT_STORED\r\n", ""}},
        [SIM_REPLACE] = {"STORED\r\n", {"NOT_STORED\r\n", ""}},
        [SIM_APPEND] = {"STORED\r\n", {"NOT_STORED\r\n", ""}},
        [SIM_CAS] = {"STORED\r\n", {"EXISTS\r\n", "NOT_FOUND\r\n"}},
        [SIM_DELETE] = {"DELETED\r\n", {"NOT_FOUND\r\n", ""}},
        [SIM_TOUCH] = {"TOUCHED\r\n", {"NOT_FOUND\r\n", ""}},
    };

    if (mr_slice_eq(reply, mr_slice_of(SAID[e->opcode].yes)))
        sim_check_change(c, e, true, reply);
    else if (mr_slice_eq(reply, mr_slice_of(SAID[e->opcode].no[0])) ||
             mr_slice_eq(reply, mr_slice_of(SAID[e->opcode].no[1])))
        sim_check_change(c, e, false, reply);
    else
        sim_wrong(c, e, reply, "another reply");
}

static void check_count(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    if (mr_slice_eq(reply, mr_slice_of("NOT_FOUND\r\n")))
        sim_check_change(c, e, false, reply);
    else if (reply.at[0] >= '0' && reply.at[0] <= '9')
        sim_check_count(c, e, sim_number_at(reply.at), reply);
    else
        sim_wrong(c, e, reply, "another reply");
}

static void check(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    if (sim_is_meta(e)) {
        sim_meta_check(c, e, reply);
        return;
    }
    switch (e->want) {
    case SIM_WANT_TEXT:
        if (!mr_slice_eq(reply, mr_slice_of(e->text)))
            sim_wrong(c, e, reply, "another reply");
        break;
    case SIM_WANT_START:
        if (!sim_starts(reply, e->text))
            sim_wrong(c, e, reply, "another reply");
        break;
    case SIM_WANT_VALUES:
    case SIM_WANT_STORED:
        check_list(c, e, reply);
        break;
    case SIM_WANT_STORE:
        check_change(c, e, reply);
        break;
    case SIM_WANT_COUNT:
        check_count(c, e, reply);
        break;
    case SIM_WANT_MAYBE:
    case SIM_WANT_TOPIC:
    case SIM_WANT_ERROR:
        if (!is_error(reply))
            sim_wrong(c, e, reply, "no error");
        break;
    }
}

const struct sim_client_proto SIM_CLIENT_TEXT = {
    .too_many = "SERVER_ERROR too many clients\r\n",
    .request = request,
    .quit = quit,
    .garbage = garbage,
    .length = length,
    .is_for = is_for,
    .is_error = is_error,
    .check = check,
};
