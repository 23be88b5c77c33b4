/* ports.h - sockets of the statistics port and the admin addresses. */
#pragma once

#include "config/config.h"
#include "proc/options.h"

/** The statistics port is first; the rest speak HTTP. */
struct mr_ports {
    struct mr_addr *addrs;
    int *fds; /* -1: not open */
    uint32_t n;
};

/**
 * Opens the ports of configuration and options. Shares those that `before` (may be NULL) has for
 * the same address. Close it even if this fails.
 */
enum mr_result mr_ports_open(struct mr_ports *ports, const struct mr_config *config,
                             const struct mr_options *options, const struct mr_ports *before,
                             struct mr_error *err) MR_MUST_USE;

/** Takes over sockets, in this order, from another process with the same configuration. */
void mr_ports_take(struct mr_ports *ports, const struct mr_config *config, const int *fds);

/** As mr_listeners_retire. */
void mr_ports_retire(const struct mr_ports *ports, const struct mr_ports *heir);

/** Frees everything. Files of unix sockets stay if `heir` (may be NULL) has them too. */
void mr_ports_close(struct mr_ports *ports, const struct mr_ports *heir);
