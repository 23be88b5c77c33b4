/*
 * walk.h - an order of a pool's servers, for requests such as SCAN that visit them one by one and
 * carry only their position.
 *
 * A server's position is derived from its name, or from what it serves, so it is the same in every
 * worker and after a reload. If two servers collide, the second by name moves up. A new server can
 * therefore only push others further along, so a walk meets every server that exists throughout.
 */
#pragma once

#include "proto/proto.h"

#include <stdint.h>

/** Positions are below 2^MR_PLACE_BITS. Those passed to mr_walk_add are below this. */
#define MR_PLACES ((UINT32_C(1) << MR_PLACE_BITS) / 16 * 15)

struct mr_stop {
    uint32_t place; /* below 2^MR_PLACE_BITS */
    uint32_t server;
};

struct mr_walk {
    struct mr_stop *stops; /* by position */
    uint32_t n;
};

/** Builds a walk of at most `most` stops: init, add each server, close. */
void mr_walk_init(struct mr_walk *walk, uint32_t most);
void mr_walk_add(struct mr_walk *walk, uint32_t place, uint32_t server);
void mr_walk_close(struct mr_walk *walk);
void mr_walk_fini(struct mr_walk *walk);

/** A position derived from a name. */
uint32_t mr_walk_place(const char *name);

/** The stop at this position, or the first one after it; NULL at the end. */
const struct mr_stop *mr_walk_at(const struct mr_walk *walk, uint32_t place);

/** The position after this stop; 0 if it is the last. */
uint32_t mr_walk_next(const struct mr_walk *walk, const struct mr_stop *stop);
