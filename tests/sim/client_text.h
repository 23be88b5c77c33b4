/* client_text.h - what the scripted clients of memcached's text and meta dialects share. */
#pragma once

#include "client.h"

/** True when the bytes begin with this text. */
bool sim_starts(struct mr_slice bytes, const char *with);

/** Bytes of the line at the beginning; 0 when it is not all there. */
size_t sim_line_bytes(struct mr_slice in);

/** Word number `i` of a line; NULL when it has no such word. */
const char *sim_word_at(struct mr_slice line, uint32_t i);

uint64_t sim_number_at(const char *at);

/** A meta request, or several quiet ones and what ends them. */
void sim_meta_request(struct sim_client *c);

/** True for what sim_meta_request has asked. */
bool sim_is_meta(const struct sim_expect *e);

/** True when the reply, which is no error, says that it is the one to this. */
bool sim_meta_is_for(const struct sim_expect *e, struct mr_slice reply);
void sim_meta_check(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply);
