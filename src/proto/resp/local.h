/* local.h - shared by the files that answer Redis commands in the proxy. */
#pragma once

#include "proto/resp/internal.h"

/** Reported until a server's version is known: the Redis version whose commands we know. */
#define MR_RESP_SERVER_VERSION "7.0.0"

#define MR_RESP_USER "default" /* who logs in without a name */

#define MR_RESP_NO_MEMORY "-ERR out of memory\r\n"

#define MR_RESP_BAD_NAME                                                                           \
    "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"

/** A command being answered. */
struct mr_resp_answer {
    const struct mr_proto_ctx *ctx;
    const struct mr_msg *msg;
    struct mr_buf *out;
    bool *asks_others; /* set it if other processes have parts of the answer, too */
};

/** Names that a client gives itself. */
enum mr_resp_label { MR_RESP_NAME, MR_RESP_LIB_NAME, MR_RESP_LIB_VERSION, MR_RESP_LABELS };

/** Empty if the client has not set it. */
const char *mr_resp_label(const struct mr_session *session, enum mr_resp_label which);

/** True for text allowed in client lists: no blanks, no control bytes, not too long. */
bool mr_resp_is_label(struct mr_slice text);

/** Sets a label; an empty one removes it. */
void mr_resp_set_label(struct mr_session *session, enum mr_resp_label which, struct mr_slice text);

/** Resets the session to its initial state. */
void mr_resp_reset_session(const struct mr_proto_options *options, struct mr_session *session);

/** The version of the servers, if known. */
static inline const char *mr_resp_server_version(const struct mr_resp_answer *a)
{
    const struct mr_proto_facts *facts = a->ctx->facts;
    const bool told = facts != NULL && facts->version != NULL && facts->version[0] != '\0';

    return told ? facts->version : MR_RESP_SERVER_VERSION;
}

/** As which kind of server the proxy presents itself. */
static inline const char *mr_resp_mode(const struct mr_resp_answer *a)
{
    return a->ctx->options->present_as == MR_PRESENT_CLUSTER ? "cluster" : "standalone";
}

static inline bool mr_resp_speaks_3(const struct mr_resp_answer *a)
{
    return mr_resp_version(a->ctx->session->dialect) == MR_RESP_3;
}

static inline void mr_resp_add(const struct mr_resp_answer *a, const char *text)
{
    mr_buf_put(a->out, a->ctx->slab, text, strlen(text));
}

static inline void mr_resp_add_bulk(const struct mr_resp_answer *a, struct mr_slice bytes)
{
    mr_resp_put_bulk(a->out, a->ctx->slab, bytes);
}

static inline void mr_resp_add_text(const struct mr_resp_answer *a, const char *text)
{
    mr_resp_add_bulk(a, mr_slice_of(text));
}

static inline void mr_resp_add_number(const struct mr_resp_answer *a, uint64_t n)
{
    mr_resp_put_head(a->out, a->ctx->slab, ':', n);
}

static inline void mr_resp_add_null(const struct mr_resp_answer *a)
{
    mr_resp_add(a, mr_resp_speaks_3(a) ? "_\r\n" : "$-1\r\n");
}

/** Begins a map, or in RESP2 the array that represents one. */
void mr_resp_add_map(const struct mr_resp_answer *a, size_t pairs);

/** Appends text for people. */
void mr_resp_add_verbatim(const struct mr_resp_answer *a, struct mr_slice text);

/** Appends an error that quotes the client; the format has one "%.*s". */
MR_PRINTF(2, 0)
void mr_resp_add_quoting(const struct mr_resp_answer *a, const char *fmt, struct mr_slice said);

void mr_resp_wrong_arity(const struct mr_resp_answer *a, const char *name);

/** Commands of facades, see facade.c. */
enum mr_outcome mr_resp_answer_asking(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_cluster(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_role(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_sentinel(const struct mr_resp_answer *a);

enum mr_outcome mr_resp_answer_auth(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_client(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_hello(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_info(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_reset(const struct mr_resp_answer *a);
enum mr_outcome mr_resp_answer_select(const struct mr_resp_answer *a);

void mr_resp_client_info(const struct mr_resp_answer *a);
void mr_resp_client_kill(const struct mr_resp_answer *a);
void mr_resp_client_list(const struct mr_resp_answer *a);
void mr_resp_client_unblock(const struct mr_resp_answer *a);
