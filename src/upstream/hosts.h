/*
 * hosts.h - host names by which servers name other servers; shared by workers and resolver.
 *
 * Clusters and sentinels may announce names instead of addresses. A worker that meets one asks for
 * it by writing it here; the resolver writes the address, and keeps it up to date.
 */
#pragma once

#include "net/addr.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_HOSTS          256u
#define MR_HOST_NAME_SIZE 256u

enum mr_host_state {
    MR_HOST_FREE,
    MR_HOST_TAKEN,    /* the name is being written */
    MR_HOST_ASKED,    /* the resolver has not found out anything yet */
    MR_HOST_RESOLVED, /* has an address, possibly not the latest */
    MR_HOST_FAILED,   /* never resolved so far */
};

struct mr_host {
    uint64_t state;   /* enum mr_host_state */
    uint64_t version; /* of the address: odd while it is being written */
    uint64_t used_us; /* when a worker last wanted it */
    char name[MR_HOST_NAME_SIZE];
    struct mr_addr addr; /* its port is 0 */
};

struct mr_hosts {
    uint64_t lookups;  /* successful ones, of all names */
    uint64_t failures; /* failed ones */
    uint64_t no_room;  /* names that found no place */
    struct mr_host at[MR_HOSTS];
};

/** What is known about a host. */
enum mr_host_answer {
    MR_HOST_IS_KNOWN,
    MR_HOST_IS_PENDING, /* ask again in a moment */
    MR_HOST_IS_UNKNOWN, /* it does not resolve, or it is no host name */
};

/**
 * Finds the address of a host, with this port, or asks the resolver for it. `hosts` may be NULL:
 * nothing is known.
 */
enum mr_host_answer mr_hosts_find(struct mr_hosts *hosts, struct mr_slice name, uint16_t port,
                                  uint64_t now_us, struct mr_addr *addr);

/** For the resolver alone: what it has found, or NULL for nothing. */
void mr_host_resolved(struct mr_host *host, const struct mr_addr *addr);

/** For the resolver alone: frees the place. */
void mr_host_forget(struct mr_host *host);

/** Takes over what an earlier configuration knew. Nobody may use `hosts` yet. */
void mr_hosts_keep(struct mr_hosts *hosts, const struct mr_hosts *old);
