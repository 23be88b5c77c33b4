/*
 * fuzz_request.c - requests of FUZZ_PROTO from arbitrary bytes.
 *
 * The first byte determines where the rest is cut. Whole and cut input must give the same result,
 * keys must lie inside the message, local commands must be answered, and the parts of a split
 * request must be valid requests.
 */
#include "fuzz/fuzz.h"
#include "proto/proto.h"

#define PARTS 3u

struct verdict {
    enum mr_result rc;
    enum mr_msg_action action;
    size_t consumed;
};

static const struct mr_proto *proto;
static struct mr_slab slab;
static struct mr_buf scratch;

static const struct mr_proto_options OPTIONS = {
    .max_request_bytes = 4096, .max_key_bytes = 64, .max_item_bytes = 1024, .allow_flush = true};

static enum mr_lane_state any_lane(const struct mr_proto_facts *facts, uint8_t lane)
{
    (void)facts;
    (void)lane;
    return MR_LANE_USABLE;
}

static bool no_counter(const struct mr_proto_facts *facts, uint32_t *index, const char **name,
                       uint64_t *value)
{
    (void)facts;
    (void)index;
    (void)name;
    (void)value;
    return false;
}

static bool may_log_in(const struct mr_proto_facts *facts, const struct mr_session *session,
                       struct mr_slice name)
{
    (void)facts;
    (void)session;
    return name.len % 2 == 0;
}

static void login_failed(const struct mr_proto_facts *facts, const struct mr_session *session,
                         struct mr_slice name)
{
    (void)facts;
    (void)session;
    (void)name;
}

static const struct mr_session *next_client(const struct mr_proto_facts *facts,
                                            const struct mr_session *session)
{
    (void)facts;
    (void)session;
    return NULL;
}

static void describe_client(const struct mr_session *session, struct mr_client_facts *facts)
{
    (void)session;
    *facts = (struct mr_client_facts){.peer = "?:0", .local = "?:0", .queued = -1};
}

static const struct mr_proto_facts FACTS = {.next = no_counter,
                                            .next_client = next_client,
                                            .describe_client = describe_client,
                                            .lane = any_lane,
                                            .any_lane = any_lane,
                                            .version = "",
                                            .may_log_in = may_log_in,
                                            .login_failed = login_failed};

static uint32_t walk_keys(const struct mr_msg *msg, struct mr_part *parts, uint32_t *part_of_key)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;
    uint32_t n = 0;

    while (proto->keys.next(msg, &walk, &key)) {
        const struct mr_slice b = walk.bytes;
        FUZZ_CHECK(!msg->splittable ||
                   (b.at >= msg->wire.at && b.at + b.len <= msg->wire.at + msg->wire.len));
        FUZZ_CHECK(key.at >= msg->wire.at && key.at + key.len <= msg->wire.at + msg->wire.len);
        FUZZ_CHECK(n < msg->n_keys);
        part_of_key[n] = n % PARTS;
        if (msg->splittable)
            mr_part_add(&proto->keys, msg, &slab, &parts[n % PARTS], b, 1);
        n++;
    }
    FUZZ_CHECK(n == msg->n_keys);
    return n;
}

static void check_part(const struct mr_buf *request)
{
    struct mr_session session = {.authed = true};
    struct mr_buf other = {0};
    const struct mr_proto_ctx ctx = {&OPTIONS, &session, &slab, &other, &FACTS};
    struct mr_parse_state state = {0};
    struct mr_msg msg = {0};
    const struct mr_slice bytes = mr_buf_slice(request);

    FUZZ_CHECK(proto->client.parse(&ctx, &state, bytes.at, bytes.len, &msg) == MR_OK);
    FUZZ_CHECK(msg.consumed == bytes.len && msg.n_keys < 4096);
    mr_buf_clear(&other, &slab);
}

static void split(const struct mr_msg *msg)
{
    static uint32_t part_of_key[4096];
    static struct mr_part parts[PARTS];
    struct mr_plan plan = {.options = &OPTIONS,
                           .command = msg->command,
                           .ticket = msg->ticket,
                           .class = msg->class,
                           .part_of_key = part_of_key,
                           .parts = parts};
    struct mr_buf out = {0};

    memset(parts, 0, sizeof(parts));
    plan.n_keys = walk_keys(msg, parts, part_of_key);
    plan.n_parts = plan.n_keys < PARTS ? plan.n_keys : PARTS;
    if (!msg->splittable)
        return;
    proto->keys.end_parts(msg, &plan, &slab);
    for (uint32_t i = 0; i < plan.n_parts; i++) {
        check_part(&parts[i].request);
        parts[i].failure = "failed";
    }
    proto->keys.join(&plan, &slab, &out);
    FUZZ_CHECK(mr_buf_len(&out) > 0);
    for (uint32_t i = 0; i < plan.n_parts; i++)
        mr_buf_clear(&parts[i].request, &slab);
    mr_buf_clear(&plan.notes, &slab);
    mr_buf_clear(&out, &slab);
}

static char *prefixes[] = {"k", "{"};
static struct mr_user limited = {.name = "limited", .prefixes = prefixes, .n_prefixes = 2};

static struct verdict parse(const char *bytes, size_t cut, size_t len)
{
    struct mr_session session = {.authed = true, .user = len % 4 == 0 ? &limited : NULL};
    const struct mr_proto_ctx ctx = {&OPTIONS, &session, &slab, &scratch, &FACTS};
    struct mr_parse_state state = {0};
    struct mr_buf out = {0};
    struct mr_msg msg;

    memset(&msg, 0xa5, sizeof(msg)); /* leftovers of another message */
    enum mr_result rc = proto->client.parse(&ctx, &state, bytes, cut, &msg);
    if (rc == MR_AGAIN && cut < len)
        rc = proto->client.parse(&ctx, &state, bytes, len, &msg);
    struct verdict v = {.rc = rc};
    if (rc == MR_OK) {
        v.action = msg.action;
        v.consumed = msg.consumed;
        FUZZ_CHECK(msg.consumed > 0 && msg.consumed <= len && msg.lane < proto->server.lanes);
        if (msg.action == MR_MSG_BY_KEYS)
            split(&msg);
        if (msg.action == MR_MSG_LOCAL)
            FUZZ_CHECK(proto->client.answer(&ctx, &msg, &out) == MR_CLOSE_CLIENT ||
                       mr_buf_len(&out) > 0);
        if (msg.action == MR_MSG_REFUSE)
            FUZZ_CHECK(msg.reply.len > 2 && msg.step == MR_STEP_NONE);
        if (msg.step != MR_STEP_NONE && msg.action != MR_MSG_LOCAL)
            FUZZ_CHECK(msg.key.len == 0 || (msg.key.at > msg.wire.at &&
                                            msg.key.at + msg.key.len < msg.wire.at + msg.wire.len));
    } else if (rc != MR_AGAIN) {
        FUZZ_CHECK(msg.reply.len > 3);
    }
    mr_buf_clear(&out, &slab);
    mr_buf_clear(&scratch, &slab);
    free(session.labels);
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 4096)
        return 0;
    proto = mr_proto_by_name(mr_slice_of(FUZZ_PROTO));
    memset(limited.permits, data[0] % 8 == 0 ? 0 : 0xb7, sizeof(limited.permits));
    char *bytes = malloc(size - 1); /* of the exact size, so that overreads are detected */
    memcpy(bytes, data + 1, size - 1);
    const size_t len = size - 1, cut = data[0] % (len + 1);
    const struct verdict whole = parse(bytes, len, len);
    const struct verdict pieces = parse(bytes, cut, len);
    FUZZ_CHECK(whole.rc == pieces.rc && whole.action == pieces.action &&
               whole.consumed == pieces.consumed);
    free(bytes);
    return 0;
}
