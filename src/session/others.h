/* others.h - lets clients see and end other clients of their pool in this process. */
#pragma once

#include "session/service.h"

/** Sets next_client and the related functions in the facts of a service. */
void mr_others_init(struct mr_proto_facts *facts);
