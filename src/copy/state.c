/* state.c - what survives an interruption of a copy, and what is shown of it. */
#include "copy/copy.h"

#include "core/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMAT      "millrace-copy 1\n"
#define SHOW_US     200000u   /* on a terminal */
#define SHOW_LOG_US 10000000u /* elsewhere */
#define BAR         30

enum mr_result mr_copy_save(const struct mr_copy *copy, const char *path, struct mr_error *err)
{
    const struct mr_copy_counts *n = &copy->counts;
    char next[4096];

    (void)snprintf(next, sizeof(next), "%s.new", path);
    FILE *f = fopen(next, "we");
    if (f == NULL)
        return mr_fail_sys(err, "open %s", next);
    (void)fprintf(f,
                  FORMAT "from %s\nto %s\ncursor %s\nscanned %" PRIu64 "\ncopied %" PRIu64
                         "\nkept %" PRIu64 "\ngone %" PRIu64 "\nunsteady %" PRIu64
                         "\nfailed %" PRIu64 "\n",
                  copy->options->from, copy->options->to, copy->cursor, n->scanned, n->copied,
                  n->kept, n->gone, n->unsteady, n->failed);
    const bool good = fflush(f) == 0 && fsync(fileno(f)) == 0;
    if (fclose(f) != 0 || !good)
        return mr_fail_sys(err, "write %s", next);
    if (rename(next, path) != 0)
        return mr_fail_sys(err, "rename %s", next);
    return MR_OK;
}

enum mr_result mr_copy_load(struct mr_copy *copy, const char *path, struct mr_error *err)
{
    struct mr_copy_counts *n = &copy->counts;
    char from[256] = "", to[256] = "";

    FILE *f = fopen(path, "re");
    if (f == NULL)
        return errno == ENOENT ? MR_AGAIN : mr_fail_sys(err, "open %s", path);
    const int found =
        fscanf(f,
               FORMAT "from %255s\nto %255s\ncursor %31s\nscanned %" SCNu64 "\ncopied %" SCNu64
                      "\nkept %" SCNu64 "\ngone %" SCNu64 "\nunsteady %" SCNu64 "\nfailed %" SCNu64,
               from, to, copy->cursor, &n->scanned, &n->copied, &n->kept, &n->gone, &n->unsteady,
               &n->failed);
    (void)fclose(f);
    if (found != 9)
        return mr_fail(err, MR_ECONFIG, "%s is not a state file; --restart begins anew", path);
    if (strcmp(from, copy->options->from) != 0 || strcmp(to, copy->options->to) != 0)
        return mr_fail(err, MR_ECONFIG, "%s is of a copy from %s to %s; --restart begins anew",
                       path, from, to);
    copy->scanned_before = n->scanned;
    return MR_OK;
}

/* "1m 20s" */
static void format_time(char *out, size_t size, uint64_t s)
{
    if (s >= 3600)
        (void)snprintf(out, size, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
    else if (s >= 60)
        (void)snprintf(out, size, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
    else
        (void)snprintf(out, size, "%" PRIu64 "s", s);
}

void mr_copy_show(struct mr_copy *copy, bool now)
{
    const struct mr_copy_counts *n = &copy->counts;
    const bool terminal = isatty(STDERR_FILENO);
    const uint64_t time = mr_clock_mono_us();
    char bar[BAR + 1] = "", left[32] = "?";

    if (copy->options->quiet ||
        (!now && time - copy->shown_us < (terminal ? SHOW_US : SHOW_LOG_US)))
        return;
    copy->shown_us = time;
    const uint64_t total = copy->total > n->scanned ? copy->total : n->scanned;
    const uint64_t us = time - copy->started_us + 1;
    const uint64_t rate = (n->scanned - copy->scanned_before) * 1000000u / us;
    const uint64_t percent = copy->finished ? 100 : total > 0 ? n->scanned * 100 / total : 0;
    memset(bar, '.', BAR);
    memset(bar, '#', percent * BAR / 100);
    if (rate > 0)
        format_time(left, sizeof(left), copy->finished ? 0 : (total - n->scanned) / rate);
    (void)fprintf(stderr,
                  "%s[%s] %3" PRIu64 "%%  %" PRIu64 " of %" PRIu64 " keys, %" PRIu64
                  "/s, %s left; %" PRIu64 " copied, %" PRIu64 " kept, %" PRIu64 " failed%s",
                  terminal ? "\r\033[K" : "", bar, percent, n->scanned, total, rate, left,
                  n->copied, n->kept, n->failed, terminal && !now ? "" : "\n");
}
