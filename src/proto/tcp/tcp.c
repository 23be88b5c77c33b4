/* tcp.c - plain TCP: nothing is parsed, and a server that accepts a connection is well. */
#include "proto/tcp/tcp.h"

static enum mr_result scan_reply(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                 size_t len, size_t *reply_len)
{
    (void)lane;
    (void)state;
    (void)bytes;
    *reply_len = len;
    return MR_ASIDE; /* a server may greet the probe */
}

static uint32_t hello(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                      struct mr_buf *out)
{
    (void)options;
    (void)lane;
    (void)slab;
    (void)out;
    return 0;
}

const struct mr_proto MR_PROTO_TCP = {
    .name = "tcp",
    .client = {.too_many_clients = ""},
    .server = {.lanes = 1, .scan_reply = scan_reply, .hello = hello},
};
