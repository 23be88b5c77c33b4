/* backend.h - one connection to a server; private to src/upstream. */
#pragma once

#include "upstream/health.h"
#include "upstream/pool.h"

/**
 * Starts to connect. What a probing connection does is not counted.
 * @param home set to the connection, and to NULL once it takes no more requests
 * @return 0, or an errno; *home is untouched then
 */
int mr_backend_connect(struct mr_backend **home, struct mr_server *server, uint8_t lane,
                       bool probing);

/** Queues a request behind those already there. */
void mr_backend_send(struct mr_backend *b, struct mr_call *call, struct mr_slice request);

/** True when the server owes no reply. */
bool mr_backend_idle(const struct mr_backend *b);

/** False for a connection that only probes. */
bool mr_backend_serves(const struct mr_backend *b);

/** Takes no more requests; closes once it has answered those it has. */
void mr_backend_retire(struct mr_backend *b);

/** Closes now; what is in flight fails with the reason of `error` at the end of the turn. */
void mr_backend_close(struct mr_backend *b, int error);

/** Next in server->backends; NULL after the last. Pass NULL for the first. */
struct mr_backend *mr_backend_next(struct mr_server *server, struct mr_backend *b);

/**
 * Counts a failure of the server: back-off, and ejection where it is configured. See
 * mr_health_failed.
 */
void mr_server_failed(struct mr_server *server, int error, enum mr_failure failure);

/** The server does not take connections of this lane, though others may be fine. */
void mr_server_refused(struct mr_server *server, uint8_t lane, const char *reason);

/** The server has answered: it is well. */
static inline void mr_server_answered(struct mr_server *server)
{
    mr_health_answered(server->health);
}
