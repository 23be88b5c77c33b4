/*
 * resp.h - the Redis protocol (RESP2 and RESP3),
 * https://redis.io/docs/latest/develop/reference/protocol-spec/
 */
#pragma once

#include "proto/proto.h"

extern const struct mr_proto MR_PROTO_RESP;
