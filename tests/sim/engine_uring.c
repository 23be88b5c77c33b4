/* engine_uring.c - the real engine once more, over the liburing of this folder. */
#include "../../src/net/engine_uring.c"
