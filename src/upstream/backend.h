/* backend.h - one connection to a server; private to src/upstream. */
#pragma once

#include "upstream/server.h"

/**
 * Starts to connect. What a probing connection does is not counted.
 * @param home set to the connection, and to NULL once it takes no more requests
 * @return 0, or an errno; *home is untouched then
 */
int mr_backend_connect(struct mr_backend **home, struct mr_server *server, uint8_t lane,
                       bool probing);

/**
 * Queues a request behind those already there.
 * @return NULL; or why the server cannot be asked that, the call was not taken then
 */
const char *mr_backend_send(struct mr_backend *b, struct mr_call *call, struct mr_slice request);

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
