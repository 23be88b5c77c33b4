/* addr.c - socket addresses. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>

#define HOST_MAX 256

enum mr_result mr_addr_unix(struct mr_addr *addr, struct mr_slice path, struct mr_error *err)
{
    struct mr_addr made = {.len = sizeof(made.sa.un)};

    if (path.len == 0 || path.len >= sizeof(made.sa.un.sun_path))
        return mr_fail(err, MR_ELIMIT,
                       "a unix socket path must have 1 to %zu bytes; this one has %zu",
                       sizeof(made.sa.un.sun_path) - 1, path.len);
    made.sa.un.sun_family = AF_UNIX;
    memcpy(made.sa.un.sun_path, path.at, path.len);
    (void)snprintf(made.text, sizeof(made.text), "%s", made.sa.un.sun_path);
    *addr = made;
    return MR_OK;
}

static void describe(struct mr_addr *addr)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (addr->sa.any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &addr->sa.in6.sin6_addr, host, sizeof(host));
        (void)snprintf(addr->text, sizeof(addr->text), "[%s]:%u", host,
                       ntohs(addr->sa.in6.sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &addr->sa.in.sin_addr, host, sizeof(host));
        (void)snprintf(addr->text, sizeof(addr->text), "%s:%u", host, ntohs(addr->sa.in.sin_port));
    }
}

/* Copies the host without brackets, NUL-terminated. False if it is too long. */
static bool bare_host(char *out, size_t size, struct mr_slice host)
{
    if (host.len >= 2 && host.at[0] == '[' && host.at[host.len - 1] == ']')
        host = (struct mr_slice){host.at + 1, host.len - 2};
    if (host.len == 0 || host.len >= size)
        return false;
    memcpy(out, host.at, host.len);
    out[host.len] = '\0';
    return true;
}

/* Stores up to `max` addresses, *n of them. Returns 0 or an error from getaddrinfo. */
static int lookup(struct mr_addr *addrs, uint32_t max, uint32_t *n, const char *host, uint16_t port,
                  int flags)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char service[8];

    (void)snprintf(service, sizeof(service), "%u", port);
    const int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0)
        return rc;
    *n = 0;
    for (const struct addrinfo *i = list; i != NULL && *n < max; i = i->ai_next) {
        struct mr_addr made = {.len = i->ai_addrlen};
        memcpy(&made.sa, i->ai_addr, i->ai_addrlen);
        describe(&made);
        addrs[(*n)++] = made;
    }
    freeaddrinfo(list);
    return 0;
}

bool mr_addr_numeric(struct mr_addr *addr, struct mr_slice host, uint16_t port)
{
    char name[HOST_MAX];
    uint32_t n;

    return bare_host(name, sizeof(name), host) &&
           lookup(addr, 1, &n, name, port, AI_NUMERICHOST) == 0;
}

enum mr_result mr_addr_resolve(struct mr_addr *addrs, uint32_t max, uint32_t *n,
                               struct mr_slice host, uint16_t port, struct mr_error *err)
{
    char name[HOST_MAX];

    if (!bare_host(name, sizeof(name), host))
        return mr_fail(err, MR_ELIMIT, "a host name must have 1 to %d bytes", HOST_MAX - 1);
    int rc = lookup(addrs, max, n, name, port, AI_NUMERICHOST);
    if (rc != 0)
        rc = lookup(addrs, max, n, name, port, 0);
    if (rc != 0)
        return mr_fail(err, MR_ESYS, "host '%s' does not resolve: %s", name, gai_strerror(rc));
    return MR_OK;
}

bool mr_addr_inet(struct mr_addr *addr, const struct sockaddr *sa, socklen_t len, uint16_t port)
{
    struct mr_addr made = {.len = len};

    if ((sa->sa_family != AF_INET || len != sizeof(made.sa.in)) &&
        (sa->sa_family != AF_INET6 || len != sizeof(made.sa.in6)))
        return false;
    memcpy(&made.sa, sa, len);
    if (sa->sa_family == AF_INET)
        made.sa.in.sin_port = htons(port);
    else
        made.sa.in6.sin6_port = htons(port);
    describe(&made);
    *addr = made;
    return true;
}

static int compare_uint(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

int mr_addr_compare(const struct mr_addr *a, const struct mr_addr *b)
{
    int c = compare_uint(a->sa.any.sa_family, b->sa.any.sa_family);

    if (c != 0)
        return c;
    switch (a->sa.any.sa_family) {
    case AF_INET:
        c = compare_uint(a->sa.in.sin_port, b->sa.in.sin_port);
        return c != 0 ? c : compare_uint(a->sa.in.sin_addr.s_addr, b->sa.in.sin_addr.s_addr);
    case AF_INET6:
        c = compare_uint(a->sa.in6.sin6_port, b->sa.in6.sin6_port);
        if (c == 0)
            c = compare_uint(a->sa.in6.sin6_scope_id, b->sa.in6.sin6_scope_id);
        return c != 0 ? c
                      : memcmp(&a->sa.in6.sin6_addr, &b->sa.in6.sin6_addr, sizeof(struct in6_addr));
    default:
        return strcmp(a->sa.un.sun_path, b->sa.un.sun_path);
    }
}

bool mr_addr_eq(const struct mr_addr *a, const struct mr_addr *b)
{
    return a->len == b->len && a->len != 0 && mr_addr_compare(a, b) == 0;
}

void mr_addr_of_socket(struct mr_addr *addr, int fd, bool peer)
{
    *addr = (struct mr_addr){.len = sizeof(addr->sa)};
    if ((peer ? getpeername : getsockname)(fd, &addr->sa.any, &addr->len) < 0)
        addr->len = 0;
    else if (addr->sa.any.sa_family == AF_UNIX)
        (void)snprintf(addr->text, sizeof(addr->text), "%.107s", addr->sa.un.sun_path);
    else
        describe(addr);
}
