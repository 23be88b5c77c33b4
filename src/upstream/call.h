/* call.h - one request on its way to one server, and the reply on its way back. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mr_call;

struct mr_call_ops {
    /**
     * Bytes of the reply, borrowed for the call. Small replies come whole; a large one comes in
     * pieces, the last of them with `done`. The call belongs to its owner again then.
     */
    void (*on_reply)(struct mr_call *call, const char *bytes, size_t len, bool done);
    /** There will be no (further) reply. The call belongs to its owner again. */
    void (*on_fail)(struct mr_call *call, const char *reason);
};

/** What a call needs beside being queued and answered. */
enum mr_call_mark {
    MR_CALL_GUARDED = 1, /* see `guarded` of struct mr_msg */
    MR_CALL_EARLY = 2,   /* other replies come before the one that counts, see `early` */
    MR_CALL_PATIENT = 4, /* the server may take any time: it blocks; on a lease only */
};

/** Embedded by whoever sends; owned by the upstream from mr_server_send until done or failed. */
struct mr_call {
    struct mr_call *next;
    const struct mr_call_ops *ops;
    uint64_t ticket;  /* see struct mr_msg; set by the sender */
    uint64_t sent_us; /* loop time when it was queued for the server */
    uint32_t bytes;   /* of the request */
    uint32_t early;   /* with MR_CALL_EARLY: replies still to be thrown away */
    uint8_t class;    /* enum mr_class; set by the sender */
    uint8_t needs;    /* see struct mr_msg; set by the sender */
    uint8_t marks;    /* bits of enum mr_call_mark; set by the sender */
    bool unsent;      /* waits for its connection; once failed: the server has not seen it */
};
