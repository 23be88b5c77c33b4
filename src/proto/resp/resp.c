/* resp.c - the Redis protocol as the proxy sees it. */
#include "proto/resp/resp.h"

#include "core/number.h"
#include "proto/resp/internal.h"

static void fail(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                 struct mr_slab *slab, struct mr_buf *out)
{
    (void)options;
    (void)ticket;
    mr_buf_printf(out, slab, "-ERR %.400s\r\n", text);
}

/* AUTH before SELECT, so that the database is selected by somebody who may. */
static uint32_t hello(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                      struct mr_buf *out)
{
    uint32_t replies = 0;

    (void)lane;
    if (options->auth != NULL) {
        mr_resp_put_head(out, slab, '*', 2);
        mr_resp_put_bulk(out, slab, mr_slice_of("AUTH"));
        mr_resp_put_bulk(out, slab, mr_slice_of(options->auth));
        replies++;
    }
    if (options->db > 0) {
        char db[20];
        mr_resp_put_head(out, slab, '*', 2);
        mr_resp_put_bulk(out, slab, mr_slice_of("SELECT"));
        mr_resp_put_bulk(out, slab, (struct mr_slice){db, mr_format_uint(db, options->db)});
        replies++;
    }
    return replies;
}

static const char *check_hello(const struct mr_proto_options *options, uint8_t lane, uint32_t index,
                               struct mr_slice reply)
{
    (void)lane;
    if (reply.len > 0 && reply.at[0] == '+')
        return NULL;
    return index == 0 && options->auth != NULL ? "server refused the password of the proxy"
                                               : "server refused the database of the pool";
}

static enum mr_result scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                 size_t len, size_t *reply_len)
{
    (void)lane;
    return mr_resp_scan_reply(state, bytes, len, reply_len);
}

const struct mr_proto MR_PROTO_RESP = {
    .name = "redis",
    .lanes = 1,
    .cross_server = "-CROSSSLOT Keys in request don't live on the same server\r\n",
    .too_many_clients = "-ERR max number of clients reached\r\n",
    .parse = mr_resp_parse,
    .next_key = mr_resp_next_key,
    .answer = mr_resp_answer,
    .split = mr_resp_split,
    .join = mr_resp_join,
    .fail = fail,
    .scan_reply = scan_reply,
    .hello = hello,
    .check_hello = check_hello,
};
