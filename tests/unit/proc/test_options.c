/* test_options.c - the command line. */
#include "proc/options.h"
#include "unit/test.h"

static struct mr_options o;
static struct mr_error err;

static enum mr_result parse(const char *line)
{
    static char copy[512];
    char *argv[32] = {"millrace"}, *save = NULL;
    int argc = 1;

    strcpy(copy, line);
    for (char *w = strtok_r(copy, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    return mr_options_parse(&o, argc, argv, &err);
}

static void accepts(void **state)
{
    (void)state;
    assert_int_equal(parse(""), MR_OK);
    assert_int_equal(o.workers, -1);
    assert_int_equal(o.mbuf_size, 16384);
    assert_int_equal(parse("-d -v 99 -o l -c c -s 1 -a h -i 0 -p p -m 512 -k stop"), MR_OK);
    assert_true(o.daemonize);
    assert_int_equal(o.log_level, 99); /* clamped later, as in the original */
    assert_string_equal(o.log_file, "l");
    assert_string_equal(o.conf_file, "c");
    assert_int_equal(o.stats_port, 1);
    assert_string_equal(o.stats_addr, "h");
    assert_string_equal(o.pid_file, "p");
    assert_int_equal(o.mbuf_size, 512);
    assert_string_equal(o.kill_word, "stop");
    assert_int_equal(parse("--conf-file=x --stats-port=65535 --workers=3 -hVtD"), MR_OK);
    assert_true(o.help && o.version && o.test_conf && o.describe_stats);
    assert_int_equal(o.workers, 3);
    assert_int_equal(parse("--workers auto word"), MR_OK);
    assert_int_equal(o.workers, UINT32_MAX);
}

static void complains(void **state)
{
    static const struct {
        const char *line, *error;
    } CASES[] = {
        {"-v x", "option -v requires a number"},
        {"-v", "option -v requires a number"},
        {"-v -1", "option -v requires a number"},
        {"-i x", "option -i requires a number"},
        {"-s x", "option -s requires a number"},
        {"-s 0", "option -s value 0 is not a valid port"},
        {"-s 65536", "option -s value 65536 is not a valid port"},
        {"-m 0", "option -m requires a non-zero number"},
        {"-m x", "option -m requires a non-zero number"},
        {"-m 511", "mbuf chunk size must be between 512 and 16777216 bytes"},
        {"-m 16777217", "mbuf chunk size must be between 512 and 16777216 bytes"},
        {"-o", "option -o requires a file name"},
        {"-c", "option -c requires a file name"},
        {"-p", "option -p requires a file name"},
        {"-a", "option -a requires a string"},
        {"-k", "option -k requires a string"},
        {"-x", "invalid option -- 'x'"},
        {"--nonsense", "invalid option '--nonsense'"},
        {"--workers x", "option --workers requires"},
        {"--workers 1025", "option --workers requires"},
        {"--workers", "option --workers requires"},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        assert_int_equal(parse(CASES[i].line), MR_ECONFIG);
        if (strstr(err.text, CASES[i].error) == NULL)
            fail_msg("'%s': %s", CASES[i].line, err.text);
    }
}

/* Every option in the list has a case in the parser. */
static void knows_all_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < MR_OPTION_COUNT; i++) {
        const struct mr_option_desc *d = &MR_OPTIONS[i];
        const char *value = d->argument[0] != '\0' ? " 600" : "";
        char line[64];

        (void)snprintf(line, sizeof(line), "--%s%s", d->name, value);
        if (parse(line) != MR_OK)
            fail_msg("'%s': %s", line, err.text);
        if (d->code >= 256)
            continue;
        (void)snprintf(line, sizeof(line), "-%c%s", d->code, value);
        if (parse(line) != MR_OK)
            fail_msg("'%s': %s", line, err.text);
    }
}

RUN(T(accepts), T(complains), T(knows_all_options))
