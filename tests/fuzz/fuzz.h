/*
 * fuzz.h - included by every fuzz target.
 *
 * A target is an LLVMFuzzerTestOneInput. With -Dfuzz=true (clang) it is a libFuzzer program;
 * otherwise it is linked with replay.c and runs the files and folders it is given.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            (void)fprintf(stderr, "%s:%d: !(%s)\n", __FILE__, __LINE__, #cond);                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
