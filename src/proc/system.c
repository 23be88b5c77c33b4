/* system.c - CPUs, resource limits, users and signals. */
#include "proc/system.h"

#include "core/log.h"
#include "core/number.h"

#include <errno.h>
#include <execinfo.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* ---- CPUs ---- */

static bool read_line(const char *path, char *line, size_t size)
{
    FILE *f = fopen(path, "re");

    if (f == NULL)
        return false;
    const bool ok = fgets(line, (int)size, f) != NULL;
    (void)fclose(f);
    return ok;
}

/* Number of CPUs that a cgroup directory allows, rounded up; 0 for no limit. */
static uint32_t quota_of(const char *dir)
{
    char path[4200], line[64];
    long long quota = -1, period = 100000;

    (void)snprintf(path, sizeof(path), "%s/cpu.max", dir); /* cgroup v2: "quota period" */
    if (read_line(path, line, sizeof(line))) {
        if (sscanf(line, "%lld %lld", &quota, &period) < 1)
            return 0; /* no limit */
    } else {
        (void)snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", dir); /* cgroup v1 */
        if (!read_line(path, line, sizeof(line)))
            return 0;
        quota = strtoll(line, NULL, 10);
        (void)snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", dir);
        if (read_line(path, line, sizeof(line)))
            period = strtoll(line, NULL, 10);
    }
    if (quota <= 0 || period <= 0)
        return 0;
    return (uint32_t)((quota + period - 1) / period);
}

/* The smallest quota from our cgroup up to the root. */
static uint32_t cgroup_quota(void)
{
    char line[4096], dir[4160];
    uint32_t best = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof(line), f) != NULL) {
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        const bool v2 = controllers[1] == '\0';
        if (!v2 && strstr(controllers + 1, "cpu") == NULL)
            continue;
        for (;;) {
            (void)snprintf(dir, sizeof(dir), "/sys/fs/cgroup%s%s", v2 ? "" : "/cpu", path);
            const uint32_t q = quota_of(dir);
            if (q > 0 && (best == 0 || q < best))
                best = q;
            char *slash = strrchr(path, '/');
            if (slash == NULL)
                break;
            *slash = '\0';
        }
    }
    (void)fclose(f);
    return best;
}

uint32_t mr_usable_cpus(void)
{
    cpu_set_t set;
    uint32_t n = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = (uint32_t)CPU_COUNT(&set);
    else if (sysconf(_SC_NPROCESSORS_ONLN) > 0)
        n = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    const uint32_t quota = cgroup_quota();
    if (quota > 0 && quota < n)
        n = quota;
    return n > 0 ? n : 1;
}

static bool next_number(const char **at, uint32_t *out)
{
    const size_t digits = strspn(*at, "0123456789");
    uint64_t v;

    if (!mr_parse_uint((struct mr_slice){*at, digits}, CPU_SETSIZE - 1, &v))
        return false;
    *at += digits;
    *out = (uint32_t)v;
    return true;
}

/* Parses a list such as `0,2,4-7`. */
static bool read_cpus(const char *at, cpu_set_t *set)
{
    uint32_t first, last;

    CPU_ZERO(set);
    for (;;) {
        at += strspn(at, " ");
        if (!next_number(&at, &first))
            return false;
        last = first;
        if (*at == '-' && (at++, !next_number(&at, &last) || last < first))
            return false;
        for (uint32_t cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, set);
        at += strspn(at, " ");
        if (*at == '\0')
            return true;
        at += *at == ','; /* blanks separate, too */
    }
}

enum mr_result mr_choose_cpus(const char *setting, uint16_t **cpus, uint32_t *n,
                              struct mr_error *err)
{
    cpu_set_t allowed, wanted;

    *cpus = NULL;
    *n = 0;
    if (strcmp(setting, "none") == 0)
        return MR_OK;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return mr_fail_sys(err, "worker_cpu_affinity: sched_getaffinity");
    if (strcmp(setting, "auto") == 0)
        wanted = allowed;
    else if (!read_cpus(setting, &wanted))
        return mr_fail(err, MR_ECONFIG,
                       "worker_cpu_affinity: \"%s\" is not known; allowed: none, auto, or a list "
                       "of CPUs such as 0,2,4-7",
                       setting);
    *cpus = calloc((size_t)CPU_COUNT(&wanted) + 1, sizeof(**cpus));
    MR_CHECK(*cpus != NULL);
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &wanted))
            continue;
        if (!CPU_ISSET(cpu, &allowed)) {
            free(*cpus);
            *cpus = NULL;
            return mr_fail(err, MR_ECONFIG,
                           "worker_cpu_affinity: CPU %u is not available to this process", cpu);
        }
        (*cpus)[(*n)++] = (uint16_t)cpu;
    }
    return MR_OK;
}

void mr_run_on_cpu(uint16_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        mr_log(MR_LOG_WARN, "affinity_failed cpu=%u error=\"%s\"", cpu, strerror(errno));
    else
        mr_log(MR_LOG_INFO, "affinity cpu=%u", cpu);
}

/* ---- limits ---- */

uint32_t mr_raise_openfiles(uint32_t wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024;
    if (limit.rlim_cur < wanted) {
        struct rlimit more = {wanted, limit.rlim_max < wanted ? wanted : limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &more) < 0) { /* only root may raise the hard limit */
            more =
                (struct rlimit){limit.rlim_max < wanted ? limit.rlim_max : wanted, limit.rlim_max};
            if (setrlimit(RLIMIT_NOFILE, &more) < 0)
                more = limit;
        }
        limit = more;
    }
    return limit.rlim_cur > UINT32_MAX ? UINT32_MAX : (uint32_t)limit.rlim_cur;
}

static int by_number(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

static void close_range_of(unsigned first, unsigned last)
{
    if (first > last || close_range(first, last, 0) == 0)
        return;
    const unsigned end = mr_raise_openfiles(0); /* Linux before 5.9 */
    for (unsigned fd = first; fd <= last && fd < end; fd++)
        (void)close((int)fd);
}

void mr_close_all_but(int *keep, uint32_t n)
{
    unsigned next = 0;

    qsort(keep, n, sizeof(*keep), by_number);
    for (uint32_t i = 0; i < n; i++) {
        if (keep[i] < (int)next)
            continue; /* unused, or listed twice */
        if (keep[i] > (int)next)
            close_range_of(next, (unsigned)keep[i] - 1);
        next = (unsigned)keep[i] + 1;
    }
    close_range_of(next, UINT_MAX);
}

/* ---- users ---- */

static enum mr_result find_ids(const char *user, const char *group, uid_t *uid, gid_t *gid,
                               struct mr_error *err)
{
    errno = 0;
    const struct passwd *pw = getpwnam(user);
    if (pw == NULL)
        return mr_fail(err, MR_ECONFIG, "user '%s' does not exist", user);
    *uid = pw->pw_uid;
    *gid = pw->pw_gid;
    if (group == NULL)
        return MR_OK;
    const struct group *gr = getgrnam(group);
    if (gr == NULL)
        return mr_fail(err, MR_ECONFIG, "group '%s' does not exist", group);
    *gid = gr->gr_gid;
    return MR_OK;
}

enum mr_result mr_check_user(const char *user, const char *group, struct mr_error *err)
{
    uid_t uid;
    gid_t gid;

    if (user == NULL)
        return group == NULL ? MR_OK
                             : mr_fail(err, MR_ECONFIG, "\"group\" is given without \"user\"");
    return find_ids(user, group, &uid, &gid, err);
}

enum mr_result mr_become_user(const char *user, const char *group, struct mr_error *err)
{
    uid_t uid = 0;
    gid_t gid = 0;

    if (user == NULL || geteuid() != 0)
        return MR_OK;
    const enum mr_result rc = find_ids(user, group, &uid, &gid, err);
    if (rc != MR_OK)
        return rc;
    if (setgid(gid) < 0)
        return mr_fail_sys(err, "setgid for '%s'", user);
    if (initgroups(user, gid) < 0)
        return mr_fail_sys(err, "initgroups for '%s'", user);
    if (setuid(uid) < 0)
        return mr_fail_sys(err, "setuid to '%s'", user);
    return MR_OK;
}

/* ---- signals ---- */

static const int WAITED_FOR[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,
                                 SIGUSR2, SIGTTIN, SIGTTOU, SIGCHLD};

static sigset_t waited_for(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < MR_COUNT(WAITED_FOR); i++)
        (void)sigaddset(&set, WAITED_FOR[i]);
    return set;
}

void mr_block_signals(void)
{
    const sigset_t set = waited_for();

    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

void mr_settle_signals(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)signal(SIGCHLD, SIG_DFL);
}

int mr_signal_fd(void)
{
    const sigset_t set = waited_for();

    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int mr_next_signal(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

/* Only async-signal-safe calls: write, backtrace (warmed up), raise. */
static void crashed(int signo)
{
    char text[64] = "crash signal=";
    void *frames[32];
    size_t n = strlen(text);

    if (signo >= 10)
        text[n++] = (char)('0' + signo / 10);
    text[n++] = (char)('0' + signo % 10);
    text[n++] = '\n';
    const ssize_t written = write(mr_log_fd(), text, n);
    (void)written;
    backtrace_symbols_fd(frames, backtrace(frames, (int)MR_COUNT(frames)), mr_log_fd());
    (void)raise(signo); /* SA_RESETHAND has restored the default action */
}

void mr_catch_crashes(void)
{
#ifdef __SANITIZE_ADDRESS__
    return; /* the sanitizer reports more */
#endif
    static const int FATAL[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction action = {.sa_handler = crashed, .sa_flags = (int)SA_RESETHAND};
    void *warm[1];

    (void)backtrace(warm, 1); /* loads libgcc now, because the first call allocates */
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < MR_COUNT(FATAL); i++)
        (void)sigaction(FATAL[i], &action, NULL);
}
