/* findings.h - errors and warnings of a configuration, with their place in the file. */
#pragma once

#include "config/place.h"
#include "core/check.h"

#include <stdbool.h>

struct mr_finding {
    struct mr_place at;
    bool error; /* otherwise a warning */
    char *text; /* "file:line:column: sentence", or "file: sentence" */
};

/** Zeroed means empty. */
struct mr_findings {
    struct mr_finding *list; /* in file order after mr_findings_sort */
    uint32_t n;
    uint32_t n_errors; /* how many of `list` are errors */
};

/** Adds a finding. The format makes the whole text. */
void mr_findings_add(struct mr_findings *f, bool error, struct mr_place at, const char *fmt, ...)
    MR_PRINTF(4, 5);

/** Moves all findings of `from` to `f`. */
void mr_findings_move(struct mr_findings *f, struct mr_findings *from);

/** Sorts by place in the file. */
void mr_findings_sort(struct mr_findings *f);

/** The first error, or NULL. */
const char *mr_findings_first_error(const struct mr_findings *f);

void mr_findings_fini(struct mr_findings *f);
