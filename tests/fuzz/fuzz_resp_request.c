/*
 * fuzz_resp_request.c - RESP requests from arbitrary bytes.
 *
 * The first byte chooses where the rest is cut; whole and cut must give the same verdict, the
 * walked keys must lie inside the message, and local answers must be written.
 */
#include "fuzz/fuzz.h"
#include "proto/resp/resp.h"

struct verdict {
    enum mr_result rc;
    enum mr_msg_action action;
    size_t consumed;
};

static struct mr_slab slab;
static struct mr_buf scratch;

static void walk_keys(const struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;
    uint32_t n = 0;

    while (MR_PROTO_RESP.next_key(msg, &walk, &key)) {
        FUZZ_CHECK(key.at >= msg->wire.at && key.at + key.len <= msg->wire.at + msg->wire.len);
        n++;
    }
    FUZZ_CHECK(n == msg->n_keys);
}

static struct verdict parse(const char *bytes, size_t cut, size_t len)
{
    static const struct mr_proto_options OPTIONS = {.max_request_bytes = 4096, .max_key_bytes = 64};
    struct mr_session session = {.authed = true};
    const struct mr_proto_ctx ctx = {&OPTIONS, &session, &slab, &scratch, NULL};
    struct mr_parse_state state = {0};
    struct mr_msg msg = {0};
    struct mr_buf out = {0};

    enum mr_result rc = MR_PROTO_RESP.parse(&ctx, &state, bytes, cut, &msg);
    if (rc == MR_AGAIN && cut < len)
        rc = MR_PROTO_RESP.parse(&ctx, &state, bytes, len, &msg);
    struct verdict v = {.rc = rc};
    if (rc == MR_OK) {
        v.action = msg.action;
        v.consumed = msg.consumed;
        FUZZ_CHECK(msg.consumed > 0 && msg.consumed <= len);
        if (msg.action == MR_MSG_BY_KEYS)
            walk_keys(&msg);
        if (msg.action == MR_MSG_LOCAL) {
            (void)MR_PROTO_RESP.answer(&ctx, &msg, &out);
            FUZZ_CHECK(mr_buf_len(&out) > 0);
        }
    } else if (rc != MR_AGAIN) {
        FUZZ_CHECK(msg.reply.len > 3 && msg.reply.at[0] == '-');
    }
    mr_buf_clear(&out, &slab);
    mr_buf_clear(&scratch, &slab);
    free(session.name);
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    char *bytes = malloc(size - 1); /* exact, so that a read too far is seen */
    memcpy(bytes, data + 1, size - 1);
    const size_t len = size - 1, cut = data[0] % (len + 1);
    const struct verdict whole = parse(bytes, len, len);
    const struct verdict pieces = parse(bytes, cut, len);
    FUZZ_CHECK(whole.rc == pieces.rc && whole.action == pieces.action &&
               whole.consumed == pieces.consumed);
    free(bytes);
    return 0;
}
