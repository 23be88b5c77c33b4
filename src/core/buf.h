/*
 * buf.h - a contiguous byte queue: appended at the end, consumed at the front.
 *
 * An empty buffer owns no memory, so an idle connection costs only this header. Memory comes from
 * the slab passed in; a buffer must always use the same slab.
 */
#pragma once

#include "core/slab.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_BUF_MAX (2147483648u - 4096u) /* bytes; largest possible buffer */

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

/** The bytes held. Valid until the buffer next changes. */
static inline struct mr_slice mr_buf_slice(const struct mr_buf *b)
{
    return (struct mr_slice){b->start > 0 ? b->mem + b->start : b->mem, b->end - b->start};
}

/**
 * Makes room for `n` more bytes at the end.
 * @return where to write them (then add to b->end), or NULL if memory is short or the buffer would
 *         exceed MR_BUF_MAX; the content is then unchanged
 */
char *mr_buf_reserve(struct mr_buf *b, struct mr_slab *slab, size_t n) MR_MUST_USE;

/** Appends a copy. False if memory is short; the content is then unchanged. */
bool mr_buf_append(struct mr_buf *b, struct mr_slab *slab, const char *bytes, size_t n) MR_MUST_USE;

/** Up to this size a buffer is assumed never to run short of memory. */
#define MR_BUF_SMALL 4096u

/**
 * Appends a copy, for code that builds a message from many pieces. If memory is short, a small
 * buffer aborts the process. A large one drops its content, is marked as failed and accepts nothing
 * until it is cleared, so callers need to check only once, at the end.
 */
void mr_buf_put(struct mr_buf *b, struct mr_slab *slab, const char *bytes, size_t n);

/** Marks the buffer as failed and drops its content. */
void mr_buf_fail(struct mr_buf *b, struct mr_slab *slab);

static inline bool mr_buf_failed(const struct mr_buf *b)
{
    return b->failed;
}

/** Drops `n` bytes at the front. Returns the memory to the slab when none are left. */
void mr_buf_consume(struct mr_buf *b, struct mr_slab *slab, size_t n);

/** Drops everything and returns the memory to the slab. */
void mr_buf_clear(struct mr_buf *b, struct mr_slab *slab);

/** mr_buf_put with formatted text. Text longer than 511 bytes never aborts the process. */
void mr_buf_printf(struct mr_buf *b, struct mr_slab *slab, const char *fmt, ...) MR_PRINTF(3, 4);
