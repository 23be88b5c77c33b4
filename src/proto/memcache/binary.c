/* binary.c - parses requests of the binary protocol. */
#include "proto/memcache/binary.h"

#include "proto/memcache/internal.h"

#include <arpa/inet.h>

/* Required shape of a command's request: length of extras, presence of key and value. */
enum shape {
    UNKNOWN,
    BARE,         /* nothing */
    KEY,          /* a key */
    KEY_VALUE,    /* a key and a value */
    MAYBE_KEY,    /* optional key */
    MAYBE_EXTRAS, /* optional extras, no key */
};

struct command {
    uint8_t shape;
    uint8_t extras;
    uint8_t aloud; /* the same command, not quiet */
    uint8_t class;
};

#define ROW(shape, extras, aloud, class)                                                           \
    {                                                                                              \
        shape, extras, MR_MC_##aloud, MR_CLASS_##class                                             \
    }

static const struct command COMMANDS[] = {
    [MR_MC_GET] = ROW(KEY, 0, GET, READ),
    [MR_MC_SET] = ROW(KEY_VALUE, 8, SET, WRITE),
    [MR_MC_ADD] = ROW(KEY_VALUE, 8, ADD, WRITE),
    [MR_MC_REPLACE] = ROW(KEY_VALUE, 8, REPLACE, WRITE),
    [MR_MC_DELETE] = ROW(KEY, 0, DELETE, WRITE),
    [MR_MC_INCR] = ROW(KEY, 20, INCR, WRITE),
    [MR_MC_DECR] = ROW(KEY, 20, DECR, WRITE),
    [MR_MC_QUIT] = ROW(BARE, 0, QUIT, OTHER),
    [MR_MC_FLUSH] = ROW(MAYBE_EXTRAS, 4, FLUSH, WRITE),
    [MR_MC_GETQ] = ROW(KEY, 0, GET, READ),
    [MR_MC_NOOP] = ROW(BARE, 0, NOOP, OTHER),
    [MR_MC_VERSION] = ROW(BARE, 0, VERSION, OTHER),
    [MR_MC_GETK] = ROW(KEY, 0, GETK, READ),
    [MR_MC_GETKQ] = ROW(KEY, 0, GETK, READ),
    [MR_MC_APPEND] = ROW(KEY_VALUE, 0, APPEND, WRITE),
    [MR_MC_PREPEND] = ROW(KEY_VALUE, 0, PREPEND, WRITE),
    [MR_MC_STAT] = ROW(MAYBE_KEY, 0, STAT, OTHER),
    [MR_MC_SETQ] = ROW(KEY_VALUE, 8, SET, WRITE),
    [MR_MC_ADDQ] = ROW(KEY_VALUE, 8, ADD, WRITE),
    [MR_MC_REPLACEQ] = ROW(KEY_VALUE, 8, REPLACE, WRITE),
    [MR_MC_DELETEQ] = ROW(KEY, 0, DELETE, WRITE),
    [MR_MC_INCRQ] = ROW(KEY, 20, INCR, WRITE),
    [MR_MC_DECRQ] = ROW(KEY, 20, DECR, WRITE),
    [MR_MC_QUITQ] = ROW(BARE, 0, QUIT, OTHER),
    [MR_MC_FLUSHQ] = ROW(MAYBE_EXTRAS, 4, FLUSH, WRITE),
    [MR_MC_APPENDQ] = ROW(KEY_VALUE, 0, APPEND, WRITE),
    [MR_MC_PREPENDQ] = ROW(KEY_VALUE, 0, PREPEND, WRITE),
    [MR_MC_VERBOSITY] = ROW(MAYBE_EXTRAS, 4, VERBOSITY, OTHER),
    [MR_MC_TOUCH] = ROW(KEY, 4, TOUCH, WRITE),
    [MR_MC_GAT] = ROW(KEY, 4, GAT, WRITE),
    [MR_MC_GATQ] = ROW(KEY, 4, GAT, WRITE),
    [MR_MC_GATK] = ROW(KEY, 4, GATK, WRITE),
    [MR_MC_GATKQ] = ROW(KEY, 4, GATK, WRITE),
};

uint8_t mr_mc_aloud(uint8_t opcode)
{
    return opcode < MR_COUNT(COMMANDS) ? COMMANDS[opcode].aloud : opcode;
}

bool mr_mc_finds(uint8_t opcode)
{
    switch (mr_mc_aloud(opcode)) {
    case MR_MC_GET:
    case MR_MC_GETK:
    case MR_MC_GAT:
    case MR_MC_GATK:
        return true;
    default:
        return false;
    }
}

struct mr_mc_header mr_mc_read_header(const char *at)
{
    struct mr_mc_header h = {
        .magic = (uint8_t)at[0], .opcode = (uint8_t)at[1], .extras_len = (uint8_t)at[4]};

    memcpy(&h.key_len, at + 2, 2);
    memcpy(&h.status, at + 6, 2);
    memcpy(&h.body_len, at + 8, 4);
    memcpy(&h.opaque, at + 12, 4);
    h.key_len = ntohs(h.key_len);
    h.status = ntohs(h.status);
    h.body_len = ntohl(h.body_len);
    return h;
}

bool mr_mc_goes_on(const struct mr_mc_header *h)
{
    return h->opcode == MR_MC_STAT && h->status == MR_MC_OK && h->key_len > 0;
}

void mr_mc_put_packet(struct mr_buf *out, struct mr_slab *slab, uint8_t opcode, uint16_t status,
                      uint32_t opaque, struct mr_slice key, struct mr_slice value)
{
    char header[MR_MC_HEADER] = {(char)MR_MC_REPLY_MAGIC, (char)opcode};
    const uint16_t key_len = htons((uint16_t)key.len), wire_status = htons(status);
    const uint32_t body_len = htonl((uint32_t)(key.len + value.len));

    memcpy(header + 2, &key_len, 2);
    memcpy(header + 6, &wire_status, 2);
    memcpy(header + 8, &body_len, 4);
    memcpy(header + 12, &opaque, 4);
    mr_buf_put(out, slab, header, sizeof(header));
    mr_buf_put(out, slab, key.at, key.len);
    mr_buf_put(out, slab, value.at, value.len);
}

/* Replies to this packet without a server. */
static enum mr_result reply(const struct mr_proto_ctx *ctx, const struct mr_mc_header *h,
                            enum mr_mc_status status, const char *text, struct mr_msg *msg)
{
    mr_mc_put_packet(ctx->scratch, ctx->slab, h->opcode, (uint16_t)status, h->opaque,
                     (struct mr_slice){NULL, 0}, mr_slice_of(text));
    msg->action = MR_MSG_REFUSE;
    msg->reply = mr_buf_slice(ctx->scratch);
    return MR_OK;
}

static enum mr_result broken(const struct mr_proto_ctx *ctx, const struct mr_mc_header *h,
                             struct mr_msg *msg)
{
    (void)reply(ctx, h, MR_MC_INVALID, "Invalid arguments", msg);
    return MR_EPROTO;
}

static bool shape_ok(const struct command *c, const struct mr_mc_header *h)
{
    const uint32_t fixed = (uint32_t)h->key_len + h->extras_len;

    switch ((enum shape)c->shape) {
    case BARE:
        return h->body_len == 0 && fixed == 0;
    case KEY:
        return h->extras_len == c->extras && h->key_len > 0 && h->body_len == fixed;
    case KEY_VALUE:
        return h->extras_len == c->extras && h->key_len > 0 && h->body_len >= fixed;
    case MAYBE_KEY:
        return h->extras_len == 0 && h->body_len == fixed;
    case MAYBE_EXTRAS:
        return h->key_len == 0 && h->body_len == fixed &&
               (h->extras_len == 0 || h->extras_len == c->extras);
    case UNKNOWN:
        return true;
    }
    return false;
}

/* Discards the body as it arrives. */
static enum mr_result skip_body(const struct mr_proto_ctx *ctx, const struct mr_mc_header *h,
                                enum mr_mc_status status, const char *text, struct mr_msg *msg)
{
    msg->consumed = MR_MC_HEADER;
    ctx->session->skip = h->body_len;
    return reply(ctx, h, status, text, msg);
}

/* For servers, the word that selects general statistics is no key at all. */
static void ask_without_key(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    char header[MR_MC_HEADER];

    memcpy(header, msg->wire.at, MR_MC_HEADER);
    memset(header + 2, 0, 2); /* lengths of key and body */
    memset(header + 8, 0, 4);
    mr_buf_put(ctx->scratch, ctx->slab, header, MR_MC_HEADER);
    msg->wire = mr_buf_slice(ctx->scratch);
}

static enum mr_result classify(const struct mr_proto_ctx *ctx, const struct mr_mc_header *h,
                               const char *bytes, struct mr_msg *msg)
{
    const struct command *c = &COMMANDS[h->opcode];
    const struct mr_slice key = {bytes + MR_MC_HEADER + h->extras_len, h->key_len};
    struct mr_mc_ticket ticket = {.reply = MR_MC_PACKET, .verb = h->opcode, .opaque = h->opaque};

    /* a server may later show the key in a line of text to another client */
    if (key.len > 0 && mr_mc_ends_line(key))
        return reply(ctx, h, MR_MC_INVALID, "Invalid arguments", msg);
    msg->lane = MR_MC_BINARY_LANE;
    msg->class = c->class;
    msg->guarded = true;
    msg->key = key;
    msg->wire = (struct mr_slice){bytes, msg->consumed};
    msg->action = MR_MSG_BY_KEY;
    msg->edits = c->aloud != h->opcode;
    switch (c->aloud) {
    case MR_MC_NOOP:
    case MR_MC_VERBOSITY: /* no effect on shared servers */
        return reply(ctx, h, MR_MC_OK, "", msg);
    case MR_MC_QUIT:
        msg->action = MR_MSG_LOCAL;
        break;
    case MR_MC_VERSION:
        msg->action = MR_MSG_ANYWHERE;
        msg->key = (struct mr_slice){NULL, 0};
        break;
    case MR_MC_FLUSH:
        if (!ctx->options->allow_flush)
            return reply(ctx, h, MR_MC_AUTH_ERROR, "Auth failure.", msg);
        msg->action = MR_MSG_EVERYWHERE;
        break;
    case MR_MC_STAT:
        ticket.stats = (uint16_t)mr_mc_stats_group(key);
        if (ticket.stats == MR_MC_STATS_UNKNOWN)
            return reply(ctx, h, MR_MC_NOT_FOUND, "Not found", msg);
        msg->action = mr_mc_stats_local(ticket.stats) ? MR_MSG_LOCAL : MR_MSG_EVERYWHERE;
        if (ticket.stats == MR_MC_STATS_SERVERS)
            ask_without_key(ctx, msg);
        break;
    default:
        break;
    }
    msg->ticket = mr_mc_pack(ticket);
    if (msg->edits) { /* servers never get quiet commands, see meta.c */
        mr_buf_put(ctx->scratch, ctx->slab, msg->wire.at, msg->wire.len);
        if (mr_buf_failed(ctx->scratch)) {
            mr_buf_clear(ctx->scratch, ctx->slab);
            return reply(ctx, h, MR_MC_NO_MEMORY, "Out of memory", msg);
        }
        ctx->scratch->mem[ctx->scratch->start + 1] = (char)c->aloud;
        msg->wire = mr_buf_slice(ctx->scratch);
    }
    return MR_OK;
}

enum mr_result mr_mc_parse_binary(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                  const char *bytes, size_t len, struct mr_msg *msg)
{
    struct mr_mc_header h = {0};

    if ((uint8_t)bytes[0] != MR_MC_REQUEST_MAGIC)
        return broken(ctx, &h, msg);
    state->want = MR_MC_HEADER;
    if (len < MR_MC_HEADER)
        return MR_AGAIN;
    h = mr_mc_read_header(bytes);
    const struct command *c = h.opcode < MR_COUNT(COMMANDS) ? &COMMANDS[h.opcode] : NULL;
    if ((uint32_t)h.key_len + h.extras_len > h.body_len)
        return broken(ctx, &h, msg);
    if (c == NULL || c->shape == UNKNOWN)
        return skip_body(ctx, &h, MR_MC_UNKNOWN, "Unknown command", msg);
    if (!shape_ok(c, &h) || h.key_len > MR_MC_KEY_BYTES)
        return broken(ctx, &h, msg);
    if (h.body_len - h.key_len - h.extras_len > ctx->options->max_item_bytes ||
        MR_MC_HEADER + (uint64_t)h.body_len > ctx->options->max_request_bytes)
        return skip_body(ctx, &h, MR_MC_TOO_LARGE, "Too large.", msg);
    msg->consumed = MR_MC_HEADER + (size_t)h.body_len;
    state->want = (uint32_t)msg->consumed;
    if (len < msg->consumed)
        return MR_AGAIN;
    return classify(ctx, &h, bytes, msg);
}
