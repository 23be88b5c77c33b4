/* small_uring.c - the io_uring engine with rings of a few entries, which overflow. */
#define MR_ENGINE_URING SMALL_URING
#define ENTRIES         4u
#define COMPLETIONS     8u
#define BUFFERS         2u

#include "../../src/net/engine_uring.c"
