/* kernel_internal.h - what the files of the simulated kernel share. */
#pragma once

#include "kernel.h"

#include <sys/epoll.h>

enum sim_kind { SIM_STREAM, SIM_LISTENER, SIM_PACKETS, SIM_EPOLL, SIM_SIGNALS, SIM_DEAD };

/** An open file; descriptors, messages on their way and requests of an io_uring refer to it. */
struct sim_file {
    enum sim_kind kind;
    uint32_t refs;
    uint64_t holders; /* a bit for each process that has, or has had, a descriptor of it */
    void *object;     /* struct sim_conn and so on, by kind */
};

struct sim_file *sim_file_new(enum sim_kind kind, void *object);
struct sim_file *sim_file_get(struct sim_file *f);
void sim_file_put(struct sim_file *f);

/** What epoll would say: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP. */
uint32_t sim_file_events(const struct sim_file *f);

/** Something about it has changed: whoever waits for it looks again. */
void sim_file_changed(struct sim_file *f);

/** The last reference is gone. */
void sim_stream_closed(struct sim_conn *c);
void sim_listener_closed(void *listener);
void sim_packets_closed(void *end);
void sim_epoll_closed(void *epoll);

uint32_t sim_stream_events(const struct sim_conn *c);
uint32_t sim_listener_events(const void *listener);
uint32_t sim_packets_events(const void *end);

/** A new connection came in: one of the exclusive waiters hears of it, and all others. */
void sim_announce(struct sim_file *listener);
void sim_epoll_announce(struct sim_file *listener, uint32_t number);
void sim_ring_announce(struct sim_file *listener, uint32_t number);

/** How many wait for it exclusively; those above take a number below that. */
uint32_t sim_epoll_exclusive(const struct sim_file *listener);
uint32_t sim_ring_exclusive(const struct sim_file *listener);

/** The last reference to the file goes: it leaves every set. */
void sim_epoll_forget(const struct sim_file *f);

/** In the current process; `may_fail`: descriptors can run out. Takes the reference. -1: errno. */
int sim_fd_install(struct sim_file *f, bool may_fail);

/** The open file of a descriptor of the current process; the run fails when there is none. */
struct sim_file *sim_fd_file(int fd);

bool sim_self_killed(void);
uint32_t sim_self_index(void);

/** Lets others run: until something changes, or the time comes. */
void sim_block(uint64_t deadline_us);
void sim_poke(uint32_t index);

/** In a process that was killed: what refers to the files lets go of them. */
void sim_epoll_kill(uint32_t process, struct sim_file *dead);
void sim_ring_kill(uint32_t process, struct sim_file *dead);

/** It closes a descriptor, whose file is dead: no epoll instance of its reports it any more. */
void sim_epoll_close_dead(uint32_t process, int fd);

ssize_t sim_stream_recv(struct sim_conn *c, void *bytes, size_t n); /* or minus an errno */
ssize_t sim_stream_send(struct sim_conn *c, const void *bytes, size_t n);
int sim_listener_accept(struct sim_file *f); /* a descriptor, or minus an errno */

void sim_sockets_begin(void);
void sim_sockets_end(void);
void sim_rings_end(void);
