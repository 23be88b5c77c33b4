/*
 * proto.h - the interface of a protocol: bytes on one side, messages on the other.
 *
 * A protocol is one const struct mr_proto, a table of tables. It sees bytes, the pool's options and
 * the state of one client's session, never a socket, a server or a timer.
 */
#pragma once

#include "core/buf.h"
#include "core/metrics.h"
#include "core/result.h"
#include "core/slab.h"
#include "core/slice.h"
#include "proto/user.h"

#include <stdbool.h>
#include <stdint.h>

struct mr_resp_command;

#define MR_MSG_ARGS 4 /* leading arguments that parsing records */

/** What a pool pretends to be, for clients that expect it. */
enum mr_present { MR_PRESENT_NONE, MR_PRESENT_CLUSTER, MR_PRESENT_SENTINEL };

/** The part of a pool's configuration that its protocol needs. */
struct mr_proto_options {
    const char *auth;             /* password for clients, and towards servers; NULL for none */
    const struct mr_users *users; /* who else may log in; may be NULL */
    uint32_t db;                  /* database that clients start in */
    uint32_t databases;           /* clients may select those below; 0: only `db` */
    uint32_t max_request_bytes;
    uint32_t max_key_bytes;
    uint32_t max_item_bytes;                /* limit of a value */
    const struct mr_resp_command *commands; /* commands added by the configuration; borrowed */
    uint32_t n_commands;
    enum mr_present present_as;
    char *const *announced;                   /* addresses that it shows, as host:port; borrowed */
    uint32_t n_announced;                     /* 0: the one that the client is connected to */
    const char *master_name;                  /* as which it is known to those who ask a sentinel */
    uint32_t (*slot_of)(struct mr_slice key); /* in a cluster */
    bool unknown_by_key;    /* unknown commands are routed by their first argument */
    bool allow_flush;       /* clients may empty the servers */
    bool lone;              /* the pool has one server */
    bool replicated;        /* every server has all keys */
    bool replicas_of_slots; /* cluster: replicas take reads */
    bool relays;            /* cluster: what is published at one node reaches all */
    bool meitu_reads;       /* only commands that Meitu's fork sends to replicas are reads */
    bool failure_is_miss;   /* a read whose server fails is a miss instead of an error */
};

enum mr_lane_state {
    MR_LANE_UNKNOWN, /* until a connection being opened is ready or has failed */
    MR_LANE_USABLE,
    MR_LANE_REFUSED, /* by at least one server */
};

struct mr_session;

/** Facts about a client beyond its session. */
struct mr_client_facts {
    char peer[128]; /* addresses, as in CLIENT LIST */
    char local[128];
    int fd;
    uint64_t age_s; /* since it came to this process */
    uint64_t idle_s;
    size_t input_bytes; /* unread and unsent */
    size_t output_bytes;
    int64_t queued; /* commands in its open transaction; -1: none is open */
    bool blocked;
};

/** Facts about the pool that protocols show to clients. */
struct mr_proto_facts {
    /** Iterates from *index = 0; false after the last. */
    bool (*next)(const struct mr_proto_facts *facts, uint32_t *index, const char **name,
                 uint64_t *value);
    /** False after too many failed logins with this name from the client's address. */
    bool (*may_log_in)(const struct mr_proto_facts *facts, const struct mr_session *session,
                       struct mr_slice name);
    /** Counts a login that failed or was refused. */
    void (*login_failed)(const struct mr_proto_facts *facts, const struct mr_session *session,
                         struct mr_slice name);
    /** Whether the pool's servers accept connections of this lane. May open one to find out. */
    enum mr_lane_state (*lane)(const struct mr_proto_facts *facts, uint8_t lane);
    /** The same for one of them, whose greeting then tells the version. */
    enum mr_lane_state (*any_lane)(const struct mr_proto_facts *facts, uint8_t lane);
    const char *version; /* a server's version from its greeting; may be empty */
    uint64_t started_us; /* when the proxy was started, since 1970 */
    /** Iterates over the pool's clients in this process, from NULL; returns NULL after the last. */
    const struct mr_session *(*next_client)(const struct mr_proto_facts *facts,
                                            const struct mr_session *session);
    void (*describe_client)(const struct mr_session *session, struct mr_client_facts *facts);
    /** Closes the client; `after_reply`: after its reply to the current request. */
    void (*end_client)(const struct mr_session *session, bool after_reply);
    /**
     * Ends the client's blocking command, as if timed out or with an error. False if none blocks.
     */
    bool (*unblock_client)(const struct mr_session *session, bool timed_out);
};

/** What clients subscribe to. */
enum mr_topic_kind {
    MR_TOPIC_CHANNEL,
    MR_TOPIC_PATTERN, /* of channels */
    MR_TOPIC_SHARD,   /* a channel that belongs to a slot of a cluster */
    MR_TOPIC_KINDS,
};

/** Protocol state of one client: small, as it travels with the connection. */
struct mr_session {
    uint64_t id;          /* answer to CLIENT ID; unique in this worker */
    char *labels;         /* protocol's own: the client's names; owned (malloc) */
    uint16_t label_bytes; /* 0: labels is NULL */
    uint8_t mute;         /* number of requests whose replies are suppressed, or MR_MUTE_ALL */
    uint32_t skip;        /* input bytes still to be discarded, of a refused request */
    uint8_t dialect;      /* protocol's own: the dialect that the client speaks */
    bool authed;          /* the client gave the password, or needs none */
    const struct mr_user *user;      /* the logged-in user; borrowed, NULL: everything is allowed */
    uint32_t n_topics;               /* number of subscriptions */
    uint32_t topics[MR_TOPIC_KINDS]; /* the same by enum mr_topic_kind */
};

#define MR_MUTE_ALL UINT8_MAX

/** Replaces the labels: consecutive NUL-terminated strings. */
void mr_session_set_labels(struct mr_session *session, struct mr_slice labels);

/** True if clients need not log in. */
static inline bool mr_proto_is_open(const struct mr_proto_options *options)
{
    return options->auth == NULL && options->users == NULL;
}

/** Context for parsing and answering the requests of one client. */
struct mr_proto_ctx {
    const struct mr_proto_options *options; /* borrowed */
    struct mr_session *session;             /* borrowed */
    struct mr_slab *slab;
    struct mr_buf *scratch; /* for error texts and rewritten requests; cleared by every parse */
    const struct mr_proto_facts *facts; /* borrowed */
};

/** Where an incomplete parse resumes. Zeroed before each message. */
struct mr_parse_state {
    uint32_t offset; /* bytes of the message already checked */
    uint32_t left;   /* protocol's own: elements still to come */
    uint32_t want;   /* the next try needs at least this many bytes of the message */
};

enum mr_msg_action {
    MR_MSG_SKIP,       /* ignore: an empty line */
    MR_MSG_LOCAL,      /* call proto->client.answer */
    MR_MSG_REFUSE,     /* reply with msg->reply */
    MR_MSG_BY_KEY,     /* forward to the server of msg->key */
    MR_MSG_BY_KEYS,    /* has several keys, see proto->keys.next */
    MR_MSG_ANYWHERE,   /* has no key, so any server will do */
    MR_MSG_EVERYWHERE, /* goes to all servers; their replies are joined */
    MR_MSG_IN_TURN,    /* goes to the server at msg->place, or to the next one */
};

/** Effect of a message on the client's session with a server. */
enum mr_step {
    MR_STEP_NONE,
    MR_STEP_BLOCK,   /* may block on the server */
    MR_STEP_WATCH,   /* watches its keys until the next commit */
    MR_STEP_UNWATCH, /* stops watching all keys */
    MR_STEP_BEGIN,   /* begins a transaction */
    MR_STEP_COMMIT,
    MR_STEP_DISCARD,
    MR_STEP_ABORT,       /* REFUSE: ends the transaction and stops watching */
    MR_STEP_END,         /* LOCAL: clears all of it */
    MR_STEP_SUBSCRIBE,   /* its keys are topics */
    MR_STEP_UNSUBSCRIBE, /* the same; without keys, from all of the kind */
};

/** Replies about transactions that the proxy makes itself. */
enum mr_saying {
    MR_SAY_OK,
    MR_SAY_QUEUED,
    MR_SAY_NESTED,        /* nested transactions are not allowed */
    MR_SAY_COMMIT_ALONE,  /* commit without a transaction */
    MR_SAY_DISCARD_ALONE, /* discard without a transaction */
    MR_SAY_WATCH_INSIDE,  /* watch inside a transaction */
    MR_SAY_NOT_INSIDE,    /* the command is not allowed inside a transaction */
    MR_SAY_TOO_LARGE,     /* the transaction is too large */
    MR_SAY_ABORTED,       /* a command of the transaction was refused */
    MR_SAY_BROKEN,        /* watched keys may have changed */
    MR_SAY_EMPTY,         /* result of an empty transaction */
};

/** Positions of a message's keys among its arguments, in order. */
struct mr_msg_keys {
    uint32_t before; /* a key before the run; 0 for none */
    uint32_t first;  /* the run: `count` keys, every `step` arguments */
    uint32_t count;
    uint32_t step;
    uint32_t after; /* a key after the run; 0 for none */
};

/** A parsed request. Slices are borrowed from the input or the scratch buffer. */
struct mr_msg {
    enum mr_msg_action action;
    bool splittable;         /* BY_KEYS: can be split and the replies joined */
    bool edits;              /* the client may have to see another reply, see MR_REPLY_EDITS */
    bool to_master;          /* replicated pools: must not go to a replica */
    bool queueable;          /* LOCAL: allowed in a transaction, where a server answers it */
    bool confirms;           /* BLOCK: it waits for the client's earlier writes, see lease.mark */
    bool once;               /* BLOCK: must not be repeated later, because it would miss data */
    uint8_t step;            /* enum mr_step */
    uint8_t topic;           /* SUBSCRIBE, UNSUBSCRIBE: enum mr_topic_kind */
    uint8_t lane;            /* kind of server connection, see mr_proto_lanes */
    uint8_t class;           /* enum mr_class */
    uint8_t needs;           /* bits of abilities that the server must have, see check_hello */
    bool guarded;            /* the reply may prove the connection to be out of step */
    uint32_t part_bytes;     /* splittable: limit of keys and blanks per part; 0 for none */
    uint64_t ticket;         /* protocol's own: what it needs when the reply arrives */
    size_t consumed;         /* input bytes of this message */
    struct mr_slice wire;    /* bytes to forward */
    struct mr_slice key;     /* BY_KEY: the key; BY_KEYS: the first key; may be empty with a step;
                                ANYWHERE: the key of the preferred server, or empty */
    struct mr_slice reply;   /* REFUSE: the whole reply */
    const void *command;     /* protocol's own: its row in the command table */
    struct mr_msg_keys keys; /* BY_KEYS */
    uint32_t place;          /* IN_TURN: the client's position, see struct mr_plan */
    uint64_t progress;       /* IN_TURN: protocol's own: progress at that server */
    uint32_t n_keys;         /* BY_KEYS */
    uint32_t n_args;
    struct mr_slice args[MR_MSG_ARGS];
};

/** Iterates over a message's keys. Zeroed before the first call. */
struct mr_key_walk {
    uint32_t index;        /* keys returned so far */
    uint32_t arg;          /* number of the argument at `at` */
    const char *at;        /* NULL before the first */
    struct mr_slice bytes; /* splittable: what a part has for this key: the key, encoded, with what
                              belongs to it; borrowed from msg->wire */
};

/** One server's part of a split request. */
struct mr_part {
    uint32_t server;  /* server's index in the pool */
    const char *name; /* of the server */
    uint32_t n_keys;
    struct mr_buf request; /* see mr_part_add */
    struct mr_slice reply; /* the server's whole reply, borrowed; none if it failed */
    const char *failure;   /* why there is no reply; NULL if there is one */
};

/** Servers have positions below 2^this, in a stable order. */
#define MR_PLACE_BITS 20

/**
 * A split request: which part has which key. IN_TURN has one part, or none if there is no server at
 * or after the position.
 */
struct mr_plan {
    const struct mr_proto_options *options;
    const void *command;
    uint64_t ticket;
    uint8_t class;       /* enum mr_class */
    struct mr_buf notes; /* filled in by end_parts, for join */
    uint32_t n_keys;
    uint32_t n_parts;
    uint32_t *part_of_key; /* n_keys */
    struct mr_part *parts; /* n_parts */
    uint32_t place;        /* IN_TURN: position of the part's server */
    uint32_t next;         /* position of the next server; 0 if this is the last */
    uint64_t progress; /* IN_TURN: progress from the message; 0 if it was about another server */
};

/** State of scanning a stream of replies. Zeroed before each reply. */
struct mr_reply_state {
    uint64_t offset;  /* bytes scanned so far; may exceed what has arrived */
    uint64_t pending; /* protocol's own: elements still to come */
    bool aside;       /* the bytes so far are not a reply, see MR_ASIDE */
};

/** Room for what replaces the beginning of a reply. */
#define MR_HEAD_BYTES 64u

/** What becomes of a client after an answer of the proxy. */
enum mr_outcome {
    MR_KEEP_CLIENT,
    MR_CLOSE_CLIENT,
    MR_ASK_LATER,  /* no answer yet: depends on a lane that is MR_LANE_UNKNOWN */
    MR_ASK_OTHERS, /* the answer is this process's part of it, see join_answers */
};

enum mr_role { MR_ROLE_UNKNOWN, MR_ROLE_MASTER, MR_ROLE_REPLICA };

const char *mr_role_name(enum mr_role role);

/** What a probed server reports about itself. */
struct mr_probe {
    enum mr_role role;
    bool link;       /* replica: connected to its master */
    uint64_t offset; /* replication offset */
};

#define MR_VERSION_BYTES 24u

/** What the replies to a greeting reveal. */
struct mr_greeting {
    uint8_t able;                   /* bits of the server's abilities, see mr_msg.needs */
    bool lane_only;                 /* the server refuses only this kind of connection */
    char version[MR_VERSION_BYTES]; /* of the server; empty if unknown */
};

/** What an error from a cluster node means for the request. */
enum mr_redirect_kind {
    MR_REDIRECT_MOVED, /* another node has the slot */
    MR_REDIRECT_ASK,   /* another node may have the key already: send only this request there */
    MR_REDIRECT_LATER, /* try again in a moment */
    MR_REDIRECT_OTHER, /* another node with the slot may answer */
};

struct mr_redirect {
    enum mr_redirect_kind kind;
    uint32_t slot;
    struct mr_slice host; /* MOVED, ASK: empty means the host of the node that replied */
    uint16_t port;
};

/** A node that has a range of slots. */
struct mr_slot_range {
    uint32_t first, last;
    struct mr_slice host; /* as in struct mr_redirect */
    uint16_t port;
    bool is_replica;
};

#define MR_SLOTS 16384u

/** What a sentinel says of a master, or of a replica. */
struct mr_sentinel_view {
    struct mr_slice host;
    uint16_t port;
    uint64_t epoch; /* of the configuration; masters */
    bool down;      /* it is not in service */
};

/** What came in on a connection that is subscribed to topics. */
struct mr_push {
    bool ended; /* no message: a subscription has ended. If not on request, the topic has moved. */
    enum mr_topic_kind kind;
    struct mr_slice name; /* of the topic */
};

/** How a client sees a reply: the first `cut` bytes are replaced by those of `head`. */
struct mr_rewrite {
    size_t cut;
    size_t head_len;
    char head[MR_HEAD_BYTES];
};

/** What a reply means. Bits, because a caller says which of them apply to the request. */
enum mr_meaning {
    MR_REPLY_PASS = 0,             /* it is the reply */
    MR_REPLY_HIDE = 1 << 0,        /* the client does not see it */
    MR_REPLY_REWRITE = 1 << 1,     /* the client sees it as `rewrite` says */
    MR_REPLY_REDIRECT = 1 << 2,    /* another server may answer, see `redirect` */
    MR_REPLY_RETRY = 1 << 3,       /* a blocking command was ended, and did nothing */
    MR_REPLY_PUSH = 1 << 4,        /* it answers no request, see `push` */
    MR_REPLY_OUT_OF_STEP = 1 << 5, /* the server has read something else than this request, so
                                      nothing on the connection can be trusted */
    MR_REPLY_EDITS = MR_REPLY_HIDE | MR_REPLY_REWRITE,
};

/** A verdict on a reply. Slices are borrowed from it. */
struct mr_verdict {
    enum mr_meaning meaning; /* a single bit, or PASS */
    union {
        struct mr_rewrite rewrite;
        struct mr_redirect redirect;
        struct mr_push push;
    };
};

/** What a protocol does for clients. */
struct mr_proto_client {
    const char *too_many_clients; /* reply to a client beyond the limit */

    /**
     * Parses one request. The result does not depend on how the bytes were cut.
     * @return MR_OK with *msg filled in; MR_AGAIN with *state set for a call with the same bytes
     *         and more; MR_EPROTO or MR_ELIMIT if framing is lost: send msg->reply, then close the
     *         client
     */
    enum mr_result (*parse)(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                            const char *bytes, size_t len, struct mr_msg *msg);

    /**
     * Grants or revokes what a word means: a command, a subcommand such as "client|list", or an
     * @category. False if the word is unknown. NULL if there are no logins.
     */
    bool (*permit)(struct mr_user *user, struct mr_slice word, bool allowed);

    /** Appends the reply to a LOCAL message. */
    enum mr_outcome (*answer)(const struct mr_proto_ctx *ctx, const struct mr_msg *msg,
                              struct mr_buf *out);

    /**
     * Appends the one reply that MR_ASK_OTHERS of several processes make, in any order. NULL if no
     * answer is such a part.
     */
    void (*join_answers)(const struct mr_slice *parts, uint32_t n, struct mr_slab *slab,
                         struct mr_buf *out);

    /** Appends an error reply of the proxy for the request with this ticket. */
    void (*fail)(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                 struct mr_slab *slab, struct mr_buf *out);

    /** A reply about a transaction. NULL if no message has a step. */
    struct mr_slice (*say)(const struct mr_session *session, enum mr_saying saying);

    /**
     * False if a session in this dialect cannot continue with these options. NULL: always possible.
     */
    bool (*has_dialect)(const struct mr_proto_options *options, uint8_t dialect);
};

/** What it does for requests with several keys. */
struct mr_proto_keys {
    const char *cross_server; /* reply if an unsplittable request's keys are on different servers */

    /** The next key; false after the last. */
    bool (*next)(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key);

    /** Writes what precedes the keys of a part. */
    void (*begin_part)(const struct mr_msg *msg, struct mr_slab *slab, struct mr_part *part);

    /** Completes the requests of all parts, which have their keys. */
    void (*end_parts)(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);

    /** Writes parts[].request without keys: EVERYWHERE has one per server, IN_TURN has one. */
    void (*copy)(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);

    /** Joins the replies of all parts into one and appends it. */
    void (*join)(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);
};

/** What it does on server connections. */
struct mr_proto_server {
    uint8_t lanes;      /* kinds of server connections per database, see mr_proto_lanes */
    const char *unable; /* error if the server lacks an ability that a request needs */

    /**
     * Finds the end of a reply on a connection of this lane.
     * @return MR_OK with *reply_len; MR_AGAIN; MR_ASIDE if *reply_len bytes do not answer any
     *         request; MR_EPROTO if the bytes are not a reply, after which the connection is
     *         unusable
     */
    enum mr_result (*scan_reply)(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                 size_t len, size_t *reply_len);

    /**
     * Judges a reply, or its beginning. `possible` are the bits of enum mr_meaning that apply to
     * the request; the verdict is one of them, or PASS. NULL if the protocol is relayed.
     */
    void (*judge)(unsigned possible, uint64_t ticket, struct mr_slice reply,
                  struct mr_verdict *verdict);

    /**
     * Appends the greeting for a new server connection. Returns the number of replies to expect.
     */
    uint32_t (*hello)(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                      struct mr_buf *out);

    /**
     * NULL when a reply to the hello is good, else what is wrong, for clients and the log. What the
     * reply tells is added to *greeting.
     */
    const char *(*check_hello)(const struct mr_proto_options *options, uint8_t lane, uint32_t index,
                               struct mr_slice reply, struct mr_greeting *greeting);

    /**
     * Appends a request that a healthy server answers at once, with one reply. NULL: a server is
     * healthy if it accepts a connection.
     */
    void (*probe)(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                  struct mr_buf *out);

    /** Checks the reply to a probe. Returns NULL with *found filled in, or what is wrong. */
    const char *(*check_probe)(struct mr_slice reply, struct mr_probe *found);
};

/** Connections that one client has for itself. `reset` is NULL if no message has a step. */
struct mr_proto_lease {
    const char *introduce; /* request whose reply has the server's id for the connection */
    uint64_t (*read_id)(struct mr_slice reply); /* 0: it has none */
    const char *reset;                          /* request that clears what WATCH leaves */
    bool (*is_reset)(struct mr_slice reply);
    /**
     * Appends a request that ends a blocking command on the connection with this id, as if
     * timed out or with an error, which MR_REPLY_RETRY recognizes.
     */
    void (*unblock)(uint64_t id, bool timed_out, struct mr_slab *slab, struct mr_buf *out);
    /**
     * Appends a request that moves a connection from lane `from` towards lane `to`.
     * @return the lane it leads to
     */
    uint8_t (*change_lane)(const struct mr_proto_options *options, uint8_t from, uint8_t to,
                           struct mr_slab *slab, struct mr_buf *out);
    /**
     * Appends a request that changes nothing, after which what the server has done for others
     * before counts as written by this connection. Needed before a message that `confirms`.
     */
    void (*mark)(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                 struct mr_buf *out);
    bool (*is_error)(struct mr_slice reply);
};

/** Pools whose servers are a cluster; NULL if there are none. */
struct mr_proto_cluster {
    const char *cross_slot; /* replaces cross_server */
    const char *asking;     /* precedes a request redirected by ASK; has one reply */
    const char *ask_slots;  /* request for all slots; read_slots calls `range` for each node of
                               each range, masters first. @return false when it is no such reply */
    bool (*read_slots)(struct mr_slice reply,
                       void (*range)(void *arg, const struct mr_slot_range *r), void *arg);
};

/** What sentinels are asked; `ask` is NULL if there are none. */
struct mr_proto_sentinel {
    /** Appends the question for a master, or for its replicas. */
    void (*ask)(const char *master, bool replicas, struct mr_slab *slab, struct mr_buf *out);
    /** False if the reply is not about a master. */
    bool (*read_master)(struct mr_slice reply, struct mr_sentinel_view *view);
    /** Calls `replica` for each. False if the reply is not a list of replicas. */
    bool (*read_replicas)(struct mr_slice reply,
                          void (*replica)(void *arg, const struct mr_sentinel_view *view),
                          void *arg);
    const char *ask_role; /* check_probe reads the reply */
};

/** Publish and subscribe; `order` is NULL if there is no such thing. */
struct mr_proto_feed {
    /** Appends a request that subscribes a server connection, or ends that. It has one reply. */
    void (*order)(enum mr_topic_kind kind, bool on, struct mr_slice name, struct mr_slab *slab,
                  struct mr_buf *out);
    const char *ping; /* a request that is allowed there, with one reply */
    /** Appends what tells a client that it is subscribed, or not any more. */
    void (*confirm)(const struct mr_session *session, enum mr_topic_kind kind, bool on,
                    struct mr_slice name, struct mr_slab *slab, struct mr_buf *out);
    /** The byte that takes the place of a message's first one, for this client. */
    char (*mark)(const struct mr_session *session);
};

/** What a server has under a key. */
enum mr_holding {
    MR_HOLDS_VALUE,
    MR_HOLDS_NOTHING,
    MR_HOLDING_UNKNOWN, /* the reply is an error, or no reply to this request */
};

/** Bringing keys to another pool, see transfer/. `fetch` is NULL if the protocol cannot. */
struct mr_proto_transfer {
    /**
     * The lane in which the pool `to` has the keys of a lane of `from`: clients begin in lane 0 of
     * each, other databases have the same number. False if `to` has no such database.
     */
    bool (*lane)(const struct mr_proto_options *from, uint8_t lane,
                 const struct mr_proto_options *to, uint8_t *to_lane);
    /** True if the message also changes its keys in another lane. */
    bool (*other_lane)(const struct mr_proto_options *options, const struct mr_msg *msg,
                       uint8_t *lane);
    /** True if the message removes all keys, or all of its lane. */
    bool (*empties)(const struct mr_msg *msg);
    /** Appends a request with two replies: a key's time to live, and its value. */
    void (*fetch)(struct mr_slice key, struct mr_slab *slab, struct mr_buf *out);
    /** Milliseconds left; -1 without a limit or a key. False if it is an error. */
    bool (*read_ttl)(struct mr_slice reply, int64_t *ms);
    enum mr_holding (*read_value)(struct mr_slice reply, struct mr_slice *value);
    /** Appends a request to store a value until `until_ms` since 1970; 0: for ever. */
    void (*store)(struct mr_slice key, struct mr_slice value, uint64_t until_ms,
                  struct mr_slab *slab, struct mr_buf *out);
    void (*remove)(struct mr_slice key, struct mr_slab *slab, struct mr_buf *out);
    /** False if the reply to `store` or `remove` is an error. */
    bool (*done)(struct mr_slice reply);
};

struct mr_proto {
    const char *name;
    struct mr_proto_client client;
    struct mr_proto_keys keys;
    struct mr_proto_server server;
    struct mr_proto_lease lease;
    struct mr_proto_cluster cluster;
    struct mr_proto_sentinel sentinel;
    struct mr_proto_feed feed;
    struct mr_proto_transfer transfer;
};

/** True if clients and servers exchange bytes, not requests and replies: see session/relay.h. */
static inline bool mr_proto_is_relayed(const struct mr_proto *proto)
{
    return proto->client.parse == NULL;
}

/**
 * Number of kinds of server connections. All clients begin in lane 0; lanes of other databases
 * follow those of the first.
 */
static inline uint32_t mr_proto_lanes(const struct mr_proto *proto,
                                      const struct mr_proto_options *options)
{
    return proto->server.lanes * (options->databases + 1);
}

/** Adds keys to a part. `bytes` are those of one or more walks, if they are adjacent. */
static inline void mr_part_add(const struct mr_proto_keys *keys, const struct mr_msg *msg,
                               struct mr_slab *slab, struct mr_part *part, struct mr_slice bytes,
                               uint32_t n_keys)
{
    if (part->n_keys == 0)
        keys->begin_part(msg, slab, part);
    part->n_keys += n_keys;
    mr_buf_put(&part->request, slab, bytes.at, bytes.len);
}

/** By name, as in `protocol:`; NULL when there is none. */
const struct mr_proto *mr_proto_by_name(struct mr_slice name);

/** Stable number of a protocol, from 1. */
uint32_t mr_proto_number(const struct mr_proto *proto);
