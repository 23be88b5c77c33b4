/* findings.c - collects errors and warnings of a configuration. */
#include "config/findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct mr_finding *make_room(struct mr_findings *f, uint32_t more)
{
    f->list = realloc(f->list, (f->n + more + 1) * sizeof(*f->list));
    MR_CHECK(f->list != NULL);
    return &f->list[f->n];
}

void mr_findings_add(struct mr_findings *f, bool error, struct mr_place at, const char *fmt, ...)
{
    struct mr_finding *one = make_room(f, 1);
    va_list ap;

    *one = (struct mr_finding){.at = at, .error = error};
    va_start(ap, fmt);
    MR_CHECK(vasprintf(&one->text, fmt, ap) >= 0);
    va_end(ap);
    f->n++;
    f->n_errors += error;
}

void mr_findings_move(struct mr_findings *f, struct mr_findings *from)
{
    struct mr_finding *to = make_room(f, from->n);

    for (uint32_t i = 0; i < from->n; i++)
        to[i] = from->list[i];
    f->n += from->n;
    f->n_errors += from->n_errors;
    free(from->list);
    *from = (struct mr_findings){0};
}

static int by_place(const void *a, const void *b)
{
    return mr_place_compare(((const struct mr_finding *)a)->at, ((const struct mr_finding *)b)->at);
}

void mr_findings_sort(struct mr_findings *f)
{
    if (f->n > 1)
        qsort(f->list, f->n, sizeof(*f->list), by_place);
}

const char *mr_findings_first_error(const struct mr_findings *f)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (f->list[i].error)
            return f->list[i].text;
    return NULL;
}

void mr_findings_fini(struct mr_findings *f)
{
    for (uint32_t i = 0; i < f->n; i++)
        free(f->list[i].text);
    free(f->list);
    *f = (struct mr_findings){0};
}
