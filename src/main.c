/* main.c - starts the program: options, configuration, sockets, then processes. */
#include "admin/admin.h"
#include "config/diff.h"
#include "copy/copy.h"
#include "core/log.h"
#include "core/number.h"
#include "core/version.h"
#include "proc/about.h"
#include "proc/channel.h"
#include "proc/daemon.h"
#include "proc/files.h"
#include "proc/generation.h"
#include "proc/master.h"
#include "proc/notify.h"
#include "proc/options.h"
#include "proc/pidfile.h"
#include "proc/process.h"
#include "proc/resolver.h"
#include "proc/system.h"
#include "proc/upgrade.h"
#include "proc/worker.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <unistd.h>

struct start {
    struct mr_options options;
    const char *conf_file;
    struct mr_generation generation;
    struct mr_pidfile pidfile;
    struct mr_inheritance inheritance; /* from the process that this one replaces */
    bool borrowed;                     /* files on disk still belong to that process */
    char exe[4096];
    char **argv;
    int notify; /* reports the start in the background; -1 in the foreground */
};

static const struct mr_admin_hook ADMIN = {mr_admin_attach, mr_admin_finish, mr_admin_detach};

static int complain(const struct mr_error *err)
{
    (void)fprintf(stderr, "millrace: %s\n", err->text);
    return 1;
}

static const char *default_conf_file(void)
{
    static const char *const PLACES[] = {"conf/nutcracker.yml", "/etc/millrace/millrace.yml",
                                         "/etc/nutcracker/nutcracker.yml"};

    for (size_t i = 0; i < MR_COUNT(PLACES); i++)
        if (access(PLACES[i], F_OK) == 0)
            return PLACES[i];
    return PLACES[0];
}

static void print_line(void *arg, const char *text)
{
    uint32_t *n = arg;

    (*n)++;
    (void)printf("%s\n", text);
}

/* Prints the effects of a change from another file to this one. */
static int print_diff(const struct start *s)
{
    struct mr_config *old;
    struct mr_error err;
    uint32_t n = 0;

    if (mr_config_load(&old, s->options.diff_file, MR_KEY_BYTES_DEFAULT, NULL, &err) != MR_OK)
        return complain(&err);
    mr_config_diff(s->generation.config, old, print_line, &n);
    if (n == 0)
        (void)puts("no changes to keys, pools or listeners");
    mr_config_free(old);
    return 0;
}

/* Prints all errors and warnings, or why the file cannot be read. */
static void print_findings(const struct mr_findings *found, const struct mr_error *err,
                           enum mr_result rc)
{
    for (uint32_t i = 0; i < found->n; i++)
        (void)fprintf(stderr, "millrace: %s%s\n",
                      found->list[i].error ? "" : "warning: ", found->list[i].text);
    if (rc != MR_OK && found->n_errors == 0)
        (void)complain(err);
}

static int test_conf(struct start *s)
{
    struct mr_generation *g = &s->generation;
    struct mr_error err;
    const enum mr_result rc = mr_generation_load(g, &s->options, s->conf_file, &err);

    print_findings(&g->findings, &err, rc);
    (void)fprintf(stderr, "millrace: configuration file '%s' syntax is %s\n", s->conf_file,
                  rc == MR_OK ? "ok" : "invalid");
    int status = rc == MR_OK ? 0 : 1;
    if (rc == MR_OK && s->options.diff_file != NULL)
        status = print_diff(s);
    if (rc == MR_OK)
        mr_generation_close(g, NULL);
    mr_findings_fini(&g->findings);
    return status;
}

/* Meitu's -k. Accepts any prefix of a word, even an empty one, in this order. */
static int send_signal(const struct start *s)
{
    static const struct {
        const char *word;
        int signo;
    } WORDS[] = {{"reload", SIGHUP},
                 {"reopen", SIGUSR1},
                 {"stop", SIGTERM},
                 {"shutdown", SIGTERM},
                 {"upgrade", SIGUSR2}};
    const char *word = s->options.kill_word;
    const char *path = s->options.pid_file;
    struct mr_config *config = NULL;
    struct mr_error err;
    pid_t pid;
    int status = 1;

    if (path == NULL) { /* it may be in the configuration */
        if (mr_config_load(&config, s->conf_file, MR_KEY_BYTES_DEFAULT, NULL, &err) != MR_OK)
            return complain(&err);
        path = config->pid_file;
    }
    if (path == NULL) {
        (void)fputs("millrace: option -k needs a pid file: use -p, or set pid_file in the "
                    "configuration\n",
                    stderr);
        goto free_config;
    }
    if (mr_pidfile_read(path, &pid, &err) != MR_OK) {
        (void)complain(&err);
        goto free_config;
    }
    for (size_t i = 0; i < MR_COUNT(WORDS); i++)
        if (strncmp(WORDS[i].word, word, strlen(word)) == 0) {
            status = kill(pid, WORDS[i].signo) == 0 ? 0 : 1;
            if (status != 0)
                (void)fprintf(stderr, "millrace: signal to process %d: %s\n", (int)pid,
                              strerror(errno));
            goto free_config;
        }
    (void)fprintf(stderr,
                  "millrace: option -k takes reload, reopen, stop, shutdown or upgrade, not '%s'\n",
                  word);
free_config:
    mr_config_free(config);
    return status;
}

static bool replaces(const struct start *s)
{
    return s->inheritance.link >= 0;
}

/* The previous process's pid file stays in place until this process serves. */
static enum mr_result take_pidfile(struct start *s, struct mr_error *err)
{
    const char *path;

    if (s->inheritance.pidfile < 0)
        return mr_pidfile_lock(&s->pidfile, mr_files_pid(&s->options, s->generation.config), err);
    path = mr_files_pid(&s->options, s->inheritance.previous.config);
    mr_pidfile_adopt(&s->pidfile, path != NULL ? path : "", s->inheritance.pidfile);
    return MR_OK;
}

/* Does everything that may fail while the terminal can still show errors. */
static enum mr_result prepare(struct start *s, struct mr_error *err)
{
    const struct mr_config *config = s->generation.config;
    enum mr_result rc = mr_files_open_log(&s->options, config, err);

    if (rc == MR_OK)
        rc = take_pidfile(s, err);
    if (rc != MR_OK)
        return rc;
    return mr_generation_open(&s->generation, &s->options,
                              replaces(s) ? &s->inheritance.previous : NULL, err);
}

/* Receives what the previous process passes on, if there is one. */
static enum mr_result inherit(struct start *s, struct mr_error *err)
{
    const char *number = getenv(MR_UPGRADE_ENV);
    uint64_t fd;

    s->inheritance.link = -1;
    s->inheritance.pidfile = -1;
    if (number == NULL)
        return MR_OK;
    const bool valid = mr_parse_uint(mr_slice_of(number), INT_MAX, &fd);
    (void)unsetenv(MR_UPGRADE_ENV);
    if (!valid)
        return mr_fail(err, MR_ECONFIG, MR_UPGRADE_ENV " is reserved for the program itself");
    s->borrowed = true;
    return mr_inheritance_receive(&s->inheritance, (int)fd, err);
}

static void log_start(const struct start *s)
{
    const struct mr_generation *g = &s->generation;
    struct utsname u;

    if (uname(&u) < 0)
        memset(&u, 0, sizeof(u));
    mr_log(MR_LOG_NOTICE, "starting version=%s system=\"%s %s %s\" pid=%d conf=%s engine=%s",
           MR_VERSION, u.sysname, u.release, u.machine, (int)getpid(), s->conf_file,
           g->runtime.engine);
    if (g->engine_error.text[0] != '\0')
        mr_log(MR_LOG_NOTICE, "engine_fallback engine=%s reason=\"%s\"", g->runtime.engine,
               g->engine_error.text);
    mr_generation_log_findings(g);
}

static void on_ready(void *arg)
{
    struct start *s = arg;
    const char *path = mr_files_pid(&s->options, s->generation.config);
    struct mr_error err;

    s->borrowed = false;
    if (mr_pidfile_write(&s->pidfile, getpid(), &err) != MR_OK ||
        mr_pidfile_move(&s->pidfile, path, &err) != MR_OK)
        mr_log(MR_LOG_ERR, "pid_file_failed error=\"%s\"", err.text);
    if (s->notify >= 0)
        mr_daemon_started(s->notify);
    s->notify = -1;
}

static void on_handed_over(void *arg)
{
    struct start *s = arg;

    mr_pidfile_forget(&s->pidfile);
}

static void in_child(void *arg)
{
    struct start *s = arg;

    mr_pidfile_forget(&s->pidfile);
    if (s->notify >= 0)
        mr_daemon_forget(s->notify);
    s->notify = -1;
}

/* A single process also needs a resolver for host names. It dies with us. */
static int start_lone_resolver(void *arg)
{
    struct start *s = arg;
    struct mr_generation *g = &s->generation;
    struct mr_error err;
    const pid_t parent = getpid();
    int ends[2];

    if (!mr_resolver_needed(g->config))
        return -1;
    if (mr_channel_open(ends, &err) != MR_OK) {
        mr_log(MR_LOG_ERR, "resolver_failed error=\"%s\"", err.text);
        return -1;
    }
    if (fork() == 0) {
        in_child(s); /* may change the log's descriptor */
        int keep[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, mr_log_fd(), ends[1]};
        mr_close_all_but(keep, MR_COUNT(keep));
        mr_log_set_role("resolver");
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        exit(mr_resolver_run(&g->runtime, ends[1]));
    }
    (void)close(ends[1]);
    return ends[0];
}

static void alone_is_ready(void *arg)
{
    const struct start *s = arg;

    mr_generation_log_started(&s->generation);
    on_ready(arg);
}

static int serve_alone(struct start *s)
{
    struct mr_generation *g = &s->generation;
    struct mr_error err;

    if (mr_become_user(g->config->user, g->config->group, &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "user_failed error=\"%s\"", err.text);
        return 1;
    }
    const struct mr_worker_setup setup = {.runtime = &g->runtime,
                                          .listen_fds = g->listeners.fds,
                                          .channel = start_lone_resolver(s),
                                          .start_resolver = start_lone_resolver,
                                          .admin = ADMIN,
                                          .on_ready = alone_is_ready,
                                          .arg = s};
    const int status = mr_worker_run(&setup);
    mr_generation_close(g, NULL);
    return status;
}

static int serve(struct start *s)
{
    mr_notify_init();
    mr_catch_crashes();
    if (s->generation.runtime.single)
        return serve_alone(s);
    mr_log_set_role("master");
    const struct mr_master_setup setup = {.generation = &s->generation,
                                          .options = &s->options,
                                          .conf_file = s->conf_file,
                                          .exe = s->exe,
                                          .argv = s->argv,
                                          .pidfile = &s->pidfile,
                                          .inheritance = &s->inheritance,
                                          .admin = ADMIN,
                                          .on_ready = on_ready,
                                          .on_handed_over = on_handed_over,
                                          .in_child = in_child,
                                          .arg = s};
    return mr_master_run(&setup);
}

/* From here on signals are blocked and queued, because the pid becomes known. */
static enum mr_result tell_pid(struct start *s, struct mr_error *err)
{
    mr_block_signals();
    return replaces(s) ? MR_OK : mr_pidfile_write(&s->pidfile, getpid(), err);
}

static int run(struct start *s)
{
    struct mr_error err;
    int status = 1;

    s->notify = -1;
    const enum mr_result rc = mr_generation_load(&s->generation, &s->options, s->conf_file, &err);
    if (rc != MR_OK) {
        print_findings(&s->generation.findings, &err, rc);
        mr_findings_fini(&s->generation.findings);
        return 1;
    }
    if (inherit(s, &err) != MR_OK || prepare(s, &err) != MR_OK ||
        (s->options.daemonize && !replaces(s) && mr_daemonize(&s->notify, &err) != MR_OK) ||
        tell_pid(s, &err) != MR_OK) {
        status = complain(&err);
        mr_generation_close(&s->generation, replaces(s) ? &s->inheritance.previous : NULL);
        if (replaces(s))
            mr_log(MR_LOG_EMERG, "start_failed error=\"%s\"", err.text);
    } else {
        log_start(s);
        status = serve(s);
    }
    if (s->borrowed && s->inheritance.pidfile >= 0)
        mr_pidfile_forget(&s->pidfile);
    else
        mr_pidfile_remove(&s->pidfile);
    return status;
}

int main(int argc, char **argv)
{
    static struct start s;
    struct mr_error err;

    mr_hold_standard_descriptors();
    if (argc > 1 && strcmp(argv[1], "copy") == 0)
        return mr_copy_main(argc - 1, argv + 1, default_conf_file());
    mr_settle_signals();
    if (mr_options_parse(&s.options, argc, argv, &err) != MR_OK) {
        (void)fprintf(stderr, "millrace: %s\n", err.text);
        mr_options_print_usage();
        return 1;
    }
    s.conf_file = s.options.conf_file != NULL ? s.options.conf_file : default_conf_file();
    s.pidfile.fd = -1;
    s.argv = argv;
    if (readlink("/proc/self/exe", s.exe, sizeof(s.exe) - 1) < 0)
        (void)snprintf(s.exe, sizeof(s.exe), "%s", argv[0]);
    if (s.options.kill_word != NULL)
        return send_signal(&s);
    if (s.options.version || s.options.help || s.options.describe_stats) {
        mr_about_print_name();
        if (s.options.version)
            mr_about_print_build();
        if (s.options.help)
            mr_options_print_usage();
        if (s.options.describe_stats)
            mr_options_print_stats();
        return 0;
    }
    if (s.options.test_conf)
        return test_conf(&s);
    return run(&s);
}
