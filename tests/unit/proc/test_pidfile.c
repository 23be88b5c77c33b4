/* test_pidfile.c - the lock, the content, and what a second instance must not do. */
#include "proc/pidfile.h"
#include "unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <sys/resource.h>
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
    assert_int_equal(mr_pidfile_write(&f, getpid(), &err), MR_OK);
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
    assert_int_equal(mr_pidfile_write(&f, getpid(), &err), MR_OK);
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
    assert_int_equal(mr_pidfile_write(&f, getpid(), &err), MR_OK);
    mr_pidfile_remove(&f);
    assert_int_equal(mr_pidfile_lock(&f, "/nonexistent/x.pid", &err), MR_ESYS);
}

/* The path is copied. A file that somebody else put there stays. */
static void only_its_own_file_is_removed(void **state)
{
    char path[64], borrowed[64];
    struct mr_pidfile f;
    struct mr_error err;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/millrace-test-%d.pid", (int)getpid());
    snprintf(borrowed, sizeof(borrowed), "%s", path);
    assert_int_equal(mr_pidfile_lock(&f, borrowed, &err), MR_OK);
    memset(borrowed, 'x', sizeof(borrowed) - 1);
    mr_pidfile_remove(&f);
    assert_int_not_equal(access(path, F_OK), 0);

    assert_int_equal(mr_pidfile_lock(&f, path, &err), MR_OK);
    assert_int_equal(unlink(path), 0);
    close(open(path, O_CREAT | O_WRONLY, 0644));
    mr_pidfile_remove(&f);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
}

static void only_regular_files(void **state)
{
    char path[64];
    struct mr_pidfile f;
    struct mr_error err;
    pid_t pid;

    (void)state;
    assert_int_equal(mr_pidfile_lock(&f, "/dev/null", &err), MR_ESYS);
    assert_non_null(strstr(err.text, "not a regular file"));
    mr_pidfile_remove(&f);
    assert_int_equal(access("/dev/null", F_OK), 0);
    snprintf(path, sizeof(path), "/tmp/millrace-test-%d.pid", (int)getpid());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(mr_pidfile_lock(&f, path, &err), MR_ESYS); /* and does not hang */
    assert_int_equal(mr_pidfile_read(path, &pid, &err), MR_ECONFIG);
    unlink(path);
}

static void moves(void **state)
{
    char one[64], two[64];
    struct mr_pidfile f, other;
    struct mr_error err;
    pid_t pid;

    (void)state;
    snprintf(one, sizeof(one), "/tmp/millrace-test-%d-1.pid", (int)getpid());
    snprintf(two, sizeof(two), "/tmp/millrace-test-%d-2.pid", (int)getpid());
    assert_int_equal(mr_pidfile_lock(&f, NULL, &err), MR_OK);
    assert_int_equal(mr_pidfile_move(&f, NULL, &err), MR_OK);
    assert_int_equal(mr_pidfile_move(&f, one, &err), MR_OK);
    assert_int_equal(mr_pidfile_read(one, &pid, &err), MR_OK);
    assert_int_equal(mr_pidfile_lock(&other, two, &err), MR_OK);
    assert_int_equal(mr_pidfile_move(&f, two, &err), MR_ESYS); /* belongs to somebody else */
    assert_int_equal(access(one, F_OK) | access(two, F_OK), 0);
    assert_string_equal(f.path, one);
    mr_pidfile_remove(&other);
    assert_int_equal(mr_pidfile_move(&f, two, &err), MR_OK);
    assert_int_not_equal(access(one, F_OK), 0);
    assert_int_equal(mr_pidfile_read(two, &pid, &err), MR_OK);
    assert_int_equal(pid, getpid());
    assert_int_equal(mr_pidfile_move(&f, NULL, &err), MR_OK);
    assert_int_not_equal(access(two, F_OK), 0);
    assert_null(f.path);
}

static void a_full_disk_leaves_what_was_there(void **state)
{
    char path[64];
    struct mr_pidfile f;
    struct mr_error err;
    struct rlimit before, full;
    struct stat st;
    pid_t pid;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/millrace-test-%d.pid", (int)getpid());
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(mr_pidfile_lock(&f, path, &err), MR_OK);
    assert_int_equal(mr_pidfile_write(&f, 123456, &err), MR_OK);
    assert_int_equal(mr_pidfile_write(&f, 99, &err), MR_OK); /* a shorter one */
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 2);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    full = (struct rlimit){0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    const enum mr_result rc = mr_pidfile_write(&f, 123456, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, MR_ESYS);
    assert_int_equal(mr_pidfile_read(path, &pid, &err), MR_OK);
    assert_int_equal(pid, 99);
    mr_pidfile_remove(&f);
}

/* Whoever holds the lock holds it on the file at the path, although others remove theirs. */
static void the_lock_is_of_the_file_at_the_path(void **state)
{
    enum { PROCESSES = 3, ROUNDS = 3000 };
    char path[64];
    int wrong = 0;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/millrace-test-%d.pid", (int)getpid());
    for (int i = 0; i < PROCESSES; i++) {
        if (fork() != 0)
            continue;
        for (int n = 0; n < ROUNDS && wrong == 0; n++) {
            struct mr_pidfile f;
            struct mr_error err;
            struct stat mine, named;
            if (mr_pidfile_lock(&f, path, &err) != MR_OK)
                continue;
            wrong +=
                fstat(f.fd, &mine) < 0 || stat(path, &named) < 0 || mine.st_ino != named.st_ino;
            mr_pidfile_remove(&f);
        }
        _exit(wrong);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_true(wait(&status) > 0);
        wrong += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    unlink(path);
    assert_int_equal(wrong, 0);
}

RUN(T(locks_writes_and_removes), T(a_stale_file_is_taken_over), T(no_file_no_harm),
    T(only_its_own_file_is_removed), T(only_regular_files), T(moves),
    T(a_full_disk_leaves_what_was_there), T(the_lock_is_of_the_file_at_the_path))
