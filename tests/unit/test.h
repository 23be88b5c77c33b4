/* test.h - what every unit test includes: cmocka and its prerequisites. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/check.h"

#define RUN(...)                                                                                   \
    int main(void)                                                                                 \
    {                                                                                              \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                           \
        return cmocka_run_group_tests(tests, NULL, NULL);                                          \
    }
#define T(name) cmocka_unit_test(name)

/** The engine that a test of the loop runs on; the build runs such tests once for each. */
static inline const char *test_engine(void)
{
    const char *name = getenv("MILLRACE_ENGINE");

    return name != NULL ? name : "epoll";
}
