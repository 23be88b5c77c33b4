/*
 * line.c - command lines: their words and numbers, and how they are forwarded.
 *
 * If a server rejects the line of a storage command, it may execute the value that follows as
 * commands. So a line is forwarded only if every memcached version from 1.4 to 1.6 reads it the
 * same way. They differ in numbers: some accept a sign, blanks, any number of zeros, or truncate
 * numbers that are too large. We accept only what all of them agree on.
 */
#include "proto/memcache/internal.h"

#include "core/number.h"

bool mr_mc_word(const char **at, const char *end, struct mr_slice *word)
{
    const char *p = *at;

    while (p < end && *p == ' ')
        p++;
    const char *blank = memchr(p, ' ', (size_t)(end - p));
    *at = blank != NULL ? blank : end;
    *word = (struct mr_slice){p, (size_t)(*at - p)};
    return word->len > 0;
}

static bool control_byte(char c)
{
    return (uint8_t)c < 0x20 || c == 0x7f;
}

static bool has_control_byte(struct mr_slice bytes)
{
    uint8_t found = 0;

    for (size_t i = 0; i < bytes.len; i++) { /* without a branch: many bytes at a time */
        const uint8_t c = (uint8_t)bytes.at[i];
        found = (uint8_t)(found | (c < 0x20) | (c == 0x7f));
    }
    return found != 0;
}

void mr_mc_read_line(const char *bytes, const char *nl, struct mr_mc_line *line)
{
    const char *p = bytes;
    struct mr_slice word;

    line->bytes = (size_t)(nl - bytes) + 1;
    line->end = nl > bytes && nl[-1] == '\r' ? nl - 1 : nl;
    while (p < line->end && *p == ' ')
        p++;
    line->at = p;
    line->normal = p == bytes && line->end < nl;
    line->clean = !has_control_byte((struct mr_slice){p, (size_t)(line->end - p)});
    line->n_words = 0;
    line->longest = 0;
    while (mr_mc_word(&p, line->end, &word)) {
        if (line->n_words < MR_MC_WORDS)
            line->words[line->n_words] = word;
        line->n_words++;
        if (word.len > line->longest)
            line->longest = word.len;
    }
}

void mr_mc_drop_last(struct mr_mc_line *line)
{
    line->end = line->words[--line->n_words].at;
    line->normal = false;
}

bool mr_mc_ends_line(struct mr_slice key)
{
    return memchr(key.at, '\r', key.len) != NULL || memchr(key.at, '\n', key.len) != NULL;
}

bool mr_mc_number(struct mr_slice word, uint64_t max, uint64_t *v)
{
    const size_t digits = max > UINT32_MAX ? 20 : 10;

    return word.len <= digits && mr_parse_uint(word, max, v);
}

bool mr_mc_time_ok(struct mr_slice word)
{
    uint64_t v;

    if (word.len > 1 && word.at[0] == '-')
        word = (struct mr_slice){word.at + 1, word.len - 1};
    return mr_mc_number(word, INT32_MAX, &v);
}

/* Some versions read 64 bits and keep 32. */
static bool is_negative_or_too_large(uint64_t v, bool negative)
{
    const int32_t kept = (int32_t)(uint32_t)(negative ? 0 - v : v);

    return kept < 0 || kept > (int32_t)MR_MC_VALUE_MAX;
}

/* True for a length that no version accepts. */
static bool is_no_length(struct mr_slice word)
{
    const bool negative = word.len > 1 && word.at[0] == '-';
    const struct mr_slice rest = {word.at + negative, word.len - negative};
    bool digits = true;
    uint64_t v;

    for (size_t i = 0; i < rest.len; i++) {
        if (control_byte(rest.at[i]) || rest.at[i] == '+')
            return false; /* which some versions skip */
        digits = digits && rest.at[i] >= '0' && rest.at[i] <= '9';
    }
    return !digits || !mr_parse_uint(rest, INT64_MAX, &v) || is_negative_or_too_large(v, negative);
}

enum mr_mc_length mr_mc_read_length(struct mr_slice word, uint64_t *length)
{
    if (mr_mc_number(word, MR_MC_VALUE_MAX, length))
        return MR_MC_LENGTH;
    return is_no_length(word) ? MR_MC_NO_LENGTH : MR_MC_SOME_LENGTH;
}

enum mr_result mr_mc_refuse(struct mr_msg *msg, const char *reply)
{
    msg->action = MR_MSG_REFUSE;
    msg->reply = mr_slice_of(reply);
    return MR_OK;
}

enum mr_result mr_mc_refuse_value(const struct mr_proto_ctx *ctx, uint64_t length,
                                  struct mr_msg *msg, const char *reply)
{
    ctx->session->skip = (uint32_t)length + 2; /* it fits, see MR_MC_VALUE_MAX */
    return mr_mc_refuse(msg, reply);
}

enum mr_result mr_mc_value(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                           const struct mr_mc_line *line, struct mr_slice input, uint64_t length,
                           struct mr_msg *msg, struct mr_slice *value)
{
    const uint64_t total = line->bytes + length + 2;

    if (length > ctx->options->max_item_bytes || total > ctx->options->max_request_bytes)
        return mr_mc_refuse_value(ctx, length, msg, "SERVER_ERROR object too large for cache\r\n");
    if (input.len < total) {
        state->offset = 0;
        state->want = (uint32_t)total;
        return MR_AGAIN;
    }
    *value = (struct mr_slice){input.at + line->bytes, (size_t)length + 2};
    msg->consumed = (size_t)total;
    if (value->at[length] == '\r' && value->at[length + 1] == '\n')
        return MR_OK;
    return mr_mc_refuse(msg, "CLIENT_ERROR bad data chunk\r\n");
}

static void append(const struct mr_proto_ctx *ctx, struct mr_slice bytes)
{
    mr_buf_put(ctx->scratch, ctx->slab, bytes.at, bytes.len);
}

void mr_mc_rewrite(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line,
                   uint32_t quiet_from, struct mr_slice value, struct mr_msg *msg)
{
    const char *p = line->at;
    struct mr_slice word;

    for (uint32_t i = 0; mr_mc_word(&p, line->end, &word); i++) {
        if (i >= quiet_from && word.at[0] == 'q')
            continue;
        if (i > 0)
            append(ctx, mr_slice_of(" "));
        append(ctx, word);
    }
    append(ctx, mr_slice_of("\r\n"));
    if (mr_buf_len(ctx->scratch) > MR_MC_SERVER_LINE && msg->action != MR_MSG_BY_KEYS) {
        (void)mr_mc_refuse(msg, MR_MC_LONG_LINE);
        return;
    }
    append(ctx, value);
    if (mr_buf_failed(ctx->scratch)) {
        mr_buf_clear(ctx->scratch, ctx->slab);
        (void)mr_mc_refuse(msg, "SERVER_ERROR out of memory\r\n");
        return;
    }
    msg->wire = mr_buf_slice(ctx->scratch);
}
