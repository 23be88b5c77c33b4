/* main.c - the order of a start: options, configuration, sockets, then the processes. */
#include "admin/stats_port.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/version.h"
#include "net/listener.h"
#include "net/loop.h"
#include "proc/daemon.h"
#include "proc/master.h"
#include "proc/options.h"
#include "proc/pidfile.h"
#include "proc/process.h"
#include "proc/resolver.h"
#include "proc/system.h"
#include "proc/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MBUF_HEADER   48u /* of twemproxy's chunks: what a key cannot use of them */
#define SPARE_FDS     32u /* for the log, the channel, the engine and the like */
#define STATS_BACKLOG 128

struct start {
    struct mr_options options;
    const char *conf_file;
    struct mr_config *config;
    struct mr_pidfile pidfile;
    struct mr_listeners listeners;
    struct mr_runtime runtime;
    int notify;                   /* of the background start, -1 in the foreground */
    struct mr_error engine_error; /* why `engine: auto` is not io_uring, where it is not */
};

static const struct mr_stats_hook STATS = {mr_stats_port_attach, mr_stats_port_detach};

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

static enum mr_result load(struct start *s, struct mr_error *err)
{
    enum mr_result rc =
        mr_config_load(&s->config, s->conf_file, s->options.mbuf_size - MBUF_HEADER, err);

    if (rc == MR_OK)
        rc = mr_check_user(s->config->user, s->config->group, err);
    if (rc != MR_OK)
        mr_error_prefix(err, "conf");
    return rc;
}

static enum mr_result choose_engine(struct start *s, struct mr_error *err)
{
    const char *setting = s->options.engine != NULL ? s->options.engine : s->config->engine;

    s->runtime.engine_auto = strcmp(setting, "auto") == 0;
    s->runtime.engine = mr_loop_choose_engine(setting, &s->engine_error);
    if (s->runtime.engine != NULL)
        return MR_OK;
    *err = s->engine_error;
    mr_error_prefix(err, "engine");
    return MR_ECONFIG;
}

static int test_conf(struct start *s)
{
    struct mr_error err;
    enum mr_result rc = load(s, &err);

    if (rc == MR_OK)
        rc = choose_engine(s, &err);
    if (rc != MR_OK)
        (void)fprintf(stderr, "millrace: %s\n", err.text);
    for (uint32_t i = 0; rc == MR_OK && i < s->config->n_warnings; i++)
        (void)fprintf(stderr, "millrace: warning: %s\n", s->config->warnings[i]);
    (void)fprintf(stderr, "millrace: configuration file '%s' syntax is %s\n", s->conf_file,
                  rc == MR_OK ? "ok" : "invalid");
    mr_config_free(s->config);
    return rc == MR_OK ? 0 : 1;
}

/* Meitu's -k: any prefix of a word, the empty one too, in this order. */
static int send_signal(const struct start *s)
{
    static const struct {
        const char *word;
        int signo;
    } WORDS[] = {{"reload", SIGHUP}, {"reopen", SIGUSR1}, {"stop", SIGTERM}, {"shutdown", SIGTERM}};
    const char *word = s->options.kill_word;
    const char *path = s->options.pid_file;
    struct mr_config *config = NULL;
    struct mr_error err;
    pid_t pid;
    int status = 1;

    if (path == NULL) { /* it may stand in the configuration */
        if (mr_config_load(&config, s->conf_file, MR_KEY_BYTES_DEFAULT, &err) != MR_OK)
            return complain(&err);
        path = config->pid_file;
    }
    if (path == NULL) {
        (void)fputs("millrace: option -k needs a pid file: give -p, or pid_file in the "
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
    (void)fprintf(stderr, "millrace: option -k knows reload, reopen, stop and shutdown, not '%s'\n",
                  word);
free_config:
    mr_config_free(config);
    return status;
}

static enum mr_result open_stats(struct start *s, struct mr_error *err)
{
    const char *host =
        s->options.stats_addr != NULL ? s->options.stats_addr : s->config->stats_addr;
    const uint32_t port =
        s->options.stats_port != 0 ? s->options.stats_port : s->config->stats_port;
    const struct mr_listen_options options = {.backlog = STATS_BACKLOG};
    struct mr_addr addr;

    enum mr_result rc = mr_addr_resolve(&addr, mr_slice_of(host), (uint16_t)port, err);
    if (rc == MR_OK)
        rc = mr_listen(&s->runtime.stats_fd, &addr, &options, err);
    if (rc != MR_OK)
        mr_error_prefix(err, "statistics port");
    return rc;
}

static uint32_t worker_count(const struct start *s)
{
    const uint32_t configured = s->config->worker_processes;

    if (s->options.workers >= 0 && s->options.workers < MR_AUTO)
        return (uint32_t)s->options.workers;
    if (s->options.workers < 0 && configured != MR_AUTO)
        return configured;
    return mr_usable_cpus();
}

/* What is left for clients of each worker's descriptors. */
static enum mr_result budget(struct start *s, struct mr_error *err)
{
    const uint32_t limit = mr_raise_openfiles(s->config->max_openfiles);
    uint64_t own = SPARE_FDS;

    for (uint32_t i = 0; i < s->config->n_pools; i++)
        own += (uint64_t)s->config->pools[i].servers.n * s->config->pools[i].server_connections +
               s->config->pools[i].listens.n;
    /* the master holds every worker's listeners and channel */
    const uint64_t master = SPARE_FDS + (uint64_t)s->runtime.n_slots * (s->listeners.n + 2);
    if (limit <= own || limit <= master)
        return mr_fail(err, MR_ELIMIT,
                       "the limit of open files (%u) is too low: servers, listeners and spare need "
                       "%llu; raise it with ulimit -n or max_openfiles",
                       limit, (unsigned long long)(own > master ? own : master));
    s->runtime.max_clients = (uint32_t)(limit - own);
    return MR_OK;
}

static enum mr_result open_slots(struct start *s, struct mr_error *err)
{
    struct mr_runtime *rt = &s->runtime;
    const uint32_t workers = worker_count(s);
    enum mr_result rc = MR_OK;

    rt->config = s->config;
    rt->single = workers == 0;
    rt->n_slots = workers == 0 ? 1 : workers;
    rt->started_us = mr_clock_wall_us();
    rt->addresses = calloc(s->config->n_servers + 1, sizeof(*rt->addresses));
    rt->slots = calloc(rt->n_slots, sizeof(*rt->slots));
    MR_CHECK(rt->addresses != NULL && rt->slots != NULL);
    for (uint32_t i = 0; i < rt->n_slots && rc == MR_OK; i++)
        rc = mr_metrics_open(&rt->slots[i], s->config->n_pools, s->config->n_servers, err);
    return rc;
}

/* Everything that can fail, while the terminal is still there to hear of it. */
static enum mr_result prepare(struct start *s, struct mr_error *err)
{
    const char *log_file = s->options.log_file != NULL ? s->options.log_file : s->config->log_file;
    const char *pid_file = s->options.pid_file != NULL ? s->options.pid_file : s->config->pid_file;
    enum mr_result rc;

    mr_log_set_level(s->options.log_level >= 0 ? s->options.log_level : (int)s->config->log_level);
    if ((rc = mr_log_open(log_file, err)) != MR_OK ||
        (rc = mr_pidfile_lock(&s->pidfile, pid_file, err)) != MR_OK ||
        (rc = choose_engine(s, err)) != MR_OK || (rc = open_slots(s, err)) != MR_OK)
        return rc;
    (void)mr_raise_openfiles(s->config->max_openfiles);
    if ((rc = open_stats(s, err)) != MR_OK ||
        (rc = mr_listeners_open(&s->listeners, s->config, s->runtime.n_slots, err)) != MR_OK)
        return rc;
    return budget(s, err);
}

static void log_start(const struct start *s)
{
    struct utsname u;

    if (uname(&u) < 0)
        memset(&u, 0, sizeof(u));
    mr_log(MR_LOG_NOTICE, "starting version=%s system=\"%s %s %s\" pid=%d conf=%s engine=%s",
           MR_VERSION, u.sysname, u.release, u.machine, (int)getpid(), s->conf_file,
           s->runtime.engine);
    if (s->engine_error.text[0] != '\0')
        mr_log(MR_LOG_NOTICE, "engine_fallback engine=%s reason=\"%s\"", s->runtime.engine,
               s->engine_error.text);
    for (uint32_t i = 0; i < s->config->n_warnings; i++)
        mr_log(MR_LOG_WARN, "conf_warning text=\"%s\"", s->config->warnings[i]);
}

static void on_ready(void *arg)
{
    struct start *s = arg;

    if (s->notify >= 0)
        mr_daemon_started(s->notify);
    s->notify = -1;
}

static void in_child(void *arg)
{
    struct start *s = arg;

    mr_pidfile_forget(&s->pidfile);
    if (s->notify >= 0)
        mr_daemon_forget(s->notify);
    s->notify = -1;
}

/* A single process has a helper all the same when names must be resolved; it dies with us. */
static int start_lone_resolver(struct start *s)
{
    struct mr_error err;
    const pid_t parent = getpid();
    int ends[2];

    if (!mr_resolver_needed(s->config))
        return -1;
    if (mr_channel_open(ends, &err) != MR_OK) {
        mr_log(MR_LOG_ERR, "resolver_failed error=\"%s\"", err.text);
        return -1;
    }
    if (fork() == 0) {
        (void)close(ends[0]);
        in_child(s);
        mr_listeners_keep_slot(&s->listeners, UINT32_MAX);
        (void)close(s->runtime.stats_fd);
        mr_log_set_role("resolver");
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        exit(mr_resolver_run(s->config, ends[1]));
    }
    (void)close(ends[1]);
    return ends[0];
}

static int serve(struct start *s)
{
    struct mr_error err;

    mr_catch_crashes();
    mr_block_signals();
    if (s->runtime.single) {
        const int channel = start_lone_resolver(s);
        if (mr_become_user(s->config->user, s->config->group, &err) != MR_OK) {
            mr_log(MR_LOG_EMERG, "user_failed error=\"%s\"", err.text);
            return 1;
        }
        const struct mr_worker_setup setup = {.runtime = &s->runtime,
                                              .listen_fds = s->listeners.fds,
                                              .channel = channel,
                                              .stats = STATS,
                                              .on_ready = on_ready,
                                              .on_ready_arg = s};
        return mr_worker_run(&setup);
    }
    mr_log_set_role("master");
    const struct mr_master_setup setup = {.runtime = &s->runtime,
                                          .listeners = &s->listeners,
                                          .stats = STATS,
                                          .on_ready = on_ready,
                                          .in_child = in_child,
                                          .arg = s};
    return mr_master_run(&setup);
}

static void release(struct start *s)
{
    struct mr_runtime *rt = &s->runtime;

    if (s->listeners.fds != NULL)
        mr_listeners_close(&s->listeners);
    if (rt->stats_fd >= 0)
        (void)close(rt->stats_fd);
    for (uint32_t i = 0; i < rt->n_slots && rt->slots != NULL; i++)
        if (rt->slots[i].head != NULL)
            mr_metrics_close(&rt->slots[i]);
    free(rt->slots);
    free(rt->addresses);
    mr_config_free(s->config);
    mr_pidfile_remove(&s->pidfile);
}

static int run(struct start *s)
{
    struct mr_error err;
    int status = 1;

    s->notify = -1;
    s->runtime.stats_fd = -1;
    if (load(s, &err) != MR_OK)
        return complain(&err);
    if (prepare(s, &err) != MR_OK) {
        status = complain(&err);
        goto release;
    }
    if (s->options.daemonize && mr_daemonize(&s->notify, &err) != MR_OK) {
        status = complain(&err);
        goto release;
    }
    if (mr_pidfile_write(&s->pidfile, &err) != MR_OK) {
        status = complain(&err);
        goto release;
    }
    log_start(s);
    status = serve(s);
release:
    release(s);
    return status;
}

int main(int argc, char **argv)
{
    struct start s = {.conf_file = NULL};
    struct mr_error err;

    if (mr_options_parse(&s.options, argc, argv, &err) != MR_OK) {
        (void)fprintf(stderr, "millrace: %s\n", err.text);
        mr_options_print_usage();
        return 1;
    }
    s.conf_file = s.options.conf_file != NULL ? s.options.conf_file : default_conf_file();
    s.pidfile.fd = -1;
    if (s.options.kill_word != NULL)
        return send_signal(&s);
    if (s.options.version || s.options.help || s.options.describe_stats) {
        mr_options_print_version();
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
