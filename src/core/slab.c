/* slab.c - recycled memory blocks in size classes. */
#include "core/slab.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define CACHE_BLOCKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CACHE_BLOCKS 0
#endif
#endif
#ifndef CACHE_BLOCKS
#define CACHE_BLOCKS 1
#endif

#define SMALL_CLASSES (MR_SLAB_SMALL / MR_SLAB_STEP)
/* call malloc_trim once this many bytes were freed */
#define TRIM_GIVES_BACK (1024u * 1024u)

static unsigned class_of(size_t size)
{
    if (size <= MR_SLAB_SMALL)
        return (unsigned)((size + MR_SLAB_STEP - 1) / MR_SLAB_STEP) - (size > 0);
    /* 1025..2048 is the first power-of-two class */
    return SMALL_CLASSES + (unsigned)(63 - __builtin_clzl(size - 1)) - 10;
}

static size_t class_size(unsigned c)
{
    if (c < SMALL_CLASSES)
        return (size_t)(c + 1) * MR_SLAB_STEP;
    return (size_t)2048 << (c - SMALL_CLASSES);
}

size_t mr_slab_round(size_t size)
{
    return size > MR_SLAB_LARGE ? size : class_size(class_of(size));
}

void mr_slab_init(struct mr_slab *slab)
{
    memset(slab, 0, sizeof(*slab));
}

static void free_some(struct mr_slab *slab, unsigned c, uint32_t n)
{
    struct mr_slab_class *k = &slab->classes[c];

    for (; n > 0; n--) {
        void *block = k->free;
        memcpy(&k->free, block, sizeof(void *));
        free(block);
        k->n_free--;
        slab->cached_bytes -= class_size(c);
        slab->freed_bytes += class_size(c);
    }
}

void mr_slab_fini(struct mr_slab *slab)
{
    for (unsigned c = 0; c < MR_SLAB_CLASSES; c++)
        free_some(slab, c, slab->classes[c].n_free);
}

void *mr_slab_try(struct mr_slab *slab, size_t size)
{
    void *block;

    if (size > MR_SLAB_LARGE) {
        block = malloc(size);
        if (block != NULL)
            slab->used_bytes += size;
        return block;
    }
    const unsigned c = class_of(size);
    struct mr_slab_class *k = &slab->classes[c];
    if (MR_LIKELY(k->free != NULL)) {
        block = k->free;
        memcpy(&k->free, block, sizeof(void *));
        if (--k->n_free < k->low_water)
            k->low_water = k->n_free;
        slab->cached_bytes -= class_size(c);
    } else {
        block = malloc(class_size(c));
        if (block == NULL)
            return NULL;
    }
    slab->used_bytes += class_size(c);
    return block;
}

void *mr_slab_regrow(struct mr_slab *slab, void *block, size_t old_size, size_t size)
{
    MR_CHECK(old_size > MR_SLAB_LARGE && size >= old_size);
    void *moved = realloc(block, size);
    if (moved != NULL)
        slab->used_bytes += size - old_size;
    return moved;
}

void *mr_slab_get(struct mr_slab *slab, size_t size)
{
    void *block = mr_slab_try(slab, size);

    MR_CHECK(block != NULL);
    return block;
}

void *mr_slab_get_zeroed(struct mr_slab *slab, size_t size)
{
    return memset(mr_slab_get(slab, size), 0, size);
}

void mr_slab_put(struct mr_slab *slab, void *block, size_t size)
{
    if (block == NULL)
        return;
    slab->used_bytes -= mr_slab_round(size);
    if (size > MR_SLAB_LARGE || !CACHE_BLOCKS) {
        free(block);
        slab->freed_bytes += size;
        return;
    }
    const unsigned c = class_of(size);
    struct mr_slab_class *k = &slab->classes[c];
    memcpy(block, &k->free, sizeof(void *));
    k->free = block;
    k->n_free++;
    slab->cached_bytes += class_size(c);
}

void mr_slab_trim(struct mr_slab *slab)
{
    for (unsigned c = 0; c < MR_SLAB_CLASSES; c++) {
        struct mr_slab_class *k = &slab->classes[c];
        free_some(slab, c, (k->low_water + 1) / 2);
        k->low_water = k->n_free;
    }
    if (slab->freed_bytes >= TRIM_GIVES_BACK) {
        (void)malloc_trim(0);
        slab->freed_bytes = 0;
    }
}
