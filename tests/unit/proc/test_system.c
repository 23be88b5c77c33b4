/* test_system.c - CPUs, limits and users. */
#include "proc/system.h"
#include "unit/test.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void cpus_follow_the_affinity_mask(void **state)
{
    cpu_set_t before, one;
    size_t cpu = 0;

    (void)state;
    assert_true(mr_usable_cpus() >= 1);
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(mr_usable_cpus(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

static void open_files_are_raised_never_lowered(void **state)
{
    struct rlimit limit, now;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 200;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(mr_raise_openfiles(300), 300);
    assert_int_equal(mr_raise_openfiles(100), 300);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(now.rlim_cur, 300);
    assert_true(now.rlim_max >= 300);
}

static int open_null(void)
{
    const int fd = open("/dev/null", O_RDONLY);

    assert_true(fd >= 0);
    return fd;
}

/* In a child process, which may lose its descriptors. */
static void a_child_keeps_what_it_names(void **state)
{
    int status;

    (void)state;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const int a = open_null(), b = open_null(), far = fcntl(a, F_DUPFD, 900);
        int keep[] = {far, -1, 2, a, a, -1};
        mr_close_all_but(keep, MR_COUNT(keep));
        const bool kept =
            fcntl(2, F_GETFD) >= 0 && fcntl(a, F_GETFD) >= 0 && fcntl(far, F_GETFD) >= 0;
        bool others = false;
        for (int fd = 0; fd < 2000; fd++)
            others |= fd != 2 && fd != a && fd != far && fcntl(fd, F_GETFD) >= 0;
        _exit(kept && !others && b != a ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void users_must_exist(void **state)
{
    struct mr_error err;

    (void)state;
    assert_int_equal(mr_check_user(NULL, NULL, &err), MR_OK);
    assert_int_equal(mr_check_user("nobody", NULL, &err), MR_OK);
    assert_int_equal(mr_check_user("nobody", "nogroup", &err), MR_OK);
    assert_int_equal(mr_check_user("no-such-user", NULL, &err), MR_ECONFIG);
    assert_int_equal(mr_check_user("nobody", "no-such-group", &err), MR_ECONFIG);
    assert_int_equal(mr_check_user(NULL, "nogroup", &err), MR_ECONFIG);
    assert_int_equal(mr_become_user(NULL, NULL, &err), MR_OK);
}

RUN(T(a_child_keeps_what_it_names), T(cpus_follow_the_affinity_mask),
    T(open_files_are_raised_never_lowered), T(users_must_exist))
