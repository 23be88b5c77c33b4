/*
 * ring.h - hash value to server index: ketama, modula and random, as twemproxy places them.
 *
 * A ring is built from the live servers in their configured (sorted) order and never changes;
 * ejecting a server builds another one.
 */
#pragma once

#include "core/result.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum mr_distribution { MR_DIST_KETAMA, MR_DIST_MODULA, MR_DIST_RANDOM };

/** What a ring needs to know of a server. */
struct mr_ring_member {
    struct mr_slice name; /* the name that ketama hashes, borrowed during the build */
    uint32_t weight;      /* >= 1 */
    bool live;
};

struct mr_ring_point {
    uint32_t value; /* ketama: place on the circle; modula: sum of the weights up to here */
    uint32_t index; /* of the member */
};

struct mr_ring {
    enum mr_distribution distribution;
    uint32_t n_points;
    uint32_t total; /* modula: sum of the weights */
    bool flat;      /* modula: all weights are 1, a point is its own slot */
    struct mr_ring_point *points;
};

/**
 * Builds a ring over the live members; with none live the ring is empty.
 * @return MR_ELIMIT when the weights do not fit, ring untouched
 */
enum mr_result mr_ring_build(struct mr_ring *ring, enum mr_distribution distribution,
                             const struct mr_ring_member *members, uint32_t n,
                             struct mr_error *err) MR_MUST_USE;

void mr_ring_free(struct mr_ring *ring);

/** Index of the member for a hash value; the ring must not be empty. `random` is any number. */
uint32_t mr_ring_pick(const struct mr_ring *ring, uint32_t hash, uint32_t random);

/** Points that each of `n` members holds; 0 means that no key can reach it. Returned owned. */
uint32_t *mr_ring_shares(const struct mr_ring *ring, uint32_t n);

bool mr_distribution_by_name(struct mr_slice name, enum mr_distribution *out);

/**
 * The part of a key that is hashed: what stands between the first tag[0] and the next tag[1], or
 * the whole key when there is no such pair or nothing between. `tag` is two bytes, or NULL.
 */
struct mr_slice mr_hash_tag(struct mr_slice key, const char *tag);
