/*
 * generation.h - one reading of the configuration and what belongs to it: sockets, metrics
 * segments, what its processes share. A reload makes another one beside it.
 */
#pragma once

#include "proc/listeners.h"
#include "proc/options.h"
#include "proc/ports.h"
#include "session/runtime.h"

struct mr_generation {
    uint32_t number;          /* 1 for the first */
    struct mr_config *config; /* owned */
    struct mr_runtime runtime;
    struct mr_listeners listeners;
    struct mr_ports ports;
    struct mr_error engine_error; /* why `engine: auto` is not io_uring, where it is not */
};

/** Reads and checks the configuration, opens nothing. On failure nothing is owned. */
enum mr_result mr_generation_load(struct mr_generation *g, const struct mr_options *options,
                                  const char *conf_file, struct mr_error *err) MR_MUST_USE;

/**
 * Opens what was loaded. Sockets that `previous` (NULL for none) has for the same addresses are
 * shared with it, so nothing in their queues is lost. On failure close it all the same.
 */
enum mr_result mr_generation_open(struct mr_generation *g, const struct mr_options *options,
                                  const struct mr_generation *previous,
                                  struct mr_error *err) MR_MUST_USE;

/** Makes the memory of what all workers know of the servers: nothing yet. */
enum mr_result mr_generation_share_health(struct mr_generation *g,
                                          struct mr_error *err) MR_MUST_USE;

/** One line: what serves now. */
void mr_generation_log_started(const struct mr_generation *g);

/** Frees everything; files of unix sockets stay for those that `heir` (NULL for none) serves. */
void mr_generation_close(struct mr_generation *g, const struct mr_generation *heir);

/**
 * Takes the counters of `previous` over into the base of this one; may be called again. None of
 * them goes back for who reads meanwhile.
 */
void mr_generation_inherit_counters(struct mr_generation *g, const struct mr_generation *previous);
