/* internal.h - shared by the files of the memcached protocol. */
#pragma once

#include "proto/memcache/stats.h"
#include "proto/proto.h"

#define MR_MC_KEY_BYTES   250u   /* memcached's limit */
#define MR_MC_LINE_BYTES  16384u /* for client command lines other than retrievals */
#define MR_MC_SERVER_LINE 1024u  /* servers close the connection if any other line is longer */
#define MR_MC_SERVER_GET  16384u /* get and gets may be longer: limit towards servers */

/** Longest value, which is memcached's own limit. */
#define MR_MC_VALUE_MAX ((uint64_t)INT32_MAX - 2)

#define MR_MC_BAD_FORMAT "CLIENT_ERROR bad command line format\r\n"
#define MR_MC_LONG_LINE  "CLIENT_ERROR line too long\r\n"

/** Bit of mr_msg.needs: the server has the meta set of memcached 1.6.10. */
#define MR_MC_META_SET 1u

/** A client's protocol, decided by its first byte; it also selects the server lane. */
enum mr_mc_dialect { MR_MC_UNDECIDED, MR_MC_TEXT, MR_MC_BINARY };

enum mr_mc_lane { MR_MC_TEXT_LANE, MR_MC_BINARY_LANE, MR_MC_LANES };

/** What we remember of a request until its reply; packed into the message's ticket. */
struct mr_mc_ticket {
    uint8_t reply;   /* enum mr_mc_reply */
    uint8_t verb;    /* meta: second letter of the command; binary: original opcode; text: number of
                        words before a retrieval's keys */
    uint16_t stats;  /* enum mr_mc_stats */
    uint32_t opaque; /* binary: as on the wire; meta: length of the key that the reply must show */
};

/** How to answer a request. */
enum mr_mc_reply {
    MR_MC_PLAIN,    /* text or meta, exactly as the server does */
    MR_MC_FINDS,    /* the same for a retrieval, whose failure may become a miss */
    MR_MC_NO_REPLY, /* text: no reply */
    MR_MC_QUIET,    /* meta: only unexpected replies */
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

/** A command line and its words. */
#define MR_MC_WORDS 24u /* as many as memcached parses */

struct mr_mc_line {
    const char *at;   /* first word */
    const char *end;  /* end of what is forwarded, before the line's end */
    size_t bytes;     /* of input, including leading blanks and the line's end */
    bool normal;      /* can be forwarded as is: starts at the first word, ends in CR LF */
    bool clean;       /* has no control bytes */
    uint32_t n_words; /* may exceed MR_MC_WORDS */
    size_t longest;   /* bytes of the longest word */
    struct mr_slice words[MR_MC_WORDS];
};

/** Splits the line bytes[0..nl] into words. */
void mr_mc_read_line(const char *bytes, const char *nl, struct mr_mc_line *line);

/** True if the bytes begin with this text. */
static inline bool mr_mc_starts(struct mr_slice bytes, const char *with)
{
    const size_t n = strlen(with);

    return bytes.len >= n && memcmp(bytes.at, with, n) == 0;
}

/** True for a server's error line. */
static inline bool mr_mc_is_error(struct mr_slice line)
{
    return mr_mc_starts(line, "ERROR") || mr_mc_starts(line, "CLIENT_ERROR") ||
           mr_mc_starts(line, "SERVER_ERROR");
}

/** Cuts the next word off at *at. False if there is none. */
bool mr_mc_word(const char **at, const char *end, struct mr_slice *word);

/** Drops the last word (it must be in `words`) from what is forwarded. */
void mr_mc_drop_last(struct mr_mc_line *line);

/** True for a key that memcached accepts and that has no control bytes. */
static inline bool mr_mc_key_ok(const struct mr_mc_line *line, struct mr_slice key)
{
    return line->clean && key.len > 0 && key.len <= MR_MC_KEY_BYTES;
}

/** True if the key has a CR or LF, which would end the line in which a server shows it. */
bool mr_mc_ends_line(struct mr_slice key);

/** Parses a number that every memcached version reads the same way; `max` gives its width. */
bool mr_mc_number(struct mr_slice word, uint64_t max, uint64_t *v);

/** True for an expiry time that every memcached version accepts: 32 bits, negative for the past. */
bool mr_mc_time_ok(struct mr_slice word);

/** How memcached versions read the length field of a storage command. */
enum mr_mc_length {
    MR_MC_LENGTH,      /* all agree: a value of that length follows */
    MR_MC_NO_LENGTH,   /* all reject it: the next command follows */
    MR_MC_SOME_LENGTH, /* versions differ: unclear what follows */
};

enum mr_mc_length mr_mc_read_length(struct mr_slice word, uint64_t *length);

/** mr_proto.parse, one per dialect. */
enum mr_result mr_mc_parse_text(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const char *bytes, size_t len, struct mr_msg *msg);
enum mr_result mr_mc_parse_binary(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                  const char *bytes, size_t len, struct mr_msg *msg);

/** Parses a meta command. `input` begins with its line. Returns like mr_proto.parse. */
enum mr_result mr_mc_parse_meta(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                struct mr_mc_line *line, struct mr_slice input, struct mr_msg *msg);

/** Makes the message a refusal with this reply, which must stay valid. */
enum mr_result mr_mc_refuse(struct mr_msg *msg, const char *reply);

/** The same for a storage command; its value of `length` bytes is skipped. */
enum mr_result mr_mc_refuse_value(const struct mr_proto_ctx *ctx, uint64_t length,
                                  struct mr_msg *msg, const char *reply);

/**
 * Finds the value after the line of a storage command and sets msg->consumed. Refuses values that
 * are too large or do not end in CR LF.
 * @param value set to the value with its CR LF if the result is MR_OK and msg->action is not
 * MR_MSG_REFUSE
 */
enum mr_result mr_mc_value(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                           const struct mr_mc_line *line, struct mr_slice input, uint64_t length,
                           struct mr_msg *msg, struct mr_slice *value);

#define MR_MC_ALOUD UINT32_MAX /* as `quiet_from`: forward all words */

/** The part of mr_mc_forward for lines that must be changed. */
void mr_mc_rewrite(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line,
                   uint32_t quiet_from, struct mr_slice value, struct mr_msg *msg);

/**
 * Sets msg->wire to what goes to the server: line and value, unchanged if possible. Words from
 * index `quiet_from` on that begin with q are left out. Refuses lines too long for servers.
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
void mr_mc_begin_part(const struct mr_msg *msg, struct mr_slab *slab, struct mr_part *part);
void mr_mc_end_parts(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);
void mr_mc_copy(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);
void mr_mc_join(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);
void mr_mc_fail(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                struct mr_slab *slab, struct mr_buf *out);
void mr_mc_judge(unsigned possible, uint64_t ticket, struct mr_slice reply,
                 struct mr_verdict *verdict);
/**
 * Reads the length of a value, which follows `before` words in at..end.
 * @return false if there is none
 */
bool mr_mc_value_length(const char *at, const char *end, uint32_t before, uint64_t *length);

enum mr_result mr_mc_scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                size_t len, size_t *reply_len);
