/* service.h - a pool as its clients see it, in one worker: accepting, requests, replies. */
#pragma once

#include "core/metrics.h"
#include "net/listener.h"
#include "session/budget.h"
#include "session/logins.h"
#include "upstream/pool.h"

/** A listening address of a pool. */
struct mr_door {
    struct mr_acceptor acceptor;
    struct mr_service *service;
};

struct mr_inquiries;
struct mr_mirror;
struct mr_pin_luggage;

struct mr_service {
    struct mr_loop *loop;
    const struct mr_pool_config *config;
    struct mr_pool pool;
    struct mr_client_budget *budget;      /* borrowed */
    const struct mr_metrics *all_metrics; /* of all slots, for the pool's client limit */
    uint32_t n_metrics;
    uint32_t index;        /* of the pool */
    struct mr_door *doors; /* one per listen entry of the pool */
    struct mr_list clients;
    struct mr_list travelling;     /* being sent to another process, see handover.c */
    struct mr_table subscriptions; /* see subscribe.c */
    struct mr_list relays;         /* sessions of protocols without requests, see relay.h */
    struct mr_list lingering;      /* closed on our side; they still get output, and must close */
    struct mr_timer linger_timer;
    struct mr_timer idle_timer;
    struct mr_timer unblock_timer; /* while blocking clients must move or end */
    struct mr_buf scratch;         /* for the parser */
    struct mr_proto_facts facts;
    struct mr_logins *logins;       /* borrowed; NULL: failed logins are not counted */
    struct mr_inquiries *inquiries; /* borrowed; NULL: there are no other workers */
    struct mr_mirror *mirror;       /* see mirror.h; may be NULL */
    struct mr_buf answer;           /* local reply being built */
    bool locked;                    /* does not accept */
    bool held;                      /* neither accepts nor dispatches */
    bool draining;
    const int *listen_fds;            /* borrowed */
    const struct mr_balance *balance; /* borrowed; NULL: connections stay here */
    bool by_turns;                    /* accepts only when mr_service_accept says so */
    bool accepting;
    bool shared_tcp;   /* TCP listeners are shared with other workers */
    bool shared_unix;  /* unix listeners are, too */
    uint32_t *part_of; /* scratch of gather: group -> part, pool.n_groups entries, all UINT32_MAX */
};

struct mr_service_setup {
    struct mr_pool_setup pool;
    struct mr_client_budget *budget;
    const struct mr_metrics *all_metrics; /* slots whose clients count towards the pool's limit */
    uint32_t n_metrics;
    uint32_t index;                 /* of the pool in the configuration */
    uint64_t started_us;            /* when the proxy was started, since 1970 */
    struct mr_logins *logins;       /* see struct mr_service */
    struct mr_inquiries *inquiries; /* see struct mr_service */
    const int *listen_fds; /* borrowed, one per listen entry of the pool; -1: not served here */
    const struct mr_balance *balance; /* see struct mr_service */
    bool by_turns;
    bool shared_tcp;
    bool shared_unix;
    bool locked; /* does not accept before mr_service_unlock */
    bool held;   /* starts held, see mr_service_release */
};

/** Connects to servers as configured, and starts accepting unless held or locked. */
void mr_service_init(struct mr_service *service, const struct mr_service_setup *setup);

/**
 * Stops dispatching, and accepting unless told otherwise. Requests in flight complete. Input waits
 * for mr_service_release here, or for another process after a handover.
 */
void mr_service_hold(struct mr_service *service, bool keep_accepting);

/** Ends `locked`: starts accepting unless held. */
void mr_service_unlock(struct mr_service *service);

/** Starts or stops accepting. A locked or held service does not start. */
void mr_service_accept(struct mr_service *service, bool accept);

/** If workers take turns, leaves the next connection to others, if they have room. */
void mr_service_end_turn(struct mr_service *service);

/** Accepts connections one at a time, or again as many as the engine takes. */
void mr_service_accept_sparingly(struct mr_service *service, bool sparingly);

/** Ends holding. Clients that were being sent stay. */
void mr_service_release(struct mr_service *service);

/** True if no replies are outstanding. */
bool mr_service_quiet(const struct mr_service *service);

/** Fails every request in flight. */
void mr_service_abort(struct mr_service *service);

/** Makes a client of a new connection, or refuses it at a limit. Takes the fd. */
void mr_service_admit(struct mr_service *service, int fd);

/**
 * Continues a client from another process, see mr_client_adopt. It was admitted there, so only a
 * lack of descriptors can refuse it. Takes the fd and the session's labels.
 */
void mr_service_adopt(struct mr_service *service, int fd, const struct mr_session *session,
                      const struct mr_pin_luggage *luggage, uint64_t wrote_ago_us,
                      struct mr_slice in, struct mr_slice out);

/** Accepts what is queued, then stops. From now on mr_service_drain closes clients. */
void mr_service_begin_drain(struct mr_service *service);

/** Closes every client that has all its replies and has sent nothing more. */
void mr_service_drain(struct mr_service *service);

/**
 * Closes every client that waits for no reply, even with unread input, which nobody would dispatch.
 * Call it until the service is empty.
 */
void mr_service_shed(struct mr_service *service);

/** True if no clients are left, and what they wrote is mirrored. */
bool mr_service_empty(const struct mr_service *service);

/** Cuts every client and server connection. Turn the loop before fini. */
void mr_service_close(struct mr_service *service);
void mr_service_fini(struct mr_service *service);
