/*
 * check.h - invariants, also checked in release builds: a broken one ends one process, and the
 * master restarts it.
 */
#pragma once

#define MR_MUST_USE           __attribute__((warn_unused_result))
#define MR_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define MR_LIKELY(x)          __builtin_expect(!!(x), 1)
#define MR_UNLIKELY(x)        __builtin_expect(!!(x), 0)
#define MR_ALWAYS_INLINE      inline __attribute__((always_inline)) /* only where measured */
#define MR_FALLTHROUGH        __attribute__((fallthrough))
#define MR_COUNT(array)       (sizeof(array) / sizeof((array)[0]))

/** The struct that embeds `member` at `ptr`. */
#define MR_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/** Logs a broken invariant and aborts. */
_Noreturn void mr_bug(const char *file, int line, const char *what);

#define MR_BUG(what) mr_bug(__FILE__, __LINE__, what)
#define MR_CHECK(cond)                                                                             \
    do {                                                                                           \
        if (MR_UNLIKELY(!(cond)))                                                                  \
            MR_BUG("!(" #cond ")");                                                                \
    } while (0)
