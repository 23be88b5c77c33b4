/* kernel_internal.h - shared by the files of the simulated kernel. */
#pragma once

#include "kernel.h"

#include <sys/epoll.h>

enum sim_kind { SIM_STREAM, SIM_LISTENER, SIM_PACKETS, SIM_EPOLL, SIM_SIGNALS, SIM_DEAD };

/** An open file; referenced by descriptors, messages in flight and io_uring requests. */
struct sim_file {
    enum sim_kind kind;
    uint32_t refs;
    uint64_t holders; /* bit per process that has, or had, a descriptor of it */
    void *object;     /* struct sim_conn and so on, by kind */
};

struct sim_file *sim_file_new(enum sim_kind kind, void *object);
struct sim_file *sim_file_get(struct sim_file *f);
void sim_file_put(struct sim_file *f);

/** Readiness as for epoll: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP. */
uint32_t sim_file_events(const struct sim_file *f);

/** Its readiness has changed: waiters must check again. */
void sim_file_changed(struct sim_file *f);

/** The last reference was dropped. */
void sim_stream_closed(struct sim_conn *c);
void sim_listener_closed(void *listener);
void sim_packets_closed(void *end);
void sim_epoll_closed(void *epoll);

uint32_t sim_stream_events(const struct sim_conn *c);
uint32_t sim_listener_events(const void *listener);
uint32_t sim_packets_events(const void *end);

/** A connection arrived: wakes one exclusive waiter, and all others. */
void sim_announce(struct sim_file *listener);
void sim_epoll_announce(struct sim_file *listener, uint32_t number);
void sim_ring_announce(struct sim_file *listener, uint32_t number);

/** Number of exclusive waiters; the functions above take an index below it. */
uint32_t sim_epoll_exclusive(const struct sim_file *listener);
uint32_t sim_ring_exclusive(const struct sim_file *listener);

/** The last reference to the file was dropped: removes it from every set. */
void sim_epoll_forget(const struct sim_file *f);

/**
 * Installs it in the current process; `may_fail`: descriptors may run out. Takes the reference.
 * Returns -1 with errno.
 */
int sim_fd_install(struct sim_file *f, bool may_fail);

/** The file of a descriptor of the current process. Fails the run if there is none. */
struct sim_file *sim_fd_file(int fd);

bool sim_self_killed(void);
uint32_t sim_self_index(void);

/** Lets others run until something changes or the deadline passes. */
void sim_block(uint64_t deadline_us);
void sim_poke(uint32_t index);

/** In a killed process: drops the references to its files. */
void sim_epoll_kill(uint32_t process, struct sim_file *dead);
void sim_ring_kill(uint32_t process, struct sim_file *dead);

/** A dead descriptor is closed: the process's epoll instances no longer report it. */
void sim_epoll_close_dead(uint32_t process, int fd);

ssize_t sim_stream_recv(struct sim_conn *c, void *bytes, size_t n); /* or -errno */
ssize_t sim_stream_send(struct sim_conn *c, const void *bytes, size_t n);
int sim_listener_accept(struct sim_file *f); /* a descriptor, or -errno */

void sim_sockets_begin(void);
void sim_sockets_end(void);
void sim_rings_end(void);
