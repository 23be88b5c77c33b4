/* test_result.c - error messages and their context. */
#include "core/result.h"
#include "unit/test.h"

#include <errno.h>

static void sentences(void **state)
{
    struct mr_error err;
    char giant[2000];

    (void)state;
    assert_int_equal(mr_fail(&err, MR_ELIMIT, "size %d", 7), MR_ELIMIT);
    assert_string_equal(err.text, "size 7");
    assert_int_equal(err.sys, 0);
    errno = ENOENT;
    assert_int_equal(mr_fail_sys(&err, "open %s", "x"), MR_ESYS);
    assert_string_equal(err.text, "open x: No such file or directory");
    assert_int_equal(err.sys, ENOENT);
    mr_error_prefix(&err, "pool '%s'", "p");
    assert_string_equal(err.text, "pool 'p': open x: No such file or directory");
    memset(giant, 'g', sizeof(giant) - 1);
    giant[sizeof(giant) - 1] = '\0';
    (void)mr_fail(&err, MR_EPROTO, "%s", giant);
    mr_error_prefix(&err, "%s", giant);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_string_equal(mr_result_name(MR_AGAIN), "needs more input");
}

RUN(T(sentences))
