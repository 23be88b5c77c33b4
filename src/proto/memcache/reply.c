/* reply.c - replies of servers: finding their end, and what clients see of them. */
#include "proto/memcache/binary.h"
#include "proto/memcache/internal.h"

#include "core/number.h"

#define LINE_MAX_BYTES 65536u

/* Bits of mr_reply_state.pending. */
#define VALUE_DUE 1u /* the CR LF of a value is at `offset` */
#define IN_LIST   2u /* the reply has more lines */
#define LAST      4u /* the reply ends at `offset` */

bool mr_mc_value_length(const char *at, const char *end, uint32_t before, uint64_t *length)
{
    struct mr_slice word = {NULL, 0};

    for (uint32_t i = 0; i <= before; i++)
        if (!mr_mc_word(&at, end, &word))
            return false;
    return mr_parse_uint(word, MR_MC_VALUE_MAX, length);
}

/* Handles one line of a reply, without its end; `next` is the start of the next one. */
static enum mr_result take_line(struct mr_reply_state *state, struct mr_slice line, uint64_t next)
{
    const bool in_list = (state->pending & IN_LIST) != 0;
    const char *end = line.at + line.len;
    uint64_t length;

    state->offset = next;
    if (mr_mc_starts(line, "VALUE ")) {
        if (!mr_mc_value_length(line.at + 6, end, 2, &length))
            return MR_EPROTO;
        state->offset += length;
        state->pending = VALUE_DUE | IN_LIST;
    } else if (mr_mc_starts(line, "VA ") && !in_list) {
        if (!mr_mc_value_length(line.at + 3, end, 0, &length))
            return MR_EPROTO;
        state->offset += length;
        state->pending = VALUE_DUE;
    } else if (mr_mc_starts(line, "STAT ")) {
        state->pending = IN_LIST;
    } else if (in_list && !mr_mc_starts(line, "END") && !mr_mc_is_error(line)) {
        return MR_EPROTO;
    } else {
        state->pending = LAST;
    }
    return MR_OK;
}

static enum mr_result scan_text(struct mr_reply_state *state, const char *bytes, size_t len,
                                size_t *reply_len)
{
    for (;;) {
        if (state->pending & VALUE_DUE) {
            if (state->offset < len && bytes[state->offset] != '\r')
                return MR_EPROTO;
            if (state->offset + 2 > len)
                return MR_AGAIN;
            if (bytes[state->offset + 1] != '\n')
                return MR_EPROTO;
            state->offset += 2;
            state->pending = state->pending & IN_LIST ? IN_LIST : LAST;
        }
        if (state->pending == LAST)
            break;
        if (state->offset >= len)
            return MR_AGAIN;
        const char *line = bytes + state->offset;
        const size_t left = len - (size_t)state->offset;
        if (!((*line >= 'A' && *line <= 'Z') || (*line >= '0' && *line <= '9')))
            return MR_EPROTO;
        const char *nl = memchr(line, '\n', left);
        if (nl == NULL)
            return left > LINE_MAX_BYTES ? MR_EPROTO : MR_AGAIN;
        if (nl == line || nl[-1] != '\r' || nl - line > (ptrdiff_t)LINE_MAX_BYTES)
            return MR_EPROTO;
        const enum mr_result rc = take_line(state, (struct mr_slice){line, (size_t)(nl - line) - 1},
                                            (uint64_t)(nl + 1 - bytes));
        if (rc != MR_OK)
            return rc;
    }
    *reply_len = (size_t)state->offset;
    *state = (struct mr_reply_state){0};
    return MR_OK;
}

static enum mr_result scan_binary(struct mr_reply_state *state, const char *bytes, size_t len,
                                  size_t *reply_len)
{
    while (state->pending != LAST) {
        if (state->offset < len && (uint8_t)bytes[state->offset] != MR_MC_REPLY_MAGIC)
            return MR_EPROTO;
        if (state->offset + MR_MC_HEADER > len)
            return MR_AGAIN;
        const struct mr_mc_header h = mr_mc_read_header(bytes + state->offset);
        if ((uint32_t)h.key_len + h.extras_len > h.body_len || h.body_len > MR_MC_VALUE_MAX)
            return MR_EPROTO;
        state->offset += (uint64_t)MR_MC_HEADER + h.body_len;
        state->pending = mr_mc_goes_on(&h) ? IN_LIST : LAST;
    }
    if (state->offset > len)
        return MR_AGAIN;
    *reply_len = (size_t)state->offset;
    *state = (struct mr_reply_state){0};
    return MR_OK;
}

enum mr_result mr_mc_scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                size_t len, size_t *reply_len)
{
    return lane == MR_MC_BINARY_LANE ? scan_binary(state, bytes, len, reply_len)
                                     : scan_text(state, bytes, len, reply_len);
}

static bool starts_with_any(struct mr_slice reply, const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (mr_mc_starts(reply, texts[i]))
            return true;
    return false;
}

/*
 * Replies to a storage command that prove that the server read its line and value. A SERVER_ERROR
 * is one: memcached then skips the value or hangs up.
 */
static bool is_stored_reply(struct mr_slice reply)
{
    static const char *const TEXTS[] = {"STORED\r\n", "NOT_STORED\r\n", "EXISTS\r\n",
                                        "NOT_FOUND\r\n", "SERVER_ERROR "};

    return starts_with_any(reply, TEXTS, MR_COUNT(TEXTS));
}

/* The same for meta set. A flag that is too new is rejected only after the length was read. */
static bool is_meta_set_reply(struct mr_slice reply)
{
    static const char *const TEXTS[] = {
        "HD\r\n", "HD ", "NS\r\n", "NS ", "EX\r\n",        "EX ",
        "NF\r\n", "NF ", "OK\r\n", "OK ", "SERVER_ERROR ", "CLIENT_ERROR invalid flag\r\n"};

    return starts_with_any(reply, TEXTS, MR_COUNT(TEXTS));
}

/* True unless the reply shows a key that is not `key_bytes` of base64 text. */
static bool shows_text(struct mr_slice reply, uint32_t key_bytes)
{
    const char *nl = memchr(reply.at, '\n', reply.len);
    const char *p = reply.at, *end = nl != NULL ? nl - 1 : reply.at + reply.len;
    struct mr_slice word;

    if (end - p <= 2 || mr_mc_is_error(reply))
        return true;
    while (mr_mc_word(&p, end, &word))
        if (word.at[0] == 'k')
            return word.len == key_bytes + 1;
    return false;
}

/* True for a reply that servers give after reading the request as intended. */
static bool is_in_step(struct mr_mc_ticket t, struct mr_slice reply)
{
    if (t.reply == MR_MC_PACKET) {
        const struct mr_mc_header h = mr_mc_read_header(reply.at);
        return h.opcode == mr_mc_aloud(t.verb) && h.opaque == t.opaque;
    }
    if (t.verb == 0)
        return is_stored_reply(reply);
    return (t.verb != 's' || is_meta_set_reply(reply)) &&
           (t.opaque == 0 || shows_text(reply, t.opaque));
}

/* True if a quiet meta command suppresses this reply. */
static bool quiet_meta(uint8_t verb, struct mr_slice reply)
{
    if (verb == 'g')
        return mr_mc_starts(reply, "EN");
    return mr_mc_starts(reply, "HD") || mr_mc_starts(reply, "OK") ||
           (verb == 'a' && mr_mc_starts(reply, "VA "));
}

/*
 * Servers older than the meta commands reply ERROR, which does not help a client that knows them.
 */
static enum mr_meaning edit_meta(struct mr_mc_ticket t, struct mr_slice reply,
                                 struct mr_rewrite *rewrite)
{
    static const char OLD[] = "SERVER_ERROR server does not know meta commands\r\n";

    if (t.reply == MR_MC_QUIET && quiet_meta(t.verb, reply))
        return MR_REPLY_HIDE;
    if (!mr_slice_eq(reply, mr_slice_of("ERROR\r\n")))
        return MR_REPLY_PASS;
    memcpy(rewrite->head, OLD, sizeof(OLD) - 1);
    rewrite->head_len = sizeof(OLD) - 1;
    rewrite->cut = reply.len;
    return MR_REPLY_REWRITE;
}

static enum mr_meaning edit(struct mr_mc_ticket t, struct mr_slice reply,
                            struct mr_rewrite *rewrite)
{
    if (t.reply == MR_MC_NO_REPLY)
        return MR_REPLY_HIDE;
    if (t.reply != MR_MC_PACKET)
        return edit_meta(t, reply, rewrite);
    const uint16_t status = mr_mc_read_header(reply.at).status;
    if (status == (mr_mc_finds(t.verb) ? MR_MC_NOT_FOUND : MR_MC_OK))
        return MR_REPLY_HIDE;
    memcpy(rewrite->head, reply.at, MR_MC_HEADER);
    rewrite->head[1] = (char)t.verb;
    rewrite->head_len = MR_MC_HEADER;
    rewrite->cut = MR_MC_HEADER;
    return MR_REPLY_REWRITE;
}

void mr_mc_judge(unsigned possible, uint64_t ticket, struct mr_slice reply,
                 struct mr_verdict *verdict)
{
    const struct mr_mc_ticket t = mr_mc_unpack(ticket);

    verdict->meaning = MR_REPLY_PASS;
    if (possible & MR_REPLY_OUT_OF_STEP && !is_in_step(t, reply))
        verdict->meaning = MR_REPLY_OUT_OF_STEP;
    else if (possible & MR_REPLY_EDITS)
        verdict->meaning = edit(t, reply, &verdict->rewrite);
}
