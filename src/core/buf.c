/* buf.c - a contiguous byte queue. */
#include "core/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool grow(struct mr_buf *b, struct mr_slab *slab, size_t n)
{
    const size_t len = mr_buf_len(b);

    if (n > MR_BUF_MAX - len || b->failed)
        return false;
    size_t want = len + n;
    if (want < (size_t)b->cap * 2) /* doubling keeps the copying cost per byte constant */
        want = (size_t)b->cap * 2;
    if (want > MR_BUF_MAX)
        want = MR_BUF_MAX;
    want = mr_slab_round(want);
    if (b->cap > MR_SLAB_LARGE && b->start == 0) {
        char *grown = mr_slab_regrow(slab, b->mem, b->cap, want);
        if (grown == NULL)
            return false;
        b->mem = grown;
        b->cap = (uint32_t)want;
        return true;
    }
    char *mem = mr_slab_try(slab, want);
    if (mem == NULL)
        return false;
    if (len > 0)
        memcpy(mem, b->mem + b->start, len);
    mr_slab_put(slab, b->mem, b->cap);
    b->mem = mem;
    b->cap = (uint32_t)want;
    b->start = 0;
    b->end = (uint32_t)len;
    return true;
}

char *mr_buf_reserve(struct mr_buf *b, struct mr_slab *slab, size_t n)
{
    if (n > b->cap - b->end) {
        const size_t len = mr_buf_len(b);
        if (b->start >= b->cap / 2 && n <= b->cap - len) { /* slide: moves no more than was used */
            memmove(b->mem, b->mem + b->start, len);
            b->start = 0;
            b->end = (uint32_t)len;
        } else if (!grow(b, slab, n)) {
            return NULL;
        }
    }
    return b->mem + b->end;
}

bool mr_buf_append(struct mr_buf *b, struct mr_slab *slab, const char *bytes, size_t n)
{
    if (n == 0)
        return true;
    char *at = mr_buf_reserve(b, slab, n);
    if (at == NULL)
        return false;
    memcpy(at, bytes, n);
    b->end += (uint32_t)n;
    return true;
}

void mr_buf_fail(struct mr_buf *b, struct mr_slab *slab)
{
    mr_buf_clear(b, slab);
    b->failed = true;
}

void mr_buf_put(struct mr_buf *b, struct mr_slab *slab, const char *bytes, size_t n)
{
    if (MR_LIKELY(mr_buf_append(b, slab, bytes, n)) || b->failed)
        return;
    MR_CHECK(mr_buf_len(b) + n > MR_BUF_SMALL);
    mr_buf_fail(b, slab);
}

void mr_buf_consume(struct mr_buf *b, struct mr_slab *slab, size_t n)
{
    MR_CHECK(n <= mr_buf_len(b));
    b->start += (uint32_t)n;
    if (b->start == b->end)
        mr_buf_clear(b, slab);
}

void mr_buf_clear(struct mr_buf *b, struct mr_slab *slab)
{
    mr_slab_put(slab, b->mem, b->cap);
    *b = (struct mr_buf){0};
}

/* Formats `n` bytes into the buffer itself. */
static void print_long(struct mr_buf *b, struct mr_slab *slab, size_t n, const char *fmt,
                       va_list ap)
{
    char *at = b->failed ? NULL : mr_buf_reserve(b, slab, n + 1);

    if (at == NULL) {
        mr_buf_fail(b, slab);
        return;
    }
    MR_CHECK(vsnprintf(at, n + 1, fmt, ap) == (int)n);
    b->end += (uint32_t)n;
}

void mr_buf_printf(struct mr_buf *b, struct mr_slab *slab, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    const int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    MR_CHECK(n >= 0);
    if ((size_t)n < sizeof(text)) {
        mr_buf_put(b, slab, text, (size_t)n);
        return;
    }
    va_start(ap, fmt);
    print_long(b, slab, (size_t)n, fmt, ap);
    va_end(ap);
}
