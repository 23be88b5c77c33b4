/*
 * channel.h - typed, versioned messages between the master and its children.
 *
 * A channel is a SOCK_SEQPACKET socket pair: a message arrives whole or not at all, optionally with
 * a descriptor. It closes when the other process ends.
 */
#pragma once

#include "core/result.h"
#include "net/addr.h"

#include <stdint.h>

#define MR_CHANNEL_VERSION 1u

struct mr_no_payload {
    uint8_t none; /* C has no empty structs */
};

struct mr_level_payload {
    int32_t level;
};

struct mr_address_payload {
    uint32_t server; /* index over all pools, in configuration order */
    struct mr_addr addr;
};

#define MR_HANDOVER_POOLS 1024u /* pools beyond this count as moving */

struct mr_handover_payload {
    uint32_t transition;                  /* number of the transition, repeated in QUIESCED */
    uint8_t retired;                      /* the slot is removed: keep accepting until TERMINATE */
    uint8_t moves[MR_HANDOVER_POOLS / 8]; /* bit per pool whose keys move */
};

struct mr_transition_payload {
    uint32_t transition;
};

struct mr_takeover_payload {
    uint32_t slots;                       /* of the new master */
    uint8_t moves[MR_HANDOVER_POOLS / 8]; /* bit per old pool whose keys move */
};

/** A question of one worker to the others, see session/inquiry.h; or an answer to it. */
struct mr_question_payload {
    int32_t asker; /* process that asks; the master sets it */
    uint32_t number;
    uint32_t bytes; /* of the file */
};

struct mr_asked_payload {
    uint32_t number;
    uint32_t others;
};

enum mr_message_type {
#define X(name, payload) MR_MSG_##name##_TYPE,
#include "proc/messages.def"
    MR_MESSAGE_TYPES
};

struct mr_message {
    uint16_t version;
    uint16_t type; /* enum mr_message_type */
    uint32_t len;  /* size of the payload */
    union {
#define X(name, payload) payload name;
#include "proc/messages.def"
    } body;
    int fd; /* received with the message, owned by the receiver; -1 for none. Not sent. */
};

/** Opens a channel, non-blocking and close-on-exec. The caller owns both ends. */
enum mr_result mr_channel_open(int ends[2], struct mr_error *err) MR_MUST_USE;
void mr_channel_close(int fd);

/** Sends msg->type with msg->body, and a descriptor if pass_fd >= 0; it stays ours. */
enum mr_result mr_channel_send(int fd, struct mr_message *msg, int pass_fd,
                               struct mr_error *err) MR_MUST_USE;

/** Bytes that the other side has not read, including the kernel's overhead per message. */
size_t mr_channel_queued(int fd);

const char *mr_message_name(enum mr_message_type type);

/**
 * Sends a message without a payload. Failures are ignored: such a channel is about to be closed.
 */
void mr_channel_tell(int fd, enum mr_message_type type);

/**
 * Receives one message.
 * @return MR_OK; MR_AGAIN if there is none; MR_ESYS if the other side is gone (err->sys is 0) or
 *         the channel failed; MR_EPROTO if version or size are wrong
 */
enum mr_result mr_channel_recv(int fd, struct mr_message *msg, struct mr_error *err) MR_MUST_USE;
