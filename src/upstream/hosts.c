/* hosts.c - host names by which servers name other servers. */
#include "upstream/hosts.h"

#include "upstream/health.h"

#include <ctype.h>
#include <string.h>

static enum mr_host_state state_of(const struct mr_host *host)
{
    return (enum mr_host_state)__atomic_load_n(&host->state, __ATOMIC_ACQUIRE);
}

static void set_state(struct mr_host *host, enum mr_host_state state)
{
    __atomic_store_n(&host->state, state, __ATOMIC_RELEASE);
}

/* Servers also say "?" and other things if they do not know. */
static bool is_host_name(struct mr_slice name)
{
    if (name.len == 0 || name.len >= MR_HOST_NAME_SIZE || name.at[0] == '-' || name.at[0] == '.')
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!isalnum((unsigned char)name.at[i]) && strchr("-_.", name.at[i]) == NULL)
            return false;
    return true;
}

static bool has_name(const struct mr_host *host, struct mr_slice name)
{
    return strncmp(host->name, name.at, name.len) == 0 && host->name[name.len] == '\0';
}

/* Copies the address. False while it is being written. */
static bool read_address(const struct mr_host *host, struct mr_addr *addr)
{
    const uint64_t version = __atomic_load_n(&host->version, __ATOMIC_ACQUIRE);

    if (version % 2 == 1)
        return false;
    memcpy(addr, &host->addr, sizeof(*addr));
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&host->version, __ATOMIC_RELAXED) == version;
}

static enum mr_host_answer answer(struct mr_host *host, enum mr_host_state state, uint16_t port,
                                  uint64_t now_us, struct mr_addr *addr)
{
    struct mr_addr any;

    mr_health_store(&host->used_us, now_us);
    if (state == MR_HOST_FAILED)
        return MR_HOST_IS_UNKNOWN;
    if (state != MR_HOST_RESOLVED || !read_address(host, &any))
        return MR_HOST_IS_PENDING;
    return mr_addr_inet(addr, &any.sa.any, any.len, port) ? MR_HOST_IS_KNOWN : MR_HOST_IS_PENDING;
}

/* If another worker takes a place for the same name at this moment, the name has two. */
static enum mr_host_answer ask(struct mr_hosts *hosts, struct mr_slice name, uint64_t now_us)
{
    for (uint32_t i = 0; i < MR_HOSTS; i++) {
        struct mr_host *host = &hosts->at[i];
        if (!mr_health_claim(&host->state, MR_HOST_FREE, MR_HOST_TAKEN))
            continue;
        mr_health_store(&host->used_us, now_us);
        memcpy(host->name, name.at, name.len);
        host->name[name.len] = '\0';
        set_state(host, MR_HOST_ASKED);
        return MR_HOST_IS_PENDING;
    }
    (void)__atomic_add_fetch(&hosts->no_room, 1, __ATOMIC_RELAXED);
    return MR_HOST_IS_UNKNOWN;
}

enum mr_host_answer mr_hosts_find(struct mr_hosts *hosts, struct mr_slice name, uint16_t port,
                                  uint64_t now_us, struct mr_addr *addr)
{
    if (hosts == NULL || !is_host_name(name))
        return MR_HOST_IS_UNKNOWN;
    for (uint32_t i = 0; i < MR_HOSTS; i++) {
        struct mr_host *host = &hosts->at[i];
        const enum mr_host_state state = state_of(host);
        if (state >= MR_HOST_ASKED && has_name(host, name))
            return answer(host, state, port, now_us, addr);
    }
    return ask(hosts, name, now_us);
}

void mr_host_resolved(struct mr_host *host, const struct mr_addr *addr)
{
    if (addr == NULL) {
        if (state_of(host) == MR_HOST_ASKED)
            set_state(host, MR_HOST_FAILED);
        return;
    }
    const uint64_t before = mr_health_load(&host->version);
    mr_health_store(&host->version, before | 1u);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(&host->addr, addr, sizeof(*addr));
    __atomic_store_n(&host->version, (before | 1u) + 1, __ATOMIC_RELEASE);
    set_state(host, MR_HOST_RESOLVED);
}

void mr_host_forget(struct mr_host *host)
{
    (void)__atomic_add_fetch(&host->version, 2, __ATOMIC_RELEASE); /* readers start again */
    set_state(host, MR_HOST_FREE);
}

void mr_hosts_keep(struct mr_hosts *hosts, const struct mr_hosts *old)
{
    struct mr_host *to = hosts->at;

    for (uint32_t i = 0; i < MR_HOSTS; i++) {
        const struct mr_host *from = &old->at[i];
        if (state_of(from) != MR_HOST_RESOLVED || !read_address(from, &to->addr))
            continue;
        memcpy(to->name, from->name, sizeof(to->name));
        to->used_us = mr_health_load(&from->used_us);
        to->state = MR_HOST_RESOLVED;
        to++;
    }
    hosts->lookups = mr_health_load(&old->lookups);
    hosts->failures = mr_health_load(&old->failures);
}
