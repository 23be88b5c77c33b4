/*
 * relay.h - a session of a protocol without requests: a client's connection joined to a server's.
 *
 * Bytes pass both ways as they come. A side that takes them more slowly than the other sends pauses
 * the other. The end of one direction is passed on once everything before it is sent, and the other
 * direction goes on. A session stays with its worker until it ends.
 */
#pragma once

#include <stdint.h>

struct mr_service;

/** Takes an accepted socket and connects it to a server. Takes the fd. */
void mr_relay_open(struct mr_service *service, int fd);

/** Ends sessions without a byte in either direction for that long. */
void mr_relays_cut_idle(struct mr_service *service, uint32_t ms);

/** Ends all sessions at once. */
void mr_relays_cut(struct mr_service *service);
