/* check.c - what happens when an invariant is broken. */
#include "core/check.h"

#include "core/log.h"

#include <stdlib.h>

_Noreturn void mr_bug(const char *file, int line, const char *what)
{
    mr_log(MR_LOG_EMERG, "bug at=%s:%d what=\"%s\"", file, line, what);
    abort();
}
