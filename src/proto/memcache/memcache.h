/*
 * memcache.h - the memcached protocol: text and meta, which share connections, and binary.
 * https://github.com/memcached/memcached/blob/master/doc/protocol.txt
 */
#pragma once

#include "proto/proto.h"

extern const struct mr_proto MR_PROTO_MEMCACHE;
