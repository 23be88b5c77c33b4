/*
 * pool_wide.c - requests about all keys or all servers: sent to every server and the replies
 * joined, or, for SCAN, from server to server.
 */
#include "proto/resp/internal.h"

#include "core/clock.h"
#include "core/number.h"

/* A cursor combines the server's own cursor and its position, see docs/protocol.md. */
#define CURSOR_MAX (UINT64_MAX >> MR_PLACE_BITS)
#define PLACE_MASK ((UINT64_C(1) << MR_PLACE_BITS) - 1)

/* How replies are joined. An error from one server is the reply, except with ANY. */
enum join {
    FIRST,  /* the first reply; all are the same */
    ANY,    /* one success is enough, as only one server may have had it */
    SUM,    /* sum of numbers */
    ARRAYS, /* arrays, concatenated */
    FLAGS,  /* arrays of 0 and 1: 1 where all servers have 1 */
    COUNTS, /* arrays of names and numbers: the numbers are added up */
    MOST,   /* the largest number */
    PICK,   /* any reply that is not null */
    BUSY,   /* a reply that reports a running script */
    NONE,   /* no join: any server will do */
    CURSOR,
};

enum condition {
    ALWAYS,
    ON_MASTER, /* in a replicated pool, the master answers for all */
    IF_FLUSH_IS_ALLOWED,
};

static const struct row {
    const char *command, *subcommand; /* NULL: none */
    int arity;                        /* of the subcommand, as Redis counts it */
    enum join join;
    enum condition condition;
} ROWS[] = {
    {"dbsize", NULL, 0, SUM, ON_MASTER},
    {"flushall", NULL, 0, FIRST, IF_FLUSH_IS_ALLOWED},
    {"flushdb", NULL, 0, FIRST, IF_FLUSH_IS_ALLOWED},
    {"function", "delete", 3, FIRST, ON_MASTER},
    {"function", "dump", 2, FIRST, ON_MASTER},
    {"function", "flush", -2, FIRST, ON_MASTER},
    {"function", "help", 2, NONE, ALWAYS},
    {"function", "kill", 2, ANY, ALWAYS},
    {"function", "list", -2, FIRST, ON_MASTER},
    {"function", "load", -3, FIRST, ON_MASTER},
    {"function", "restore", -3, FIRST, ON_MASTER},
    {"function", "stats", 2, BUSY, ALWAYS},
    {"keys", NULL, 0, ARRAYS, ON_MASTER},
    {"pubsub", "channels", -2, ARRAYS, ON_MASTER},
    {"pubsub", "help", 2, NONE, ALWAYS},
    {"pubsub", "numpat", 2, MOST, ON_MASTER},
    {"pubsub", "numsub", -2, COUNTS, ON_MASTER},
    {"pubsub", "shardchannels", -2, ARRAYS, ON_MASTER},
    {"pubsub", "shardnumsub", -2, COUNTS, ON_MASTER},
    {"randomkey", NULL, 0, PICK, ON_MASTER},
    {"scan", NULL, 0, CURSOR, ON_MASTER},
    {"script", "exists", -3, FLAGS, ALWAYS},
    {"script", "flush", -2, FIRST, ALWAYS},
    {"script", "help", 2, NONE, ALWAYS},
    {"script", "kill", 2, ANY, ALWAYS},
    {"script", "load", 3, FIRST, ALWAYS},
};

/* ---- which row ---- */

/* NULL after refusing the message. */
static const struct row *find_row(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = msg->command;

    for (const struct row *row = ROWS; row < ROWS + MR_COUNT(ROWS); row++) {
        if (strcmp(row->command, cmd->name) != 0)
            continue;
        if (row->subcommand == NULL)
            return row;
        if (!mr_slice_eq_nocase(msg->args[1], row->subcommand))
            continue;
        if (row->arity >= 0 ? msg->n_args == (uint32_t)row->arity
                            : msg->n_args >= (uint32_t)-row->arity)
            return row;
        mr_resp_refuse(ctx, msg, "ERR wrong number of arguments for '%s|%s' command", cmd->name,
                       row->subcommand);
        return NULL;
    }
    mr_resp_refuse_subcommand(ctx, msg);
    return NULL;
}

static void read_cursor(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    uint64_t cursor;

    if (!mr_parse_uint(msg->args[1], UINT64_MAX, &cursor)) {
        mr_resp_refuse(ctx, msg, "ERR invalid cursor");
        return;
    }
    msg->action = MR_MSG_IN_TURN;
    msg->place = (uint32_t)(cursor & PLACE_MASK);
    msg->progress = cursor >> MR_PLACE_BITS;
}

void mr_resp_classify_whole(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct row *row = find_row(ctx, msg);

    if (row == NULL)
        return;
    if (row->condition == IF_FLUSH_IS_ALLOWED && !ctx->options->allow_flush) {
        mr_resp_refuse(ctx, msg, "ERR '%s' is not allowed by this proxy (allow_flush_all)",
                       row->command);
        return;
    }
    msg->ticket = (uint64_t)(row - ROWS);
    if (row->join == NONE || (row->condition != ALWAYS && ctx->options->replicated) ||
        (row->join != CURSOR && ctx->options->lone)) {
        msg->action = MR_MSG_ANYWHERE;
        msg->key = (struct mr_slice){NULL, 0};
        msg->to_master = true;
    } else if (row->join == CURSOR) {
        read_cursor(ctx, msg);
    } else {
        msg->action = MR_MSG_EVERYWHERE;
    }
}

/* ---- what the servers are asked ---- */

/* The request with the server's own cursor instead of the client's. */
static void put_scan(const struct mr_msg *msg, struct mr_plan *plan, struct mr_buf *out,
                     struct mr_slab *slab)
{
    struct mr_key_walk walk = {0};
    char cursor[24];

    mr_resp_put_head(out, slab, '*', msg->n_args);
    mr_resp_put_bulk(out, slab, msg->args[0]);
    mr_resp_put_bulk(out, slab, (struct mr_slice){cursor, mr_format_uint(cursor, plan->progress)});
    for (uint32_t i = 2; i < msg->n_args; i++)
        mr_resp_put_bulk(out, slab, mr_resp_arg(msg, &walk, i));
}

void mr_resp_copy_whole(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab)
{
    for (uint32_t i = 0; i < plan->n_parts; i++) {
        struct mr_buf *out = &plan->parts[i].request;
        if (ROWS[plan->ticket].join == CURSOR)
            put_scan(msg, plan, out, slab);
        else
            mr_buf_put(out, slab, msg->wire.at, msg->wire.len);
    }
}

/* ---- what their replies make ---- */

static struct mr_slice reply_of(const struct mr_plan *plan, uint32_t part)
{
    return plan->parts[part].reply;
}

static void put_reply(const struct mr_plan *plan, uint32_t part, struct mr_slab *slab,
                      struct mr_buf *out)
{
    const struct mr_slice reply = reply_of(plan, part);

    mr_buf_put(out, slab, reply.at, reply.len);
}

static void put_bad_reply(struct mr_slab *slab, struct mr_buf *out)
{
    mr_resp_put_failure(out, slab, "Invalid argument");
}

/* Elements of an array; false if it is not one. */
static bool elements_of(struct mr_slice reply, int64_t *n, struct mr_slice *elements)
{
    const char *at = reply.at + 1, *end = reply.at + reply.len;

    if (reply.at[0] != '*' || mr_resp_read_length(&at, end, n) != MR_OK || *n < 0)
        return false;
    *elements = (struct mr_slice){at, (size_t)(end - at)};
    return true;
}

static void join_arrays(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    struct mr_slice elements;
    uint64_t sum = 0;
    int64_t n;

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        if (!elements_of(reply_of(plan, i), &n, &elements)) {
            put_bad_reply(slab, out);
            return;
        }
        sum += (uint64_t)n;
    }
    mr_resp_put_head(out, slab, '*', sum);
    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (elements_of(reply_of(plan, i), &n, &elements))
            mr_buf_put(out, slab, elements.at, elements.len);
}

/* Arrays of ":0" and ":1", all of the same length. */
static void join_flags(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_slice first = reply_of(plan, 0);
    struct mr_slice elements;
    int64_t n;

    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (!elements_of(reply_of(plan, i), &n, &elements) || elements.len != 4 * (uint64_t)n ||
            reply_of(plan, i).len != first.len) {
            put_bad_reply(slab, out);
            return;
        }
    (void)elements_of(first, &n, &elements);
    mr_resp_put_head(out, slab, '*', (uint64_t)n);
    for (size_t k = 0; k < (size_t)n; k++) {
        bool all = true;
        for (uint32_t i = 0; i < plan->n_parts; i++) {
            (void)elements_of(reply_of(plan, i), &n, &elements);
            all &= elements.at[4 * k + 1] == '1';
        }
        mr_buf_put(out, slab, all ? ":1\r\n" : ":0\r\n", 4);
    }
}

static bool next_count(const char **p, const char *end, struct mr_slice *name, int64_t *n)
{
    return mr_resp_next_bulk(p, end, name) && mr_resp_next_head(p, end, ':', n) && *n >= 0;
}

/* The same names from all servers, with the sums of their numbers. False if they do not match. */
static bool add_counts(const struct mr_plan *plan, const char **at, struct mr_slab *slab,
                       struct mr_buf *out)
{
    struct mr_slice elements, name;
    int64_t n = 0, count;

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        if (!elements_of(reply_of(plan, i), &n, &elements))
            return false;
        at[i] = elements.at;
    }
    mr_resp_put_head(out, slab, '*', (uint64_t)n);
    for (; n > 0; n -= 2) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < plan->n_parts; i++) {
            const struct mr_slice reply = reply_of(plan, i);
            if (!next_count(&at[i], reply.at + reply.len, &name, &count))
                return false;
            sum += (uint64_t)count;
        }
        mr_resp_put_bulk(out, slab, name);
        mr_resp_put_head(out, slab, ':', sum);
    }
    return true;
}

static void join_counts(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const char **at = mr_slab_get(slab, plan->n_parts * sizeof(*at));
    struct mr_buf joined = {0};

    if (add_counts(plan, at, slab, &joined))
        mr_buf_put(out, slab, mr_buf_slice(&joined).at, mr_buf_len(&joined));
    else
        put_bad_reply(slab, out);
    mr_buf_clear(&joined, slab);
    mr_slab_put(slab, at, plan->n_parts * sizeof(*at));
}

static void join_most(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    int64_t most = -1, n;
    uint32_t which = 0;

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        const struct mr_slice reply = reply_of(plan, i);
        const char *p = reply.at;
        if (mr_resp_next_head(&p, reply.at + reply.len, ':', &n) && n > most) {
            most = n;
            which = i;
        }
    }
    put_reply(plan, which, slab, out);
}

static bool is_null(struct mr_slice reply)
{
    return mr_slice_eq(reply, mr_slice_of("$-1\r\n")) || mr_slice_eq(reply, mr_slice_of("_\r\n"));
}

/* A random reply that is not null; null if all are. */
static void join_pick(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const uint64_t random = mr_clock_mono_us() * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    uint32_t n = 0, nth, i = 0;

    for (uint32_t k = 0; k < plan->n_parts; k++)
        n += !is_null(reply_of(plan, k));
    if (n == 0) {
        put_reply(plan, 0, slab, out);
        return;
    }
    nth = (uint32_t)(random % n);
    while (is_null(reply_of(plan, i)) || nth-- > 0)
        i++;
    put_reply(plan, i, slab, out);
}

/* Replies begin with the running script, or null if there is none. */
static void join_busy(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    static const char RUNNING[] = "$14\r\nrunning_script\r\n";
    uint32_t busy = 0;

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        const struct mr_slice reply = reply_of(plan, i);
        const char *found = memmem(reply.at, reply.len, RUNNING, sizeof(RUNNING) - 1);
        const char *value = found != NULL ? found + sizeof(RUNNING) - 1 : NULL;
        if (value != NULL && value < reply.at + reply.len && value[0] != '$' && value[0] != '_')
            busy = i;
    }
    put_reply(plan, busy, slab, out);
}

/* Any reply that is not an error; otherwise the last error. */
static void join_any(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (plan->parts[i].failure == NULL && reply_of(plan, i).at[0] == '+') {
            put_reply(plan, i, slab, out);
            return;
        }
    (void)mr_resp_join_error(plan, '+', slab, out);
}

/* Splits "*2 <cursor> <elements>"; false if it is something else. */
static bool read_scan(struct mr_slice reply, uint64_t *cursor, struct mr_slice *elements)
{
    const char *at = reply.at + 1, *end = reply.at + reply.len;
    int64_t n;

    if (reply.at[0] != '*' || mr_resp_read_length(&at, end, &n) != MR_OK || n != 2 || at >= end ||
        *at++ != '$' || mr_resp_read_length(&at, end, &n) != MR_OK || n < 1 || n > 20 ||
        end - at < n + 2 || !mr_parse_uint((struct mr_slice){at, (size_t)n}, UINT64_MAX, cursor))
        return false;
    *elements = (struct mr_slice){at + n + 2, (size_t)(end - at) - (size_t)n - 2};
    return true;
}

/* The cursor to continue with: at this server, at the next, or 0 at the end. */
static void join_cursor(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    struct mr_slice elements = mr_slice_of("*0\r\n");
    uint64_t cursor = 0;
    char digits[24];

    if (plan->n_parts > 0 && !read_scan(reply_of(plan, 0), &cursor, &elements)) {
        put_bad_reply(slab, out);
        return;
    }
    if (cursor > CURSOR_MAX) {
        mr_resp_put_failure(out, slab,
                            "the server's cursor is too large for a pool of several servers");
        return;
    }
    cursor = cursor > 0 ? cursor << MR_PLACE_BITS | plan->place : plan->next;
    mr_resp_put_head(out, slab, '*', 2);
    mr_resp_put_bulk(out, slab, (struct mr_slice){digits, mr_format_uint(digits, cursor)});
    mr_buf_put(out, slab, elements.at, elements.len);
}

void mr_resp_join_whole(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const enum join join = ROWS[plan->ticket].join;

    if (join != ANY && join != SUM && mr_resp_join_error(plan, '\0', slab, out))
        return;
    switch (join) {
    case FIRST:
    case NONE:
        put_reply(plan, 0, slab, out);
        return;
    case ANY:
        join_any(plan, slab, out);
        return;
    case SUM:
        mr_resp_join_sum(plan, slab, out);
        return;
    case ARRAYS:
        join_arrays(plan, slab, out);
        return;
    case FLAGS:
        join_flags(plan, slab, out);
        return;
    case COUNTS:
        join_counts(plan, slab, out);
        return;
    case MOST:
        join_most(plan, slab, out);
        return;
    case PICK:
        join_pick(plan, slab, out);
        return;
    case BUSY:
        join_busy(plan, slab, out);
        return;
    case CURSOR:
        join_cursor(plan, slab, out);
        return;
    }
}
