/* reply.c - RESP2 and RESP3 replies: finding their end, and writing small ones. */
#include "proto/resp/internal.h"

#include "core/number.h"

#define LINE_MAX_BYTES (1u << 20) /* limit of a status, an error or a number */
#define PENDING_MAX    ((uint64_t)1 << 40)
#define CRLF_DUE       ((uint64_t)1 << 63) /* in `pending`: a bulk string's CRLF is at `offset` */

void mr_resp_put_head(struct mr_buf *out, struct mr_slab *slab, char type, uint64_t n)
{
    char head[24];
    size_t len = 1;

    head[0] = type;
    len += mr_format_uint(head + 1, n);
    memcpy(head + len, "\r\n", 2);
    mr_buf_put(out, slab, head, len + 2);
}

void mr_resp_put_bulk(struct mr_buf *out, struct mr_slab *slab, struct mr_slice bytes)
{
    mr_resp_put_head(out, slab, '$', bytes.len);
    mr_buf_put(out, slab, bytes.at, bytes.len);
    mr_buf_put(out, slab, "\r\n", 2);
}

void mr_resp_put_failure(struct mr_buf *out, struct mr_slab *slab, const char *text)
{
    const bool coded = strncmp(text, "NOPROTO ", 8) == 0;

    mr_buf_printf(out, slab, "-%s%.400s\r\n", coded ? "" : "ERR ", text);
}

/* Finds the line at p; *n is its length with CRLF. */
static enum mr_result read_line(const char *p, const char *end, size_t *n)
{
    const char *nl = memchr(p, '\n', (size_t)(end - p));

    if (nl == NULL)
        return (size_t)(end - p) > LINE_MAX_BYTES ? MR_EPROTO : MR_AGAIN;
    if (nl[-1] != '\r')
        return MR_EPROTO;
    *n = (size_t)(nl - p) + 1;
    return *n > LINE_MAX_BYTES + 1 ? MR_EPROTO : MR_OK;
}

static enum mr_result again(struct mr_reply_state *state, uint64_t at, uint64_t pending)
{
    state->offset = at;
    state->pending = pending;
    return MR_AGAIN;
}

static enum mr_result skip_line(const char *bytes, const char *end, uint64_t *at)
{
    size_t line;
    const enum mr_result rc = read_line(bytes + *at, end, &line);

    if (rc == MR_OK)
        *at += line;
    return rc;
}

/*
 * read_element for the types that RESP3 adds. An attribute belongs to the element after it. A push
 * may only be where a reply may begin (`first`).
 */
static enum mr_result read_resp3(const char *bytes, const char *end, uint64_t *at,
                                 uint64_t *pending, bool first)
{
    const char *p = bytes + *at;
    const char type = *p++;
    int64_t n;

    if (type == '_' || type == ',' || type == '#' || type == '(')
        return skip_line(bytes, end, at);
    if (memchr("=!%~|>", type, 6) == NULL || (type == '>' && !first))
        return MR_EPROTO;
    const enum mr_result rc = mr_resp_read_length(&p, end, &n);
    if (rc != MR_OK)
        return rc;
    if (n < 0 || n >= (int64_t)PENDING_MAX)
        return MR_EPROTO;
    *at = (uint64_t)(p - bytes);
    if (type == '=' || type == '!') {
        *at += (uint64_t)n;
        *pending |= CRLF_DUE;
    } else {
        *pending += (uint64_t)n * (type == '%' || type == '|' ? 2 : 1) + (type == '|');
    }
    return MR_OK;
}

/* Reads an element's head at *at, and its body if it is a bulk string. Advances *at on MR_OK. */
static enum mr_result read_element(uint8_t lane, const char *bytes, const char *end, uint64_t *at,
                                   uint64_t *pending, bool first)
{
    const char *p = bytes + *at;
    const char type = *p;
    int64_t n;
    enum mr_result rc;

    switch (type) {
    case '+':
    case '-':
    case ':':
        return skip_line(bytes, end, at);
    case '$':
    case '*':
        p++;
        rc = mr_resp_read_length(&p, end, &n);
        if (rc != MR_OK)
            return rc;
        if (n < -1 || n >= (int64_t)PENDING_MAX)
            return MR_EPROTO;
        *at = (uint64_t)(p - bytes);
        if (n < 0)
            return MR_OK;
        if (type == '$') {
            *at += (uint64_t)n;
            *pending |= CRLF_DUE;
        } else {
            *pending += (uint64_t)n;
        }
        return MR_OK;
    default:
        return mr_resp_version(lane) == MR_RESP_2 ? MR_EPROTO
                                                  : read_resp3(bytes, end, at, pending, first);
    }
}

/* A complete bulk string or null: nearly all replies. */
static inline bool is_whole_bulk(const char *bytes, size_t len, size_t *reply_len)
{
    const char *p = bytes + 1;
    int64_t n;

    if (len < 5 || bytes[0] != '$')
        return false;
    if (memcmp(p, "-1\r\n", 4) == 0) {
        *reply_len = 5;
        return true;
    }
    if (*p == '-' || mr_resp_read_length(&p, bytes + len, &n) != MR_OK || n < 0 ||
        (size_t)n + 2 > len - (size_t)(p - bytes) || p[n] != '\r' || p[n + 1] != '\n')
        return false;
    *reply_len = (size_t)(p - bytes) + (size_t)n + 2;
    return true;
}

enum mr_result mr_resp_scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                  size_t len, size_t *reply_len)
{
    uint64_t at = state->offset;
    uint64_t pending = state->pending;
    const bool fresh = (at | pending) == 0;

    if (MR_LIKELY(fresh) && MR_LIKELY(is_whole_bulk(bytes, len, reply_len)))
        return MR_OK;
    pending += fresh;
    for (;;) {
        if (pending & CRLF_DUE) {
            if (at < len && bytes[at] != '\r')
                return MR_EPROTO;
            if (at + 2 > len)
                return again(state, at, pending);
            if (bytes[at + 1] != '\n')
                return MR_EPROTO;
            at += 2;
            pending = (pending & ~CRLF_DUE) - 1;
        }
        if (pending == 0)
            break;
        const bool first = fresh && at == 0;
        size_t bulk;
        if (!first && at < len && is_whole_bulk(bytes + at, len - (size_t)at, &bulk)) {
            at += bulk; /* nearly all elements of arrays */
            pending--;
            continue;
        }
        if (at >= len)
            return again(state, at, first ? 0 : pending);
        if (first)
            state->aside = bytes[0] == '>';
        const enum mr_result rc = read_element(lane, bytes, bytes + len, &at, &pending, first);
        if (rc == MR_AGAIN)
            return again(state, at, first ? 0 : pending);
        if (rc != MR_OK || (pending & ~CRLF_DUE) > PENDING_MAX)
            return MR_EPROTO;
        if (!(pending & CRLF_DUE))
            pending--;
    }
    *reply_len = (size_t)at;
    const bool aside = state->aside;
    *state = (struct mr_reply_state){0};
    return aside ? MR_ASIDE : MR_OK;
}

/* ---- small replies, read in full ---- */

bool mr_resp_next_head(const char **p, const char *end, char type, int64_t *n)
{
    if (*p >= end || **p != type)
        return false;
    (*p)++;
    return mr_resp_read_length(p, end, n) == MR_OK;
}

bool mr_resp_next_bulk(const char **p, const char *end, struct mr_slice *text)
{
    int64_t n;

    *text = (struct mr_slice){NULL, 0};
    if (!mr_resp_next_head(p, end, '$', &n) || n < -1 || (n >= 0 && n > end - *p - 2))
        return false;
    if (n < 0)
        return true;
    *text = (struct mr_slice){*p, (size_t)n};
    *p += n + 2;
    return true;
}
