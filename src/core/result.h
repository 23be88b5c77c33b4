/* result.h - the one error vocabulary: a code for the program, a sentence for the human. */
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

/** Fills err and returns code, so a failure is one line: return mr_fail(err, ...). */
enum mr_result mr_fail(struct mr_error *err, enum mr_result code, const char *fmt, ...)
    MR_PRINTF(3, 4);

/** mr_fail(MR_ESYS) that appends strerror(errno); call it before anything can touch errno. */
enum mr_result mr_fail_sys(struct mr_error *err, const char *fmt, ...) MR_PRINTF(2, 3);

/** Puts "context: " in front of a sentence that is already there. */
void mr_error_prefix(struct mr_error *err, const char *fmt, ...) MR_PRINTF(2, 3);
