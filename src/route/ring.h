/*
 * ring.h - maps a hash value to a server index: ketama, modula and random, as in twemproxy.
 *
 * A ring is built from the live servers in their configured (sorted) order and is immutable;
 * ejecting a server builds a new one.
 */
#pragma once

#include "core/result.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum mr_distribution { MR_DIST_KETAMA, MR_DIST_MODULA, MR_DIST_RANDOM };

/** The properties of a server that a ring depends on. */
struct mr_ring_member {
    struct mr_slice name; /* hashed by ketama; borrowed during the build */
    uint32_t weight;      /* >= 1 */
    bool live;
};

struct mr_ring_point {
    uint32_t value; /* ketama: position on the circle; modula: cumulative weight */
    uint32_t index; /* of the server */
};

struct mr_ring {
    enum mr_distribution distribution;
    uint32_t n_points;
    uint32_t total; /* modula: sum of the weights */
    bool flat;      /* modula: all weights are 1, so slots need no search */
    struct mr_ring_point *points;
    uint32_t *first; /* where to search for a value: of each range of 2^shift values, its first
                        point, and at last n_points */
    uint32_t shift;
};

/**
 * Builds a ring from the live members. It is empty if none is live.
 * @return MR_ELIMIT if the sum of weights overflows; the ring is then untouched
 */
enum mr_result mr_ring_build(struct mr_ring *ring, enum mr_distribution distribution,
                             const struct mr_ring_member *members, uint32_t n,
                             struct mr_error *err) MR_MUST_USE;

void mr_ring_free(struct mr_ring *ring);

/** Picks a member for a hash value. The ring must not be empty. `random` may be any number. */
uint32_t mr_ring_pick(const struct mr_ring *ring, uint32_t hash, uint32_t random);

/** How many points each of `n` members holds; 0 means it gets no keys. Returned owned. */
uint32_t *mr_ring_shares(const struct mr_ring *ring, uint32_t n);

bool mr_distribution_by_name(struct mr_slice name, enum mr_distribution *out);

/**
 * The part of a key that gets hashed: the bytes between the first tag[0] and the next tag[1], or
 * the whole key if there is no such pair or nothing between. `tag` is two bytes, or NULL.
 */
struct mr_slice mr_hash_tag(struct mr_slice key, const char *tag);

#define MR_HASH_SLOTS 16384u

/**
 * The slot of a key in a Redis Cluster.
 * https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
 */
uint32_t mr_hash_slot(struct mr_slice key);
