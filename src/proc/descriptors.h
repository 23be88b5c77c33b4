/* descriptors.h - who needs how many descriptors, and what is left for clients. */
#pragma once

#include "proc/generation.h"

/**
 * Raises the limit of open files as configured, and divides what it allows: sets max_clients and
 * port_connections of the generation's runtime. What clients cannot have is kept for servers, so
 * that a client who has been let in never finds that there is no descriptor to reach one.
 * `previous` (NULL for none) serves beside it for a while. Nothing need be open yet.
 */
enum mr_result mr_divide_descriptors(struct mr_generation *g, const struct mr_generation *previous,
                                     struct mr_error *err) MR_MUST_USE;
