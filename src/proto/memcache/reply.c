/* reply.c - replies of servers: where they end, and what is shown of them. */
#include "proto/memcache/binary.h"
#include "proto/memcache/internal.h"

#include "core/number.h"

#define LINE_MAX_BYTES 65536u

/* In struct mr_reply_state.pending. */
#define VALUE_DUE 1u /* the CR LF of a value comes at `offset` */
#define IN_LIST   2u /* more lines belong to the reply */
#define LAST      4u /* the reply ends at `offset` */

static bool starts(struct mr_slice line, const char *with)
{
    const size_t n = strlen(with);

    return line.len >= n && memcmp(line.at, with, n) == 0;
}

/* The length of a value in word `number` of the line. */
static bool value_length(struct mr_slice line, uint32_t number, uint64_t *length)
{
    const char *p = line.at;
    struct mr_slice word = {NULL, 0};

    for (uint32_t i = 0; i <= number; i++)
        if (!mr_mc_word(&p, line.at + line.len, &word))
            return false;
    return mr_parse_uint(word, MR_MC_VALUE_MAX, length);
}

/* Takes one line of a reply, without its end; `next` is where the next one begins. */
static enum mr_result take_line(struct mr_reply_state *state, struct mr_slice line, uint64_t next)
{
    const bool in_list = (state->pending & IN_LIST) != 0;
    uint64_t length;

    state->offset = next;
    if (starts(line, "VALUE ")) {
        if (!value_length(line, 3, &length))
            return MR_EPROTO;
        state->offset += length;
        state->pending = VALUE_DUE | IN_LIST;
    } else if (starts(line, "VA ") && !in_list) {
        if (!value_length(line, 1, &length))
            return MR_EPROTO;
        state->offset += length;
        state->pending = VALUE_DUE;
    } else if (starts(line, "STAT ")) {
        state->pending = IN_LIST;
    } else if (in_list && !starts(line, "END") && !starts(line, "SERVER_ERROR") &&
               !starts(line, "CLIENT_ERROR") && !starts(line, "ERROR")) {
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
        /* statistics go on until a packet without a key */
        const bool more = h.opcode == MR_MC_STAT && h.status == MR_MC_OK && h.key_len > 0;
        state->offset += (uint64_t)MR_MC_HEADER + h.body_len;
        state->pending = more ? IN_LIST : LAST;
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

bool mr_mc_out_of_step(struct mr_slice reply)
{
    return starts(reply, "ERROR") || starts(reply, "CLIENT_ERROR bad command line") ||
           starts(reply, "CLIENT_ERROR bad data chunk") || starts(reply, "CLIENT_ERROR line");
}

/* What a quiet meta command does not say. */
static bool quiet_meta(uint8_t verb, struct mr_slice reply)
{
    if (verb == 'g')
        return starts(reply, "EN");
    return starts(reply, "HD") || (verb == 'a' && starts(reply, "VA "));
}

/* A server older than the meta commands says ERROR: that is no news to a client that knows them. */
static size_t present_meta(struct mr_mc_ticket t, struct mr_slice reply, char *head,
                           size_t *head_len)
{
    static const char OLD[] = "SERVER_ERROR server does not know meta commands\r\n";

    if (t.reply == MR_MC_QUIET && quiet_meta(t.verb, reply))
        return MR_HIDDEN;
    if (!mr_slice_eq(reply, mr_slice_of("ERROR\r\n")))
        return 0;
    memcpy(head, OLD, sizeof(OLD) - 1);
    *head_len = sizeof(OLD) - 1;
    return reply.len;
}

size_t mr_mc_present(uint64_t ticket, struct mr_slice reply, char *head, size_t *head_len)
{
    const struct mr_mc_ticket t = mr_mc_unpack(ticket);

    if (t.reply == MR_MC_NO_REPLY)
        return MR_HIDDEN;
    if (t.reply != MR_MC_PACKET)
        return present_meta(t, reply, head, head_len);
    const uint16_t status = mr_mc_read_header(reply.at).status;
    if (status == (mr_mc_finds(t.verb) ? MR_MC_NOT_FOUND : MR_MC_OK))
        return MR_HIDDEN;
    memcpy(head, reply.at, MR_MC_HEADER);
    head[1] = (char)t.verb;
    *head_len = MR_MC_HEADER;
    return MR_MC_HEADER;
}
