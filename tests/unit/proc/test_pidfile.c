/* test_pidfile.c - the lock, the content, and what a second instance may not do. */
#include "proc/pidfile.h"
#include "unit/test.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

static void locks_writes_and_removes(void **state)
{
    char path[64], want[24], got[24] = "";
    struct mr_pidfile f, second;
    struct mr_error err;
    pid_t pid;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/millrace-test-%d.pid", (int)getpid());
    assert_int_equal(mr_pidfile_lock(&f, path, &err), MR_OK);
    assert_int_equal(mr_pidfile_write(&f, &err), MR_OK);
    snprintf(want, sizeof(want), "%d", (int)getpid());
    const int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, got, sizeof(got) - 1), strlen(want)); /* no newline */
    close(fd);
    assert_string_equal(got, want);
    assert_int_equal(mr_pidfile_read(path, &pid, &err), MR_OK);
    assert_int_equal(pid, getpid());
    assert_int_equal(mr_pidfile_lock(&second, path, &err), MR_ESYS);
    assert_non_null(strstr(err.text, want));
    mr_pidfile_remove(&second); /* it never had the file */
    assert_int_equal(access(path, F_OK), 0);
    mr_pidfile_remove(&f);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void a_stale_file_is_taken_over(void **state)
{
    char path[64];
    struct mr_pidfile f;
    struct mr_error err;
    pid_t pid;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/millrace-test-%d.pid", (int)getpid());
    FILE *old = fopen(path, "w");
    fputs("99999999\n", old);
    fclose(old);
    assert_int_equal(mr_pidfile_lock(&f, path, &err), MR_OK);
    assert_int_equal(mr_pidfile_write(&f, &err), MR_OK);
    assert_int_equal(mr_pidfile_read(path, &pid, &err), MR_OK);
    assert_int_equal(pid, getpid());
    mr_pidfile_remove(&f);
    assert_int_equal(mr_pidfile_read(path, &pid, &err), MR_ESYS);
}

static void no_file_no_harm(void **state)
{
    struct mr_pidfile f;
    struct mr_error err;

    (void)state;
    assert_int_equal(mr_pidfile_lock(&f, NULL, &err), MR_OK);
    assert_int_equal(mr_pidfile_write(&f, &err), MR_OK);
    mr_pidfile_remove(&f);
    assert_int_equal(mr_pidfile_lock(&f, "/nonexistent/x.pid", &err), MR_ESYS);
}

RUN(T(locks_writes_and_removes), T(a_stale_file_is_taken_over), T(no_file_no_harm))
