/* internal.h - what the files of the memcached protocol share. */
#pragma once

#include "proto/memcache/stats.h"
#include "proto/proto.h"

#define MR_MC_KEY_BYTES  250u   /* memcached's limit */
#define MR_MC_LINE_BYTES 16384u /* of a command line that is no retrieval */

#define MR_MC_BAD_FORMAT "CLIENT_ERROR bad command line format\r\n"

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
    uint32_t opaque; /* binary, in the byte order of the wire */
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
    const char *end;  /* one past the last byte ahead of the line's end */
    size_t bytes;     /* of input, the line's end and blanks ahead included */
    bool normal;      /* nothing ahead of the first word, and CR LF at the end */
    bool clean;       /* no control bytes */
    uint32_t n_words; /* may be more than are kept */
    struct mr_slice words[MR_MC_WORDS];
};

/** Cuts the next word off at *at, which moves behind it; false when there is none. */
bool mr_mc_word(const char **at, const char *end, struct mr_slice *word);

/** parse of struct mr_proto, for each dialect. */
enum mr_result mr_mc_parse_text(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const char *bytes, size_t len, struct mr_msg *msg);
enum mr_result mr_mc_parse_binary(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                  const char *bytes, size_t len, struct mr_msg *msg);

/** A meta command: `input` is what has come from the line on. Results as of parse. */
enum mr_result mr_mc_parse_meta(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const struct mr_mc_line *line, struct mr_slice input,
                                struct mr_msg *msg);

/** Makes the message a refusal with this text, a whole reply that stays valid. */
enum mr_result mr_mc_refuse(struct mr_msg *msg, const char *reply);

/** True for a key that memcached takes and that has no control bytes. */
bool mr_mc_key_ok(const struct mr_mc_line *line, struct mr_slice key);

/**
 * The value of a storage command: its length in `word`, then the bytes behind the line. Looks for
 * it, sets msg->consumed, and refuses what is too large or not followed by CR LF.
 * @param value set when the result is MR_OK and msg->action is still MR_MSG_BY_KEY: with its CR LF
 */
enum mr_result mr_mc_value(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                           const struct mr_mc_line *line, struct mr_slice input, uint64_t length,
                           struct mr_msg *msg, struct mr_slice *value);

/** Largest length of a value that can be asked for: memcached's own limit. */
#define MR_MC_VALUE_MAX ((uint64_t)INT32_MAX - 2)

bool mr_mc_next_key(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key);
void mr_mc_split(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);
void mr_mc_join(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);
void mr_mc_fail(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                struct mr_slab *slab, struct mr_buf *out);
size_t mr_mc_present(uint64_t ticket, struct mr_slice reply, char *head, size_t *head_len);
bool mr_mc_out_of_step(struct mr_slice reply);
enum mr_result mr_mc_scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                size_t len, size_t *reply_len);
