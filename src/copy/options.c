/* options.c - parses the command line of `millrace copy`. */
#include "copy/options.h"

#include "core/number.h"

#include <getopt.h>
#include <string.h>

#define VERIFY_DEFAULT 1000u

enum {
    OPT_FROM = 256,
    OPT_TO,
    OPT_MATCH,
    OPT_DB,
    OPT_REPLACE,
    OPT_RATE,
    OPT_VERIFY,
    OPT_STATE,
    OPT_RESTART,
    OPT_USER,
};

const struct mr_option_desc MR_COPY_OPTIONS[] = {
    {"Copy", OPT_FROM, "from", "POOL", "pool that has the keys"},
    {"Copy", OPT_TO, "to", "POOL", "pool that gets them"},
    {"Copy", 'c', "conf-file", "FILE", "configuration file of the proxy that is running"},
    {"Copy", OPT_MATCH, "match", "PATTERN", "only keys that match, as with SCAN"},
    {"Copy", OPT_DB, "db", "N", "database in both pools (default: `redis_db` of each)"},
    {"Copy", OPT_REPLACE, "replace", "",
     "replace keys that the other pool has already (default: leave them)"},
    {"Copy", OPT_RATE, "rate", "N", "at most so many keys a second (default: no limit)"},
    {"Copy", OPT_VERIFY, "verify", "N",
     "compare so many random keys afterwards (default: 1000; 0 for none)"},
    {"Copy", OPT_STATE, "state", "FILE",
     "where progress is kept, to go on after an interruption (default: "
     "./millrace-copy-FROM-TO.state)"},
    {"Copy", OPT_RESTART, "restart", "", "begin anew, whatever the state file says"},
    {"Copy", OPT_USER, "user", "NAME",
     "log in to both pools as this user, with the password in $MILLRACE_PASSWORD"},
    {"Copy", 'q', "quiet", "", "no progress, only errors and the result"},
    {"Copy", 'h', "help", "", "print this help"},
};
const size_t MR_COPY_OPTION_COUNT = MR_COUNT(MR_COPY_OPTIONS);

static enum mr_result number(const char *name, const char *text, uint64_t *out,
                             struct mr_error *err)
{
    if (!mr_parse_uint(mr_slice_of(text), UINT32_MAX, out))
        return mr_fail(err, MR_ECONFIG, "option --%s requires a number", name);
    return MR_OK;
}

static enum mr_result set(struct mr_copy_options *o, int code, const char *text,
                          struct mr_error *err)
{
    switch (code) {
    case OPT_FROM:
        o->from = text;
        break;
    case OPT_TO:
        o->to = text;
        break;
    case 'c':
        o->conf_file = text;
        break;
    case OPT_MATCH:
        o->match = text;
        break;
    case OPT_DB:
        o->has_db = true;
        return number("db", text, &o->db, err);
    case OPT_REPLACE:
        o->replace = true;
        break;
    case OPT_RATE:
        return number("rate", text, &o->rate, err);
    case OPT_VERIFY:
        return number("verify", text, &o->verify, err);
    case OPT_STATE:
        o->state_file = text;
        break;
    case OPT_RESTART:
        o->restart = true;
        break;
    case OPT_USER:
        o->user = text;
        break;
    case 'q':
        o->quiet = true;
        break;
    case 'h':
        o->help = true;
        break;
    default:
        return mr_fail(err, MR_ECONFIG, "unknown option, or one without its argument");
    }
    return MR_OK;
}

enum mr_result mr_copy_options_parse(struct mr_copy_options *o, int argc, char **argv,
                                     struct mr_error *err)
{
    struct option names[MR_COUNT(MR_COPY_OPTIONS) + 1] = {{0}};
    enum mr_result rc = MR_OK;
    int code;

    *o = (struct mr_copy_options){.verify = VERIFY_DEFAULT};
    for (size_t i = 0; i < MR_COPY_OPTION_COUNT; i++)
        names[i] = (struct option){.name = MR_COPY_OPTIONS[i].name,
                                   .has_arg = MR_COPY_OPTIONS[i].argument[0] != '\0',
                                   .val = MR_COPY_OPTIONS[i].code};
    opterr = 0;
    while (rc == MR_OK && (code = getopt_long(argc, argv, "c:qh", names, NULL)) != -1)
        rc = set(o, code, optarg, err);
    if (rc != MR_OK || o->help)
        return rc;
    if (optind < argc)
        return mr_fail(err, MR_ECONFIG, "unexpected argument '%s'", argv[optind]);
    if (o->from == NULL || o->to == NULL)
        return mr_fail(err, MR_ECONFIG, "copy needs --from and --to");
    if (strcmp(o->from, o->to) == 0)
        return mr_fail(err, MR_ECONFIG, "--from and --to are the same pool");
    return MR_OK;
}
