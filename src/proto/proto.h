/*
 * proto.h - the seam between the proxy and a protocol: bytes on one side, messages on the other.
 *
 * A protocol is one const struct mr_proto. It sees bytes, the options of the pool and the state of
 * one client's session; never a socket, a server or a timer.
 */
#pragma once

#include "core/buf.h"
#include "core/metrics.h"
#include "core/result.h"
#include "core/slab.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_MSG_ARGS 4 /* leading arguments that a parse remembers */

/** What a pool's configuration says to its protocol. */
struct mr_proto_options {
    const char *auth; /* password, NULL for none: of clients, and towards the servers */
    uint32_t db;      /* database selected on every server connection */
    uint32_t max_request_bytes;
    uint32_t max_key_bytes;
    uint32_t max_item_bytes; /* of a value */
    bool allow_flush;        /* clients may empty the servers */
    bool replicated;         /* every server has all keys */
    bool meitu_reads;        /* replicas are asked for what Meitu's fork asks them for only */
    bool failure_is_miss;    /* a read that no server answers finds nothing, instead of failing */
};

enum mr_lane_state {
    MR_LANE_UNKNOWN, /* until a connection that is being made is ready or has failed */
    MR_LANE_USABLE,
    MR_LANE_REFUSED, /* by one server at least */
};

/** What is known of the pool, for protocols that show it to clients. */
struct mr_proto_facts {
    /** The next one, from *index = 0 on; false after the last. */
    bool (*next)(const struct mr_proto_facts *facts, uint32_t *index, const char **name,
                 uint64_t *value);
    /** Whether the pool's servers take connections of this lane; asking may open one. */
    enum mr_lane_state (*lane)(const struct mr_proto_facts *facts, uint8_t lane);
};

/** One client's protocol state: small, so that it can travel with the connection. */
struct mr_session {
    uint64_t id;     /* unique in this worker; what CLIENT ID answers */
    char *name;      /* CLIENT SETNAME, owned (malloc), NULL for none */
    uint32_t skip;   /* bytes of input still to be thrown away: the rest of a refused request */
    uint8_t dialect; /* protocol's own: which of its dialects the client has begun to speak */
    bool authed;     /* has given the password, or none is needed */
};

/** What parsing and answering one client's requests needs. */
struct mr_proto_ctx {
    const struct mr_proto_options *options; /* borrowed */
    struct mr_session *session;             /* borrowed */
    struct mr_slab *slab;
    struct mr_buf *scratch; /* emptied by every parse; error texts and rewritten requests */
    const struct mr_proto_facts *facts; /* borrowed */
};

/** Where a parse that needed more bytes goes on. Zeroed before each message. */
struct mr_parse_state {
    uint32_t offset; /* bytes of the message already checked */
    uint32_t left;   /* protocol's own: elements still to come */
    uint32_t want;   /* bytes, from the start of the message, that the next try needs at least */
};

enum mr_msg_action {
    MR_MSG_SKIP,       /* nothing to do: an empty line */
    MR_MSG_LOCAL,      /* ask proto->answer */
    MR_MSG_REFUSE,     /* reply with msg->reply */
    MR_MSG_BY_KEY,     /* forward to the server of msg->key */
    MR_MSG_BY_KEYS,    /* several keys, walked by proto->next_key */
    MR_MSG_ANYWHERE,   /* has no key; any server will do */
    MR_MSG_EVERYWHERE, /* goes to every server, the replies are joined */
};

/** What a message does to the client's session with a server, beyond asking something. */
enum mr_step {
    MR_STEP_NONE,
    MR_STEP_BLOCK,   /* the server may take any time to answer */
    MR_STEP_WATCH,   /* of the keys: until the next commit */
    MR_STEP_UNWATCH, /* of all keys */
    MR_STEP_BEGIN,   /* of a transaction */
    MR_STEP_COMMIT,
    MR_STEP_DISCARD,
    MR_STEP_END, /* LOCAL: nothing of it is left */
};

/** Replies that the proxy makes for them. */
enum mr_saying {
    MR_SAY_OK,
    MR_SAY_QUEUED,
    MR_SAY_NESTED,        /* a transaction begins in one */
    MR_SAY_COMMIT_ALONE,  /* there is no transaction */
    MR_SAY_DISCARD_ALONE, /* likewise */
    MR_SAY_WATCH_INSIDE,  /* a transaction */
    MR_SAY_NOT_INSIDE,    /* the command cannot be part of a transaction */
    MR_SAY_TOO_LARGE,     /* the transaction */
    MR_SAY_ABORTED,       /* a command of it was refused */
    MR_SAY_BROKEN,        /* what was watched may have changed */
    MR_SAY_EMPTY,         /* the replies to a transaction of nothing */
};

/** Argument numbers of a message's keys, in the order they stand. */
struct mr_msg_keys {
    uint32_t before; /* one key ahead of the run, 0 for none */
    uint32_t first;  /* the run: `count` keys, `step` apart */
    uint32_t count;
    uint32_t step;
    uint32_t after; /* one key behind the run, 0 for none */
};

/** One parsed request. Slices are borrowed from the parsed bytes or from the scratch buffer. */
struct mr_msg {
    enum mr_msg_action action;
    bool splittable;         /* BY_KEYS: the protocol can split it and join the replies */
    bool edits;              /* the reply goes through proto->present */
    bool to_master;          /* of a replicated pool: not for replicas */
    bool queueable;          /* LOCAL: a server may answer it as well, in a transaction */
    bool once;               /* BLOCK: asked again later, it would miss what came meanwhile */
    uint8_t step;            /* enum mr_step */
    uint8_t lane;            /* which kind of server connection it takes, below proto->lanes */
    uint8_t class;           /* enum mr_class */
    uint8_t needs;           /* bits of what its server must be able to do, see check_hello */
    bool guarded;            /* the reply goes through proto->in_step */
    uint32_t part_bytes;     /* splittable: of keys and blanks in one part; 0 for any number */
    uint64_t ticket;         /* protocol's own: what it must know when the request is answered */
    size_t consumed;         /* bytes of input that this message took */
    struct mr_slice wire;    /* what to forward */
    struct mr_slice key;     /* BY_KEY: the key; BY_KEYS: the first one; with a step: or empty */
    struct mr_slice reply;   /* REFUSE: the whole reply */
    const void *command;     /* the protocol's own row */
    struct mr_msg_keys keys; /* BY_KEYS */
    uint32_t n_keys;         /* BY_KEYS */
    uint32_t n_args;
    struct mr_slice args[MR_MSG_ARGS];
};

/** Walks the keys of a message; zeroed before the first call. */
struct mr_key_walk {
    uint32_t index; /* keys already returned */
    uint32_t arg;   /* number of the argument that starts at `at` */
    const char *at; /* NULL before the first */
};

/** One server's share of a request that is split. */
struct mr_part {
    uint32_t server;  /* index in the pool */
    const char *name; /* of the server */
    uint32_t n_keys;
    struct mr_buf request; /* filled by split */
    struct mr_buf reply;   /* the server's whole reply, or none when failed */
    const char *failure;   /* why there is no reply; NULL when there is one */
};

/** A split request: which part has which key. */
struct mr_plan {
    const struct mr_proto_options *options;
    const void *command;
    uint64_t ticket;
    uint8_t class;       /* enum mr_class */
    struct mr_buf notes; /* filled by split, for join */
    uint32_t n_keys;
    uint32_t n_parts;
    uint32_t *part_of_key; /* n_keys */
    struct mr_part *parts; /* n_parts */
};

/** Where in a stream of replies a scan stands. Zeroed before each reply. */
struct mr_reply_state {
    uint64_t offset;  /* bytes of the reply already scanned; may lie ahead of what has come */
    uint64_t pending; /* protocol's own: elements still to come */
    bool aside;       /* what has come so far will not be a reply: see MR_ASIDE */
};

/** Enough for what replaces the beginning of a reply. */
#define MR_HEAD_BYTES 64u

/** Of proto->present: the reply is not shown. */
#define MR_HIDDEN SIZE_MAX

enum mr_verdict {
    MR_KEEP_CLIENT,
    MR_CLOSE_CLIENT,
    MR_ASK_LATER, /* nothing was answered: it depends on a lane that is MR_LANE_UNKNOWN */
};

enum mr_role { MR_ROLE_UNKNOWN, MR_ROLE_MASTER, MR_ROLE_REPLICA };

const char *mr_role_name(enum mr_role role);

/** What a server says of itself when it is probed. */
struct mr_probe {
    enum mr_role role;
    bool link;       /* of a replica: it has its master */
    uint64_t offset; /* in the master's stream of changes */
};

#define MR_LANES_MAX 4u

struct mr_proto {
    const char *name;
    uint8_t lanes; /* kinds of server connections, one for each dialect that servers tell apart */
    const char *cross_server;     /* reply when the keys of an unsplittable request are apart */
    const char *too_many_clients; /* reply to a client over the limit */
    const char *unable;   /* why a request fails that needs more than its server is able to do */
    const char *unspoken; /* what check_hello says when only this lane is refused; or NULL */

    /**
     * Reads one request from `bytes`. The verdict is the same however the bytes were cut.
     * @return MR_OK with *msg filled; MR_AGAIN with *state ready for a call with more bytes behind
     *         the same ones; MR_EPROTO or MR_ELIMIT when the framing is lost: msg->reply is then
     *         the reply after which the client must be closed
     */
    enum mr_result (*parse)(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                            const char *bytes, size_t len, struct mr_msg *msg);

    /** The next key; false after the last. */
    bool (*next_key)(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key);

    /** Appends the reply to a LOCAL message. */
    enum mr_verdict (*answer)(const struct mr_proto_ctx *ctx, const struct mr_msg *msg,
                              struct mr_buf *out);

    /**
     * Writes parts[].request for a plan whose part_of_key and n_keys are set; for EVERYWHERE there
     * are no keys and a part for each server.
     */
    void (*split)(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab);

    /** Appends the one reply that the parts' replies make. */
    void (*join)(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out);

    /** Appends the proxy's own error reply to the request with this ticket. */
    void (*fail)(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                 struct mr_slab *slab, struct mr_buf *out);

    /**
     * How the reply to a request with `edits` is shown; called once, with all or the beginning of
     * it. NULL where no request has.
     * @return how many bytes of the reply make way for the *head_len bytes put into `head`
     *         (MR_HEAD_BYTES of room), or MR_HIDDEN
     */
    size_t (*present)(uint64_t ticket, struct mr_slice reply, char *head, size_t *head_len);

    /**
     * True when this reply (all or the beginning of it) to a request with `guarded` is one that
     * servers are known to give when they have read the request as it was meant. After any other
     * the place in the stream is lost. NULL where no request is guarded.
     */
    bool (*in_step)(uint64_t ticket, struct mr_slice reply);

    /**
     * Finds the end of a reply on a connection of this lane. @return MR_OK with *reply_len;
     * MR_AGAIN; MR_ASIDE when *reply_len bytes are something that no request has asked for;
     * MR_EPROTO when the bytes are no reply, the connection is then of no use any more
     */
    enum mr_result (*scan_reply)(uint8_t lane, struct mr_reply_state *state, const char *bytes,
                                 size_t len, size_t *reply_len);

    /** Appends what a new server connection must be sent first; returns the replies to expect. */
    uint32_t (*hello)(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                      struct mr_buf *out);

    /**
     * NULL when a reply to the hello is good, else what is wrong, for clients and the log. What the
     * reply says that the server is able to do is added to *able, see `needs` of a message.
     */
    const char *(*check_hello)(const struct mr_proto_options *options, uint8_t lane, uint32_t index,
                               struct mr_slice reply, uint8_t *able);

    /** Appends a request that a server which is well answers at once, with one reply. */
    void (*probe)(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                  struct mr_buf *out);

    /** What leases need; `reset` is NULL where no message has a step. */
    struct {
        const char *introduce; /* request whose reply tells how the server calls the connection */
        uint64_t (*read_id)(struct mr_slice reply); /* 0: it does not tell */
        const char *reset;                          /* request that takes away what WATCH leaves */
        bool (*is_reset)(struct mr_slice reply);
        /** Appends a request that ends what blocks on the connection with this id. */
        void (*unblock)(uint64_t id, struct mr_slab *slab, struct mr_buf *out);
        bool (*is_unblocked)(struct mr_slice reply); /* true for the reply that this makes */
        struct mr_slice (*say)(const struct mr_session *session, enum mr_saying saying);
    } lease;

    /** NULL with *found filled in when the reply to a probe is good, else what is wrong. */
    const char *(*check_probe)(struct mr_slice reply, struct mr_probe *found);
};

/** By name, as in `protocol:`; NULL when there is none. */
const struct mr_proto *mr_proto_by_name(struct mr_slice name);

/** Its number, from 1 on; the same in every version. */
uint32_t mr_proto_number(const struct mr_proto *proto);
