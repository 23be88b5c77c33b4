/*
 * subscribe.h - what a client is subscribed to, and the messages for it. Private to src/session.
 *
 * A request to subscribe or unsubscribe takes effect when it is first in the queue. A subscription
 * is confirmed to the client once the servers have confirmed it, and then gets messages.
 */
#pragma once

#include "session/client.h"

struct mr_subscriber;

/** Dispatches a message with the step SUBSCRIBE or UNSUBSCRIBE. Returns like mr_dispatch. */
bool mr_subscribe_dispatch(struct mr_client *client, const struct mr_msg *msg);

/** Ends all subscriptions. False, for mr_dispatch, if it has to wait. */
bool mr_subscribe_forget(struct mr_client *client);

/** Releases everything when the client is gone. */
void mr_subscribe_free(struct mr_client *client);

/** A reply has been sent in full: messages that waited for its end follow. */
void mr_subscribe_flush(struct mr_client *client);

/* ---- moving to another process ---- */

/** Ends all subscriptions here. */
void mr_subscribe_pack(struct mr_client *client);

/** The client stays after all: renews them. */
void mr_subscribe_resume(struct mr_client *client);

/** What mr_subscribe_unpack needs after mr_subscribe_pack. */
struct mr_slice mr_subscribe_luggage(const struct mr_client *client);

/** Renews the subscriptions of a client that has come from another process. */
void mr_subscribe_unpack(struct mr_client *client, struct mr_slice luggage);
