/* test.h - included by every unit test: cmocka and its prerequisites. */
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
#include "net/loop.h"

#define RUN(...)                                                                                   \
    int main(void)                                                                                 \
    {                                                                                              \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                           \
        return cmocka_run_group_tests(tests, NULL, NULL);                                          \
    }
#define T(name) cmocka_unit_test(name)

/**
 * The engine for tests that need a loop; the build runs these once per engine. If the kernel does
 * not allow it, the test is skipped (exit code 77 for meson).
 */
static inline const char *test_engine(void)
{
    const char *name = getenv("MILLRACE_ENGINE");
    struct mr_error err;

    if (name == NULL)
        return "epoll";
    if (mr_loop_choose_engine(name, &err) == NULL) {
        (void)fprintf(stderr, "skipped: %s\n", err.text);
        exit(77);
    }
    return name;
}
