/* parse.c - parses RESP requests: arrays of bulk strings, and inline commands. */
#include "proto/resp/internal.h"

#include "core/number.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#define INLINE_MAX     65536u /* limit of an inline command, as in Redis */
#define NAME_MAX_BYTES 256    /* longer than any name, so that endless names are not buffered */
#define BULK_MAX_BYTES (512 << 20) /* Redis's default proto-max-bulk-len */

/* Redis's limits for clients that have not authenticated yet. */
#define STRANGER_ARGS       10
#define STRANGER_BULK_BYTES 16384

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

enum mr_result mr_resp_read_any_length(const char **at, const char *end, int64_t *out)
{
    const char *p = *at;
    const bool negative = p < end && *p == '-';
    int64_t v = 0;

    p += negative;
    if (p == end)
        return MR_AGAIN;
    if (!is_digit(*p) || (negative && *p == '0'))
        return MR_EPROTO;
    const bool zero = *p == '0'; /* a leading zero must be the only digit */
    do {
        if (v > INT64_MAX / 10 - 1)
            return MR_EPROTO;
        v = v * 10 + (*p++ - '0');
    } while (p < end && !zero && is_digit(*p));
    if (p == end)
        return MR_AGAIN;
    if (*p != '\r')
        return MR_EPROTO;
    if (p + 1 == end)
        return MR_AGAIN;
    if (p[1] != '\n')
        return MR_EPROTO;
    *at = p + 2;
    *out = negative ? -v : v;
    return MR_OK;
}

void mr_resp_refuse(const struct mr_proto_ctx *ctx, struct mr_msg *msg, const char *fmt, ...)
{
    static const char ABORT[] = "-EXECABORT Transaction discarded because of: ";
    const struct mr_resp_command *cmd = msg->command;
    const bool commits = cmd != NULL && cmd->handling == MR_RESP_COMMIT;
    char text[512];
    va_list ap;

    size_t len = commits ? sizeof(ABORT) - 1 : 1;
    memcpy(text, ABORT, len);
    if (commits && strncmp(fmt, "ERR ", 4) == 0)
        fmt += 4;
    va_start(ap, fmt);
    const int n = vsnprintf(text + len, sizeof(text) - len - 2, fmt, ap);
    va_end(ap);
    len += n < 0 ? 0 : (size_t)n;
    if (len > sizeof(text) - 3)
        len = sizeof(text) - 3;
    for (size_t i = 0; i < len; i++)
        if (text[i] == '\r' || text[i] == '\n')
            text[i] = ' ';
    memcpy(text + len, "\r\n", 2);
    mr_buf_clear(ctx->scratch, ctx->slab);
    mr_buf_put(ctx->scratch, ctx->slab, text, len + 2);
    msg->action = MR_MSG_REFUSE;
    msg->step = commits ? MR_STEP_ABORT : MR_STEP_NONE;
    msg->reply = mr_buf_slice(ctx->scratch);
}

static enum mr_result broken(const struct mr_proto_ctx *ctx, struct mr_msg *msg, const char *what)
{
    mr_resp_refuse(ctx, msg, "ERR Protocol error: %s", what);
    return MR_EPROTO;
}

static enum mr_result too_big(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    mr_resp_refuse(ctx, msg, "ERR Protocol error: request is larger than %u bytes",
                   ctx->options->max_request_bytes);
    return MR_ELIMIT;
}

/* Incomplete: remembers the start of the unfinished element. */
static enum mr_result more(struct mr_parse_state *state, const char *bytes, const char *element,
                           uint32_t left, uint64_t want)
{
    state->offset = (uint32_t)(element - bytes);
    state->left = left;
    state->want = want > UINT32_MAX ? UINT32_MAX : (uint32_t)want;
    return MR_AGAIN;
}

static enum mr_result bad_bulk(const struct mr_proto_ctx *ctx, struct mr_msg *msg, char c)
{
    char what[32];

    (void)snprintf(what, sizeof(what), "expected '$', got '%c'", c);
    return broken(ctx, msg, what);
}

/* Reads the last `left` of `total` bulk strings from p, and records them in msg. */
static enum mr_result read_bulks(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                 const char *bytes, const char *p, const char *end, uint32_t total,
                                 uint32_t left, struct mr_msg *msg)
{
    const uint64_t max = ctx->options->max_request_bytes;

    for (; left > 0; left--) {
        const char *element = p;
        int64_t n;

        if (p == end)
            return more(state, bytes, element, left, 0);
        if (*p != '$')
            return bad_bulk(ctx, msg, *p);
        p++;
        const enum mr_result rc = mr_resp_read_length(&p, end, &n);
        if (MR_UNLIKELY(rc != MR_OK))
            return rc == MR_AGAIN ? more(state, bytes, element, left, 0)
                                  : broken(ctx, msg, "invalid bulk length");
        if (n < 0 || MR_UNLIKELY(n > BULK_MAX_BYTES))
            return broken(ctx, msg, "invalid bulk length");
        if (MR_UNLIKELY(n > STRANGER_BULK_BYTES) && !ctx->session->authed)
            return broken(ctx, msg, "unauthenticated bulk length");
        if (MR_UNLIKELY(left == total && n > NAME_MAX_BYTES))
            return broken(ctx, msg, "command name is too long");
        const uint64_t reach = (uint64_t)(p - bytes) + (uint64_t)n + 2;
        if (reach > max)
            return too_big(ctx, msg);
        if (MR_UNLIKELY((int64_t)(end - p) < n + 2)) {
            /* a wrong byte after the body is an error even if the next one is missing */
            if (end - p == n + 1 && p[n] != '\r')
                return broken(ctx, msg, "expected CRLF after a bulk string");
            return more(state, bytes, element, left, reach);
        }
        if (MR_UNLIKELY(p[n] != '\r' || p[n + 1] != '\n'))
            return broken(ctx, msg, "expected CRLF after a bulk string");
        if (msg->n_args < MR_MSG_ARGS)
            msg->args[msg->n_args] = (struct mr_slice){p, (size_t)n};
        msg->n_args++;
        p += n + 2;
    }
    msg->consumed = (size_t)(p - bytes);
    msg->wire = (struct mr_slice){bytes, msg->consumed};
    return MR_OK;
}

void mr_resp_collect(struct mr_msg *msg)
{
    const char *p = msg->wire.at + 1;
    const char *end = msg->wire.at + msg->wire.len;
    int64_t n = 0;

    MR_CHECK(mr_resp_read_length(&p, end, &n) == MR_OK && n >= 0);
    msg->n_args = (uint32_t)n;
    for (uint32_t i = 0; i < msg->n_args && i < MR_MSG_ARGS; i++) {
        p++;
        MR_CHECK(mr_resp_read_length(&p, end, &n) == MR_OK && n >= 0 && n <= end - p);
        msg->args[i] = (struct mr_slice){p, (size_t)n};
        p += n + 2;
    }
}

static enum mr_result parse_array(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                  const char *bytes, size_t len, struct mr_msg *msg)
{
    const char *p = bytes + 1;
    const char *end = bytes + len;
    int64_t n;

    enum mr_result rc = mr_resp_read_length(&p, end, &n);
    if (rc == MR_AGAIN)
        return more(state, bytes, bytes, 0, 0);
    if (state->offset > 0) {
        rc = read_bulks(ctx, state, bytes, bytes + state->offset, end, (uint32_t)n, state->left,
                        msg);
        if (rc == MR_OK)
            mr_resp_collect(msg); /* the buffer has moved since earlier calls */
        return rc;
    }
    if (rc != MR_OK || n > MR_RESP_MAX_ARGS || n < INT_MIN)
        return broken(ctx, msg, "invalid multibulk length");
    if (MR_UNLIKELY(n > STRANGER_ARGS) && !ctx->session->authed)
        return broken(ctx, msg, "unauthenticated multibulk length");
    if (n <= 0) {
        msg->action = MR_MSG_SKIP;
        msg->consumed = (size_t)(p - bytes);
        return MR_OK;
    }
    return read_bulks(ctx, state, bytes, p, end, (uint32_t)n, (uint32_t)n, msg);
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static char unescape(char c)
{
    switch (c) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'b':
        return '\b';
    case 'a':
        return '\a';
    default:
        return c;
    }
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == '\0';
}

/* Redis accepts the rarer blanks inside an unquoted word. */
static bool ends_word(char c)
{
    return is_blank(c) && c != '\v' && c != '\f';
}

/*
 * Reads one word of an inline command, quoted as in redis-cli, and unescapes it into `word`.
 * Returns its end, or NULL if quotes are unbalanced.
 */
static const char *inline_word(const char *p, const char *end, char *word, size_t *len)
{
    size_t n = 0;
    char quote = 0;

    for (; p < end; p++) {
        if (quote == 0 && ends_word(*p))
            break;
        if (quote == 0 && (*p == '"' || *p == '\'')) {
            quote = *p;
        } else if (quote != 0 && *p == quote) { /* a closing quote ends the word */
            quote = 0;
            if (++p < end && !is_blank(*p))
                return NULL;
            break;
        } else if (quote == '"' && *p == '\\' && end - p >= 4 && p[1] == 'x' &&
                   hex_digit(p[2]) >= 0 && hex_digit(p[3]) >= 0) {
            word[n++] = (char)(hex_digit(p[2]) * 16 + hex_digit(p[3]));
            p += 3;
        } else if (quote == '"' && *p == '\\' && end - p >= 2) {
            word[n++] = unescape(*++p);
        } else if (quote == '\'' && *p == '\\' && end - p >= 2 && p[1] == '\'') {
            word[n++] = *++p;
        } else {
            word[n++] = *p;
        }
    }
    *len = n;
    return quote == 0 ? p : NULL;
}

/*
 * Rewrites a line as an array in the scratch buffer. Returns the number of words, or -1 if quotes
 * are unbalanced.
 */
static int rewrite_inline(const struct mr_proto_ctx *ctx, const char *p, const char *end,
                          struct mr_buf *body)
{
    char *word = mr_slab_get(ctx->slab, INLINE_MAX);
    int words = 0;

    for (;;) {
        size_t n = 0;
        while (p < end && is_blank(*p))
            p++;
        if (p == end)
            break;
        p = inline_word(p, end, word, &n);
        if (p == NULL) {
            words = -1;
            break;
        }
        mr_resp_put_bulk(body, ctx->slab, (struct mr_slice){word, n});
        words++;
    }
    mr_slab_put(ctx->slab, word, INLINE_MAX);
    return words;
}

static enum mr_result parse_inline(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                   const char *bytes, size_t len, struct mr_msg *msg)
{
    const size_t seen = len < INLINE_MAX ? len : INLINE_MAX;
    const char *nl =
        state->offset < seen ? memchr(bytes + state->offset, '\n', seen - state->offset) : NULL;

    if (nl == NULL && seen == INLINE_MAX)
        return broken(ctx, msg, "too big inline request");
    if (nl == NULL)
        return more(state, bytes, bytes + len, 0, 0);
    const char *end = nl > bytes && nl[-1] == '\r' ? nl - 1 : nl;
    struct mr_buf body = {0};
    const int words = rewrite_inline(ctx, bytes, end, &body);
    msg->consumed = (size_t)(nl + 1 - bytes);
    if (words > 0) {
        mr_resp_put_head(ctx->scratch, ctx->slab, '*', (uint64_t)words);
        const struct mr_slice b = mr_buf_slice(&body);
        mr_buf_put(ctx->scratch, ctx->slab, b.at, b.len);
        if (mr_buf_failed(&body) || mr_buf_failed(ctx->scratch)) {
            mr_buf_clear(&body, ctx->slab);
            mr_resp_refuse(ctx, msg, "ERR out of memory");
            return MR_OK;
        }
        msg->wire = mr_buf_slice(ctx->scratch);
        mr_resp_collect(msg);
    } else {
        msg->action = MR_MSG_SKIP;
    }
    mr_buf_clear(&body, ctx->slab);
    if (words < 0)
        return broken(ctx, msg, "unbalanced quotes in request");
    /* HTTP from a tricked browser: stop before its body is executed */
    if (words > 0 &&
        (mr_slice_eq_nocase(msg->args[0], "post") || mr_slice_eq_nocase(msg->args[0], "host:")))
        return broken(ctx, msg, "this is not an HTTP server");
    return MR_OK;
}

enum mr_result mr_resp_parse(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                             const char *bytes, size_t len, struct mr_msg *msg)
{
    if (!mr_buf_empty(ctx->scratch))
        mr_buf_consume(ctx->scratch, ctx->slab, mr_buf_len(ctx->scratch));
    msg->action = MR_MSG_LOCAL;
    msg->command = NULL;
    msg->n_args = 0;
    msg->edits = msg->to_master = msg->guarded = msg->once = msg->queueable = msg->confirms = false;
    msg->step = MR_STEP_NONE;
    msg->class = MR_CLASS_OTHER;
    msg->lane = ctx->session->dialect;
    msg->needs = 0;
    msg->part_bytes = 0;
    msg->ticket = 0;
    if (len == 0)
        return more(state, bytes, bytes, 0, 0);
    const enum mr_result rc = bytes[0] == '*' ? parse_array(ctx, state, bytes, len, msg)
                                              : parse_inline(ctx, state, bytes, len, msg);
    if (rc == MR_AGAIN)
        return rc;
    *state = (struct mr_parse_state){0};
    if (rc == MR_OK && msg->action != MR_MSG_SKIP)
        mr_resp_classify(ctx, msg);
    return rc;
}
