/*
 * slab.h - recycled memory blocks in size classes, one slab per worker.
 *
 * Steady traffic takes and returns the same few blocks, so the hot path makes no malloc after
 * warm-up; mr_slab_trim gives back what a burst left behind. Under AddressSanitizer every block
 * comes from malloc, so that a use after put is seen.
 */
#pragma once

#include "core/check.h"

#include <stddef.h>
#include <stdint.h>

#define MR_SLAB_STEP    64u     /* bytes between the small classes */
#define MR_SLAB_SMALL   1024u   /* up to here classes are MR_SLAB_STEP apart */
#define MR_SLAB_LARGE   131072u /* above this a block comes straight from malloc */
#define MR_SLAB_CLASSES 23u     /* 16 small ones, then powers of two from 2 KiB to 128 KiB */

struct mr_slab_class {
    void *free;         /* singly linked through the first word of each block */
    uint32_t n_free;    /* blocks on the list */
    uint32_t low_water; /* smallest n_free since the last trim: blocks that nobody needed */
};

struct mr_slab {
    struct mr_slab_class classes[MR_SLAB_CLASSES];
    size_t used_bytes;   /* handed out, whole blocks */
    size_t cached_bytes; /* on the free lists */
    size_t freed_bytes;  /* given to free(3) since the C library was last asked to return memory */
};

void mr_slab_init(struct mr_slab *slab);

/** Frees the cached blocks; blocks still handed out stay valid and must not be put any more. */
void mr_slab_fini(struct mr_slab *slab);

/** Returns a block of at least `size` bytes, uninitialised; never NULL for sizes the slab caches.
 */
void *mr_slab_get(struct mr_slab *slab, size_t size) MR_MUST_USE;

/** Like mr_slab_get, zeroed. */
void *mr_slab_get_zeroed(struct mr_slab *slab, size_t size) MR_MUST_USE;

/** For sizes that a peer controls: returns NULL when the memory cannot be had. */
void *mr_slab_try(struct mr_slab *slab, size_t size) MR_MUST_USE;

/**
 * Moves a block of more than MR_SLAB_LARGE bytes to a larger one, content included; the kernel
 * moves pages where it can. NULL when the memory cannot be had, the old block stays valid then.
 */
void *mr_slab_regrow(struct mr_slab *slab, void *block, size_t old_size, size_t size) MR_MUST_USE;

/** Gives a block back; `size` is the size it was asked for with. NULL is fine. */
void mr_slab_put(struct mr_slab *slab, void *block, size_t size);

/** The real size of the block that a request for `size` bytes returns. */
size_t mr_slab_round(size_t size);

/** Call about once a second: frees blocks that were not needed since the last call. */
void mr_slab_trim(struct mr_slab *slab);
