/*
 * service.h - one pool as its clients see it in one worker: accepting, requests, replies.
 */
#pragma once

#include "core/metrics.h"
#include "net/listener.h"
#include "session/budget.h"
#include "upstream/pool.h"

/** One listening address of a pool. */
struct mr_door {
    struct mr_acceptor acceptor;
    struct mr_service *service;
};

struct mr_pin_luggage;

struct mr_service {
    struct mr_loop *loop;
    const struct mr_pool_config *config;
    struct mr_pool pool;
    struct mr_client_budget *budget;      /* borrowed */
    const struct mr_metrics *all_metrics; /* of every slot, for the pool-wide client limit */
    uint32_t n_metrics;
    uint32_t index;        /* of the pool */
    struct mr_door *doors; /* one for each listen of the pool */
    struct mr_list clients;
    struct mr_list travelling; /* on their way to another process, see handover.c */
    struct mr_list lingering;  /* closed on our side: they get the rest, then they have to close */
    struct mr_timer linger_timer;
    struct mr_timer idle_timer;
    struct mr_timer unblock_timer; /* while clients that block are to go on elsewhere, or to end */
    struct mr_buf scratch;         /* of the parser */
    struct mr_proto_facts facts;
    struct mr_buf answer; /* a local reply under construction */
    bool locked;          /* nothing is accepted */
    bool held;            /* nothing is accepted or dispatched */
    bool draining;
    const int *listen_fds;            /* borrowed */
    const struct mr_balance *balance; /* borrowed; NULL: what is accepted here stays here */
    bool by_turns;                    /* accepts only when mr_service_accept says so */
    bool accepting;
    bool shared_tcp;   /* TCP listeners are served by other workers too */
    bool shared_unix;  /* and unix listeners */
    uint32_t *part_of; /* scratch of dispatch: server -> part, pool.n_servers entries */
};

struct mr_service_setup {
    struct mr_pool_setup pool;
    struct mr_client_budget *budget;
    const struct mr_metrics *all_metrics; /* slots whose clients count against the pool's limit */
    uint32_t n_metrics;
    uint32_t index;        /* of the pool in the configuration */
    const int *listen_fds; /* borrowed, one for each listen of the pool; -1: not served here */
    const struct mr_balance *balance; /* see struct mr_service */
    bool by_turns;
    bool shared_tcp;
    bool shared_unix;
    bool locked; /* accepts nothing before mr_service_unlock */
    bool held;   /* starts held, see mr_service_release */
};

/** Connects to the servers where configured and, unless it is held, starts to accept. */
void mr_service_init(struct mr_service *service, const struct mr_service_setup *setup);

/**
 * Dispatches nothing from now on, and unless told so accepts nothing; requests in flight go on to
 * their replies. What clients send waits for mr_service_release, here or, after a handover, in
 * another process.
 */
void mr_service_hold(struct mr_service *service, bool keep_accepting);

/** Ends `locked`: accepts, unless it is held. */
void mr_service_unlock(struct mr_service *service);

/** Begins or stops to accept; a locked or held service does not begin. */
void mr_service_accept(struct mr_service *service, bool accept);

/** Where workers accept by turns: the next one is somebody else's, if others have room. */
void mr_service_end_turn(struct mr_service *service);

/** Accepts one connection after the other, or again as many as the engine takes by itself. */
void mr_service_accept_sparingly(struct mr_service *service, bool sparingly);

/** Ends holding, also that of mr_service_hold: clients that were on their way stay. */
void mr_service_release(struct mr_service *service);

/** True when no server owes a reply. */
bool mr_service_quiet(const struct mr_service *service);

/** Fails every request in flight: their time is over. */
void mr_service_abort(struct mr_service *service);

/** Makes a client of a new connection, or turns it away when a limit is reached. Takes the fd. */
void mr_service_admit(struct mr_service *service, int fd);

/**
 * Goes on with a client that another process has served, see mr_client_adopt. It has been let in
 * before, so only what the descriptors allow can turn it away. Takes the fd and the session's name.
 */
void mr_service_adopt(struct mr_service *service, int fd, const struct mr_session *session,
                      const struct mr_pin_luggage *luggage, uint64_t wrote_ago_us,
                      struct mr_slice in, struct mr_slice out);

/** Accepts what is queued, then no more; from now on mr_service_drain ends clients. */
void mr_service_begin_drain(struct mr_service *service);

/** Ends every client that has all its replies and has sent nothing more. */
void mr_service_drain(struct mr_service *service);

/**
 * Ends every client that waits for no reply, whatever it has sent: nobody will dispatch that. Call
 * it again until the service is empty.
 */
void mr_service_shed(struct mr_service *service);

/** True when no client is left. */
bool mr_service_empty(const struct mr_service *service);

/** Cuts every client and server connection. Turn the loop, then fini. */
void mr_service_close(struct mr_service *service);
void mr_service_fini(struct mr_service *service);
