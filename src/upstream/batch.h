/*
 * batch.h - requests that leave together: how long a shared connection holds them back for others.
 *
 * Larger batches cost both sides less CPU, and a server whose replies are awaited anyway loses no
 * time by them. See the setting `coalesce`.
 */
#pragma once

#include "net/loop.h"
#include "net/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mr_batch_state {
    MR_BATCH_NONE,   /* requests leave at the end of the turn */
    MR_BATCH_REPLY,  /* held until the server answers what is on its way */
    MR_BATCH_LULL,   /* held while more requests come in */
    MR_BATCH_CLOCKED /* held for the time that is configured, or until a reply */
};

struct mr_batch {
    struct mr_stream *stream; /* corked while requests are held */
    struct mr_lull lull;
    struct mr_alarm alarm;
    uint32_t held; /* requests */
    enum mr_batch_state state;
};

void mr_batch_init(struct mr_batch *batch, struct mr_stream *stream);

/**
 * A request of `len` bytes is about to be written, behind `unanswered` others. It may be held back:
 * for `clock_us` at most, or if that is 0 for a lull or a reply.
 */
void mr_batch_add(struct mr_batch *batch, uint32_t clock_us, uint32_t unanswered, size_t len);

/** The server has answered `n` requests, and not yet `unanswered` ones, with those that are held.
 */
void mr_batch_answered(struct mr_batch *batch, uint64_t n, uint32_t unanswered);

/** The connection closes: nothing is awaited any more. */
void mr_batch_drop(struct mr_batch *batch);
