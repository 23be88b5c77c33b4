/*
 * batch.h - requests that leave together: how long a shared connection holds them back for others.
 *
 * Larger batches cost both sides less CPU, and a server whose replies are awaited anyway loses no
 * time by them. See the setting `coalesce`.
 */
#pragma once

#include "net/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mr_backend;

enum mr_batch_state {
    MR_BATCH_NONE,   /* requests leave at the end of the turn */
    MR_BATCH_REPLY,  /* held until the server answers what is on its way */
    MR_BATCH_LULL,   /* held while more requests come in */
    MR_BATCH_CLOCKED /* held for the time that is configured, or until a reply */
};

struct mr_batch {
    struct mr_lull lull;
    struct mr_alarm alarm;
    uint32_t held; /* requests */
    enum mr_batch_state state;
};

void mr_batch_init(struct mr_backend *b);

/** A request of `len` bytes is about to be written. */
void mr_batch_add(struct mr_backend *b, size_t len);

/** The server has answered `n` requests. */
void mr_batch_answered(struct mr_backend *b, uint64_t n);

/** The connection closes: nothing is awaited any more. */
void mr_batch_drop(struct mr_backend *b);
