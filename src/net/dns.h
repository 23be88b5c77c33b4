/*
 * dns.h - asks name servers, without blocking.
 *
 * Uses c-ares: the hosts file and the name servers and search domains of /etc/resolv.conf, which is
 * read again when it has changed. Other modules of nsswitch.conf are not asked.
 */
#pragma once

#include "net/addr.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#define MR_DNS_ADDRESSES 64u /* considered per name */
#define MR_DNS_SOCKETS   16u /* at a time */

struct mr_dns;

/** What became of a question. */
struct mr_dns_answer {
    const char *error; /* NULL if there are addresses */
    uint32_t n;
    uint32_t ttl_s; /* of the record that expires first; 0: unknown, or it must not be kept */
    bool partial;   /* some hosts of a service did not resolve */
    struct mr_addr addrs[MR_DNS_ADDRESSES]; /* different ones, preferred ones first */
};

/** Called once per question, possibly before the function that asks returns. */
typedef void mr_dns_done(void *arg, const struct mr_dns_answer *answer);

/** True for a list of numeric addresses with optional ports, separated by commas. */
bool mr_dns_is_server_list(const char *servers);

/** `servers`: whom to ask instead of those of resolv.conf, see mr_dns_is_server_list; may be NULL.
 */
enum mr_result mr_dns_open(struct mr_dns **dns, const char *servers,
                           struct mr_error *err) MR_MUST_USE;

/** Questions that are open end with an error. */
void mr_dns_close(struct mr_dns *dns);

/** Asks for the addresses of a host, both IPv4 and IPv6. They get this port. */
void mr_dns_ask_host(struct mr_dns *dns, const char *host, uint16_t port, mr_dns_done *done,
                     void *arg);

/** Asks for the SRV records of a service, and then for the addresses of their hosts. */
void mr_dns_ask_service(struct mr_dns *dns, const char *service, mr_dns_done *done, void *arg);

/**
 * Fills `fds` (room for MR_DNS_SOCKETS) with what to wait for.
 * @return their number; *wait_ms is lowered to the time of the next retransmission
 */
uint32_t mr_dns_prepare(struct mr_dns *dns, struct pollfd *fds, int *wait_ms);

/** Handles what poll has found, and time-outs. */
void mr_dns_handle(struct mr_dns *dns, const struct pollfd *fds, uint32_t n);
