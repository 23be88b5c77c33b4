/*
 * splitting.h - splits a request of the protocol PROTO with the options OPTIONS, answers its parts,
 * and joins the replies.
 */
#pragma once

#include "proto/proto.h"
#include "unit/proto/fixture.h"

static struct mr_session session = {.authed = true};
static const struct mr_proto_ctx CTX = {&OPTIONS, &session, &slab, &scratch, NULL};

#define NEXT_PLACE 99u

static uint32_t part_of_key[16];
static struct mr_part parts[4];
static struct mr_plan plan;
static char text[4096];

/* Splits `wire`: key i goes to part[i] - '0'. */
static void split(const char *wire, const char *part, uint32_t n_parts)
{
    static const char *const NAMES[] = {"one", "two", "three", "four"};
    struct mr_parse_state state = {0};
    struct mr_msg msg;

    session = (struct mr_session){.authed = true};
    assert_int_equal(PROTO.client.parse(&CTX, &state, wire, strlen(wire), &msg), MR_OK);
    if (msg.action == MR_MSG_EVERYWHERE || msg.action == MR_MSG_IN_TURN)
        msg.n_keys = 0;
    else
        assert_int_equal(msg.action, MR_MSG_BY_KEYS);
    assert_int_equal(msg.n_keys, strlen(part));
    memset(parts, 0, sizeof(parts));
    plan = (struct mr_plan){.options = &OPTIONS,
                            .command = msg.command,
                            .ticket = msg.ticket,
                            .class = msg.class,
                            .place = msg.place,
                            .progress = msg.progress,
                            .next = msg.action == MR_MSG_IN_TURN ? NEXT_PLACE : 0,
                            .n_keys = msg.n_keys,
                            .n_parts = n_parts,
                            .part_of_key = part_of_key,
                            .parts = parts};
    for (uint32_t i = 0; i < n_parts; i++)
        parts[i].name = NAMES[i];
    if (msg.n_keys == 0) {
        PROTO.keys.copy(&msg, &plan, &slab);
        return;
    }
    struct mr_key_walk walk = {0};
    struct mr_slice key;
    for (uint32_t i = 0; PROTO.keys.next(&msg, &walk, &key); i++) {
        part_of_key[i] = (uint32_t)(part[i] - '0');
        mr_part_add(&PROTO.keys, &msg, &slab, &parts[part_of_key[i]], walk.bytes, 1);
    }
    PROTO.keys.end_parts(&msg, &plan, &slab);
}

static const char *part_request(uint32_t i)
{
    const struct mr_slice s = mr_buf_slice(&parts[i].request);

    memcpy(text, s.at, s.len);
    text[s.len] = '\0';
    return text;
}

static void answer(uint32_t i, const char *reply)
{
    parts[i].reply = mr_slice_of(reply);
}

static const char *joined(void)
{
    struct mr_buf out = {0};

    PROTO.keys.join(&plan, &slab, &out);
    const struct mr_slice s = mr_buf_slice(&out);
    memcpy(text, s.at, s.len);
    text[s.len] = '\0';
    mr_buf_clear(&out, &slab);
    mr_buf_clear(&plan.notes, &slab);
    for (uint32_t i = 0; i < plan.n_parts; i++)
        mr_buf_clear(&parts[i].request, &slab);
    return text;
}
