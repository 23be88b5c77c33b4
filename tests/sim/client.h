/*
 * client.h - scripted clients. Each request comes with what its reply must be, so that a reply
 * which is wrong, crossed, lost, doubled or out of order is seen when it comes, or does not come.
 */
#pragma once

#include "peer.h"

#include "config/config.h"

enum sim_want {
    SIM_WANT_TEXT,   /* exactly `text` */
    SIM_WANT_START,  /* a line that begins with `text` */
    SIM_WANT_VALUES, /* those of the keys, which are made of the keys */
    SIM_WANT_STORED, /* what was stored last for the key, or nothing */
    SIM_WANT_STORE,  /* yes to a change of the key */
    SIM_WANT_ERROR,  /* any error */
};

/** A key that only one client writes. */
struct sim_own_key {
    struct mr_slice name;
    uint32_t version;  /* of the last value that was sent; 0: none */
    uint32_t versions; /* ever */
    bool uncertain;    /* a change has failed: it may have happened or not, now or later */
};

/** What one request waits for. */
struct sim_expect {
    struct sim_expect *next;
    enum sim_want want;
    uint8_t opcode;  /* of the dialects: what was asked */
    bool optional;   /* a quiet request: what is in order may go unsaid */
    bool shared;     /* of SIM_WANT_STORED and _STORE: a key that all clients write */
    uint32_t opaque; /* binary */
    struct mr_slice *keys;
    uint32_t n_keys;
    struct sim_own_key *own;
    uint32_t version;
    const char *text;
    uint64_t sent_us;
    uint64_t end;       /* bytes that the client has sent, this request included */
    size_t reply_bytes; /* about */
};

enum sim_ending {
    SIM_END_STAY,    /* until it is told to go */
    SIM_END_CLOSE,   /* once it has all replies */
    SIM_END_QUIT,    /* by a request */
    SIM_END_SHUT,    /* no more requests, and waits for the replies */
    SIM_END_GARBAGE, /* by something that is no request */
    SIM_END_LEAVE,   /* closes while replies are on their way */
    SIM_END_RESET,
};

struct sim_client;

struct sim_client_proto {
    const char *too_many; /* reply of a proxy that takes no more clients */
    /** Appends a random request and what it wants. */
    void (*request)(struct sim_client *c);
    /** Appends a request that ends the connection, and what it wants. */
    void (*quit)(struct sim_client *c);
    void (*garbage)(struct sim_client *c);
    /** Bytes of the reply at the beginning of `in`; 0 when it is not all there. */
    size_t (*length)(struct sim_client *c, struct mr_slice in);
    /** Whether it may be the reply to this one, of those that may go unsaid. */
    bool (*is_for)(const struct sim_expect *e, struct mr_slice reply);
    bool (*is_error)(struct mr_slice reply);
    /** Fails the run if this is not the right reply. */
    void (*check)(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply);
};
extern const struct sim_client_proto SIM_CLIENT_RESP, SIM_CLIENT_TEXT, SIM_CLIENT_BINARY;

/** How a client behaves; chosen by the world. */
struct sim_client_plan {
    const struct sim_client_proto *proto;
    const struct mr_pool_config *pool;
    int listener;
    uint32_t n_requests;
    uint32_t depth;      /* most that it has in flight */
    uint32_t burst;      /* most that it sends at once */
    uint32_t think_us;   /* between bursts, at most */
    uint32_t size;       /* of values: most are up to this */
    uint32_t huge;       /* a value in this many may be far larger; 0: none */
    uint32_t read_bytes; /* at once; 0: all */
    uint32_t read_us;    /* between reads */
    uint32_t stops;      /* a read in this many is followed by a long pause */
    bool authorizes;
    enum sim_ending ending;
};

#define SIM_OWN_KEYS 3u

struct sim_client {
    struct sim_client *next;
    struct sim_client_plan plan;
    uint32_t id;
    struct sim_conn *conn;
    struct sim_expect *head, **tail;
    uint32_t n_waiting; /* that must be answered */
    size_t waiting_bytes, most_waiting_bytes;
    uint64_t n_sent, n_answered, written;
    uint64_t sent_us;        /* the last time */
    uint64_t longest_gap_us; /* between two bytes that it sent or got */
    uint64_t heard_us;       /* when something last came for it */
    struct sim_bytes in, out;
    struct sim_own_key own[SIM_OWN_KEYS];
    struct sim_event act, reading;
    uint32_t opaque;
    uint64_t session_id; /* what CLIENT ID said */
    bool opened, over;
    bool said_last; /* its end was sent */
    bool refused;
    bool failed_partly;       /* an error was answered to it */
    uint64_t arrived_at_stop; /* bytes that had come in when the proxy was told to stop */
};

/** For how long it has been silent, now or before: no byte was sent, none came. */
uint64_t sim_client_silence_us(struct sim_client *c);

/** Connects; lives on its own from then on. */
struct sim_client *sim_client_start(const struct sim_client_plan *plan);

/** All of this run. */
extern struct sim_client *sim_clients;

/** No more new requests: what is under way is finished. */
void sim_client_finish(struct sim_client *c);

/** It reads on, whatever its habits are. */
void sim_client_hurry(struct sim_client *c);

/** Closes it, if it is open. */
void sim_client_close(struct sim_client *c);

/** Says why this client may have lost its connection; NULL when nothing excuses it. */
extern const char *(*sim_excuse)(struct sim_client *c);

/** True when this error may be the reply to the request. */
extern bool (*sim_allows_error)(const struct sim_expect *e, struct mr_slice reply);

/** True when nothing but what clients write decides what is stored. */
extern bool sim_strict;

void sim_clients_begin(void);

/* ---- for the dialects ---- */

/** At the end of what the client waits for; fill in the rest. */
struct sim_expect *sim_expect_add(struct sim_client *c, enum sim_want want);

/** A key of a value that every server makes up, of a size after the plan; *size in bytes. */
struct mr_slice sim_made_key(struct sim_client *c, size_t *size);
size_t sim_some_size(const struct sim_client *c);

/** A key that is stored, and for a write the tag of its next value. */
struct mr_slice sim_stored_key(struct sim_client *c, struct sim_expect *e);
struct mr_slice sim_next_tag(struct sim_client *c, struct sim_expect *e);

/** Checks a value, or its absence (at NULL), against a SIM_WANT_STORED. */
void sim_check_stored(const struct sim_client *c, const struct sim_expect *e,
                      struct mr_slice value);

/** Checks the value of key number i of a SIM_WANT_VALUES. */
void sim_check_made(const struct sim_client *c, const struct sim_expect *e, uint32_t i,
                    struct mr_slice value);

_Noreturn void sim_wrong(const struct sim_client *c, const struct sim_expect *e,
                         struct mr_slice reply, const char *why);
