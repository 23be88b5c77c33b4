/* engine_uring.c - compiles the real engine against the liburing of this folder. */
#include "../../src/net/engine_uring.c"
