/* check.h - invariants, on in release builds too: a broken one ends this process, not the service.
 */
#pragma once

#define MR_MUST_USE           __attribute__((warn_unused_result))
#define MR_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define MR_LIKELY(x)          __builtin_expect(!!(x), 1)
#define MR_UNLIKELY(x)        __builtin_expect(!!(x), 0)
#define MR_ALWAYS_INLINE      inline __attribute__((always_inline)) /* where it was measured */
#define MR_FALLTHROUGH        __attribute__((fallthrough))
#define MR_COUNT(array)       (sizeof(array) / sizeof((array)[0]))

/** Recovers the struct that embeds `member` at `ptr`. */
#define MR_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/** Reports a broken invariant on stderr and through the log, then aborts. */
_Noreturn void mr_bug(const char *file, int line, const char *what);

#define MR_BUG(what) mr_bug(__FILE__, __LINE__, what)
#define MR_CHECK(cond)                                                                             \
    do {                                                                                           \
        if (MR_UNLIKELY(!(cond)))                                                                  \
            MR_BUG("!(" #cond ")");                                                                \
    } while (0)
