/*
 * kernel.h - a kernel in memory: processes, descriptors, sockets and time, under the real loop and
 * both real engines.
 *
 * C library calls are replaced at link time (see meson.build): descriptors from SIM_FD_BASE on
 * belong to this kernel, others to the real one. A process is a fiber that runs real code; when it
 * blocks, another runs, or time passes. The far ends of connections are scripted, see struct
 * sim_conn. Whatever a kernel may do, this one does at random: it splits data anywhere, accepts
 * writes partly or not at all, wakes one of several waiting processes, runs out of descriptors.
 */
#pragma once

#include "sim.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SIM_FD_BASE 1048576

/* ---- how hostile the environment is; set for each run ---- */

struct sim_process;

struct sim_settings {
    uint32_t latency_us;               /* maximum network latency */
    uint32_t cut_bytes;                /* approximate maximum size of an arrival; 0: as sent */
    uint32_t socket_bytes;             /* socket buffer size, each way */
    uint32_t packet_bytes;             /* the same for sockets between processes */
    uint32_t partial;                  /* one send in this many is partial or refused; 0: none */
    uint32_t interrupted;              /* one call in this many fails with EINTR; 0: none */
    uint32_t no_descriptor;            /* one new descriptor in this many is refused; 0: none */
    uint32_t no_memory;                /* the same for memory whose size a peer controls */
    const struct sim_process *refused; /* the only process this applies to; NULL: all */
    uint32_t ring_entries;             /* maximum size of an io_uring */
};
extern struct sim_settings sim_env;

/* ---- processes ---- */

/** Creates a process with the descriptors of `parent` (NULL: the host, that is, the test). */
struct sim_process *sim_fork(const char *name, struct sim_process *parent, int (*body)(void *arg),
                             void *arg);

/** Kills it at once, like SIGKILL. */
void sim_kill(struct sim_process *p);

/** Stops it for this long, while everything else continues. */
void sim_stall(struct sim_process *p, uint64_t us);

/** Sends a signal to its signalfd. */
void sim_signal(struct sim_process *p, int signo);

/** NULL for the host. */
struct sim_process *sim_self(void);
int sim_pid(const struct sim_process *p);
const char *sim_name(const struct sim_process *p);
bool sim_is_over(const struct sim_process *p); /* it has returned or was killed */
bool sim_was_killed(const struct sim_process *p);
int sim_status(const struct sim_process *p);

/** True while it has a descriptor of the connection. */
struct sim_conn;
bool sim_has_conn(const struct sim_process *p, const struct sim_conn *c);

/** True if it waits indefinitely for something that has not happened. */
bool sim_is_waiting(const struct sim_process *p);

/** Number of times it was run. */
uint64_t sim_turns(const struct sim_process *p);

/** Called for each process that ended or was killed. May be NULL. */
extern void (*sim_on_exit)(struct sim_process *p);

/** Called when a process was refused a descriptor or memory. May be NULL. */
extern void (*sim_on_refusal)(const char *what);

/* ---- the scheduler ---- */

/** Runs one step: a process, or an event. False if nothing is left to happen. */
bool sim_run_step(void);

/** Runs steps until `deadline_us`, or until nothing is left. */
void sim_run_until(uint64_t deadline_us);

/** Called after each step. May be NULL. */
extern void (*sim_after_step)(void);

/** Ends everything; killed processes free their memory. Checks for leftovers. */
void sim_kernel_end(void);
void sim_kernel_begin(void);

/* ---- descriptors, in the current process or the host ---- */

/** Closes all other descriptors. */
void sim_keep_fds(const int *fds, size_t n);

/** A listening socket. `shared`: waiting processes are woken in turn. */
int sim_listen(bool is_unix);

/* ---- the scripted ends of connections ---- */

struct sim_conn;

struct sim_conn_ops {
    /** Connected: a process connected to the server, or the client's connect completed. */
    void (*on_open)(struct sim_conn *c);
    /** Bytes, or the end, are readable. */
    void (*on_bytes)(struct sim_conn *c);
};

/** A connection between a process and a scripted end. */
struct sim_conn {
    const struct sim_conn_ops *ops; /* of the scripted end */
    void *owner;                    /* its own */
    uint32_t id;
    bool is_unix;
    struct sim_pipe *in, *out; /* to the process, and from it */
    bool closed;               /* by the scripted end */
    bool accepted;             /* a process has, or had, a descriptor of it */
    bool reset;                /* the connection is broken */
    struct sim_file *file;     /* file of the process's end; NULL before it exists */
    int error;                 /* error that the process will see */
    bool connecting;
    bool process_closed;                 /* no process has a descriptor any more */
    const struct sim_process *closed_by; /* the last one that had; NULL: unknown */
    struct sim_event opening;
};

/** A scripted client connects to a listening descriptor of the host. */
struct sim_conn *sim_connect(int listener, const struct sim_conn_ops *ops, void *owner);

/** What happens when a process connects to this address. Set by the world. */
enum sim_connect_outcome { SIM_CONNECTS, SIM_REFUSES, SIM_NO_ANSWER, SIM_FAILS_AT_ONCE };
struct sockaddr;
extern enum sim_connect_outcome (*sim_on_connect)(struct sim_conn *c, const struct sockaddr *addr);

void sim_write(struct sim_conn *c, const void *bytes, size_t n);
size_t sim_readable(const struct sim_conn *c);
size_t sim_read(struct sim_conn *c, void *bytes, size_t n);

/** Everything was read, and the process closed or shut its side. */
bool sim_at_end(const struct sim_conn *c);

/** The scripted end sends no more. */
void sim_shut(struct sim_conn *c);

/** Closes the scripted end; with unread bytes this is a reset, as in the kernel. */
void sim_close(struct sim_conn *c);

/** Breaks the connection. */
void sim_reset(struct sim_conn *c);

/** Bytes that have become readable for the process. */
uint64_t sim_arrived(const struct sim_conn *c);

/** Bytes that the process has written. */
uint64_t sim_sent(const struct sim_conn *c);
