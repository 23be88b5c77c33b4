/*
 * fuzz_reply.c - replies of FUZZ_PROTO from arbitrary bytes: the same end however they are cut, on
 * every lane.
 */
#include "fuzz/fuzz.h"
#include "proto/proto.h"

static enum mr_result scan(uint8_t lane, const char *bytes, size_t cut, size_t len, size_t *end)
{
    const struct mr_proto *proto = mr_proto_by_name(mr_slice_of(FUZZ_PROTO));
    struct mr_reply_state state = {0};

    enum mr_result rc = proto->server.scan_reply(lane, &state, bytes, cut, end);
    if (rc == MR_AGAIN && cut < len)
        rc = proto->server.scan_reply(lane, &state, bytes, len, end);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    char *bytes = malloc(size - 1);
    memcpy(bytes, data + 1, size - 1);
    const size_t len = size - 1, cut = data[0] % (len + 1);
    const struct mr_proto *proto = mr_proto_by_name(mr_slice_of(FUZZ_PROTO));
    for (uint8_t lane = 0; lane < proto->server.lanes; lane++) {
        size_t whole_end = 0, cut_end = 0;
        const enum mr_result whole = scan(lane, bytes, len, len, &whole_end);
        FUZZ_CHECK(scan(lane, bytes, cut, len, &cut_end) == whole && whole_end == cut_end);
        FUZZ_CHECK(whole != MR_OK || (whole_end > 0 && whole_end <= len));
    }
    free(bytes);
    return 0;
}
