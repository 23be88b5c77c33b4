/* meta.c - parses meta commands. */
#include "proto/memcache/internal.h"

#define WORDS_MAX 19u /* accepted by every version */
#define TOKEN_MAX 32u /* limit of a storage command's flag with its argument, in bytes */

static const char INVALID_FLAG[] = "CLIENT_ERROR invalid flag\r\n";

#define BAD_TOKEN "CLIENT_ERROR bad token in command line format\r\n"

/* The flags that matter to the proxy; the rest is for the server. */
struct flags {
    bool quiet;
    bool base64;
    bool shows_key;
};

static void read_flags(const struct mr_mc_line *line, uint32_t first, struct flags *flags)
{
    for (uint32_t i = first; i < line->n_words && i < MR_MC_WORDS; i++) {
        const struct mr_slice word = line->words[i];
        flags->quiet |= word.at[0] == 'q';
        flags->base64 |= word.at[0] == 'b';
        flags->shows_key |= word.at[0] == 'k';
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

/* Servers store the decoded key, so requests are routed by it. On failure *key is unchanged. */
static bool decode_base64(struct mr_slice text, struct mr_slice *key)
{
    static char decoded[MR_MC_KEY_BYTES + 2]; /* single-threaded; used up before the next request */
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

/* ---- what may follow the length of a storage command ---- */

enum argument { ANY, NUMBER32, NUMBER64, TIME, MODE, OPAQUE };

/* Flags of any memcached version from 1.6.10 on, and the reply to a bad argument. */
static const struct {
    char letter;
    enum argument argument;
    const char *wrong;
} SET_FLAGS[] = {
    {'b', ANY, INVALID_FLAG},
    {'c', ANY, INVALID_FLAG},
    {'f', ANY, INVALID_FLAG},
    {'h', ANY, INVALID_FLAG},
    {'k', ANY, INVALID_FLAG},
    {'l', ANY, INVALID_FLAG},
    {'q', ANY, INVALID_FLAG},
    {'s', ANY, INVALID_FLAG},
    {'t', ANY, INVALID_FLAG},
    {'u', ANY, INVALID_FLAG},
    {'v', ANY, INVALID_FLAG},
    {'x', ANY, INVALID_FLAG},
    {'I', ANY, INVALID_FLAG},
    {'L', ANY, INVALID_FLAG},
    {'P', ANY, INVALID_FLAG},
    {'C', NUMBER64, BAD_TOKEN},
    {'D', NUMBER64, "CLIENT_ERROR invalid numeric delta value\r\n"},
    {'E', NUMBER64, BAD_TOKEN},
    {'F', NUMBER32, MR_MC_BAD_FORMAT},
    {'J', NUMBER64, "CLIENT_ERROR invalid numeric initial value\r\n"},
    {'M', MODE, "CLIENT_ERROR incorrect length for M token\r\n"},
    {'N', TIME, BAD_TOKEN},
    {'O', OPAQUE, "CLIENT_ERROR opaque token too long\r\n"},
    {'R', TIME, BAD_TOKEN},
    {'T', TIME, BAD_TOKEN},
};

static bool argument_ok(enum argument argument, struct mr_slice word)
{
    const struct mr_slice rest = {word.at + 1, word.len - 1};
    uint64_t v;

    switch (argument) {
    case ANY:
    case OPAQUE:
        return word.len <= TOKEN_MAX;
    case NUMBER32:
        return mr_mc_number(rest, UINT32_MAX, &v);
    case NUMBER64:
        return mr_mc_number(rest, UINT64_MAX, &v);
    case TIME:
        return mr_mc_time_ok(rest);
    case MODE:
        return rest.len == 1;
    }
    return false;
}

/* The error reply for a flag, or NULL. */
static const char *check_flag(struct mr_slice word)
{
    size_t i = 0;

    while (i < MR_COUNT(SET_FLAGS) && SET_FLAGS[i].letter != word.at[0])
        i++;
    if (i == MR_COUNT(SET_FLAGS))
        return INVALID_FLAG;
    return argument_ok(SET_FLAGS[i].argument, word) ? NULL : SET_FLAGS[i].wrong;
}

/*
 * memcached's error reply for these flags; NULL if every version accepts them or skips the value.
 */
static const char *check_flags(const struct mr_mc_line *line, bool bad_key)
{
    bool seen[127] = {false};
    const char *wrong = NULL;
    char mode = 'S';

    for (uint32_t i = 3; i < line->n_words; i++) {
        const struct mr_slice word = line->words[i];
        const uint8_t letter = (uint8_t)word.at[0];
        if (letter >= MR_COUNT(seen) || seen[letter])
            return "CLIENT_ERROR duplicate flag\r\n";
        seen[letter] = true;
        const char *w = check_flag(word);
        if (w == INVALID_FLAG)
            return w;
        if (letter == 'b' && bad_key)
            w = "CLIENT_ERROR error decoding key\r\n";
        if (w != NULL)
            wrong = w;
        else if (letter == 'M')
            mode = word.at[1];
    }
    if (wrong == NULL && memchr("EAPRS", mode, 5) == NULL)
        wrong = "CLIENT_ERROR invalid mode for ms M token\r\n";
    return wrong;
}

/* ms key length flags*, then the value. */
static enum mr_result parse_set(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const struct mr_mc_line *line, struct mr_slice input, bool bad_key,
                                struct mr_msg *msg, struct mr_slice *value)
{
    uint64_t length;

    if (line->n_words < 3)
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    const enum mr_mc_length what = mr_mc_read_length(line->words[2], &length);
    if (what != MR_MC_LENGTH) {
        (void)mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
        return what == MR_MC_NO_LENGTH ? MR_OK : MR_EPROTO;
    }
    const char *wrong = !mr_mc_key_ok(line, line->words[1]) ? MR_MC_BAD_FORMAT
                        : line->n_words > WORDS_MAX ? "CLIENT_ERROR options flags too long\r\n"
                                                    : check_flags(line, bad_key);
    if (wrong != NULL)
        return mr_mc_refuse_value(ctx, length, msg, wrong);
    msg->guarded = true;
    msg->needs = MR_MC_META_SET;
    return mr_mc_value(ctx, state, line, input, length, msg, value);
}

/* Commands without a value. */
static enum mr_result parse_other(const struct mr_mc_line *line, char verb, bool bad_key,
                                  struct mr_msg *msg)
{
    const bool get = verb == 'g';

    if (!mr_mc_key_ok(line, line->words[1]))
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    if (line->n_words > WORDS_MAX)
        return mr_mc_refuse(msg, get ? "CLIENT_ERROR options flags are too long\r\n"
                                     : "CLIENT_ERROR options flags too long\r\n");
    if (bad_key)
        return mr_mc_refuse(msg, verb == 'e' ? MR_MC_BAD_FORMAT
                                 : get       ? "CLIENT_ERROR error decoding key\r\n"
                                             : "CLIENT_ERROR invalid or duplicate flag\r\n");
    if (verb == 'e' && mr_mc_ends_line(msg->key))
        return mr_mc_refuse(msg, "CLIENT_ERROR the key cannot be shown in a line\r\n");
    return MR_OK;
}

/*
 * Servers show a key stored through the binary protocol as it is. If it has a line end, the reply
 * gets out of step, so it must show the key in the same base64 text.
 */
static uint32_t guard_key(const struct mr_mc_line *line, const struct flags *flags,
                          struct mr_msg *msg)
{
    if (!flags->base64 || !flags->shows_key || !mr_mc_ends_line(msg->key))
        return 0;
    msg->guarded = true;
    return (uint32_t)line->words[1].len;
}

/*
 * Quiet commands may have no reply, and on a shared connection a missing reply looks like a late
 * one. So servers never get quiet commands; we suppress the reply instead.
 */
enum mr_result mr_mc_parse_meta(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                struct mr_mc_line *line, struct mr_slice input, struct mr_msg *msg)
{
    const char verb = line->words[0].at[1];
    const uint32_t first_flag = verb == 's' ? 3 : 2;
    struct flags flags = {0};
    struct mr_slice value = {NULL, 0};

    if (verb == 'n')
        return mr_mc_refuse(msg, "MN\r\n");
    if (memchr("gsdae", verb, 5) == NULL)
        return mr_mc_refuse(msg, "ERROR\r\n");
    if (line->n_words < 2)
        return mr_mc_refuse(msg, verb == 'e' ? MR_MC_BAD_FORMAT : "ERROR\r\n");
    read_flags(line, first_flag, &flags);
    if (verb == 'e') /* `me` is for debugging and knows the flag only here */
        flags.base64 = line->n_words > 2 && mr_slice_eq(line->words[2], mr_slice_of("b"));
    msg->key = line->words[1];
    const bool bad_key = flags.base64 && !decode_base64(line->words[1], &msg->key);
    const enum mr_result rc = verb == 's' ? parse_set(ctx, state, line, input, bad_key, msg, &value)
                                          : parse_other(line, verb, bad_key, msg);
    if (rc != MR_OK || msg->action == MR_MSG_REFUSE)
        return rc;
    msg->action = MR_MSG_BY_KEY;
    msg->class = verb == 'g' || verb == 'e' ? MR_CLASS_READ : MR_CLASS_WRITE;
    msg->ticket = mr_mc_pack((struct mr_mc_ticket){.reply = flags.quiet   ? MR_MC_QUIET
                                                            : verb == 'g' ? MR_MC_FINDS
                                                                          : MR_MC_PLAIN,
                                                   .verb = (uint8_t)verb,
                                                   .opaque = guard_key(line, &flags, msg)});
    msg->edits = true;
    mr_mc_forward(ctx, line, flags.quiet ? first_flag : MR_MC_ALOUD, value, msg);
    return MR_OK;
}
