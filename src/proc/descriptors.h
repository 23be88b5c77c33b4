/*
 * descriptors.h - divides the descriptor limit: how many the proxy needs, and what is left for
 * clients.
 */
#pragma once

#include "proc/generation.h"

/**
 * Raises the limit on open files as configured, and sets max_clients and port_connections of the
 * generation accordingly. Descriptors for servers are reserved, so that a client that was admitted
 * can always reach one. `previous` (may be NULL) serves alongside for a while. Nothing needs to be
 * open yet.
 */
enum mr_result mr_divide_descriptors(struct mr_generation *g, const struct mr_generation *previous,
                                     struct mr_error *err) MR_MUST_USE;
