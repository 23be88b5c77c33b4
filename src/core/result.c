/* result.c - error codes and messages. */
#include "core/result.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *mr_result_name(enum mr_result code)
{
    switch (code) {
#define X(c, t)                                                                                    \
    case c:                                                                                        \
        return t;
        MR_RESULTS(X)
#undef X
    }
    return "?";
}

enum mr_result mr_fail(struct mr_error *err, enum mr_result code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    err->sys = 0;
    return code;
}

enum mr_result mr_fail_sys(struct mr_error *err, const char *fmt, ...)
{
    const int saved = errno;
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(err->text))
        (void)snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", strerror(saved));
    err->sys = saved;
    return MR_ESYS;
}

void mr_error_prefix(struct mr_error *err, const char *fmt, ...)
{
    char context[sizeof(err->text)];
    char whole[sizeof(err->text)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(context, sizeof(context), fmt, ap);
    va_end(ap);
    size_t n = 0;
    for (const char *parts[] = {context, ": ", err->text}, **p = parts; p < parts + 3; p++) {
        const size_t len = strnlen(*p, sizeof(whole) - 1 - n);
        memcpy(whole + n, *p, len);
        n += len;
    }
    whole[n] = '\0';
    memcpy(err->text, whole, n + 1);
}
