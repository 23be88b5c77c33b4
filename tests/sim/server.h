/* server.h - model servers: Redis, and memcached in its three dialects, with a small memory. */
#pragma once

#include "peer.h"

#include <netinet/in.h>

/** Habits of servers; set for each run. A habit occurs once in this many; 0 is never. */
struct sim_server_habits {
    uint32_t delay_us;    /* maximum delay before serving a request */
    uint32_t slow;        /* one request in this many takes up to a second */
    uint32_t slow_us;     /* maximum delay that does not count as trouble; 0: all do */
    uint32_t silent;      /* ... is never answered, nor are those after it */
    uint32_t dies;        /* ... is answered partly or not at all, and the connection ends */
    uint32_t shuts;       /* ... is the last one: the server sends no more, but keeps reading */
    uint32_t wrong;       /* ... gets an error */
    uint32_t refuses;     /* one connect in this many is refused */
    uint32_t unreachable; /* ... is never answered */
    uint32_t blocked;     /* one connection in this many stops reading for a while */
};
extern struct sim_server_habits sim_habits;

struct sim_server_conn;
struct sim_topic;

/** A server's protocol; one file each. */
struct sim_server_proto {
    /**
     * Serves the request at the start of `in` and appends its reply to `out`.
     * @return size of the request; 0 if incomplete
     */
    size_t (*serve)(struct sim_server_conn *sc, struct mr_slice in, struct sim_bytes *out);
};
extern const struct sim_server_proto SIM_SERVER_RESP, SIM_SERVER_MEMCACHE;

struct sim_stored {
    struct sim_stored *next;
    struct mr_slice key, value;
    uint32_t flags;
    uint64_t cas;
};

#define SIM_STORED_BUCKETS 64u

struct sim_server {
    const char *name;
    const struct sim_server_proto *proto;
    const char *password; /* NULL for none */
    uint32_t pool;        /* the world's number for it */
    uint16_t port;
    bool down;
    bool is_master;            /* of a replicated pool */
    struct sim_server *memory; /* in a replicated pool: shared by all; NULL: its own */
    bool is_old;               /* a memcached without meta commands */
    uint64_t cas;
    struct sim_server_conn *conns;
    struct sim_stored *stored[SIM_STORED_BUCKETS];
};

struct sim_server_conn {
    struct sim_server_conn *next;
    struct sim_server *server;
    struct sim_conn *conn;
    struct sim_bytes in;
    struct sim_event work;
    uint64_t served;       /* bytes of requests */
    uint64_t mark;         /* for the world: bytes sent at some time */
    struct sim_event wake; /* for a blocking command */
    void *session;         /* for the protocol */
    struct sim_topic *topics;
    bool waiting; /* for `session`: serves no more requests */
    bool authed, binary, decided, silent, blocked, closing;
};

struct sim_server *sim_server_new(const struct sim_server_proto *proto, uint16_t port);

/** Answers a process's connect, as sim_on_connect. */
enum sim_connect_outcome sim_server_connect(struct sim_conn *c, const struct sockaddr *addr);

/** Dies: its connections break and new ones are refused. Its memory stays. */
void sim_server_down(struct sim_server *s);
void sim_server_up(struct sim_server *s);

/** Ends all trouble: silent connections break, all servers are up. */
void sim_servers_calm(void);

/** At the end of a run. */
void sim_servers_end(void);

/* ---- for the protocols ---- */

struct sim_stored *sim_server_find(struct sim_server *s, struct mr_slice key);
void sim_server_store(struct sim_server *s, struct mr_slice key, struct mr_slice value,
                      uint32_t flags);
bool sim_server_delete(struct sim_server *s, struct mr_slice key);

/** A key changes here; checked against the current map. May be NULL. */
extern void (*sim_on_write)(struct sim_server_conn *sc, struct mr_slice key);

/** Ends `waiting`; `out` is sent first. */
void sim_server_go_on(struct sim_server_conn *sc, struct sim_bytes *out);

/** Serves a request about topics; false if it is none. */
bool sim_server_pubsub(struct sim_server_conn *sc, const struct mr_slice *args, uint32_t n,
                       struct sim_bytes *out);

/** True if this request should get an error. */
bool sim_server_errs(void);
