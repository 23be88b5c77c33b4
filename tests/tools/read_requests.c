/*
 * read_requests.c - shows how the proxy classifies requests: reads Redis requests from its input,
 * and prints the action and the keys of each.
 */
#include "proto/proto.h"

#include <stdio.h>
#include <stdlib.h>

#define INPUT_MAX (1u << 26)

static const char *const ACTIONS[] = {
    [MR_MSG_SKIP] = "skip",
    [MR_MSG_LOCAL] = "local",
    [MR_MSG_REFUSE] = "refuse",
    [MR_MSG_BY_KEY] = "by_key",
    [MR_MSG_BY_KEYS] = "by_keys",
    [MR_MSG_ANYWHERE] = "anywhere",
    [MR_MSG_EVERYWHERE] = "everywhere",
};

static void show(const struct mr_proto *proto, const struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key = msg->key;

    printf("%s", ACTIONS[msg->action]);
    if (msg->action == MR_MSG_BY_KEY)
        printf(" %.*s", (int)key.len, key.at);
    else if (msg->action == MR_MSG_BY_KEYS)
        while (proto->keys.next(msg, &walk, &key))
            printf(" %.*s", (int)key.len, key.at);
    printf("\n");
}

int main(void)
{
    const struct mr_proto_options options = {.max_request_bytes = INPUT_MAX,
                                             .max_key_bytes = INPUT_MAX};
    const struct mr_proto *proto = mr_proto_by_name(mr_slice_of("redis"));
    struct mr_session session = {.authed = true};
    struct mr_buf scratch = {0};
    struct mr_slab slab;
    char *bytes = malloc(INPUT_MAX);

    MR_CHECK(bytes != NULL);
    mr_slab_init(&slab);
    const struct mr_proto_ctx ctx = {
        .options = &options, .session = &session, .slab = &slab, .scratch = &scratch};
    const size_t len = fread(bytes, 1, INPUT_MAX, stdin);
    for (size_t at = 0; at < len;) {
        struct mr_parse_state state = {0};
        struct mr_msg msg = {0};
        if (proto->client.parse(&ctx, &state, bytes + at, len - at, &msg) != MR_OK)
            return 1;
        show(proto, &msg);
        at += msg.consumed;
    }
    mr_buf_clear(&scratch, &slab);
    mr_slab_fini(&slab);
    free(bytes);
    return 0;
}
