/*
 * resp.h - the Redis protocol (RESP2 and RESP3),
 * https://redis.io/docs/latest/develop/reference/protocol-spec/
 */
#pragma once

#include "proto/proto.h"

extern const struct mr_proto MR_PROTO_RESP;

/** True for "host:port" and "[host]:port", as `announce` has them. */
bool mr_resp_is_address(const char *text);
