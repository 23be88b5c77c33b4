/* listener.h - creates listening sockets and accepts from them on a loop. */
#pragma once

#include "core/result.h"
#include "net/addr.h"
#include "net/loop.h"

#include <stdbool.h>

struct mr_listen_options {
    int backlog;
    bool reuse_port; /* TCP: one of several sockets on the same address */
    bool keepalive;  /* SO_KEEPALIVE on accepted sockets, by inheritance */
    int mode;        /* unix: file mode; 0 keeps what the umask gives */
};

/**
 * Opens, binds and listens, non-blocking and close-on-exec. Replaces a stale unix socket file;
 * fails if a process still serves it. Accepted TCP sockets inherit TCP_NODELAY.
 * @return MR_OK with *fd owned by the caller; *fd is untouched on failure
 */
enum mr_result mr_listen(int *fd, const struct mr_addr *addr, const struct mr_listen_options *o,
                         struct mr_error *err) MR_MUST_USE;

/**
 * Stops listening for good, in all processes that hold the socket, and removes the file of a unix
 * socket unless another process serves that path now. The descriptor stays the caller's.
 */
void mr_unlisten(int fd, const struct mr_addr *addr);

/**
 * Fails if another process listens on the address and still does half a second later. With
 * SO_REUSEPORT both would get a share of the clients, so call this before opening the first socket
 * of a group.
 */
enum mr_result mr_listen_probe(const struct mr_addr *addr, struct mr_error *err) MR_MUST_USE;

/** Accepts on a loop and passes each new socket to its owner. */
struct mr_acceptor {
    struct mr_watch watch;
    struct mr_loop *loop;
    struct mr_timer timer;
    unsigned looks; /* so far, see `look` in listener.c */
    /** Takes the fd. */
    void (*on_accept)(struct mr_acceptor *a, int fd);
};

/**
 * Starts accepting from `fd` (borrowed). `shared`: other processes wait on it too. `sparing`: see
 * mr_acceptor_set_sparing.
 */
void mr_acceptor_start(struct mr_acceptor *a, struct mr_loop *loop, int fd, bool shared,
                       bool sparing, void (*on_accept)(struct mr_acceptor *, int));

/**
 * A sparing acceptor takes one connection at a time, after the owner has handled the previous one;
 * otherwise an engine may take a whole queue at once. Does nothing if it was not started.
 */
void mr_acceptor_set_sparing(struct mr_acceptor *a, bool sparing);

/** Stops; queued connections stay in the queue. Does nothing if it was not started. */
void mr_acceptor_stop(struct mr_acceptor *a);

/**
 * Stops after accepting everything queued: connections announced to this process are announced to
 * no other.
 */
void mr_acceptor_drain(struct mr_acceptor *a);
