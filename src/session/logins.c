/* logins.c - counts failed logins by address and user. */
#include "session/logins.h"

#include "route/hash.h"

#include <netinet/in.h>
#include <stddef.h>
#include <sys/random.h>
#include <sys/socket.h>

#define EVERY_US     UINT64_C(1000000) /* then one more attempt is allowed */
#define HASHED_BYTES 128u              /* size of what identifies an entry */

void mr_logins_init(struct mr_logins *logins)
{
    (void)getrandom(&logins->seed, sizeof(logins->seed), GRND_NONBLOCK);
}

/* The bytes that identify an address; none for unix sockets. */
static struct mr_slice address_of(int fd, struct sockaddr_in6 *peer)
{
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof(at);

    if (getpeername(fd, (struct sockaddr *)&at, &len) < 0)
        return mr_slice_of("");
    memcpy(peer, &at, sizeof(*peer));
    if (at.ss_family == AF_INET)
        return (struct mr_slice){(const char *)peer + offsetof(struct sockaddr_in, sin_addr),
                                 sizeof(struct in_addr)};
    if (at.ss_family != AF_INET6)
        return mr_slice_of("");
    const bool v4 = IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr);
    return (struct mr_slice){(const char *)&peer->sin6_addr + (v4 ? 12 : 0), v4 ? 4 : 8};
}

uint64_t *mr_logins_entry(struct mr_logins *logins, int fd, struct mr_slice user)
{
    char bytes[HASHED_BYTES];
    struct sockaddr_in6 peer;
    const struct mr_slice address = address_of(fd, &peer);
    const size_t left = sizeof(bytes) - sizeof(logins->seed) - address.len;
    const size_t name = user.len < left ? user.len : left;
    char *at = bytes;

    memcpy(at, &logins->seed, sizeof(logins->seed));
    at += sizeof(logins->seed);
    memcpy(at, address.at, address.len);
    at += address.len;
    memcpy(at, user.at, name);
    at += name;
    return &logins->free_us[mr_hash_function(MR_HASH_murmur)(bytes, (size_t)(at - bytes)) %
                            MR_LOGIN_ENTRIES];
}

bool mr_logins_allow(const uint64_t *entry, uint64_t now_us)
{
    return __atomic_load_n(entry, __ATOMIC_RELAXED) <= now_us + (MR_LOGIN_BURST - 1) * EVERY_US;
}

void mr_logins_failed(uint64_t *entry, uint64_t now_us)
{
    uint64_t was = __atomic_load_n(entry, __ATOMIC_RELAXED), next;

    do {
        if (was > now_us + (MR_LOGIN_BURST - 1) * EVERY_US)
            return; /* it was not tried */
        next = (was > now_us ? was : now_us) + EVERY_US;
    } while (
        !__atomic_compare_exchange_n(entry, &was, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}
