/* internal.h - shared by the files of the RESP protocol. */
#pragma once

#include "proto/proto.h"
#include "proto/resp/command.h"

enum mr_resp_version { MR_RESP_2, MR_RESP_3, MR_RESP_VERSIONS };

/*
 * A dialect of a session, and a lane of server connections, is a protocol version and a database.
 * The first two use the database that clients begin in.
 */
static inline enum mr_resp_version mr_resp_version(uint8_t lane)
{
    return lane % MR_RESP_VERSIONS == MR_RESP_3 ? MR_RESP_3 : MR_RESP_2;
}

uint32_t mr_resp_lane_db(const struct mr_proto_options *options, uint8_t lane);

/** False if clients may not select this database; *lane is then untouched. */
bool mr_resp_lane_of(const struct mr_proto_options *options, enum mr_resp_version version,
                     uint64_t db, uint8_t *lane);

#define MR_RESP_MAX_ARGS (1024 * 1024) /* Redis's limit on arguments of a request */

/** mr_proto.parse. */
enum mr_result mr_resp_parse(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                             const char *bytes, size_t len, struct mr_msg *msg);

/** Sets n_args and args[] from a complete, valid array in msg->wire. */
void mr_resp_collect(struct mr_msg *msg);

/** Decides what to do with a message, once its arguments are known: action, key, keys, reply. */
void mr_resp_classify(const struct mr_proto_ctx *ctx, struct mr_msg *msg);

bool mr_resp_next_key(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key);

/** Advances the walk to argument `number`, which must not be behind it, and returns it. */
struct mr_slice mr_resp_arg(const struct mr_msg *msg, struct mr_key_walk *walk, uint32_t number);

/** Refuses the message with "-" text CR LF. Control bytes in the text become blanks. */
void mr_resp_refuse(const struct mr_proto_ctx *ctx, struct mr_msg *msg, const char *fmt, ...)
    MR_PRINTF(3, 4);

/** Refuses the message because of the unknown subcommand in argument 1. */
void mr_resp_refuse_subcommand(const struct mr_proto_ctx *ctx, struct mr_msg *msg);

/** Whether the command is one of those that the pool's facade answers. */
bool mr_resp_is_presented(const struct mr_proto_options *options,
                          const struct mr_resp_command *command);

enum mr_outcome mr_resp_answer(const struct mr_proto_ctx *ctx, const struct mr_msg *msg,
                               struct mr_buf *out);

/** proto->client.join_answers: of CLIENT LIST, KILL and UNBLOCK. */
void mr_resp_join_answers(const struct mr_slice *parts, uint32_t n, struct mr_slab *slab,
                          struct mr_buf *out);

void mr_resp_begin_part(const struct mr_msg *msg, struct mr_slab *slab, struct mr_part *part);
void mr_resp_end_parts(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);
void mr_resp_join(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);

/**
 * If a part replied with an error, or not with type `wanted` (0 for any), appends an error. False
 * if there is none.
 */
bool mr_resp_join_error(const struct mr_plan *plan, char wanted, struct mr_slab *slab,
                        struct mr_buf *out);
void mr_resp_join_sum(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);

/* ---- permit.c: users with limited rights ---- */

/** mr_proto.permit. */
bool mr_resp_permit(struct mr_user *user, struct mr_slice word, bool allowed);

/** Refuses a classified message that session->user may not send. */
void mr_resp_check_permits(const struct mr_proto_ctx *ctx, struct mr_msg *msg);

/* ---- pool_wide.c: requests about all keys or all servers ---- */

void mr_resp_classify_whole(const struct mr_proto_ctx *ctx, struct mr_msg *msg);
void mr_resp_copy_whole(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);
void mr_resp_join_whole(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);

/* ---- pubsub.c: see struct mr_proto_feed ---- */

/** Completes a message that subscribes, or ends that. */
void mr_resp_classify_topics(struct mr_msg *msg, bool on);

void mr_resp_order_topic(enum mr_topic_kind kind, bool on, struct mr_slice name,
                         struct mr_slab *slab, struct mr_buf *out);

/** False if it is a reply, not a push. */
bool mr_resp_read_push(struct mr_slice reply, struct mr_push *push);
void mr_resp_confirm_topic(const struct mr_session *session, enum mr_topic_kind kind, bool on,
                           struct mr_slice name, struct mr_slab *slab, struct mr_buf *out);
char mr_resp_message_mark(const struct mr_session *session);

/* ---- transfer.c: see struct mr_proto_transfer ---- */

bool mr_resp_transfer_lane(const struct mr_proto_options *from, uint8_t lane,
                           const struct mr_proto_options *to, uint8_t *to_lane);
bool mr_resp_other_lane(const struct mr_proto_options *options, const struct mr_msg *msg,
                        uint8_t *lane);
bool mr_resp_empties(const struct mr_msg *msg);
void mr_resp_fetch(struct mr_slice key, struct mr_slab *slab, struct mr_buf *out);
bool mr_resp_read_ttl(struct mr_slice reply, int64_t *ms);
enum mr_holding mr_resp_read_value(struct mr_slice reply, struct mr_slice *value);
void mr_resp_store(struct mr_slice key, struct mr_slice value, uint64_t until_ms,
                   struct mr_slab *slab, struct mr_buf *out);
void mr_resp_remove(struct mr_slice key, struct mr_slab *slab, struct mr_buf *out);
bool mr_resp_transferred(struct mr_slice reply);

/** mr_proto.scan_reply. */
enum mr_result mr_resp_scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                  size_t len, size_t *reply_len);

/** Reads the head of an element of this type: a number, or a length (-1: null). False if not so. */
bool mr_resp_next_head(const char **p, const char *end, char type, int64_t *n);

/** Reads a bulk string; null is empty, with `at` NULL. False if it is none. */
bool mr_resp_next_bulk(const char **p, const char *end, struct mr_slice *text);

/** See `sentinel` of struct mr_proto. */
void mr_resp_ask_sentinel(const char *master, bool replicas, struct mr_slab *slab,
                          struct mr_buf *out);
bool mr_resp_read_sentinel_master(struct mr_slice reply, struct mr_sentinel_view *view);
bool mr_resp_read_sentinel_replicas(struct mr_slice reply,
                                    void (*replica)(void *arg, const struct mr_sentinel_view *view),
                                    void *arg);

/** See `cluster` of struct mr_proto. */

/** False if the reply (or its beginning) is not such an error. */
bool mr_resp_read_redirect(struct mr_slice reply, struct mr_redirect *redirect);
bool mr_resp_read_slots(struct mr_slice reply,
                        void (*range)(void *arg, const struct mr_slot_range *r), void *arg);

/** Appends an error reply, prefixed with "ERR" unless `text` has its own code. */
void mr_resp_put_failure(struct mr_buf *out, struct mr_slab *slab, const char *text);

/** mr_resp_read_length for numbers of any length. */
enum mr_result mr_resp_read_any_length(const char **at, const char *end, int64_t *out);

/** Parses "<number>CRLF" at *at, and advances *at on MR_OK. Strict, see mr_parse_int64. */
static inline enum mr_result mr_resp_read_length(const char **at, const char *end, int64_t *out)
{
    const char *p = *at;

    if (MR_LIKELY(end - p >= 8 && *p >= '1' && *p <= '9')) { /* up to six digits and CRLF */
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
