/* fuzz_resp_reply.c - RESP replies from arbitrary bytes: the same end wherever they are cut. */
#include "fuzz/fuzz.h"
#include "proto/resp/resp.h"

static enum mr_result scan(const char *bytes, size_t cut, size_t len, size_t *end)
{
    struct mr_reply_state state = {0};

    enum mr_result rc = MR_PROTO_RESP.scan_reply(0, &state, bytes, cut, end);
    if (rc == MR_AGAIN && cut < len)
        rc = MR_PROTO_RESP.scan_reply(0, &state, bytes, len, end);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t whole_end = 0, cut_end = 0;

    if (size < 2)
        return 0;
    char *bytes = malloc(size - 1);
    memcpy(bytes, data + 1, size - 1);
    const size_t len = size - 1, cut = data[0] % (len + 1);
    const enum mr_result whole = scan(bytes, len, len, &whole_end);
    FUZZ_CHECK(scan(bytes, cut, len, &cut_end) == whole && whole_end == cut_end);
    FUZZ_CHECK(whole != MR_OK || (whole_end > 0 && whole_end <= len));
    free(bytes);
    return 0;
}
