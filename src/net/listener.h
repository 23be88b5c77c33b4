/* listener.h - bound, listening sockets, and accepting from them on a loop. */
#pragma once

#include "core/result.h"
#include "net/addr.h"
#include "net/loop.h"

#include <stdbool.h>

struct mr_listen_options {
    int backlog;
    bool reuse_port; /* TCP: one of a group of sockets on the same address */
    bool keepalive;  /* SO_KEEPALIVE on accepted sockets (they inherit it) */
    int mode;        /* unix: file mode, 0 leaves what the umask gives */
};

/**
 * Opens, binds and listens, non-blocking and close-on-exec. A stale unix socket file is replaced;
 * one that somebody serves is an error. Accepted TCP sockets inherit TCP_NODELAY.
 * @return MR_OK with *fd owned by the caller; untouched on failure
 */
enum mr_result mr_listen(int *fd, const struct mr_addr *addr, const struct mr_listen_options *o,
                         struct mr_error *err) MR_MUST_USE;

/**
 * Fails when another process listens on the address, still after half a second. SO_REUSEPORT would
 * let both serve it, each a share of the clients; call this before opening the first socket of a
 * group.
 */
enum mr_result mr_listen_probe(const struct mr_addr *addr, struct mr_error *err) MR_MUST_USE;

/** Accepts on a loop and hands each new socket to its owner. */
struct mr_acceptor {
    struct mr_watch watch;
    struct mr_loop *loop;
    struct mr_timer timer;
    unsigned looks; /* taken since the start, see listener.c */
    /** Takes the fd. */
    void (*on_accept)(struct mr_acceptor *a, int fd);
};

/**
 * Serves a listening fd (borrowed). `shared`: other processes wait on it too. `sparing`: see
 * mr_acceptor_set_sparing.
 */
void mr_acceptor_start(struct mr_acceptor *a, struct mr_loop *loop, int fd, bool shared,
                       bool sparing, void (*on_accept)(struct mr_acceptor *, int));

/**
 * Sparing with descriptors: takes a connection only when its owner has dealt with the one before.
 * Else an engine may take a whole queue at once. Fine when it is not started.
 */
void mr_acceptor_set_sparing(struct mr_acceptor *a, bool sparing);

/** Stops; connections still queued stay queued. Fine when it is not started. */
void mr_acceptor_stop(struct mr_acceptor *a);

/** Stops, and accepts everything that is queued then, so that nobody waits who was announced here.
 */
void mr_acceptor_drain(struct mr_acceptor *a);
