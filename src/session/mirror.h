/*
 * mirror.h - brings what clients write to another pool, see `mirror_to`.
 *
 * A write is not sent twice: increments and the like would have other results there. Instead its
 * keys are transferred after it. Clients do not wait for that, and never see an error of it.
 */
#pragma once

#include "session/client.h"

struct mr_mirror;

/** Starts mirroring to another pool of this process, which outlives the service's connections. */
void mr_mirror_open(struct mr_service *service, struct mr_pool *to);

/** Drops what is left. The pools must be closed, and the loop settled. */
void mr_mirror_free(struct mr_service *service);

/** Starts no more transfers. Does nothing without a mirror. */
void mr_mirror_stop(struct mr_service *service);

/** True if waiting any longer brings nothing more to the other pool, or without a mirror. */
bool mr_mirror_settled(const struct mr_service *service);

/**
 * A message that writes was sent: its keys are transferred after it. Call it right after sending,
 * because the first request of a transfer follows the write on its connection.
 */
void mr_mirror_message(struct mr_client *client, const struct mr_msg *msg);

/** For lack of memory, what was written cannot be told. */
void mr_mirror_lost(struct mr_service *service);

/** The same for several messages, given their bytes, whose replies have arrived or not. */
void mr_mirror_run(struct mr_client *client, struct mr_slice run);
