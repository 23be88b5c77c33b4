/* test_log.c - the log sink: levels, forged lines, reopening, rate limits. */
#include "core/log.h"
#include "unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/millrace-test-log-XXXXXX";

static char *content(void)
{
    static char text[65536];
    FILE *f = fopen(path, "r");
    const size_t n = f != NULL ? fread(text, 1, sizeof(text) - 1, f) : 0;

    if (f != NULL)
        fclose(f);
    text[n] = '\0';
    return text;
}

static void writes_what_the_level_allows(void **state)
{
    struct mr_error err;

    (void)state;
    close(mkstemp(path));
    assert_int_equal(mr_log_open(path, &err), MR_OK);
    mr_log_set_level(MR_LOG_WARN);
    mr_log(MR_LOG_WARN, "seen key=%d", 1);
    mr_log(MR_LOG_NOTICE, "unseen");
    assert_non_null(strstr(content(), "seen key=1\n"));
    assert_null(strstr(content(), "unseen"));
    mr_log_set_level(99);
    assert_int_equal(mr_log_level(), 11);
    mr_log_set_level(-5);
    assert_int_equal(mr_log_level(), 0);
    mr_log_set_level(MR_LOG_NOTICE);
}

static void peers_cannot_forge_lines(void **state)
{
    char giant[5000];

    (void)state;
    mr_log(MR_LOG_WARN, "event text=\"%s\"", "a\r\nb\x1b[0m\x7f");
    assert_non_null(strstr(content(), "text=\"a??b?[0m?\""));
    memset(giant, 'x', sizeof(giant) - 1);
    giant[sizeof(giant) - 1] = '\0';
    mr_log(MR_LOG_WARN, "big %s", giant);
    const char *end = content() + strlen(content());
    assert_int_equal(end[-1], '\n');
}

static void reopens(void **state)
{
    struct mr_error err;
    char moved[64];

    (void)state;
    snprintf(moved, sizeof(moved), "%s.1", path);
    assert_int_equal(rename(path, moved), 0);
    mr_log(MR_LOG_WARN, "to_the_old_file");
    assert_int_equal(mr_log_reopen(&err), MR_OK);
    mr_log(MR_LOG_WARN, "to_the_new_file");
    assert_non_null(strstr(content(), "to_the_new_file"));
    assert_null(strstr(content(), "to_the_old_file"));
    unlink(moved);
}

static void limits_each_site(void **state)
{
    unsigned lines = 0;

    (void)state;
    for (int i = 0; i < 1000; i++)
        mr_log_limited(MR_LOG_WARN, "flood");
    for (const char *p = content(); (p = strstr(p, "flood")) != NULL; p++)
        lines++;
    assert_in_range(lines, 1, 15); /* five per second; a new second may begin meanwhile */
    unlink(path);
}

/* An unread pipe costs lines but does not block; the next line reports how many. */
static void a_pipe_that_nobody_reads(void **state)
{
    static char text[1 << 20];
    char fifo[64];
    struct mr_error err;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    snprintf(fifo, sizeof(fifo), "/tmp/millrace-test-%d.fifo", (int)getpid());
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(mr_log_open(fifo, &err), MR_ESYS); /* at once */
    int reader = open(fifo, O_RDONLY | O_NONBLOCK);
    assert_int_equal(mr_log_open(fifo, &err), MR_OK);
    for (int i = 0; i < 10000; i++)
        mr_log(MR_LOG_WARN, "line=%d", i);
    assert_true(read(reader, text, sizeof(text)) > 0);
    mr_log(MR_LOG_WARN, "again");
    const ssize_t n = read(reader, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "log_lost lines="));
    assert_non_null(strstr(text, "again\n"));
    close(reader);
    mr_log(MR_LOG_WARN, "to nobody");
    reader = open(fifo, O_RDONLY | O_NONBLOCK);
    mr_log(MR_LOG_WARN, "to somebody");
    assert_true(read(reader, text, sizeof(text)) > 0);
    close(reader);
    unlink(fifo);
}

/* Lines that do not fit are lost; a partial line is ended before the next. */
static void a_full_disk(void **state)
{
    const struct rlimit small = {160, RLIM_INFINITY}, endless = {RLIM_INFINITY, RLIM_INFINITY};
    struct mr_error err;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(mr_log_open("/dev/full", &err), MR_OK);
    mr_log(MR_LOG_WARN, "lost");
    snprintf(path, sizeof(path), "/tmp/millrace-test-log-XXXXXX");
    close(mkstemp(path));
    assert_int_equal(mr_log_open(path, &err), MR_OK);
    setrlimit(RLIMIT_FSIZE, &small);
    mr_log(MR_LOG_WARN, "this line is torn by the limit of 160 bytes that a file may have: %s",
           "................................................................");
    mr_log(MR_LOG_WARN, "and this one is lost");
    setrlimit(RLIMIT_FSIZE, &endless);
    mr_log(MR_LOG_WARN, "whole");
    assert_non_null(strstr(content(), "log_lost lines=1 "));
    assert_non_null(strstr(content(), "log_lost lines=2 "));
    assert_null(strstr(content(), "and this one"));
    assert_non_null(strstr(content(), "] whole\n"));
    const char *torn = strstr(content(), "this line is torn");
    assert_non_null(torn);
    assert_ptr_equal(strstr(torn, "\n["), strchr(torn, '\n'));
    unlink(path);
}

RUN(T(writes_what_the_level_allows), T(peers_cannot_forge_lines), T(reopens), T(limits_each_site),
    T(a_pipe_that_nobody_reads), T(a_full_disk))
