/*
 * client.h - scripted clients. Each request carries its expected reply, so wrong, crossed, lost,
 * duplicate or reordered replies are detected.
 */
#pragma once

#include "peer.h"

#include "config/config.h"

enum sim_want {
    SIM_WANT_TEXT,   /* exactly `text` */
    SIM_WANT_START,  /* a line that starts with `text` */
    SIM_WANT_VALUES, /* values derived from the keys */
    SIM_WANT_STORED, /* what was last stored for the key, or nothing */
    SIM_WANT_STORE,  /* whether a change of the key succeeds, as in `yes` */
    SIM_WANT_COUNT,  /* the counter's new number, or a failure */
    SIM_WANT_ERROR,  /* any error */
    SIM_WANT_MAYBE,  /* exactly `text`, or nothing */
    SIM_WANT_TOPIC,  /* the beginning is `text`; afterwards the channel is as in `yes` */
};

/** A key that only one client writes, in its state after everything sent so far. */
struct sim_own_key {
    struct mr_slice name;
    uint32_t version;  /* version of the value, also its flags; 0: no value */
    uint32_t versions; /* so far */
    uint64_t changes;  /* so far */
    uint64_t number;   /* of a counter */
    size_t size;
    uint64_t cas, cas_changes; /* from a reply, and the number of changes at that time; 0: none */
    uint32_t acknowledged;     /* last version whose change was acknowledged */
    bool appended, deleted;    /* so far */
    bool uncertain;            /* a change failed: it may have happened, or may still happen */
};

/** Expected result of one request. */
struct sim_expect {
    struct sim_expect *next;
    enum sim_want want;
    uint8_t opcode;  /* for the dialects: the request */
    bool optional;   /* a quiet request: success has no reply */
    bool silent;     /* failure has none either; implies optional */
    bool excused;    /* if optional: an error that arrived may be its reply */
    uint32_t opaque; /* for the dialects: in the reply */
    struct mr_slice *keys;
    uint32_t n_keys;
    struct sim_own_key *own; /* NULL: a key that all clients write */
    bool yes;                /* for SIM_WANT_STORE and _COUNT: the change succeeds */
    uint32_t version;        /* of the own key; so are the next fields */
    uint32_t acknowledged;
    uint64_t changes, number;
    size_t size;
    const char *text; /* the reply, or the request */
    uint64_t sent_us;
    uint64_t end;       /* bytes sent by the client up to the end of this request */
    size_t reply_bytes; /* approximate */
};

enum sim_ending {
    SIM_END_STAY,    /* stays until told to go */
    SIM_END_CLOSE,   /* closes once it has all replies */
    SIM_END_QUIT,    /* asks the proxy to close */
    SIM_END_SHUT,    /* shuts its side down and waits for the replies */
    SIM_END_GARBAGE, /* sends something that is not a request */
    SIM_END_LEAVE,   /* closes while replies are outstanding */
    SIM_END_RESET,
};

struct sim_client;

struct sim_client_proto {
    const char *too_many; /* reply of a proxy with too many clients */
    /** Appends a random request and its expectation. */
    void (*request)(struct sim_client *c);
    /** Appends a request that ends the connection, and its expectation. */
    void (*quit)(struct sim_client *c);
    void (*garbage)(struct sim_client *c);
    /** Length of the reply at the start of `in`; 0 if incomplete. */
    size_t (*length)(struct sim_client *c, struct mr_slice in);
    /** Whether the reply may belong to this request, which is optional but not silent. */
    bool (*is_for)(const struct sim_expect *e, struct mr_slice reply);
    bool (*is_error)(struct mr_slice reply);
    bool names_errors; /* is_for can attribute errors */
    /** Takes what came in if it answers no request. NULL: everything does. */
    bool (*take_push)(struct sim_client *c, struct mr_slice reply);
    /** Fails the run unless this is the expected reply. */
    void (*check)(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply);
};
extern const struct sim_client_proto SIM_CLIENT_RESP, SIM_CLIENT_TEXT, SIM_CLIENT_BINARY;

/** Behaviour of a client; set by the world. */
struct sim_client_plan {
    const struct sim_client_proto *proto;
    const struct mr_pool_config *pool;
    int listener;
    uint32_t n_requests;
    uint32_t depth;      /* maximum requests in flight */
    uint32_t burst;      /* maximum requests per burst */
    uint32_t think_us;   /* maximum time between bursts */
    uint32_t size;       /* maximum size of most values */
    uint32_t huge;       /* one value in this many may be far larger; 0: none */
    uint32_t read_bytes; /* per read; 0: everything */
    uint32_t read_us;    /* time between reads */
    uint32_t stops;      /* one read in this many is followed by a long pause */
    bool long_stops;     /* pauses of seconds */
    bool authorizes;
    uint32_t transacts; /* Redis: one request in this many is a transaction, or blocks; 0: none */
    uint32_t publishes; /* Redis: ... publishes a message; 0: none */
    bool listens;       /* Redis: it only subscribes */
    uint32_t meta;      /* text: how many of sixteen requests are meta commands */
    enum sim_ending ending;
};

#define SIM_OWN_KEYS 3u
#define SIM_CHANNELS 3u
#define SIM_HEARD_OF 32u

struct sim_client {
    struct sim_client *next;
    struct sim_client_plan plan;
    uint32_t id;
    struct sim_conn *conn;
    struct sim_expect *head, **tail;
    uint32_t n_waiting; /* requests that must be answered */
    size_t waiting_bytes, most_waiting_bytes;
    uint64_t n_sent, n_answered, written;
    uint64_t sent_us;        /* last time */
    uint64_t longest_gap_us; /* longest time without a byte sent or received */
    uint64_t heard_us;       /* when it last received something */
    struct sim_bytes in, out, value;
    struct sim_own_key own[SIM_OWN_KEYS], counter;
    struct sim_event act, reading;
    uint32_t opaque;
    size_t scanned;           /* size of the incoming reply so far, for `length` */
    uint64_t session_id;      /* reply to CLIENT ID */
    bool hears[SIM_CHANNELS]; /* channels that it is subscribed to */
    uint32_t n_published;
    uint32_t last_published[SIM_CHANNELS];
    uint32_t heard_of[SIM_CHANNELS][SIM_HEARD_OF]; /* by client: the last message heard of it */
    bool opened, over;
    bool said_last; /* its last request was sent */
    bool refused;
    bool lost;                /* set by the world: lost with the process that had it */
    bool failed_partly;       /* it got an error */
    uint64_t arrived_at_stop; /* bytes received by the proxy when it was told to stop */
};

/** Longest time, now or earlier, in which no byte was sent or received. */
uint64_t sim_client_silence_us(struct sim_client *c);

/** Connects. The client then runs by itself. */
struct sim_client *sim_client_start(const struct sim_client_plan *plan);

/** All clients of this run. */
extern struct sim_client *sim_clients;

/** Sends no new requests; finishes those in flight. */
void sim_client_finish(struct sim_client *c);

/** Reads without pauses from now on. */
void sim_client_hurry(struct sim_client *c);

/** A slow reader reads nothing for some seconds. */
void sim_client_stop_reading(struct sim_client *c);

/** Makes it a client that sends everything at once and reads the replies with long pauses. */
void sim_plan_slow_reader(struct sim_client_plan *plan);

/** Closes the client if it is open. */
void sim_client_close(struct sim_client *c);

/** The first request that must be answered, or NULL. */
const struct sim_expect *sim_client_due(const struct sim_client *c);

/** Why this client may have lost its connection; NULL if there is no excuse. */
extern const char *(*sim_excuse)(struct sim_client *c);

/** True if this error is an acceptable reply to the request. */
extern bool (*sim_allows_error)(const struct sim_expect *e, struct mr_slice reply);

/** True if the request may have failed without a reply, in quiet dialects. */
extern bool (*sim_may_have_failed)(const struct sim_expect *e);

/** Failed reads return a miss. */
extern bool sim_failure_is_miss;

/** True if only the clients' writes determine what is stored, in the order they are sent. */
extern bool sim_strict;

/** There may be more clients than the proxy takes. */
extern bool sim_may_refuse;

/** All servers share their memory, so acknowledged writes are visible everywhere. */
extern bool sim_one_memory;

void sim_clients_begin(void);

/* ---- for the dialects ---- */

/** Appends an expectation; the caller fills in the rest. */
struct sim_expect *sim_expect_add(struct sim_client *c, enum sim_want want);

/** A key whose value servers derive from it; the size follows the plan, up to `max` bytes. */
struct mr_slice sim_made_key(struct sim_client *c, size_t max, size_t *size);
size_t sim_some_size(const struct sim_client *c);

/** Allocates room for keys. */
void sim_set_keys(struct sim_expect *e, uint32_t n);

/** Makes it a read of keys[0], which may be stored. */
void sim_plan_read(struct sim_client *c, struct sim_expect *e);

enum sim_change {
    SIM_SET,
    SIM_ADD,
    SIM_REPLACE,
    SIM_APPEND,
    SIM_CAS, /* with own->cas; see sim_plan_cas */
    SIM_DELETE,
    SIM_TOUCH,
};

/** Makes it a change of keys[0]; the new value is in c->value. */
void sim_plan_change(struct sim_client *c, struct sim_expect *e, enum sim_change change);

/** Makes it a change of an own key with a known cas; false if there is none. */
bool sim_plan_cas(struct sim_client *c, struct sim_expect *e);

/** Makes it a change of the client's counter. `initial` is for creating it; NULL: not created. */
void sim_plan_count(struct sim_client *c, struct sim_expect *e, bool down, uint64_t delta,
                    const uint64_t *initial);

/** Sets the counter to a new value. */
void sim_plan_counter(struct sim_client *c, struct sim_expect *e, uint64_t number);

/** True if the own key's content is known. */
bool sim_sure(const struct sim_expect *e);

/** Fails the run unless the value may be missing. */
void sim_check_miss(const struct sim_client *c, const struct sim_expect *e, const char *why);

/** Checks a value, or its absence (at NULL), against SIM_WANT_STORED. */
void sim_check_stored(const struct sim_client *c, const struct sim_expect *e,
                      struct mr_slice value);

/** Checks the flags stored with the value, if it is there. */
void sim_check_flags(const struct sim_client *c, const struct sim_expect *e, uint32_t flags,
                     struct mr_slice reply);

/** Records the cas of the key's value, for the next SIM_CAS. */
void sim_learn_cas(const struct sim_expect *e, uint64_t cas);

/** Checks whether a change succeeded, or a counter's number. */
void sim_check_change(const struct sim_client *c, const struct sim_expect *e, bool changed,
                      struct mr_slice reply);
void sim_check_count(const struct sim_client *c, const struct sim_expect *e, uint64_t number,
                     struct mr_slice reply);

/** Checks the value of key i of a SIM_WANT_VALUES. */
void sim_check_made(const struct sim_client *c, const struct sim_expect *e, uint32_t i,
                    struct mr_slice value);

_Noreturn void sim_wrong(const struct sim_client *c, const struct sim_expect *e,
                         struct mr_slice reply, const char *why);
