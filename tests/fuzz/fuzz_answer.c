/*
 * fuzz_answer.c - what clients of FUZZ_PROTO see of arbitrary server replies.
 *
 * The first byte has options, the second the length of the request that follows; the rest is what
 * servers send. Whatever that is, the client must get exactly one reply per request.
 */
#include "fuzz/fuzz.h"
#include "proto/proto.h"

#define PARTS 3u
#define KEYS  64u

static const struct mr_proto *proto;
static struct mr_slab slab;
static struct mr_buf scratch;
static struct mr_proto_options options = {
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

/* The next reply in `from`; false if there is none. */
static bool next_reply(uint8_t lane, struct mr_slice *from, struct mr_slice *reply)
{
    struct mr_reply_state state = {0};
    size_t n = 0;

    if (proto->server.scan_reply(lane, &state, from->at, from->len, &n) != MR_OK)
        return false;
    *reply = (struct mr_slice){from->at, n};
    *from = (struct mr_slice){from->at + n, from->len - n};
    return true;
}

/* The servers' reply to this message, unless it is rejected. */
static bool believed(const struct mr_msg *msg, struct mr_slice *from, struct mr_slice *reply)
{
    struct mr_verdict verdict = {.meaning = MR_REPLY_PASS};

    if (!next_reply(msg->lane, from, reply))
        return false;
    if (msg->guarded)
        proto->server.judge(MR_REPLY_OUT_OF_STEP, msg->ticket, *reply, &verdict);
    return verdict.meaning == MR_REPLY_PASS;
}

static void check_one_reply(uint8_t lane, struct mr_slice shown)
{
    struct mr_slice reply;

    FUZZ_CHECK(next_reply(lane, &shown, &reply) && shown.len == 0);
}

static void check_failure(const struct mr_msg *msg)
{
    struct mr_buf out = {0};

    proto->client.fail(&options, msg->ticket, "Connection timed out", &slab, &out);
    check_one_reply(msg->lane, mr_buf_slice(&out));
    mr_buf_clear(&out, &slab);
}

static void one_server(const struct mr_msg *msg, struct mr_slice from)
{
    struct mr_verdict verdict = {.meaning = MR_REPLY_PASS};
    const struct mr_rewrite *rewrite = &verdict.rewrite;
    struct mr_buf shown = {0};
    struct mr_slice reply;

    if (!believed(msg, &from, &reply))
        return;
    if (msg->edits)
        proto->server.judge(MR_REPLY_EDITS, msg->ticket, reply, &verdict);
    if (verdict.meaning == MR_REPLY_HIDE)
        return;
    FUZZ_CHECK(rewrite->cut <= reply.len && rewrite->head_len <= sizeof(rewrite->head));
    FUZZ_CHECK(mr_buf_append(&shown, &slab, rewrite->head, rewrite->head_len) &&
               mr_buf_append(&shown, &slab, reply.at + rewrite->cut, reply.len - rewrite->cut));
    check_one_reply(msg->lane, mr_buf_slice(&shown));
    mr_buf_clear(&shown, &slab);
}

static bool assign_keys(const struct mr_msg *msg, struct mr_plan *plan)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    if (msg->n_keys > KEYS)
        return false;
    while (proto->keys.next(msg, &walk, &key)) {
        const uint32_t n = plan->n_keys, /* every part has a key */
            part = n < PARTS ? n : (uint32_t)(key.len + n / 2) % PARTS;
        mr_part_add(&proto->keys, msg, &slab, &plan->parts[part], walk.bytes, 1);
        plan->part_of_key[plan->n_keys++] = part;
    }
    if (plan->n_keys < PARTS)
        plan->n_parts = plan->n_keys;
    return true;
}

static void several_servers(const struct mr_msg *msg, struct mr_slice from)
{
    static uint32_t part_of_key[KEYS];
    struct mr_part parts[PARTS] = {{.name = "one"}, {.name = "two"}, {.name = "a third"}};
    struct mr_plan plan = {.options = &options,
                           .command = msg->command,
                           .ticket = msg->ticket,
                           .class = msg->class,
                           .n_parts = msg->action == MR_MSG_IN_TURN ? 1 : PARTS,
                           .place = msg->place,
                           .progress = msg->progress,
                           .part_of_key = part_of_key,
                           .parts = parts};
    struct mr_buf out = {0};
    struct mr_slice reply;

    if (msg->action == MR_MSG_BY_KEYS && !assign_keys(msg, &plan))
        return;
    if (msg->action == MR_MSG_BY_KEYS)
        proto->keys.end_parts(msg, &plan, &slab);
    else
        proto->keys.copy(msg, &plan, &slab);
    for (uint32_t i = 0; i < plan.n_parts; i++)
        if (!believed(msg, &from, &reply))
            parts[i].failure = "Connection refused";
        else
            parts[i].reply = reply;
    proto->keys.join(&plan, &slab, &out);
    check_one_reply(msg->lane, mr_buf_slice(&out));
    for (uint32_t i = 0; i < PARTS; i++)
        mr_buf_clear(&parts[i].request, &slab);
    mr_buf_clear(&plan.notes, &slab);
    mr_buf_clear(&out, &slab);
}

/* Feeds the same replies to a new connection and to a probe. */
static void greet(uint8_t lane, struct mr_slice from)
{
    struct mr_probe found;
    struct mr_slice reply;
    struct mr_greeting greeting = {0};

    for (uint32_t i = 0; i < 3 && next_reply(lane, &from, &reply); i++) {
        (void)proto->server.check_hello(&options, lane, i, reply, &greeting);
        (void)proto->server.check_probe(reply, &found);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mr_session session = {.authed = true, .dialect = size > 0 ? data[0] >> 1 & 1 : 0};
    const struct mr_proto_ctx ctx = {&options, &session, &slab, &scratch, &FACTS};
    struct mr_parse_state state = {0};
    struct mr_msg msg = {0};

    if (size < 2 || size - 2 < data[1])
        return 0;
    proto = mr_proto_by_name(mr_slice_of(FUZZ_PROTO));
    options.failure_is_miss = data[0] & 1;
    const size_t request = data[1], len = size - 2 - request;
    char *bytes = malloc(len + 1); /* of the exact size, so that overreads are detected */
    memcpy(bytes, data + 2 + request, len);
    const struct mr_slice from = {bytes, len};
    greet(data[0] / 2 % proto->server.lanes, from);
    if (proto->client.parse(&ctx, &state, (const char *)data + 2, request, &msg) == MR_OK) {
        if (msg.action == MR_MSG_EVERYWHERE || msg.action == MR_MSG_IN_TURN ||
            (msg.action == MR_MSG_BY_KEYS && msg.splittable))
            several_servers(&msg, from);
        else if (msg.action == MR_MSG_BY_KEY || msg.action == MR_MSG_BY_KEYS)
            one_server(&msg, from);
        if (msg.action != MR_MSG_SKIP && msg.action != MR_MSG_REFUSE && msg.action != MR_MSG_LOCAL)
            check_failure(&msg);
    }
    mr_buf_clear(&scratch, &slab);
    free(bytes);
    return 0;
}
