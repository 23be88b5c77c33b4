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
    SIM_WANT_STORE,  /* yes or no to a change of the key, as `yes` says */
    SIM_WANT_COUNT,  /* the number that the counter has then, or no */
    SIM_WANT_ERROR,  /* any error */
    SIM_WANT_MAYBE,  /* exactly `text`, or nothing */
};

/** A key that only one client writes, as it is once all is done that was sent. */
struct sim_own_key {
    struct mr_slice name;
    uint32_t version;  /* of the value, which is also its flags; 0: there is none */
    uint32_t versions; /* ever */
    uint64_t changes;  /* ever */
    uint64_t number;   /* of a counter */
    size_t size;
    uint64_t cas,
        cas_changes;        /* what a reply told, and how many changes there were then; 0: none */
    uint32_t acknowledged;  /* the last version whose change was answered */
    bool appended, deleted; /* ever */
    bool uncertain;         /* a change has failed: it may have happened or not, now or later */
};

/** What one request waits for. */
struct sim_expect {
    struct sim_expect *next;
    enum sim_want want;
    uint8_t opcode;  /* of the dialects: what was asked */
    bool optional;   /* a quiet request: what is in order goes unsaid */
    bool silent;     /* so does what is not; optional, too */
    bool excused;    /* of optional ones: an error that came may be its reply */
    uint32_t opaque; /* of the dialects: in the reply */
    struct mr_slice *keys;
    uint32_t n_keys;
    struct sim_own_key *own; /* NULL: a key that all clients write */
    bool yes;                /* of SIM_WANT_STORE and _COUNT: the change takes place */
    uint32_t version;        /* of the own key, like those that follow */
    uint32_t acknowledged;
    uint64_t changes, number;
    size_t size;
    const char *text; /* what the reply is, or what was asked */
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
    /** Whether it may be the reply to this one, of those that may go unsaid but are not silent. */
    bool (*is_for)(const struct sim_expect *e, struct mr_slice reply);
    bool (*is_error)(struct mr_slice reply);
    bool names_errors; /* is_for knows whose error it is */
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
    bool long_stops;     /* of seconds */
    bool authorizes;
    uint32_t transacts; /* Redis: a request in this many is a transaction, or blocks; 0: none */
    uint32_t meta;      /* text: so many of sixteen requests are meta commands */
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
    struct sim_bytes in, out, value;
    struct sim_own_key own[SIM_OWN_KEYS], counter;
    struct sim_event act, reading;
    uint32_t opaque;
    size_t scanned;      /* bytes of the reply that is coming in, as `length` has found */
    uint64_t session_id; /* what CLIENT ID said */
    bool opened, over;
    bool said_last; /* its end was sent */
    bool refused;
    bool lost;                /* the world's: along with the process that had it */
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

/** One that reads slowly takes nothing for some seconds. */
void sim_client_stop_reading(struct sim_client *c);

/** Makes it one that sends all it has to say, and takes the replies with long pauses. */
void sim_plan_slow_reader(struct sim_client_plan *plan);

/** Closes it, if it is open. */
void sim_client_close(struct sim_client *c);

/** The first of what must be answered; NULL for none. */
const struct sim_expect *sim_client_due(const struct sim_client *c);

/** Says why this client may have lost its connection; NULL when nothing excuses it. */
extern const char *(*sim_excuse)(struct sim_client *c);

/** True when this error may be the reply to the request. */
extern bool (*sim_allows_error)(const struct sim_expect *e, struct mr_slice reply);

/** True when the request may have failed, which nobody has said; for dialects that are quiet. */
extern bool (*sim_may_have_failed)(const struct sim_expect *e);

/** Reads that fail find nothing. */
extern bool sim_failure_is_miss;

/** True when nothing but what clients write decides what is stored, in the order they write. */
extern bool sim_strict;

/** There may be more clients than the proxy takes. */
extern bool sim_may_refuse;

/** All servers have the same memory: what was acknowledged is found wherever it is read. */
extern bool sim_one_memory;

void sim_clients_begin(void);

/* ---- for the dialects ---- */

/** At the end of what the client waits for; fill in the rest. */
struct sim_expect *sim_expect_add(struct sim_client *c, enum sim_want want);

/** A key of a value that every server makes up, of a size after the plan, up to `max` bytes. */
struct mr_slice sim_made_key(struct sim_client *c, size_t max, size_t *size);
size_t sim_some_size(const struct sim_client *c);

/** Gives it room for keys. */
void sim_set_keys(struct sim_expect *e, uint32_t n);

/** Makes it ask for keys[0], which is stored. */
void sim_plan_read(struct sim_client *c, struct sim_expect *e);

enum sim_change {
    SIM_SET,
    SIM_ADD,
    SIM_REPLACE,
    SIM_APPEND,
    SIM_CAS, /* with own->cas, which is set; see sim_plan_cas */
    SIM_DELETE,
    SIM_TOUCH,
};

/** Makes it a change of keys[0]; the value that goes along is c->value. */
void sim_plan_change(struct sim_client *c, struct sim_expect *e, enum sim_change change);

/** Makes it a change for which sim_plan_change uses an own key with a cas; false when none has. */
bool sim_plan_cas(struct sim_client *c, struct sim_expect *e);

/** Makes it a change of the client's counter. `initial` is what makes one; NULL: nothing does. */
void sim_plan_count(struct sim_client *c, struct sim_expect *e, bool down, uint64_t delta,
                    const uint64_t *initial);

/** A new value for the counter. */
void sim_plan_counter(struct sim_client *c, struct sim_expect *e, uint64_t number);

/** True when it is known what the own key holds. */
bool sim_sure(const struct sim_expect *e);

/** Fails the run unless what is there may not be found. */
void sim_check_miss(const struct sim_client *c, const struct sim_expect *e, const char *why);

/** Checks a value, or its absence (at NULL), against a SIM_WANT_STORED. */
void sim_check_stored(const struct sim_client *c, const struct sim_expect *e,
                      struct mr_slice value);

/** Checks what was stored along with the value, where it is there. */
void sim_check_flags(const struct sim_client *c, const struct sim_expect *e, uint32_t flags,
                     struct mr_slice reply);

/** What the key's value is told to be: good for the next SIM_CAS. */
void sim_learn_cas(const struct sim_expect *e, uint64_t cas);

/** Checks whether a change took place, or a counter's number. */
void sim_check_change(const struct sim_client *c, const struct sim_expect *e, bool changed,
                      struct mr_slice reply);
void sim_check_count(const struct sim_client *c, const struct sim_expect *e, uint64_t number,
                     struct mr_slice reply);

/** Checks the value of key number i of a SIM_WANT_VALUES. */
void sim_check_made(const struct sim_client *c, const struct sim_expect *e, uint32_t i,
                    struct mr_slice value);

_Noreturn void sim_wrong(const struct sim_client *c, const struct sim_expect *e,
                         struct mr_slice reply, const char *why);
