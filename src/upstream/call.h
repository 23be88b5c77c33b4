/* call.h - one request to one server, and its reply. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mr_call;

struct mr_call_ops {
    /**
     * Bytes of the reply, borrowed for the call. Small replies come whole, large ones in pieces,
     * the last with `done`. With `done` the call belongs to its owner again.
     */
    void (*on_reply)(struct mr_call *call, const char *bytes, size_t len, bool done);
    /** No reply, or no more of it, will come. The call belongs to its owner again. */
    void (*on_fail)(struct mr_call *call, const char *reason);
    /** A small reply that precedes the one that counts. NULL: ignored. */
    void (*on_early)(struct mr_call *call, const char *bytes, size_t len);
};

/** Special treatment that a call needs. */
enum mr_call_mark {
    MR_CALL_GUARDED = 1, /* see mr_msg.guarded */
    MR_CALL_EARLY = 2,   /* other replies come before the one that counts, see `early` */
    MR_CALL_PATIENT =
        4, /* may block on the server: no time-out until its reply begins; leases only */
};

/** Embedded by the sender. Belongs to the upstream from mr_server_send until done or failed. */
struct mr_call {
    struct mr_call *next;
    const struct mr_call_ops *ops;
    uint64_t ticket;  /* see struct mr_msg; set by the sender */
    uint64_t sent_us; /* loop time when it was queued */
    uint32_t bytes;   /* size of the request */
    uint32_t early;   /* with MR_CALL_EARLY: replies still to be discarded */
    uint8_t class;    /* enum mr_class; set by the sender */
    uint8_t needs;    /* see struct mr_msg; set by the sender */
    uint8_t marks;    /* bits of enum mr_call_mark; set by the sender */
    bool unsent;      /* not sent yet; if set when it fails, the server has not seen it */
};
