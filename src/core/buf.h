/*
 * buf.h - a contiguous byte queue: appended at the end, consumed at the front.
 *
 * Owns no memory while empty, so an idle connection costs only this header. Memory comes from the
 * slab that is passed in; one buffer must always see the same slab.
 */
#pragma once

#include "core/slab.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_BUF_MAX (2147483648u - 4096u) /* bytes; the largest buffer */

struct mr_buf {
    char *mem;      /* NULL while cap is 0 */
    uint32_t start; /* first byte not yet consumed */
    uint32_t end;   /* one past the last byte */
    uint32_t cap;   /* bytes at mem */
    bool failed;    /* see mr_buf_put */
};

static inline uint32_t mr_buf_len(const struct mr_buf *b)
{
    return b->end - b->start;
}

static inline bool mr_buf_empty(const struct mr_buf *b)
{
    return b->end == b->start;
}

/** The bytes held, valid until the next call that changes the buffer. */
static inline struct mr_slice mr_buf_slice(const struct mr_buf *b)
{
    return (struct mr_slice){b->start > 0 ? b->mem + b->start : b->mem, b->end - b->start};
}

/**
 * Makes room for `n` more bytes at the end.
 * @return where to write them (then add to b->end), or NULL when memory is short or the buffer
 *         would pass MR_BUF_MAX; the content is untouched then
 */
char *mr_buf_reserve(struct mr_buf *b, struct mr_slab *slab, size_t n) MR_MUST_USE;

/** Appends a copy; false when memory is short, the content is untouched then. */
bool mr_buf_append(struct mr_buf *b, struct mr_slab *slab, const char *bytes, size_t n) MR_MUST_USE;

/** A buffer of up to so many bytes is not expected to find memory short. */
#define MR_BUF_SMALL 4096u

/**
 * Appends a copy, for whoever builds something of many pieces. Where memory is short for a small
 * buffer, it dies; a large one loses its content and has failed: it takes nothing until it is
 * cleared, so that it is enough to look once, at the end.
 */
void mr_buf_put(struct mr_buf *b, struct mr_slab *slab, const char *bytes, size_t n);

/** Makes it one that has failed. */
void mr_buf_fail(struct mr_buf *b, struct mr_slab *slab);

static inline bool mr_buf_failed(const struct mr_buf *b)
{
    return b->failed;
}

/** Drops `n` bytes at the front; gives the memory back when none are left. */
void mr_buf_consume(struct mr_buf *b, struct mr_slab *slab, size_t n);

/** Drops everything and gives the memory back. */
void mr_buf_clear(struct mr_buf *b, struct mr_slab *slab);

/** mr_buf_put of formatted text of at most 511 bytes. */
void mr_buf_printf(struct mr_buf *b, struct mr_slab *slab, const char *fmt, ...) MR_PRINTF(3, 4);
