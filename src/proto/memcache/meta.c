/* meta.c - command lines of the meta dialect. */
#include "proto/memcache/internal.h"

#include "core/number.h"

/* What the flags of a command say to the proxy; the rest is for the server. */
struct flags {
    bool quiet;
    bool base64;
    bool bad_key;    /* it is not what base64 makes */
    bool bad_number; /* F without one, which a server refuses in the words of a lost line */
};

static void read_flags(const struct mr_mc_line *line, uint32_t first, struct flags *flags)
{
    uint64_t v;

    for (uint32_t i = first; i < line->n_words && i < MR_MC_WORDS; i++) {
        const struct mr_slice word = line->words[i];
        flags->quiet |= word.at[0] == 'q';
        flags->base64 |= word.at[0] == 'b';
        flags->bad_number |=
            word.at[0] == 'F' &&
            !mr_parse_uint((struct mr_slice){word.at + 1, word.len - 1}, UINT64_MAX, &v);
    }
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Servers store the decoded key, so it is the one that is routed by. On failure *key stays. */
static bool decode_base64(struct mr_slice text, struct mr_slice *key)
{
    static char decoded[MR_MC_KEY_BYTES + 2]; /* one thread, used up before the next request */
    uint32_t bits = 0;
    size_t n = 0, digits = text.len;

    while (digits > 0 && text.len - digits < 2 && text.at[digits - 1] == '=')
        digits--;
    if (text.len == 0 || text.len % 4 != 0 || text.len > MR_MC_KEY_BYTES)
        return false;
    for (size_t i = 0; i < digits; i++) {
        const int d = base64_digit(text.at[i]);
        if (d < 0)
            return false;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 > 0)
            decoded[n++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    *key = (struct mr_slice){decoded, n};
    return n > 0;
}

/*
 * Quiet commands may have no reply, which a shared connection cannot tell from one that is late:
 * servers are asked aloud, and the reply is left out here.
 */
static void forward(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line, uint32_t first,
                    const struct flags *flags, struct mr_slice value, struct mr_msg *msg)
{
    const char *p = line->at;
    struct mr_slice word;

    if (line->normal && !flags->quiet) {
        msg->wire = (struct mr_slice){line->at, line->bytes + value.len};
        return;
    }
    for (uint32_t i = 0; mr_mc_word(&p, line->end, &word); i++)
        if (i < first || word.at[0] != 'q')
            MR_CHECK((i == 0 || mr_buf_append(ctx->scratch, ctx->slab, " ", 1)) &&
                     mr_buf_append(ctx->scratch, ctx->slab, word.at, word.len));
    MR_CHECK(mr_buf_append(ctx->scratch, ctx->slab, "\r\n", 2) &&
             (value.len == 0 || mr_buf_append(ctx->scratch, ctx->slab, value.at, value.len)));
    msg->wire = mr_buf_slice(ctx->scratch);
}

/* ms key length flags*, then the value. */
static enum mr_result parse_set(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const struct mr_mc_line *line, struct mr_slice input,
                                const struct flags *flags, struct mr_msg *msg,
                                struct mr_slice *value)
{
    uint64_t length;

    if (line->n_words < 3 || !mr_parse_uint(line->words[2], MR_MC_VALUE_MAX, &length))
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    const enum mr_result rc = mr_mc_value(ctx, state, line, input, length, msg, value);
    if (rc == MR_OK && flags->bad_key)
        return mr_mc_refuse(msg, "CLIENT_ERROR error decoding key\r\n");
    if (rc == MR_OK && flags->bad_number)
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    msg->guarded = true;
    return rc;
}

enum mr_result mr_mc_parse_meta(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const struct mr_mc_line *line, struct mr_slice input,
                                struct mr_msg *msg)
{
    const char verb = line->words[0].at[1];
    const uint32_t first_flag = verb == 's' ? 3 : 2;
    struct flags flags = {0};
    struct mr_slice value = {NULL, 0};
    enum mr_result rc = MR_OK;

    if (verb == 'n')
        return mr_mc_refuse(msg, "MN\r\n");
    if (memchr("gsdae", verb, 5) == NULL)
        return mr_mc_refuse(msg, "ERROR\r\n");
    if (line->n_words < 2)
        return mr_mc_refuse(msg, verb == 'e' ? MR_MC_BAD_FORMAT : "ERROR\r\n");
    if (line->n_words > MR_MC_WORDS)
        return mr_mc_refuse(msg, "CLIENT_ERROR options flags are too long\r\n");
    if (!mr_mc_key_ok(line, line->words[1]))
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    read_flags(line, first_flag, &flags);
    msg->key = line->words[1];
    flags.bad_key = flags.base64 && verb != 'e' && !decode_base64(line->words[1], &msg->key);
    msg->action = MR_MSG_BY_KEY;
    if (verb == 's')
        rc = parse_set(ctx, state, line, input, &flags, msg, &value);
    if (rc != MR_OK || msg->action != MR_MSG_BY_KEY)
        return rc;
    msg->class = verb == 'g' || verb == 'e' ? MR_CLASS_READ : MR_CLASS_WRITE;
    msg->ticket = mr_mc_pack((struct mr_mc_ticket){.reply = flags.quiet   ? MR_MC_QUIET
                                                            : verb == 'g' ? MR_MC_FINDS
                                                                          : MR_MC_PLAIN,
                                                   .verb = (uint8_t)verb});
    msg->edits = true;
    forward(ctx, line, first_flag, &flags, value, msg);
    return MR_OK;
}
