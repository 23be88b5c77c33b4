/*
 * clients.c - CLIENT subcommands that list or end clients: INFO, LIST, KILL, UNBLOCK.
 *
 * LIST, KILL and UNBLOCK are about the clients of all workers. Each worker answers for its own,
 * and the worker that was asked joins the answers.
 */
#include "proto/resp/local.h"

#include "core/number.h"
#include "proto/user.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *user_of(const struct mr_session *s)
{
    return s->user != NULL ? s->user->name : MR_RESP_USER;
}

static const struct mr_session *next_client(const struct mr_resp_answer *a,
                                            const struct mr_session *s)
{
    return a->ctx->facts->next_client(a->ctx->facts, s);
}

/* "client|" and the subcommand, as Redis names it. */
static void name_command(const struct mr_msg *msg, char *name, size_t size)
{
    const struct mr_slice sub = msg->args[1];

    (void)snprintf(name, size, "client|%.*s", (int)(sub.len < 32 ? sub.len : 32), sub.at);
    for (char *c = name; *c != '\0'; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c | 0x20);
}

/* Has the fields that clients parse as numbers; those without a meaning here are 0. */
static void put_line(const struct mr_resp_answer *a, struct mr_buf *text,
                     const struct mr_session *s)
{
    const bool is_self = s == a->ctx->session;
    char command[64] = "NULL";
    struct mr_client_facts f;

    a->ctx->facts->describe_client(s, &f);
    if (is_self)
        name_command(a->msg, command, sizeof(command));
    if (is_self && f.input_bytes < a->msg->consumed)
        f.input_bytes = a->msg->consumed; /* Redis counts the request being executed */
    mr_buf_printf(text, a->ctx->slab,
                  "id=%" PRIu64 " addr=%s laddr=%s fd=%d name=%s age=%" PRIu64 " idle=%" PRIu64
                  " flags=%s db=%u sub=%u psub=%u ssub=%u multi=%" PRId64,
                  s->id, f.peer, f.local, f.fd, mr_resp_label(s, MR_RESP_NAME), f.age_s, f.idle_s,
                  f.blocked         ? "b"
                  : f.queued >= 0   ? "x"
                  : s->n_topics > 0 ? "P"
                                    : "N",
                  mr_resp_lane_db(a->ctx->options, s->dialect), s->topics[MR_TOPIC_CHANNEL],
                  s->topics[MR_TOPIC_PATTERN], s->topics[MR_TOPIC_SHARD], f.queued);
    mr_buf_printf(text, a->ctx->slab,
                  " qbuf=%zu qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=%zu oll=0 omem=0 "
                  "tot-mem=0 events=r cmd=%s user=%s redir=-1 resp=%d lib-name=%s lib-ver=%s\n",
                  f.input_bytes, f.output_bytes, command, user_of(s),
                  mr_resp_version(s->dialect) == MR_RESP_3 ? 3 : 2,
                  mr_resp_label(s, MR_RESP_LIB_NAME), mr_resp_label(s, MR_RESP_LIB_VERSION));
}

static void show(const struct mr_resp_answer *a, struct mr_buf *text)
{
    if (mr_buf_failed(text))
        mr_resp_add(a, MR_RESP_NO_MEMORY);
    else
        mr_resp_add_verbatim(a, mr_buf_slice(text));
    mr_buf_clear(text, a->ctx->slab);
}

void mr_resp_client_info(const struct mr_resp_answer *a)
{
    struct mr_buf text = {0};

    put_line(a, &text, a->ctx->session);
    show(a, &text);
}

/* ---- which clients ---- */

enum type { ANY_TYPE, NORMAL, PUBSUB, OTHER };

static enum type type_of(const struct mr_session *s)
{
    return s->n_topics > 0 ? PUBSUB : NORMAL;
}

/* Parses a client type. False after replying to an unknown one. */
static bool read_type(const struct mr_resp_answer *a, struct mr_slice word, enum type *type)
{
    static const struct {
        const char *name;
        enum type type;
    } TYPES[] = {{"normal", NORMAL},
                 {"pubsub", PUBSUB},
                 {"master", OTHER},
                 {"slave", OTHER},
                 {"replica", OTHER}};

    for (size_t i = 0; i < MR_COUNT(TYPES); i++)
        if (mr_slice_eq_nocase(word, TYPES[i].name)) {
            *type = TYPES[i].type;
            return true;
        }
    mr_resp_add_quoting(a, "Unknown client type '%.*s'", word);
    return false;
}

static const struct mr_session *client_by_id(const struct mr_resp_answer *a, uint64_t id)
{
    const struct mr_session *s = next_client(a, NULL);

    while (s != NULL && s->id != id)
        s = next_client(a, s);
    return s;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* False if one is not a number. */
static bool read_ids(const struct mr_resp_answer *a, uint64_t *ids, uint32_t n)
{
    struct mr_key_walk walk = {0};
    int64_t id;

    for (uint32_t i = 0; i < n; i++) {
        if (!mr_parse_int64(mr_resp_arg(a->msg, &walk, i + 3), &id))
            return false;
        ids[i] = (uint64_t)id;
    }
    qsort(ids, n, sizeof(*ids), by_value);
    return true;
}

/* The clients of a type, and if `ids` are given with one of these, which are sorted. */
static void show_clients(const struct mr_resp_answer *a, enum type type, const uint64_t *ids,
                         uint32_t n)
{
    struct mr_buf text = {0};

    for (const struct mr_session *s = next_client(a, NULL); s != NULL; s = next_client(a, s))
        if ((type == ANY_TYPE || type == type_of(s)) &&
            (ids == NULL || bsearch(&s->id, ids, n, sizeof(*ids), by_value) != NULL))
            put_line(a, &text, s);
    *a->asks_others = !mr_buf_failed(&text);
    show(a, &text);
}

/* There may be a million ids, and as many clients: not each id looks at each client. */
static void list_ids(const struct mr_resp_answer *a)
{
    const uint32_t n = a->msg->n_args - 3;
    uint64_t *ids = mr_slab_try(a->ctx->slab, n * sizeof(*ids));

    if (ids == NULL)
        mr_resp_add(a, MR_RESP_NO_MEMORY);
    else if (read_ids(a, ids, n))
        show_clients(a, ANY_TYPE, ids, n);
    else
        mr_resp_add(a, "-ERR Invalid client ID\r\n");
    mr_slab_put(a->ctx->slab, ids, n * sizeof(*ids));
}

void mr_resp_client_list(const struct mr_resp_answer *a)
{
    const uint32_t n = a->msg->n_args;
    const struct mr_slice option = n > 2 ? a->msg->args[2] : mr_slice_of("");
    enum type type = ANY_TYPE;

    if (n > 3 && mr_slice_eq_nocase(option, "id")) {
        list_ids(a);
        return;
    }
    if (n != 2 && !(n == 4 && mr_slice_eq_nocase(option, "type"))) {
        mr_resp_add(a, "-ERR syntax error\r\n");
        return;
    }
    if (n == 4 && !read_type(a, a->msg->args[3], &type))
        return;
    show_clients(a, type, NULL, 0);
}

/* ---- KILL ---- */

#define NO_SUCH_CLIENT "-ERR No such client\r\n"

/* Conditions that a client must meet; `at` NULL means any. */
struct filter {
    uint64_t id; /* 0: any */
    struct mr_slice peer, local, user;
    enum type type;
    bool spares_self;
};

static bool is_user(const struct mr_resp_answer *a, struct mr_slice name)
{
    const struct mr_users *users = a->ctx->options->users;

    return mr_slice_eq(name, mr_slice_of(MR_RESP_USER)) ||
           (users != NULL && mr_user_find(users, name) != NULL);
}

/* Parses an option and its value. False after replying with an error. */
static bool read_option(const struct mr_resp_answer *a, struct mr_slice option,
                        struct mr_slice value, struct filter *f)
{
    int64_t id;

    if (mr_slice_eq_nocase(option, "id")) {
        if (!mr_parse_int64(value, &id) || id < 1) {
            mr_resp_add(a, "-ERR client-id should be greater than 0\r\n");
            return false;
        }
        f->id = (uint64_t)id;
    } else if (mr_slice_eq_nocase(option, "type")) {
        if (!read_type(a, value, &f->type))
            return false;
    } else if (mr_slice_eq_nocase(option, "addr")) {
        f->peer = value;
    } else if (mr_slice_eq_nocase(option, "laddr")) {
        f->local = value;
    } else if (mr_slice_eq_nocase(option, "user")) {
        if (!is_user(a, value)) {
            mr_resp_add_quoting(a, "No such user '%.*s'", value);
            return false;
        }
        f->user = value;
    } else if (mr_slice_eq_nocase(option, "skipme") &&
               (mr_slice_eq_nocase(value, "yes") || mr_slice_eq_nocase(value, "no"))) {
        f->spares_self = mr_slice_eq_nocase(value, "yes");
    } else {
        mr_resp_add(a, "-ERR syntax error\r\n");
        return false;
    }
    return true;
}

static bool read_options(const struct mr_resp_answer *a, struct filter *f)
{
    struct mr_key_walk walk = {0};

    if (a->msg->n_args % 2 != 0) {
        mr_resp_add(a, "-ERR syntax error\r\n");
        return false;
    }
    for (uint32_t i = 2; i < a->msg->n_args; i += 2) {
        const struct mr_slice option = mr_resp_arg(a->msg, &walk, i);
        if (!read_option(a, option, mr_resp_arg(a->msg, &walk, i + 1), f))
            return false;
    }
    return true;
}

static bool fits(struct mr_slice wanted, const char *text)
{
    return wanted.at == NULL || mr_slice_eq(wanted, mr_slice_of(text));
}

static bool matches(const struct mr_resp_answer *a, const struct filter *f,
                    const struct mr_session *s)
{
    struct mr_client_facts facts;

    if ((f->type != ANY_TYPE && f->type != type_of(s)) || (f->id != 0 && f->id != s->id) ||
        !fits(f->user, user_of(s)) || (f->spares_self && s == a->ctx->session))
        return false;
    if (f->peer.at == NULL && f->local.at == NULL)
        return true;
    a->ctx->facts->describe_client(s, &facts);
    return fits(f->peer, facts.peer) && fits(f->local, facts.local);
}

static uint64_t end_all(const struct mr_resp_answer *a, const struct filter *f)
{
    const struct mr_session *s = next_client(a, NULL), *next;
    uint64_t n = 0;

    for (; s != NULL; s = next) {
        next = next_client(a, s);
        if (!matches(a, f, s))
            continue;
        a->ctx->facts->end_client(s, s == a->ctx->session);
        n++;
    }
    return n;
}

void mr_resp_client_kill(const struct mr_resp_answer *a)
{
    struct filter f = {.spares_self = true};

    if (a->msg->n_args == 3) { /* the old form, with which a client may end itself */
        f = (struct filter){.peer = a->msg->args[2]};
        const bool found = end_all(a, &f) > 0;
        mr_resp_add(a, found ? "+OK\r\n" : NO_SUCH_CLIENT);
        *a->asks_others = !found;
    } else if (read_options(a, &f)) {
        const uint64_t n = end_all(a, &f);
        mr_resp_add_number(a, n);
        *a->asks_others = f.id == 0 || n == 0;
    }
}

/* ---- UNBLOCK ---- */

void mr_resp_client_unblock(const struct mr_resp_answer *a)
{
    const uint32_t n = a->msg->n_args;
    const struct mr_slice how = n > 3 ? a->msg->args[3] : mr_slice_of("timeout");
    const bool timed_out = mr_slice_eq_nocase(how, "timeout");
    int64_t id;

    if (n > 4) {
        mr_resp_add_quoting(a,
                            "unknown subcommand or wrong number of arguments for '%.*s'. Try "
                            "CLIENT HELP.",
                            a->msg->args[1]);
    } else if (!timed_out && !mr_slice_eq_nocase(how, "error")) {
        mr_resp_add(a, "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n");
    } else if (!mr_parse_int64(a->msg->args[2], &id)) {
        mr_resp_add(a, "-ERR value is not an integer or out of range\r\n");
    } else {
        const struct mr_session *s = client_by_id(a, (uint64_t)id);
        const bool done = s != NULL && a->ctx->facts->unblock_client(s, timed_out);
        mr_resp_add_number(a, done);
        *a->asks_others = s == NULL;
    }
}

/* ---- answers of several processes ---- */

struct line {
    uint64_t id;
    struct mr_slice text;
};

static int by_id(const void *a, const void *b)
{
    const uint64_t x = ((const struct line *)a)->id, y = ((const struct line *)b)->id;

    return (x > y) - (x < y);
}

/* The text of a bulk or verbatim string. */
static struct mr_slice text_of(struct mr_slice reply)
{
    const char *end = memchr(reply.at, '\n', reply.len);
    const size_t head = (size_t)(end - reply.at) + 1 + (reply.at[0] == '=' ? strlen("txt:") : 0);

    return (struct mr_slice){reply.at + head, reply.len - head - strlen("\r\n")};
}

/* The number after the first `skip` bytes. */
static uint64_t number_in(struct mr_slice text, size_t skip)
{
    uint64_t n = 0;

    for (size_t i = skip; i < text.len && text.at[i] >= '0' && text.at[i] <= '9'; i++)
        n = n * 10 + (uint64_t)(text.at[i] - '0');
    return n;
}

/* Splits a text into lines. Without `lines`, counts them. */
static size_t split_lines(struct mr_slice text, struct line *lines)
{
    size_t n = 0;

    while (text.len > 0) {
        const char *end = memchr(text.at, '\n', text.len);
        const size_t len = (size_t)(end - text.at) + 1;
        if (lines != NULL) {
            lines[n].text = (struct mr_slice){text.at, len};
            lines[n].id = number_in(lines[n].text, strlen("id="));
        }
        text = (struct mr_slice){text.at + len, text.len - len};
        n++;
    }
    return n;
}

/* Keeps one line of each client: one that moved meanwhile may be in two lists. Returns how many. */
static size_t drop_doubles(struct line *lines, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (kept == 0 || lines[i].id != lines[kept - 1].id)
            lines[kept++] = lines[i];
    return kept;
}

/* All lines, in the order of the clients' numbers as in Redis. */
static void join_lists(const struct mr_slice *parts, uint32_t n, struct mr_slab *slab,
                       struct mr_buf *out)
{
    const bool verbatim = parts[0].at[0] == '=';
    size_t room = 0, bytes = 0, at = 0;

    for (uint32_t i = 0; i < n; i++)
        room += split_lines(text_of(parts[i]), NULL);
    struct line *lines = mr_slab_try(slab, (room + 1) * sizeof(*lines));
    if (lines == NULL) {
        mr_buf_put(out, slab, MR_RESP_NO_MEMORY, strlen(MR_RESP_NO_MEMORY));
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        at += split_lines(text_of(parts[i]), lines + at);
    qsort(lines, room, sizeof(*lines), by_id);
    const size_t n_lines = drop_doubles(lines, room);
    for (size_t i = 0; i < n_lines; i++)
        bytes += lines[i].text.len;
    mr_resp_put_head(out, slab, verbatim ? '=' : '$', bytes + (verbatim ? strlen("txt:") : 0));
    if (verbatim)
        mr_buf_put(out, slab, "txt:", strlen("txt:"));
    for (size_t i = 0; i < n_lines; i++)
        mr_buf_put(out, slab, lines[i].text.at, lines[i].text.len);
    mr_buf_put(out, slab, "\r\n", strlen("\r\n"));
    mr_slab_put(slab, lines, (room + 1) * sizeof(*lines));
}

void mr_resp_join_answers(const struct mr_slice *parts, uint32_t n, struct mr_slab *slab,
                          struct mr_buf *out)
{
    const struct mr_slice *chosen = &parts[0];
    uint64_t sum = 0;

    if (parts[0].at[0] == '$' || parts[0].at[0] == '=') {
        join_lists(parts, n, slab, out);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        sum += parts[i].at[0] == ':' ? number_in(parts[i], strlen(":")) : 0;
        if (parts[i].at[0] == '+')
            chosen = &parts[i];
    }
    if (chosen->at[0] == ':')
        mr_resp_put_head(out, slab, ':', sum);
    else
        mr_buf_put(out, slab, chosen->at, chosen->len);
}
