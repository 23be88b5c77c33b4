/* options.c - parses the command line and prints the help. */
#include "proc/options.h"

#include "core/metrics.h"
#include "core/number.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define MBUF_DEFAULT 16384u
#define MBUF_MIN     512u
#define MBUF_MAX     16777216u

#define HELP_COLUMN 26
#define HELP_WIDTH  80

enum { OPT_WORKERS = 256, OPT_ENGINE, OPT_DIFF };

const struct mr_option_desc MR_OPTIONS[] = {
#define X(group, code, name, argument, help) {group, code, name, argument, help},
#include "proc/options.def"
};
const size_t MR_OPTION_COUNT = MR_COUNT(MR_OPTIONS);

/* Prints text in the right column; `column` is the current position in the line. */
static void print_help(const char *text, int column)
{
    while (*text != '\0') {
        const int word = (int)strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + word > HELP_WIDTH) {
            (void)fputc('\n', stderr);
            column = 0;
        }
        const int pad = column < HELP_COLUMN ? HELP_COLUMN - column : 1;
        (void)fprintf(stderr, "%*s%.*s", pad, "", word, text);
        column += pad + word;
        text += word + (text[word] == ' ');
    }
    (void)fputc('\n', stderr);
}

static void print_option(const struct mr_option_desc *d)
{
    int column = d->code < 256 ? fprintf(stderr, "  -%c, --%s", d->code, d->name)
                               : fprintf(stderr, "      --%s", d->name);

    if (d->argument[0] != '\0')
        column += fprintf(stderr, "=%s", d->argument);
    print_help(d->help, column);
}

void mr_options_print_usage(void)
{
    mr_options_print("millrace [-c FILE] [-d] [options]\n"
                     "       millrace copy --from=POOL --to=POOL [options]",
                     MR_OPTIONS, MR_OPTION_COUNT);
}

void mr_options_print(const char *usage, const struct mr_option_desc *options, size_t n)
{
    (void)fprintf(stderr, "Usage: %s\n", usage);
    for (size_t i = 0; i < n; i++) {
        const struct mr_option_desc *d = &options[i];
        if (i == 0 || strcmp(d->group, options[i - 1].group) != 0)
            (void)fprintf(stderr, "\n%s:\n", d->group);
        print_option(d);
    }
}

static void print_metrics(const char *title, const struct mr_metric_desc *desc, size_t n)
{
    (void)fprintf(stderr, "%s:\n", title);
    for (size_t i = 0; i < n; i++)
        (void)fprintf(stderr, "  %-20s\"%s\"\n", desc[i].name, desc[i].help);
}

void mr_options_print_stats(void)
{
    print_metrics("pool stats", MR_POOL_METRICS, MR_POOL_METRIC_COUNT);
    (void)fputc('\n', stderr);
    print_metrics("server stats", MR_SERVER_METRICS, MR_SERVER_METRIC_COUNT);
    (void)fputc('\n', stderr);
    print_metrics("server health, in /stats.json and /metrics", MR_HEALTH_METRICS,
                  MR_HEALTH_METRIC_COUNT);
    (void)fputc('\n', stderr);
    print_metrics("discovery of servers, there too", MR_DISCOVERY_METRICS,
                  MR_DISCOVERY_METRIC_COUNT);
    (void)fputc('\n', stderr);
    print_metrics("worker stats, there too", MR_WORKER_METRICS, MR_WORKER_METRIC_COUNT);
    (void)fputc('\n', stderr);
    print_metrics("proxy stats, there too", MR_PROXY_METRICS, MR_PROXY_METRIC_COUNT);
}

static enum mr_result number(const char *text, int opt, uint64_t max, uint64_t *out,
                             struct mr_error *err)
{
    if (!mr_parse_uint(mr_slice_of(text), max, out))
        return mr_fail(err, MR_ECONFIG, "option -%c requires a number", opt);
    return MR_OK;
}

static enum mr_result set_port(struct mr_options *o, const char *text, struct mr_error *err)
{
    uint64_t v;
    const enum mr_result rc = number(text, 's', INT_MAX, &v, err);

    if (rc != MR_OK)
        return rc;
    if (v == 0 || v > 65535)
        return mr_fail(err, MR_ECONFIG, "option -s value %llu is not a valid port",
                       (unsigned long long)v);
    o->stats_port = (uint32_t)v;
    return MR_OK;
}

static enum mr_result set_mbuf(struct mr_options *o, const char *text, struct mr_error *err)
{
    uint64_t v;

    if (!mr_parse_uint(mr_slice_of(text), INT_MAX, &v) || v == 0)
        return mr_fail(err, MR_ECONFIG, "option -m requires a non-zero number");
    if (v < MBUF_MIN || v > MBUF_MAX)
        return mr_fail(err, MR_ECONFIG, "mbuf chunk size must be between %u and %u bytes", MBUF_MIN,
                       MBUF_MAX);
    o->mbuf_size = (uint32_t)v;
    return MR_OK;
}

static enum mr_result set_workers(struct mr_options *o, const char *text, struct mr_error *err)
{
    uint64_t v;

    if (mr_slice_eq(mr_slice_of(text), mr_slice_of("auto"))) {
        o->workers = UINT32_MAX;
        return MR_OK;
    }
    if (!mr_parse_uint(mr_slice_of(text), 1024, &v))
        return mr_fail(err, MR_ECONFIG, "option --workers requires `auto` or a number up to 1024");
    o->workers = (int64_t)v;
    return MR_OK;
}

static enum mr_result missing_value(int opt, struct mr_error *err)
{
    switch (opt) {
    case 'o':
    case 'c':
    case 'p':
        return mr_fail(err, MR_ECONFIG, "option -%c requires a file name", opt);
    case 'v':
    case 's':
    case 'i':
        return mr_fail(err, MR_ECONFIG, "option -%c requires a number", opt);
    case 'm':
        return mr_fail(err, MR_ECONFIG, "option -m requires a non-zero number");
    case OPT_WORKERS:
        return mr_fail(err, MR_ECONFIG, "option --workers requires `auto` or a number up to 1024");
    case OPT_DIFF:
        return mr_fail(err, MR_ECONFIG, "option --diff requires a file name");
    case OPT_ENGINE:
        return mr_fail(err, MR_ECONFIG, "option --engine requires auto, epoll or io_uring");
    default:
        return mr_fail(err, MR_ECONFIG, "option -%c requires a string", opt);
    }
}

static enum mr_result set(struct mr_options *o, int opt, struct mr_error *err)
{
    uint64_t v;
    enum mr_result rc;

    switch (opt) {
    case 'h':
        o->help = true;
        return MR_OK;
    case 'V':
        o->version = true;
        return MR_OK;
    case 't':
        o->test_conf = true;
        return MR_OK;
    case 'd':
        o->daemonize = true;
        return MR_OK;
    case 'D':
        o->describe_stats = true;
        return MR_OK;
    case 'v':
        rc = number(optarg, 'v', INT_MAX, &v, err);
        if (rc == MR_OK)
            o->log_level = (int)v;
        return rc;
    case 'i':
        return number(optarg, 'i', INT_MAX, &v, err);
    case 's':
        return set_port(o, optarg, err);
    case 'm':
        return set_mbuf(o, optarg, err);
    case OPT_WORKERS:
        return set_workers(o, optarg, err);
    case OPT_DIFF:
        o->diff_file = optarg;
        o->test_conf = true;
        return MR_OK;
    case OPT_ENGINE:
        o->engine = optarg;
        return MR_OK;
    case 'o':
        o->log_file = optarg;
        return MR_OK;
    case 'c':
        o->conf_file = optarg;
        return MR_OK;
    case 'p':
        o->pid_file = optarg;
        return MR_OK;
    case 'a':
        o->stats_addr = optarg;
        return MR_OK;
    case 'k':
        o->kill_word = optarg;
        return MR_OK;
    case ':':
        return missing_value(optopt, err);
    default:
        if (optopt > 0 && optopt < 256)
            return mr_fail(err, MR_ECONFIG, "invalid option -- '%c'", optopt);
        return mr_fail(err, MR_ECONFIG, "invalid option");
    }
}

/* Arguments for getopt_long(). */
struct getopt_tables {
    struct option longs[MR_COUNT(MR_OPTIONS) + 1];
    char letters[2 * MR_COUNT(MR_OPTIONS) + 2];
};

static void build_tables(struct getopt_tables *t)
{
    char *letter = t->letters;

    *letter++ = ':'; /* report a missing argument as ':' */
    for (size_t i = 0; i < MR_OPTION_COUNT; i++) {
        const struct mr_option_desc *d = &MR_OPTIONS[i];
        const bool takes_argument = d->argument[0] != '\0';
        t->longs[i] = (struct option){d->name, takes_argument ? required_argument : no_argument,
                                      NULL, d->code};
        if (d->code < 256)
            *letter++ = (char)d->code;
        if (d->code < 256 && takes_argument)
            *letter++ = ':';
    }
    *letter = '\0';
    t->longs[MR_OPTION_COUNT] = (struct option){NULL, 0, NULL, 0};
}

enum mr_result mr_options_parse(struct mr_options *o, int argc, char **argv, struct mr_error *err)
{
    struct getopt_tables t;
    int opt;

    *o = (struct mr_options){.log_level = -1, .mbuf_size = MBUF_DEFAULT, .workers = -1};
    build_tables(&t);
    opterr = 0;
    optind = 0; /* glibc: reset */
    while ((opt = getopt_long(argc, argv, t.letters, t.longs, NULL)) != -1) {
        enum mr_result rc = set(o, opt, err);
        if (rc != MR_OK) {
            if (opt == '?' && (optopt == 0 || optopt >= 256))
                rc = mr_fail(err, MR_ECONFIG, "invalid option '%s'", argv[optind - 1]);
            return rc;
        }
    }
    return MR_OK;
}
