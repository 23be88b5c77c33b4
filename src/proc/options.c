/* options.c - the command line: twemproxy's flags, Meitu's -k, and our own. */
#include "proc/options.h"

#include "core/metrics.h"
#include "core/number.h"
#include "core/version.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>

#define MBUF_DEFAULT 16384u
#define MBUF_MIN     512u
#define MBUF_MAX     16777216u

enum { OPT_WORKERS = 256, OPT_ENGINE, OPT_DIFF };

static const struct option LONG_OPTIONS[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"test-conf", no_argument, NULL, 't'},
    {"daemonize", no_argument, NULL, 'd'},
    {"describe-stats", no_argument, NULL, 'D'},
    {"verbose", required_argument, NULL, 'v'},
    {"output", required_argument, NULL, 'o'},
    {"conf-file", required_argument, NULL, 'c'},
    {"stats-port", required_argument, NULL, 's'},
    {"stats-interval", required_argument, NULL, 'i'},
    {"stats-addr", required_argument, NULL, 'a'},
    {"pid-file", required_argument, NULL, 'p'},
    {"mbuf-size", required_argument, NULL, 'm'},
    {"kill", required_argument, NULL, 'k'},
    {"workers", required_argument, NULL, OPT_WORKERS},
    {"diff", required_argument, NULL, OPT_DIFF},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {NULL, 0, NULL, 0},
};

void mr_options_print_version(void)
{
    (void)fprintf(stderr, "This is millrace-%s\nasync event backend: epoll\n\n", MR_VERSION);
}

void mr_options_print_usage(void)
{
    (void)fputs(
        "Usage: millrace [-c conf file] [-d] [options]\n"
        "\n"
        "Run:\n"
        "  -c, --conf-file=S       configuration file (default: the first that exists of\n"
        "                          conf/nutcracker.yml, /etc/millrace/millrace.yml and\n"
        "                          /etc/nutcracker/nutcracker.yml)\n"
        "  -d, --daemonize         run in the background; errors at start are told here first\n"
        "      --workers=N         worker processes, `auto` for one per usable CPU, 0 for a\n"
        "                          single process; wins over worker_processes\n"
        "      --engine=NAME       auto, epoll or io_uring; wins over engine\n"
        "  -p, --pid-file=S        write and lock a file with the process id (default: none)\n"
        "  -m, --mbuf-size=N       keys may have N-48 bytes (default: 16384; 512 to 16777216)\n"
        "\n"
        "Log:\n"
        "  -o, --output=S          log file (default: stderr)\n"
        "  -v, --verbose=N         log level, 0 to 11 (default: 5)\n"
        "\n"
        "Statistics:\n"
        "  -s, --stats-port=N      port of the JSON statistics (default: 22222)\n"
        "  -a, --stats-addr=S      its address (default: 0.0.0.0)\n"
        "  -i, --stats-interval=N  accepted for compatibility; statistics are always current\n"
        "  -D, --describe-stats    list the statistics and exit\n"
        "\n"
        "Other:\n"
        "  -t, --test-conf         check the configuration file, say what is wrong, and exit\n"
        "      --diff=OLD          with -t: say what a change from the file OLD will do\n"
        "  -k, --kill=WORD         tell the process in the pid file to reload, reopen (its log),\n"
        "                          stop, shutdown or upgrade\n"
        "  -h, --help              this text\n"
        "  -V, --version           the version\n",
        stderr);
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

enum mr_result mr_options_parse(struct mr_options *o, int argc, char **argv, struct mr_error *err)
{
    int opt;

    *o = (struct mr_options){.log_level = -1, .mbuf_size = MBUF_DEFAULT, .workers = -1};
    opterr = 0;
    optind = 0; /* glibc: start over */
    while ((opt = getopt_long(argc, argv, ":hVtdDv:o:c:s:i:a:p:m:k:", LONG_OPTIONS, NULL)) != -1) {
        enum mr_result rc = set(o, opt, err);
        if (rc != MR_OK) {
            if (opt == '?' && (optopt == 0 || optopt >= 256))
                rc = mr_fail(err, MR_ECONFIG, "invalid option '%s'", argv[optind - 1]);
            return rc;
        }
    }
    return MR_OK;
}
