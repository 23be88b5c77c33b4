/*
 * peer.h - shared by scripted clients and servers: buffers, values that identify themselves, and
 * recent trouble.
 */
#pragma once

#include "kernel.h"

#include "core/slice.h"

/* ---- buffers ---- */

struct sim_bytes {
    char *memory;
    size_t start, end, size;
};

void sim_bytes_add(struct sim_bytes *b, const void *at, size_t n);
void sim_bytes_addf(struct sim_bytes *b, const char *fmt, ...) MR_PRINTF(2, 3);
void sim_bytes_drop(struct sim_bytes *b, size_t n);

/** Reads everything readable, up to `max` bytes; returns how many. */
size_t sim_bytes_read(struct sim_bytes *b, struct sim_conn *c, size_t max);

/** Sends everything and empties the buffer. */
void sim_bytes_send(struct sim_bytes *b, struct sim_conn *c);

static inline struct mr_slice sim_bytes_slice(const struct sim_bytes *b)
{
    return (struct mr_slice){b->memory + b->start, b->end - b->start};
}

/* ---- values ---- */

/** A value of this size that begins with the tag and repeats it. */
void sim_bytes_add_value(struct sim_bytes *b, struct mr_slice tag, size_t size);

/** True if the bytes are that value. */
bool sim_is_value(struct mr_slice bytes, struct mr_slice tag);

/** The tag of a value: up to its first '|', or all of it. */
struct mr_slice sim_tag_of(struct mr_slice value);

/**
 * There are two kinds of keys. "v7.3.120": every server has it, with a value of 120 bytes derived
 * from the key. Any other key has the value that was last stored.
 */
bool sim_key_size(struct mr_slice key, size_t *size);

/** Allocated for the run. */
struct mr_slice sim_to_base64(struct mr_slice bytes);
struct mr_slice sim_from_base64(struct mr_slice text);

/* ---- trouble ---- */

/** Records trouble that lets requests fail, such as a server's death. */
void sim_trouble(const char *fmt, ...) MR_PRINTF(1, 2);

/** True if a request sent at this time may fail now. */
bool sim_may_fail(uint64_t sent_us);

/** How long requests may fail after trouble: back-off, ejection. */
extern uint64_t sim_aftermath_us;

/** Forgets all trouble. */
void sim_trouble_begin(void);
