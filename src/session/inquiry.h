/*
 * inquiry.h - requests that all workers answer together, such as for a list of all clients.
 *
 * The worker that has the request answers its own part, asks the others for theirs, and joins the
 * parts. Towards the request it stands in for a server: it completes a struct mr_call.
 *
 *     worker                     others
 *     mr_inquire ---- ask ----> mr_inquiry_answer
 *     mr_inquiries_asked        (how many were asked)
 *     mr_inquiries_take <------ (each with its part)
 *     call->ops->on_reply
 *
 * A part that has not come after MR_INQUIRY_MS fails the request: a worker that stands still must
 * not be taken for one without clients. Questions and answers are bytes, as long as they need be.
 */
#pragma once

#include "session/service.h"

#define MR_INQUIRY_MS 1000u

struct mr_inquiries {
    struct mr_loop *loop;
    struct mr_list open; /* unanswered */
    uint32_t last_number;
    /** Sends a question to all other workers; false if that is impossible. */
    bool (*ask)(void *arg, uint32_t number, struct mr_slice question);
    void *arg;
};

void mr_inquiries_init(struct mr_inquiries *inquiries, struct mr_loop *loop,
                       bool (*ask)(void *arg, uint32_t number, struct mr_slice question),
                       void *arg);

/**
 * Asks all other workers what they answer to a request, which the service has answered with `part`.
 * @return NULL: the call will be completed, in a later turn at the earliest; else why it failed
 */
const char *mr_inquire(struct mr_service *service, struct mr_call *call,
                       const struct mr_session *session, struct mr_slice request,
                       struct mr_slice part);

/** So many others were asked. Completes the call if it waits for nothing more. */
void mr_inquiries_asked(struct mr_inquiries *inquiries, uint32_t number, uint32_t others);

/** One of the others has answered; late answers are ignored. */
void mr_inquiries_take(struct mr_inquiries *inquiries, uint32_t number, struct mr_slice part);

/** Fails the inquiries of a service, or with NULL all. */
void mr_inquiries_end(struct mr_inquiries *inquiries, const struct mr_service *service);

/**
 * Appends this worker's part of the answer to another's question. Appends nothing if the question
 * makes no sense here, as to another version or configuration.
 */
void mr_inquiry_answer(struct mr_service *services, uint32_t n_services, struct mr_slice question,
                       struct mr_slab *slab, struct mr_buf *out);
