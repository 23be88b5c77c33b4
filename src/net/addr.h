/* addr.h - socket addresses: IPv4, IPv6 and unix. */
#pragma once

#include "core/result.h"
#include "core/slice.h"

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MR_ADDR_NONE "none" /* `text` of an address that a server has lost */

struct mr_addr {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } sa;
    socklen_t len;  /* 0: not known yet */
    char text[128]; /* for messages: "10.0.0.1:6379", "[::1]:6379" or a path */
};

/** From the path of a unix socket. MR_ELIMIT if it does not fit sun_path. */
enum mr_result mr_addr_unix(struct mr_addr *addr, struct mr_slice path,
                            struct mr_error *err) MR_MUST_USE;

/** From a numeric IPv4 or IPv6 address, with or without brackets. False if `host` is a name. */
bool mr_addr_numeric(struct mr_addr *addr, struct mr_slice host, uint16_t port);

/**
 * Like mr_addr_numeric, but also resolves names. Stores up to `max` addresses (at least 1),
 * preferred ones first, and their number in *n (at least 1). Blocks: never call it in a worker.
 */
enum mr_result mr_addr_resolve(struct mr_addr *addrs, uint32_t max, uint32_t *n,
                               struct mr_slice host, uint16_t port,
                               struct mr_error *err) MR_MUST_USE;

/** From an IPv4 or IPv6 socket address, with another port. False for any other family. */
bool mr_addr_inet(struct mr_addr *addr, const struct sockaddr *sa, socklen_t len, uint16_t port);

/** Same family, address and port (or path). */
bool mr_addr_eq(const struct mr_addr *a, const struct mr_addr *b);

/** Some total order, as memcmp; 0 if equal. Both addresses must be known. */
int mr_addr_compare(const struct mr_addr *a, const struct mr_addr *b);

/** The address of a socket's peer, or its own. `len` is 0 if it is unknown. */
void mr_addr_of_socket(struct mr_addr *addr, int fd, bool peer);
