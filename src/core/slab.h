/*
 * slab.h - recycled memory blocks in size classes, one slab per worker.
 *
 * Steady traffic reuses the same few blocks, so the hot path does not call malloc after warm-up;
 * mr_slab_trim frees what a burst left behind. Under AddressSanitizer every block comes from
 * malloc, so use after put is detected.
 */
#pragma once

#include "core/check.h"

#include <stddef.h>
#include <stdint.h>

#define MR_SLAB_STEP    64u     /* bytes between small classes */
#define MR_SLAB_SMALL   1024u   /* up to this size classes are MR_SLAB_STEP apart */
#define MR_SLAB_LARGE   131072u /* larger blocks come straight from malloc */
#define MR_SLAB_CLASSES 23u     /* 16 small ones, then powers of two from 2 to 128 KiB */

struct mr_slab_class {
    void *free;         /* linked through the first word of each block */
    uint32_t n_free;    /* blocks on the free list */
    uint32_t low_water; /* smallest n_free since the last trim: blocks that were not needed */
};

struct mr_slab {
    struct mr_slab_class classes[MR_SLAB_CLASSES];
    size_t used_bytes;   /* handed out, in whole blocks */
    size_t cached_bytes; /* on the free lists */
    size_t freed_bytes;  /* passed to free(3) since the last malloc_trim */
};

void mr_slab_init(struct mr_slab *slab);

/** Frees the cached blocks. Blocks still in use stay valid, but must not be put any more. */
void mr_slab_fini(struct mr_slab *slab);

/** Returns an uninitialised block of at least `size` bytes. Aborts when out of memory. */
void *mr_slab_get(struct mr_slab *slab, size_t size) MR_MUST_USE;

/** Like mr_slab_get, zeroed. */
void *mr_slab_get_zeroed(struct mr_slab *slab, size_t size) MR_MUST_USE;

/** For sizes a peer controls: returns NULL when out of memory. */
void *mr_slab_try(struct mr_slab *slab, size_t size) MR_MUST_USE;

/**
 * Grows a block of more than MR_SLAB_LARGE bytes, keeping its content; the kernel moves pages where
 * possible. Returns NULL when out of memory; the old block then stays valid.
 */
void *mr_slab_regrow(struct mr_slab *slab, void *block, size_t old_size, size_t size) MR_MUST_USE;

/** Returns a block. `size` is the size it was requested with. NULL is allowed. */
void mr_slab_put(struct mr_slab *slab, void *block, size_t size);

/** Actual size of the block that a request for `size` bytes returns. */
size_t mr_slab_round(size_t size);

/**
 * Frees half of the blocks that were not needed since the last call. Call it about once a second.
 */
void mr_slab_trim(struct mr_slab *slab);
