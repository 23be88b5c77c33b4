/*
 * fuzz_answer.c - what a client of FUZZ_PROTO is shown of replies that servers may make up.
 *
 * The first byte holds options, the second the length of the request behind it; the rest is what
 * servers say. Whatever that is, the client gets exactly one reply to one request.
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

static const struct mr_proto_facts FACTS = {.next = no_counter, .lane = any_lane};

/* The next reply of `from`; false when there is none. */
static bool next_reply(uint8_t lane, struct mr_slice *from, struct mr_slice *reply)
{
    struct mr_reply_state state = {0};
    size_t n = 0;

    if (proto->scan_reply(lane, &state, from->at, from->len, &n) != MR_OK)
        return false;
    *reply = (struct mr_slice){from->at, n};
    *from = (struct mr_slice){from->at + n, from->len - n};
    return true;
}

/* What servers say to this message, as far as it is believed. */
static bool believed(const struct mr_msg *msg, struct mr_slice *from, struct mr_slice *reply)
{
    return next_reply(msg->lane, from, reply) &&
           (!msg->guarded || proto->in_step(msg->ticket, *reply));
}

static void check_one_reply(uint8_t lane, struct mr_slice shown)
{
    struct mr_slice reply;

    FUZZ_CHECK(next_reply(lane, &shown, &reply) && shown.len == 0);
}

static void check_failure(const struct mr_msg *msg)
{
    struct mr_buf out = {0};

    proto->fail(&options, msg->ticket, "Connection timed out", &slab, &out);
    check_one_reply(msg->lane, mr_buf_slice(&out));
    mr_buf_clear(&out, &slab);
}

static void one_server(const struct mr_msg *msg, struct mr_slice from)
{
    char head[MR_HEAD_BYTES];
    struct mr_buf shown = {0};
    struct mr_slice reply;
    size_t head_len = 0, cut = 0;

    if (!believed(msg, &from, &reply))
        return;
    if (msg->edits)
        cut = proto->present(msg->ticket, reply, head, &head_len);
    if (cut == MR_HIDDEN)
        return;
    FUZZ_CHECK(cut <= reply.len && head_len <= sizeof(head));
    FUZZ_CHECK(mr_buf_append(&shown, &slab, head, head_len) &&
               mr_buf_append(&shown, &slab, reply.at + cut, reply.len - cut));
    check_one_reply(msg->lane, mr_buf_slice(&shown));
    mr_buf_clear(&shown, &slab);
}

static bool assign_keys(const struct mr_msg *msg, struct mr_plan *plan)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    if (msg->n_keys > KEYS)
        return false;
    while (proto->next_key(msg, &walk, &key)) {
        const uint32_t part = (uint32_t)(key.len + plan->n_keys / 2) % PARTS;
        plan->parts[part].n_keys++;
        plan->part_of_key[plan->n_keys++] = part;
    }
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
                           .n_parts = PARTS,
                           .part_of_key = part_of_key,
                           .parts = parts};
    struct mr_buf out = {0};
    struct mr_slice reply;

    if (msg->action == MR_MSG_BY_KEYS && !assign_keys(msg, &plan))
        return;
    proto->split(msg, &plan, &slab);
    for (uint32_t i = 0; i < PARTS; i++)
        if (!believed(msg, &from, &reply))
            parts[i].failure = "Connection refused";
        else
            FUZZ_CHECK(mr_buf_append(&parts[i].reply, &slab, reply.at, reply.len));
    proto->join(&plan, &slab, &out);
    check_one_reply(msg->lane, mr_buf_slice(&out));
    for (uint32_t i = 0; i < PARTS; i++) {
        mr_buf_clear(&parts[i].request, &slab);
        mr_buf_clear(&parts[i].reply, &slab);
    }
    mr_buf_clear(&plan.notes, &slab);
    mr_buf_clear(&out, &slab);
}

/* What a new connection and a probe make of the same replies. */
static void greet(uint8_t lane, struct mr_slice from)
{
    struct mr_probe found;
    struct mr_slice reply;
    uint8_t able = 0;

    for (uint32_t i = 0; i < 3 && next_reply(lane, &from, &reply); i++) {
        (void)proto->check_hello(&options, lane, i, reply, &able);
        (void)proto->check_probe(reply, &found);
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
    char *bytes = malloc(len + 1); /* exact, so that a read too far is seen */
    memcpy(bytes, data + 2 + request, len);
    const struct mr_slice from = {bytes, len};
    greet(data[0] / 2 % proto->lanes, from);
    if (proto->parse(&ctx, &state, (const char *)data + 2, request, &msg) == MR_OK) {
        if (msg.action == MR_MSG_EVERYWHERE || (msg.action == MR_MSG_BY_KEYS && msg.splittable))
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
