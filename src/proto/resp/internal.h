/* internal.h - what the files of the RESP protocol share. */
#pragma once

#include "proto/proto.h"
#include "proto/resp/command.h"

/** Dialects of a session, and the lanes of server connections. */
enum mr_resp_version { MR_RESP_2, MR_RESP_3, MR_RESP_VERSIONS };

/** A session that another protocol has begun counts as one in RESP2. */
static inline uint8_t mr_resp_version(const struct mr_session *session)
{
    return session->dialect == MR_RESP_3 ? MR_RESP_3 : MR_RESP_2;
}

#define MR_RESP_MAX_ARGS (1024 * 1024) /* Redis's limit on the elements of a request */

/** parse of struct mr_proto. */
enum mr_result mr_resp_parse(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                             const char *bytes, size_t len, struct mr_msg *msg);

/** Fills n_args and args[] from a complete, valid array at msg->wire. */
void mr_resp_collect(struct mr_msg *msg);

/** Decides what to do with a message whose arguments are known: action, key, keys, reply. */
void mr_resp_classify(const struct mr_proto_ctx *ctx, struct mr_msg *msg);

/** Fills msg->keys and n_keys by the command's rule; false after refusing (see classify). */
bool mr_resp_find_keys(const struct mr_proto_ctx *ctx, struct mr_msg *msg);

bool mr_resp_next_key(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key);

/** Moves the walk to argument `number` (not before where it stands) and returns it. */
struct mr_slice mr_resp_arg(const struct mr_msg *msg, struct mr_key_walk *walk, uint32_t number);

/** Makes the message a refusal: "-" text CR LF; control bytes in the text become blanks. */
void mr_resp_refuse(const struct mr_proto_ctx *ctx, struct mr_msg *msg, const char *fmt, ...)
    MR_PRINTF(3, 4);

enum mr_verdict mr_resp_answer(const struct mr_proto_ctx *ctx, const struct mr_msg *msg,
                               struct mr_buf *out);

void mr_resp_split(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);
void mr_resp_join(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);

/** scan_reply of struct mr_proto; lane is an enum mr_resp_version. */
enum mr_result mr_resp_scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                  size_t len, size_t *reply_len);

/** Appends the error reply that `text` makes: with "ERR" unless it has a code of its own. */
void mr_resp_put_failure(struct mr_buf *out, struct mr_slab *slab, const char *text);

/** mr_resp_read_length for numbers of any length. */
enum mr_result mr_resp_read_any_length(const char **at, const char *end, int64_t *out);

/** Reads "<number>CRLF" at *at; on MR_OK *at is behind it. Strict: see mr_parse_int64. */
static inline enum mr_result mr_resp_read_length(const char **at, const char *end, int64_t *out)
{
    const char *p = *at;

    if (MR_LIKELY(end - p >= 8 && *p >= '1' && *p <= '9')) { /* up to six digits and the CRLF */
        unsigned v = (unsigned char)*p++ - (unsigned)'0', digit;
        for (unsigned i = 1; i < 6 && (digit = (unsigned char)*p - (unsigned)'0') <= 9; i++, p++)
            v = 10 * v + digit;
        if (MR_LIKELY(p[0] == '\r' && p[1] == '\n')) {
            *at = p + 2;
            *out = v;
            return MR_OK;
        }
    }
    return mr_resp_read_any_length(at, end, out);
}

/** Appends "<type><n>CRLF". */
void mr_resp_put_head(struct mr_buf *out, struct mr_slab *slab, char type, uint64_t n);

/** Appends a bulk string. */
void mr_resp_put_bulk(struct mr_buf *out, struct mr_slab *slab, struct mr_slice bytes);
