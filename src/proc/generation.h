/*
 * generation.h - a configuration in use, with its sockets and shared memory. A reload creates
 * another one beside it.
 */
#pragma once

#include "proc/listeners.h"
#include "proc/options.h"
#include "proc/ports.h"
#include "session/runtime.h"

struct mr_generation {
    uint32_t number;             /* 1 for the first */
    struct mr_config *config;    /* owned */
    struct mr_findings findings; /* of loading; errors only if it failed */
    struct mr_runtime runtime;
    struct mr_listeners listeners;
    struct mr_ports ports;
    struct mr_error engine_error; /* why `engine: auto` is not io_uring, if it is not */
};

/** Reads and checks the configuration; opens nothing. On failure only the findings are owned. */
enum mr_result mr_generation_load(struct mr_generation *g, const struct mr_options *options,
                                  const char *conf_file, struct mr_error *err) MR_MUST_USE;

/**
 * Opens sockets and memory. Shares the sockets of `previous` (may be NULL) with the same address,
 * so that their queues are kept. Close it even if this fails.
 */
enum mr_result mr_generation_open(struct mr_generation *g, const struct mr_options *options,
                                  const struct mr_generation *previous,
                                  struct mr_error *err) MR_MUST_USE;

/** Allocates the shared health of all servers, zeroed. */
enum mr_result mr_generation_share_health(struct mr_generation *g,
                                          struct mr_error *err) MR_MUST_USE;

/** Logs each error and warning. */
void mr_generation_log_findings(const struct mr_generation *g);

/** Logs what is being served. */
void mr_generation_log_started(const struct mr_generation *g);

/** `heir` serves now: stops listening where it does not. */
void mr_generation_retire(const struct mr_generation *g, const struct mr_generation *heir);

/** Frees everything. Files of unix sockets stay if `heir` (may be NULL) serves them. */
void mr_generation_close(struct mr_generation *g, const struct mr_generation *heir);

/**
 * Adds the counters of `previous` to the base of this generation; may be called again. Concurrent
 * readers never see a counter decrease.
 */
void mr_generation_inherit_counters(struct mr_generation *g, const struct mr_generation *previous);
