/* peer.c - shared by scripted clients and servers. */
#include "peer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t sim_aftermath_us;

static uint64_t trouble_us; /* last time; 0: never */

/* ---- buffers ---- */

static char *reserve(struct sim_bytes *b, size_t n)
{
    if (b->size - b->end >= n)
        return b->memory + b->end;
    if (b->start > 0 && b->start >= b->size / 2) {
        memmove(b->memory, b->memory + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
    }
    if (b->size - b->end < n) { /* the old memory is freed with the run */
        char *memory = sim_alloc(b->size = (b->end - b->start + n) * 2);
        if (b->end > b->start)
            memcpy(memory, b->memory + b->start, b->end - b->start);
        b->memory = memory;
        b->end -= b->start;
        b->start = 0;
    }
    return b->memory + b->end;
}

void sim_bytes_add(struct sim_bytes *b, const void *at, size_t n)
{
    if (n > 0)
        memcpy(reserve(b, n), at, n);
    b->end += n;
}

void sim_bytes_addf(struct sim_bytes *b, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    const int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    MR_CHECK(n >= 0 && (size_t)n < sizeof(text));
    sim_bytes_add(b, text, (size_t)n);
}

void sim_bytes_drop(struct sim_bytes *b, size_t n)
{
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

size_t sim_bytes_read(struct sim_bytes *b, struct sim_conn *c, size_t max)
{
    const size_t there = sim_readable(c);
    const size_t n = there < max ? there : max;

    if (n > 0)
        b->end += sim_read(c, reserve(b, n), n);
    return n;
}

void sim_bytes_send(struct sim_bytes *b, struct sim_conn *c)
{
    if (b->end > b->start)
        sim_write(c, b->memory + b->start, b->end - b->start);
    b->start = b->end = 0;
}

/* ---- values ---- */

void sim_bytes_add_value(struct sim_bytes *b, struct mr_slice tag, size_t size)
{
    const size_t period = tag.len + 1;
    char *at = reserve(b, size + period);
    size_t n = period;

    memcpy(at, tag.at, tag.len);
    at[tag.len] = '|';
    while (n < size) {
        const size_t more = n < size - n ? n : size - n;
        memcpy(at + n, at, more);
        n += more;
    }
    b->end += size;
}

bool sim_is_value(struct mr_slice bytes, struct mr_slice tag)
{
    const size_t period = tag.len + 1;
    const size_t head = bytes.len < tag.len ? bytes.len : tag.len;

    if (memcmp(bytes.at, tag.at, head) != 0 || (bytes.len > head && bytes.at[head] != '|'))
        return false;
    return bytes.len <= period || memcmp(bytes.at, bytes.at + period, bytes.len - period) == 0;
}

struct mr_slice sim_tag_of(struct mr_slice value)
{
    const char *end = memchr(value.at, '|', value.len);

    return (struct mr_slice){value.at, end != NULL ? (size_t)(end - value.at) : value.len};
}

bool sim_key_size(struct mr_slice key, size_t *size)
{
    size_t n = 0, i = key.len;

    if (key.len == 0 || key.at[0] != 'v')
        return false;
    while (i > 0 && key.at[i - 1] != '.')
        i--;
    for (; i < key.len; i++)
        n = n * 10 + (size_t)(key.at[i] - '0');
    *size = n;
    return true;
}

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct mr_slice sim_to_base64(struct mr_slice bytes)
{
    char *text = sim_alloc((bytes.len + 2) / 3 * 4 + 1);
    size_t n = 0;

    for (size_t i = 0; i < bytes.len; i += 3) {
        uint32_t bits = 0;
        for (size_t k = 0; k < 3; k++)
            bits = bits << 8 | (i + k < bytes.len ? (uint8_t)bytes.at[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            text[n++] = i + k <= bytes.len ? BASE64[bits >> (18 - 6 * k) & 63] : '=';
    }
    return (struct mr_slice){text, n};
}

struct mr_slice sim_from_base64(struct mr_slice text)
{
    char *bytes = sim_alloc(text.len + 1);
    uint32_t bits = 0;
    size_t n = 0;

    SIM_CHECK(text.len % 4 == 0, "base64 text of %zu digits", text.len);
    for (size_t i = 0; i < text.len && text.at[i] != '='; i++) {
        const char *digit = strchr(BASE64, text.at[i]);
        SIM_CHECK(digit != NULL, "a bad digit of base64: %c", text.at[i]);
        bits = bits << 6 | (uint32_t)(digit - BASE64);
        if (i % 4 > 0)
            bytes[n++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    return (struct mr_slice){bytes, n};
}

/* ---- trouble ---- */

void sim_trouble(const char *fmt, ...)
{
    char text[128];
    va_list args;

    trouble_us = sim_now_us;
    if (!sim_tracing)
        return;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sim_trace("trouble: %s", text);
}

bool sim_may_fail(uint64_t sent_us)
{
    return trouble_us != 0 && trouble_us + sim_aftermath_us >= sent_us;
}

void sim_trouble_begin(void)
{
    trouble_us = 0;
}
