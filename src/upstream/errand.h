/*
 * errand.h - a request that the proxy sends on its own behalf: no client waits for the reply.
 *
 * The whole reply is kept, within an allowance that many errands share. Redirects are followed like
 * those of clients' requests.
 */
#pragma once

#include "core/buf.h"
#include "upstream/again.h"
#include "upstream/pool.h"

/** Memory for replies; shared by all errands of an owner. */
struct mr_allowance {
    size_t used; /* bytes */
    size_t max;
};

struct mr_errand {
    struct mr_call call;
    struct mr_pool *pool;
    struct mr_again *again; /* to follow redirects; may be NULL */
    struct mr_allowance *allowance;
    struct mr_buf reply;  /* all replies to the request, one after the other */
    uint32_t early_bytes; /* of these, the bytes before the last one */
    bool too_large;       /* the reply exceeded the allowance and was discarded */
    void (*on_done)(struct mr_errand *errand, const char *failure);
};

/** Everything is borrowed for the call, except `pool` and `allowance`. */
struct mr_errand_order {
    struct mr_pool *pool;
    struct mr_allowance *allowance;
    struct mr_server *server; /* NULL: the one that has the key, as a master */
    struct mr_slice key;
    struct mr_slice request;
    uint32_t early;    /* number of replies that come before the last */
    uint64_t affinity; /* see mr_server_send */
    uint8_t lane;
    uint8_t class; /* enum mr_class */
    /**
     * Called once, never from inside mr_errand_send. `failure`: why there is no reply, or NULL.
     * The reply is the owner's until mr_errand_release. The errand may be used again, or freed.
     */
    void (*on_done)(struct mr_errand *errand, const char *failure);
};

/**
 * Sends a request. The errand belongs to the upstream until on_done.
 * @return NULL, or the reason why it was not sent; on_done is not called then
 */
const char *mr_errand_send(struct mr_errand *errand, const struct mr_errand_order *order);

/** Frees the reply. Must follow each on_done. */
void mr_errand_release(struct mr_errand *errand);

/** The last reply. */
static inline struct mr_slice mr_errand_reply(const struct mr_errand *errand)
{
    const struct mr_slice all = mr_buf_slice(&errand->reply);

    return (struct mr_slice){all.at + errand->early_bytes, all.len - errand->early_bytes};
}

/** The replies that came before it. */
static inline struct mr_slice mr_errand_early(const struct mr_errand *errand)
{
    return (struct mr_slice){mr_buf_slice(&errand->reply).at, errand->early_bytes};
}
