/* place.h - a position in a file. */
#pragma once

#include <stdint.h>

/** Both count from 1. */
struct mr_place {
    uint32_t line, column;
};

/** Returns like strcmp. */
static inline int mr_place_compare(struct mr_place a, struct mr_place b)
{
    if (a.line != b.line)
        return a.line < b.line ? -1 : 1;
    return (a.column > b.column) - (a.column < b.column);
}
