/* internal.h - what the files of the memcached protocol share. */
#pragma once

#include "proto/memcache/stats.h"
#include "proto/proto.h"

#define MR_MC_KEY_BYTES   250u   /* memcached's limit */
#define MR_MC_LINE_BYTES  16384u /* of a client's command line that is no retrieval */
#define MR_MC_SERVER_LINE 1024u  /* of any other line, servers close the connection */
#define MR_MC_SERVER_GET  16384u /* of a get or gets to a server, which may be longer */

/** Largest length of a value that can be asked for: memcached's own limit. */
#define MR_MC_VALUE_MAX ((uint64_t)INT32_MAX - 2)

#define MR_MC_BAD_FORMAT "CLIENT_ERROR bad command line format\r\n"
#define MR_MC_LONG_LINE  "CLIENT_ERROR line too long\r\n"

/** In `needs` of a message: its server has the meta set of memcached 1.6.10. */
#define MR_MC_META_SET 1u

/** What a client speaks, decided by the first byte of its connection; its server lane follows. */
enum mr_mc_dialect { MR_MC_UNDECIDED, MR_MC_TEXT, MR_MC_BINARY };

enum mr_mc_lane { MR_MC_TEXT_LANE, MR_MC_BINARY_LANE, MR_MC_LANES };
_Static_assert(MR_MC_LANES <= MR_LANES_MAX, "lanes");

/** What is remembered of a request until it is answered; packed into the message's ticket. */
struct mr_mc_ticket {
    uint8_t reply;   /* enum mr_mc_reply */
    uint8_t verb;    /* meta: the second letter of the command; binary: the opcode as it came;
                        text: of a retrieval, the words ahead of its keys */
    uint16_t stats;  /* enum mr_mc_stats */
    uint32_t opaque; /* binary: as on the wire; meta: bytes of the key that the reply must show */
};

/** How a request wants to be answered. */
enum mr_mc_reply {
    MR_MC_PLAIN,    /* text or meta, as the server says it */
    MR_MC_FINDS,    /* the same, of a retrieval: a failure may be shown as a miss */
    MR_MC_NO_REPLY, /* text: not at all */
    MR_MC_QUIET,    /* meta: only what is out of the ordinary */
    MR_MC_PACKET,   /* binary */
};

static inline uint64_t mr_mc_pack(struct mr_mc_ticket t)
{
    return (uint64_t)t.reply | (uint64_t)t.verb << 8 | (uint64_t)t.stats << 16 |
           (uint64_t)t.opaque << 32;
}

static inline struct mr_mc_ticket mr_mc_unpack(uint64_t ticket)
{
    return (struct mr_mc_ticket){.reply = (uint8_t)ticket,
                                 .verb = (uint8_t)(ticket >> 8),
                                 .stats = (uint16_t)(ticket >> 16),
                                 .opaque = (uint32_t)(ticket >> 32)};
}

/** One command line and its words. */
#define MR_MC_WORDS 24u /* as many as memcached looks at */

struct mr_mc_line {
    const char *at;   /* first word */
    const char *end;  /* one past the last byte that goes on, ahead of the line's end */
    size_t bytes;     /* of input, the line's end and blanks ahead included */
    bool normal;      /* nothing ahead of the first word, CR LF at the end, all of it goes on */
    bool clean;       /* no control bytes */
    uint32_t n_words; /* may be more than are kept */
    struct mr_slice words[MR_MC_WORDS];
};

/** Splits the line at bytes[0..nl] into words. */
void mr_mc_read_line(const char *bytes, const char *nl, struct mr_mc_line *line);

/** True when the bytes begin with this text. */
static inline bool mr_mc_starts(struct mr_slice bytes, const char *with)
{
    const size_t n = strlen(with);

    return bytes.len >= n && memcmp(bytes.at, with, n) == 0;
}

/** True for a line in which a server says that something is wrong. */
static inline bool mr_mc_is_error(struct mr_slice line)
{
    return mr_mc_starts(line, "ERROR") || mr_mc_starts(line, "CLIENT_ERROR") ||
           mr_mc_starts(line, "SERVER_ERROR");
}

/** Cuts the next word off at *at, which moves behind it; false when there is none. */
bool mr_mc_word(const char **at, const char *end, struct mr_slice *word);

/** The last word, one of those that are kept, does not go on. */
void mr_mc_drop_last(struct mr_mc_line *line);

/** True for a key that memcached takes and that has no control bytes. */
static inline bool mr_mc_key_ok(const struct mr_mc_line *line, struct mr_slice key)
{
    return line->clean && key.len > 0 && key.len <= MR_MC_KEY_BYTES;
}

/** True for a key that would end a line of text in which a server showed it. */
bool mr_mc_ends_line(struct mr_slice key);

/** Reads a number that every memcached reads in the same way; `max` says how wide it is. */
bool mr_mc_number(struct mr_slice word, uint64_t max, uint64_t *v);

/** True for a time to live that every memcached takes: 32 bits, a sign ahead for the past. */
bool mr_mc_time_ok(struct mr_slice word);

/** What memcacheds make of the word where a storage command has the length of its value. */
enum mr_mc_length {
    MR_MC_LENGTH,      /* all the same: a value of that length follows */
    MR_MC_NO_LENGTH,   /* none of them reads it: what follows is the next command */
    MR_MC_SOME_LENGTH, /* some do: nobody can tell what follows */
};

enum mr_mc_length mr_mc_read_length(struct mr_slice word, uint64_t *length);

/** parse of struct mr_proto, for each dialect. */
enum mr_result mr_mc_parse_text(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const char *bytes, size_t len, struct mr_msg *msg);
enum mr_result mr_mc_parse_binary(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                  const char *bytes, size_t len, struct mr_msg *msg);

/** A meta command: `input` is what has come from the line on. Results as of parse. */
enum mr_result mr_mc_parse_meta(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                struct mr_mc_line *line, struct mr_slice input, struct mr_msg *msg);

/** Makes the message a refusal with this text, a whole reply that stays valid. */
enum mr_result mr_mc_refuse(struct mr_msg *msg, const char *reply);

/** The same for a storage command with a value of `length` bytes, which is passed over. */
enum mr_result mr_mc_refuse_value(const struct mr_proto_ctx *ctx, uint64_t length,
                                  struct mr_msg *msg, const char *reply);

/**
 * The value behind the line of a storage command. Looks for it, sets msg->consumed, and refuses
 * what is too large or not followed by CR LF.
 * @param value set when the result is MR_OK and msg->action is not MR_MSG_REFUSE: with its CR LF
 */
enum mr_result mr_mc_value(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                           const struct mr_mc_line *line, struct mr_slice input, uint64_t length,
                           struct mr_msg *msg, struct mr_slice *value);

#define MR_MC_ALOUD UINT32_MAX /* for `quiet_from`: all words go on */

/** mr_mc_forward of a line that has to change. */
void mr_mc_rewrite(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line,
                   uint32_t quiet_from, struct mr_slice value, struct mr_msg *msg);

/**
 * Sets msg->wire, what goes to the server: the line and the value, as they came where they may.
 * Words from number `quiet_from` on are left out when they begin with a q. A line that no server
 * would read is refused.
 */
static inline void mr_mc_forward(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line,
                                 uint32_t quiet_from, struct mr_slice value, struct mr_msg *msg)
{
    const bool whole = line->bytes <= MR_MC_SERVER_LINE || msg->action == MR_MSG_BY_KEYS;

    if (MR_LIKELY(line->normal && whole && quiet_from == MR_MC_ALOUD))
        msg->wire = (struct mr_slice){line->at, line->bytes + value.len};
    else
        mr_mc_rewrite(ctx, line, quiet_from, value, msg);
}

bool mr_mc_next_key(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key);
void mr_mc_split(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);
void mr_mc_join(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);
void mr_mc_fail(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                struct mr_slab *slab, struct mr_buf *out);
size_t mr_mc_present(uint64_t ticket, struct mr_slice reply, char *head, size_t *head_len);
bool mr_mc_in_step(uint64_t ticket, struct mr_slice reply);
enum mr_result mr_mc_scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                size_t len, size_t *reply_len);
