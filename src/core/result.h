/* result.h - how functions report failure: a code for the program, a sentence for people. */
#pragma once

#include "core/check.h"

#define MR_RESULTS(X)                                                                              \
    X(MR_OK, "ok")                                                                                 \
    X(MR_AGAIN, "needs more input")                                                                \
    X(MR_ASIDE, "not the reply to a request")                                                      \
    X(MR_EPROTO, "peer broke the protocol")                                                        \
    X(MR_ELIMIT, "configured limit exceeded")                                                      \
    X(MR_ECONFIG, "configuration is wrong")                                                        \
    X(MR_ESYS, "system call failed")

enum mr_result {
#define X(code, text) code,
    MR_RESULTS(X)
#undef X
};

/** What went wrong, outermost context first ("pool cache: bind 0.0.0.0:6379: ..."). */
struct mr_error {
    int sys;        /* errno when the code is MR_ESYS, else 0 */
    char text[512]; /* one line, no trailing newline */
};

const char *mr_result_name(enum mr_result code);

/** Fills err and returns code, so that a failure is one line: return mr_fail(err, ...). */
enum mr_result mr_fail(struct mr_error *err, enum mr_result code, const char *fmt, ...)
    MR_PRINTF(3, 4);

/** Like mr_fail with MR_ESYS, and appends strerror(errno). Call it before errno can change. */
enum mr_result mr_fail_sys(struct mr_error *err, const char *fmt, ...) MR_PRINTF(2, 3);

/** Prepends "context: " to the message. */
void mr_error_prefix(struct mr_error *err, const char *fmt, ...) MR_PRINTF(2, 3);
