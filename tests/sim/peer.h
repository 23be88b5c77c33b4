/* peer.h - what scripted clients and servers share: buffers, values that tell whose they are, and
 * what has gone wrong so far.
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

/** Reads all, or up to `max` bytes, that can be read; how many there were. */
size_t sim_bytes_read(struct sim_bytes *b, struct sim_conn *c, size_t max);

/** Sends all of it and empties it. */
void sim_bytes_send(struct sim_bytes *b, struct sim_conn *c);

static inline struct mr_slice sim_bytes_slice(const struct sim_bytes *b)
{
    return (struct mr_slice){b->memory + b->start, b->end - b->start};
}

/* ---- values ---- */

/** A value of this many bytes that begins with the tag and repeats it. */
void sim_bytes_add_value(struct sim_bytes *b, struct mr_slice tag, size_t size);

/** True when the bytes are that value. */
bool sim_is_value(struct mr_slice bytes, struct mr_slice tag);

/** The tag of a value, up to its first '|'; all of it where there is none. */
struct mr_slice sim_tag_of(struct mr_slice value);

/**
 * Keys of two kinds. "v7.3.120": every server has it, with a value of 120 bytes that is made of the
 * key. Any other key has the value that was stored last.
 */
bool sim_key_size(struct mr_slice key, size_t *size);

/** Memory of the run. */
struct mr_slice sim_to_base64(struct mr_slice bytes);
struct mr_slice sim_from_base64(struct mr_slice text);

/* ---- what has gone wrong ---- */

/** Something happened, a server's death for instance, for which requests may fail. */
void sim_trouble(const char *fmt, ...) MR_PRINTF(1, 2);

/** True when a request that was sent at this time may fail now. */
bool sim_may_fail(uint64_t sent_us);

/** For how long requests may fail after trouble: back-off, ejection. */
extern uint64_t sim_aftermath_us;

/** No trouble, ever. */
void sim_trouble_begin(void);
