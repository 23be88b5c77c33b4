/* tcp.h - plain TCP: bytes without requests. */
#pragma once

#include "proto/proto.h"

extern const struct mr_proto MR_PROTO_TCP;
