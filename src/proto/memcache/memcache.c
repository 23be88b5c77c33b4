/* memcache.c - the memcached protocol's vtable. */
#include "proto/memcache/memcache.h"

#include "core/number.h"
#include "core/version.h"
#include "proto/memcache/binary.h"
#include "proto/memcache/internal.h"

#include <unistd.h>

static enum mr_result parse(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                            const char *bytes, size_t len, struct mr_msg *msg)
{
    struct mr_session *session = ctx->session;
    enum mr_result rc;

    if (!mr_buf_empty(ctx->scratch))
        mr_buf_consume(ctx->scratch, ctx->slab, mr_buf_len(ctx->scratch));
    *msg = (struct mr_msg){.action = MR_MSG_SKIP, .class = MR_CLASS_OTHER};
    if (len == 0)
        return MR_AGAIN;
    if (MR_UNLIKELY(session->skip > 0)) {
        msg->consumed = len < session->skip ? len : session->skip;
        session->skip -= (uint32_t)msg->consumed;
        return MR_OK;
    }
    if (MR_UNLIKELY(session->dialect == MR_MC_UNDECIDED))
        session->dialect = (uint8_t)bytes[0] == MR_MC_REQUEST_MAGIC ? MR_MC_BINARY : MR_MC_TEXT;
    rc = session->dialect == MR_MC_BINARY ? mr_mc_parse_binary(ctx, state, bytes, len, msg)
                                          : mr_mc_parse_text(ctx, state, bytes, len, msg);
    if (rc != MR_AGAIN)
        *state = (struct mr_parse_state){0};
    return rc;
}

static void put_own(const struct mr_proto_ctx *ctx, uint64_t ticket, const char *name,
                    struct mr_slice value, struct mr_buf *out)
{
    mr_mc_put_stat(ticket, mr_slice_of(name), value, ctx->slab, out);
}

static void answer_proxy(const struct mr_proto_ctx *ctx, uint64_t ticket, struct mr_buf *out)
{
    char number[20];
    const char *name;
    uint64_t value;
    uint32_t i = 0;

    put_own(ctx, ticket, "millrace_version", mr_slice_of(MR_VERSION), out);
    put_own(ctx, ticket, "pid",
            (struct mr_slice){number, mr_format_uint(number, (uint64_t)getpid())}, out);
    while (ctx->facts != NULL && ctx->facts->next(ctx->facts, &i, &name, &value))
        put_own(ctx, ticket, name, (struct mr_slice){number, mr_format_uint(number, value)}, out);
    mr_mc_end_stats(ticket, ctx->slab, out);
}

/*
 * Detailed statistics cost servers memory for every prefix a client invents, so they stay off and
 * have nothing to show.
 */
static void answer_stats(const struct mr_proto_ctx *ctx, uint64_t ticket, struct mr_buf *out)
{
    const struct mr_mc_ticket t = mr_mc_unpack(ticket);
    const bool dump = t.stats == MR_MC_STATS_DETAIL_DUMP;

    if (t.stats == MR_MC_STATS_PROXY) {
        answer_proxy(ctx, ticket, out);
        return;
    }
    if (t.reply == MR_MC_PACKET && dump)
        put_own(ctx, ticket, "detailed", mr_slice_of("END\r\n"), out);
    if (t.reply == MR_MC_PACKET || dump)
        mr_mc_end_stats(ticket, ctx->slab, out);
    else
        mr_buf_put(out, ctx->slab, "OK\r\n", 4);
}

static void put_greeting(uint8_t lane, struct mr_slab *slab, struct mr_buf *out)
{
    static const char NOOP[MR_MC_HEADER] = {(char)MR_MC_REQUEST_MAGIC, MR_MC_NOOP};
    static const char VERSION[] = "version                   \r\n";
    const bool binary = lane == MR_MC_BINARY_LANE;

    mr_buf_put(out, slab, binary ? NOOP : VERSION, binary ? sizeof(NOOP) : sizeof(VERSION) - 1);
}

/* Proxy statistics, and the end of a session. */
static enum mr_outcome answer(const struct mr_proto_ctx *ctx, const struct mr_msg *msg,
                              struct mr_buf *out)
{
    const struct mr_mc_ticket t = mr_mc_unpack(msg->ticket);
    const struct mr_slice none = {NULL, 0};

    if (t.stats != MR_MC_STATS_GENERAL) {
        answer_stats(ctx, msg->ticket, out);
        return MR_KEEP_CLIENT;
    }
    if (t.reply == MR_MC_PACKET && t.verb == MR_MC_QUIT)
        mr_mc_put_packet(out, ctx->slab, t.verb, MR_MC_OK, t.opaque, none, none);
    return MR_CLOSE_CLIENT;
}

/*
 * We forward a meta set with the value's length right after the key, as memcached reads it since
 * 1.6.10. Older versions reject the line and execute the value as commands.
 */
static bool has_meta_set(struct mr_slice reply)
{
    uint64_t version[3];
    const char *p = reply.at + 8, *end = reply.at + reply.len;

    if (!mr_mc_starts(reply, "VERSION "))
        return false;
    for (size_t i = 0; i < MR_COUNT(version); i++) {
        const char *start = p;
        while (p < end && *p >= '0' && *p <= '9')
            p++;
        if (!mr_mc_number((struct mr_slice){start, (size_t)(p - start)}, UINT16_MAX, &version[i]) ||
            (i < 2 && (p == end || *p++ != '.')))
            return false;
    }
    return version[0] == 1 && (version[1] > 6 || (version[1] == 6 && version[2] >= 10));
}

/*
 * A connection speaks one dialect for its lifetime, and a server may know only the other. A
 * greeting as long as a binary header makes it show that at once.
 */
static uint32_t hello(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                      struct mr_buf *out)
{
    (void)options;
    put_greeting(lane, slab, out);
    return 1;
}

static const char *check_hello(const struct mr_proto_options *options, uint8_t lane, uint32_t index,
                               struct mr_slice reply, struct mr_greeting *greeting)
{
    (void)options;
    (void)index;
    if (lane != MR_MC_BINARY_LANE) { /* any reply in text will do */
        greeting->able |= has_meta_set(reply) ? MR_MC_META_SET : 0;
        return NULL;
    }
    return mr_mc_read_header(reply.at).status == MR_MC_OK ? NULL : "server refused the proxy";
}

static void probe(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                  struct mr_buf *out)
{
    (void)options;
    put_greeting(lane, slab, out);
}

static const char *check_probe(struct mr_slice reply, struct mr_probe *found)
{
    (void)found;
    if ((uint8_t)reply.at[0] == MR_MC_REPLY_MAGIC || mr_mc_starts(reply, "VERSION"))
        return NULL;
    return "server answers a probe with an error";
}

const struct mr_proto MR_PROTO_MEMCACHE = {
    .name = "memcache",
    .client = {.too_many_clients = "SERVER_ERROR too many clients\r\n",
               .parse = parse,
               .answer = answer,
               .fail = mr_mc_fail},
    .keys = {.cross_server = "SERVER_ERROR keys of one request live on several servers\r\n",
             .next = mr_mc_next_key,
             .begin_part = mr_mc_begin_part,
             .end_parts = mr_mc_end_parts,
             .copy = mr_mc_copy,
             .join = mr_mc_join},
    .server = {.lanes = MR_MC_LANES,
               .unable = "ms needs a server of memcached 1.6.10 or later",
               .scan_reply = mr_mc_scan_reply,
               .judge = mr_mc_judge,
               .hello = hello,
               .check_hello = check_hello,
               .probe = probe,
               .check_probe = check_probe},
};
