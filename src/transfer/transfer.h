/*
 * transfer.h - makes a key in one pool what it is in another, however it is written meanwhile.
 *
 * A transfer fetches the key, stores it in the other pool or removes it there, and fetches it
 * again. It is done when it reads what it has stored last. So whoever stores a value that is out of
 * date by then finds that out, and if every write is followed by a transfer, the last one to store
 * stores the last value: any number of transfers of a key, by any processes, leave it right.
 */
#pragma once

#include "upstream/errand.h"

/** What all transfers of an owner have in common. */
struct mr_transfer_road {
    struct mr_pool *from; /* borrowed */
    struct mr_pool *to;   /* borrowed */
    struct mr_allowance allowance;
};

enum mr_transfer_state {
    MR_TRANSFER_FETCHING,
    MR_TRANSFER_STORING,
    MR_TRANSFER_REMOVING,
};

enum mr_transfer_result {
    MR_TRANSFER_DONE,
    MR_TRANSFER_UNSTEADY,  /* it is written so often that it was never read twice the same */
    MR_TRANSFER_TOO_LARGE, /* the value exceeds what is left of the allowance */
    MR_TRANSFER_REFUSED,   /* a server replied with an error */
    MR_TRANSFER_FAILED,    /* no reply */
};

/** What is known of a key in a pool. */
struct mr_transfer_view {
    bool known;
    bool exists;
    uint64_t digest;
    size_t bytes;
    uint64_t until_ms; /* since 1970; 0: for ever */
};

struct mr_transfer {
    struct mr_errand errand;
    struct mr_transfer_road *road;
    struct mr_slice key; /* borrowed until it is done */
    uint64_t affinity;   /* of the client that wrote it: the first fetch follows the write */
    uint8_t from_lane;
    uint8_t to_lane;
    enum mr_transfer_state state;
    uint32_t rounds;                /* how often it was stored or removed */
    size_t sent_bytes;              /* value on its way, counted in the allowance */
    struct mr_transfer_view stored; /* what this transfer has left in the other pool */
    struct mr_transfer_view next;   /* what it is about to leave there */
    char reason[128];               /* REFUSED, FAILED: what went wrong */
    bool by_target;                 /* REFUSED, FAILED: in the pool that is written to */
    void (*on_done)(struct mr_transfer *transfer, enum mr_transfer_result result);
};

/**
 * Starts a transfer. `road`, `key`, the lanes, `affinity` and `on_done` are set, everything else is
 * zeroed. on_done is called once, never from inside; the transfer may be freed or used again then.
 * @return NULL, or the reason why it has not started; on_done is not called then
 */
const char *mr_transfer_start(struct mr_transfer *transfer);
