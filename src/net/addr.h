/* addr.h - socket addresses: IPv4, IPv6 and unix. */
#pragma once

#include "core/result.h"
#include "core/slice.h"

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct mr_addr {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } sa;
    socklen_t len;  /* 0: not known (yet) */
    char text[128]; /* "10.0.0.1:6379", "[::1]:6379" or a path, for messages */
};

/** From a unix socket path; MR_ELIMIT when it does not fit sun_path. */
enum mr_result mr_addr_unix(struct mr_addr *addr, struct mr_slice path,
                            struct mr_error *err) MR_MUST_USE;

/** From a literal IPv4 or IPv6 address (brackets allowed); false when `host` is a name. */
bool mr_addr_numeric(struct mr_addr *addr, struct mr_slice host, uint16_t port);

/**
 * As mr_addr_numeric, or by the resolver: up to `max` (1 at least) addresses, the preferred ones
 * first; *n of them, 1 at least. Blocks; never call it in a worker.
 */
enum mr_result mr_addr_resolve(struct mr_addr *addrs, uint32_t max, uint32_t *n,
                               struct mr_slice host, uint16_t port,
                               struct mr_error *err) MR_MUST_USE;

/** Same family, address and port (or path). */
bool mr_addr_eq(const struct mr_addr *a, const struct mr_addr *b);

/** Any order, as memcmp; 0 for addresses that are equal. Both are known. */
int mr_addr_compare(const struct mr_addr *a, const struct mr_addr *b);
