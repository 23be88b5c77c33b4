/*
 * again.h - copies of requests that may have to be sent a second time, to another server.
 *
 * Either the connection fails before the server has seen the request, or the node of a cluster
 * redirects it. The call is sent again instead of being answered.
 */
#pragma once

#include "core/buf.h"
#include "core/list.h"
#include "upstream/pool.h"

struct mr_again {
    struct mr_list link; /* in pool->waiting, while delayed */
    struct mr_pool *pool;
    struct mr_call *call;
    struct mr_buf bytes; /* the request, followed by its key */
    struct mr_server *server;
    struct mr_server *moved_to; /* target of a MOVED among the early replies; or NULL */
    uint64_t affinity;
    uint64_t since_us; /* when it was first delayed; 0: never */
    uint64_t at_us;    /* when the delay ends */
    uint32_t key_bytes;
    uint32_t early; /* number of replies that precede the one that counts */
    uint8_t lane;
    uint8_t intent;
    uint8_t tries;
    bool too_large; /* no copy was kept */
    bool repeated;  /* after the server had seen it */
    bool later;     /* an early reply asks for a delay */
};

/** Everything is borrowed. */
struct mr_again_setup {
    struct mr_pool *pool;
    struct mr_call *call;
    struct mr_slice request;
    struct mr_slice key;
    struct mr_server *server; /* the first target */
    uint64_t affinity;
    uint32_t early;
    uint8_t lane;
    uint8_t intent;
};

/** Returns NULL if memory is short. Free it with mr_again_free, but not while it is delayed. */
struct mr_again *mr_again_keep(const struct mr_again_setup *setup);
void mr_again_free(struct mr_again *again);

/** After a failed call that its server has not seen: tries another one. True if it was sent. */
bool mr_again_elsewhere(struct mr_again *again);

/**
 * Acts on a whole reply. Returns NULL if it is for the client; an empty string if it was a redirect
 * and the request was sent again; else the reason why the request fails.
 */
const char *mr_again_redirected(struct mr_again *again, struct mr_slice reply);

/** Notes redirects among the replies that precede the one that counts. */
void mr_again_early(struct mr_again *again, struct mr_slice reply);

/* ---- for the other files of upstream/ ---- */

void mr_agains_init(struct mr_pool *pool);

/** Fails all delayed calls. */
void mr_agains_refuse(struct mr_pool *pool, const char *reason);
