/* server.h - model servers: Redis, and memcached in its three dialects, with a small memory. */
#pragma once

#include "peer.h"

#include <netinet/in.h>

/** How servers behave; set for each run. In so many: 0 is never. */
struct sim_server_habits {
    uint32_t delay_us;    /* before a request is served, at most */
    uint32_t slow;        /* a request in this many takes up to a second */
    uint32_t slow_us;     /* that takes so long at most, which is nobody's trouble; 0: it is */
    uint32_t silent;      /* ... is never answered, nor any behind it */
    uint32_t dies;        /* ... is answered in part, or not, by the end of the connection */
    uint32_t shuts;       /* ... is the last one: the server says no more, and goes on reading */
    uint32_t wrong;       /* ... is answered with an error */
    uint32_t refuses;     /* a connect in this many is refused */
    uint32_t unreachable; /* ... gets no answer */
    uint32_t blocked;     /* a connection in this many stops reading for a while */
};
extern struct sim_server_habits sim_habits;

struct sim_server_conn;

/** What a server says; the functions of each protocol are in a file of their own. */
struct sim_server_proto {
    /**
     * Serves one request at the beginning of `in`: its reply is appended to `out`.
     * @return bytes of the request; 0 when it is not all there yet
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
    uint32_t pool;        /* the world's number */
    uint16_t port;
    bool down;
    bool is_master;            /* of a replicated pool */
    struct sim_server *memory; /* of a replicated pool: whose all of them have; NULL: its own */
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
    uint64_t mark;         /* the world's: bytes that were sent at some time */
    struct sim_event wake; /* of a command that blocks */
    void *session;         /* of the protocol */
    bool waiting;          /* for that: nothing more is served */
    bool authed, binary, decided, silent, blocked, closing;
};

struct sim_server *sim_server_new(const struct sim_server_proto *proto, uint16_t port);

/** The answer to a process's connect, for sim_on_connect. */
enum sim_connect_outcome sim_server_connect(struct sim_conn *c, const struct sockaddr *addr);

/** Dies: its connections break, nobody gets one. Its memory stays. */
void sim_server_down(struct sim_server *s);
void sim_server_up(struct sim_server *s);

/** No more trouble: those that were silent break, all are up. */
void sim_servers_calm(void);

/** At the end of a run. */
void sim_servers_end(void);

/* ---- for the protocols ---- */

struct sim_stored *sim_server_find(struct sim_server *s, struct mr_slice key);
void sim_server_store(struct sim_server *s, struct mr_slice key, struct mr_slice value,
                      uint32_t flags);
bool sim_server_delete(struct sim_server *s, struct mr_slice key);

/** A key is changed here: checked against the map that is in force. May be NULL. */
extern void (*sim_on_write)(struct sim_server_conn *sc, struct mr_slice key);

/** The connection serves on, after it was `waiting`; `out` is what it says first. */
void sim_server_go_on(struct sim_server_conn *sc, struct sim_bytes *out);

/** True when this request is to be answered with an error. */
bool sim_server_errs(void);
