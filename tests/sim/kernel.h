/*
 * kernel.h - a kernel in memory: processes, descriptors, sockets and time, under the real loop and
 * both real engines.
 *
 * The C library's calls are replaced at link time (see meson.build): a descriptor from SIM_FD_BASE
 * on belongs here, any other to the real kernel. A process is a fiber that runs real code; where
 * that code waits, another one goes on, or time does. The other ends of connections are scripted:
 * see struct sim_conn. What a kernel may do, this one does at random: it cuts bytes anywhere, takes
 * a part of a write or nothing, tells one of several waiting processes, runs out of descriptors.
 */
#pragma once

#include "sim.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SIM_FD_BASE 1048576

/* ---- how hard the environment is; set for each run ---- */

struct sim_process;

struct sim_settings {
    uint32_t latency_us;    /* of the network, at most */
    uint32_t cut_bytes;     /* arrivals have at most about this many bytes; 0: as they were sent */
    uint32_t socket_bytes;  /* that a socket buffers, each way */
    uint32_t packet_bytes;  /* the same of sockets between processes */
    uint32_t partial;       /* a send in this many takes a part only, or nothing; 0: as room is */
    uint32_t interrupted;   /* a call in this many says EINTR; 0: never */
    uint32_t no_descriptor; /* a new descriptor in this many cannot be had; 0: never */
    uint32_t no_memory;     /* the same of memory of a size that a peer controls */
    const struct sim_process *refused; /* the only one for which both are so; NULL: all are */
    uint32_t ring_entries;             /* largest size of an io_uring */
};
extern struct sim_settings sim_env;

/* ---- processes ---- */

/** A new process with the descriptors of `parent` (NULL: the host, which is the test itself). */
struct sim_process *sim_fork(const char *name, struct sim_process *parent, int (*body)(void *arg),
                             void *arg);

/** Ends it at once, as SIGKILL does. */
void sim_kill(struct sim_process *p);

/** It stands still for this long, while the world goes on. */
void sim_stall(struct sim_process *p, uint64_t us);

/** A signal for its signalfd. */
void sim_signal(struct sim_process *p, int signo);

/** NULL for the host. */
struct sim_process *sim_self(void);
int sim_pid(const struct sim_process *p);
const char *sim_name(const struct sim_process *p);
bool sim_is_over(const struct sim_process *p); /* it has returned, or was killed */
bool sim_was_killed(const struct sim_process *p);
int sim_status(const struct sim_process *p);

/** True while it has a descriptor of the connection. */
struct sim_conn;
bool sim_has_conn(const struct sim_process *p, const struct sim_conn *c);

/** True when it waits without end for something that has not happened. */
bool sim_is_waiting(const struct sim_process *p);

/** How often it has been run. */
uint64_t sim_turns(const struct sim_process *p);

/** Of each process, when it has ended by itself, and when it was killed. May be NULL. */
extern void (*sim_on_exit)(struct sim_process *p);

/** A process has been refused a descriptor, or memory. May be NULL. */
extern void (*sim_on_refusal)(const char *what);

/* ---- the scheduler ---- */

/** One step: a process that can run, or an event. False when nothing is left to happen. */
bool sim_run_step(void);

/** Steps until `deadline_us`, or until nothing is left. */
void sim_run_until(uint64_t deadline_us);

/** Called after each step; may be NULL. */
extern void (*sim_after_step)(void);

/** Ends everything: killed processes give their memory back. Checks that nothing is left over. */
void sim_kernel_end(void);
void sim_kernel_begin(void);

/* ---- descriptors, in the current process or the host ---- */

/** Closes all descriptors that are not among these. */
void sim_keep_fds(const int *fds, size_t n);

/** A listening socket; `shared`: processes that wait on it are told in turns. */
int sim_listen(bool is_unix);

/* ---- the scripted ends of connections ---- */

struct sim_conn;

struct sim_conn_ops {
    /** It is established: a server has been connected to, or a client's connect is through. */
    void (*on_open)(struct sim_conn *c);
    /** Bytes, or the end, can be read. */
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
    bool accepted;             /* a process has a descriptor of it, or has had one */
    bool reset;                /* the connection is broken */
    struct sim_file *file;     /* of the process's end; NULL before there is one */
    int error;                 /* that the process is going to see */
    bool connecting;
    bool process_closed; /* nobody has a descriptor of it any more */
    struct sim_event opening;
};

/** A scripted client connects to the listening socket of the host's descriptor. */
struct sim_conn *sim_connect(int listener, const struct sim_conn_ops *ops, void *owner);

/** What happens to a process that connects to this address; set by the world. */
enum sim_connect_outcome { SIM_CONNECTS, SIM_REFUSES, SIM_NO_ANSWER, SIM_FAILS_AT_ONCE };
struct sockaddr;
extern enum sim_connect_outcome (*sim_on_connect)(struct sim_conn *c, const struct sockaddr *addr);

void sim_write(struct sim_conn *c, const void *bytes, size_t n);
size_t sim_readable(const struct sim_conn *c);
size_t sim_read(struct sim_conn *c, void *bytes, size_t n);

/** All has been read, and the process has closed or shut its side. */
bool sim_at_end(const struct sim_conn *c);

/** No more will come from the scripted end. */
void sim_shut(struct sim_conn *c);

/** Closes the scripted end: with unread bytes this is a reset, as it is in the kernel. */
void sim_close(struct sim_conn *c);

/** Breaks the connection. */
void sim_reset(struct sim_conn *c);

/** Bytes that the process has been able to read so far, of all that were written. */
uint64_t sim_arrived(const struct sim_conn *c);

/** Bytes that the process has written so far. */
uint64_t sim_sent(const struct sim_conn *c);
