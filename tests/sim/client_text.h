/* client_text.h - shared by the text and meta dialects of scripted clients. */
#pragma once

#include "client.h"

/** True if the bytes begin with this text. */
bool sim_starts(struct mr_slice bytes, const char *with);

/** Length of the first line; 0 if incomplete. */
size_t sim_line_bytes(struct mr_slice in);

/** Word `i` of a line, or NULL. */
const char *sim_word_at(struct mr_slice line, uint32_t i);

uint64_t sim_number_at(const char *at);

/** Sends a meta request, or several quiet ones and their terminator. */
void sim_meta_request(struct sim_client *c);

/** True for requests made by sim_meta_request. */
bool sim_is_meta(const struct sim_expect *e);

/** True if the reply, which is not an error, identifies itself as this request's. */
bool sim_meta_is_for(const struct sim_expect *e, struct mr_slice reply);
void sim_meta_check(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply);
