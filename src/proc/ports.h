/* ports.h - where the proxy tells about itself: the statistics port, and the admin addresses. */
#pragma once

#include "config/config.h"
#include "proc/options.h"

/** The statistics port comes first; the rest speak HTTP. */
struct mr_ports {
    struct mr_addr *addrs;
    int *fds; /* -1: not open */
    uint32_t n;
};

/**
 * Opens what the configuration and the options ask for; what `before` (NULL for none) has open for
 * the same address is shared with it. On failure close it all the same.
 */
enum mr_result mr_ports_open(struct mr_ports *ports, const struct mr_config *config,
                             const struct mr_options *options, const struct mr_ports *before,
                             struct mr_error *err) MR_MUST_USE;

/** Takes the open sockets, in this order, that another process has had with this configuration. */
void mr_ports_take(struct mr_ports *ports, const struct mr_config *config, const int *fds);

/** Frees everything; files of unix sockets stay for those that `heir` (NULL for none) has too. */
void mr_ports_close(struct mr_ports *ports, const struct mr_ports *heir);
