/* upgrade.c - replaces the running binary without losing clients. */
#include "proc/upgrade.h"

#include "core/log.h"
#include "net/fdpass.h"
#include "proc/channel.h"
#include "proc/notify.h"
#include "session/handover.h"
#include "upstream/health.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOCUMENT   2u
#define FORMAT     (100 * MR_HANDOVER_VERSION + DOCUMENT) /* other formats are refused */
#define FDS_MAX    1000000u
#define RECEIVE_MS 10000

/* ---- descriptors over the link ---- */

static enum mr_result send_fds(int link, const int *fds, uint32_t n, struct mr_error *err)
{
    while (n > 0) {
        const uint32_t batch = n < MR_FDS_MAX ? n : MR_FDS_MAX;
        if (mr_send_fds(link, "f", 1, fds, batch) < 0)
            return mr_fail_sys(err, "send descriptors to the new process");
        fds += batch;
        n -= batch;
    }
    return MR_OK;
}

static enum mr_result receive_fds(int link, int *fds, uint32_t n, struct mr_error *err)
{
    char byte;

    for (uint32_t got = 0; got < n;) {
        struct pollfd p = {.fd = link, .events = POLLIN};
        uint32_t more = n - got < MR_FDS_MAX ? n - got : MR_FDS_MAX;
        if (poll(&p, 1, RECEIVE_MS) <= 0)
            return mr_fail(err, MR_ESYS, "the old process sent nothing in time");
        if (mr_recv_fds(link, &byte, 1, fds + got, &more) <= 0)
            return mr_fail(err, MR_ESYS, "the old process has exited");
        if (more == 0)
            return mr_fail(err, MR_EPROTO, "the old process sent no descriptors");
        got += more;
    }
    return MR_OK;
}

/* ---- the document ---- */

/* Order: document, ports, listeners, segments, handover sockets, pid file. */
static uint32_t collect(const struct mr_upgrade *u, const struct mr_generation *g,
                        const struct mr_ways *ways_in, int *fds)
{
    const struct mr_runtime *rt = &g->runtime;
    uint32_t n = 1;

    for (uint32_t i = 0; i < g->ports.n; i++)
        fds[n++] = g->ports.fds[i];
    for (uint32_t i = 0; i < g->listeners.n * rt->n_slots; i++)
        fds[n++] = g->listeners.fds[i];
    for (uint32_t i = 0; i < rt->n_slots; i++) {
        fds[n++] = rt->slots[i].fd;
        fds[n++] = rt->bases[i].fd;
        fds[n++] = ways_in->fds[i];
    }
    if (u->pidfile->path != NULL)
        fds[n++] = u->pidfile->fd;
    return n;
}

static uint32_t fds_needed(uint32_t n_ports, uint32_t n_slots, uint32_t n_listens, bool pidfile)
{
    return 1 + n_ports + n_slots * (n_listens + 3) + pidfile;
}

/* Health fields carried across an upgrade. Any of them may be missing in another version. */
static const struct {
    const char *name;
    size_t at;
} KNOWN[] = {
    {"state", offsetof(struct mr_health, state)},
    {"role", offsetof(struct mr_health, role)},
    {"link", offsetof(struct mr_health, link)},
    {"rtt_us", offsetof(struct mr_health, rtt_us)},
    {"lag_us", offsetof(struct mr_health, lag_us)},
    {"probed_us", offsetof(struct mr_health, probed_us)},
    {"ejected_us", offsetof(struct mr_health, ejected_us)},
};

static uint64_t *known(struct mr_health *h, size_t i)
{
    return (uint64_t *)(void *)((char *)h + KNOWN[i].at);
}

/* One entry per server, in configuration order. */
static json_t *pack_health(const struct mr_runtime *rt)
{
    json_t *all = json_array();

    for (uint32_t i = 0; i < rt->config->n_servers; i++) {
        json_t *one = json_object();
        for (size_t k = 0; k < MR_COUNT(KNOWN); k++)
            (void)json_object_set_new(one, KNOWN[k].name,
                                      json_integer((json_int_t)*known(&rt->health[i], k)));
        (void)json_array_append_new(all, one);
    }
    return all;
}

static int write_document(const struct mr_upgrade *u, const struct mr_generation *g, uint32_t n_fds,
                          struct mr_error *err)
{
    json_t *doc =
        json_pack("{s:I, s:I, s:s, s:I, s:I, s:I, s:b, s:I, s:o}", "format", (json_int_t)FORMAT,
                  "pid", (json_int_t)getpid(), "conf", g->config->source, "generation",
                  (json_int_t)g->number, "slots", (json_int_t)g->runtime.n_slots, "started_us",
                  (json_int_t)g->runtime.started_us, "pidfile", u->pidfile->path != NULL,
                  "descriptors", (json_int_t)n_fds, "health", pack_health(&g->runtime));
    const int fd = memfd_create("millrace-upgrade", MFD_CLOEXEC);

    if (doc == NULL || fd < 0 || json_dumpfd(doc, fd, JSON_COMPACT) != 0) {
        (void)mr_fail_sys(err, "describe this process to the new one");
        json_decref(doc);
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    json_decref(doc);
    return fd;
}

static enum mr_result give(const struct mr_upgrade *u, const struct mr_generation *g, int link,
                           const struct mr_ways *ways_in, struct mr_error *err)
{
    const uint32_t n =
        fds_needed(g->ports.n, g->runtime.n_slots, g->listeners.n, u->pidfile->path != NULL);
    int *fds = malloc(n * sizeof(*fds));

    MR_CHECK(fds != NULL);
    MR_CHECK(collect(u, g, ways_in, fds) == n);
    fds[0] = write_document(u, g, n, err);
    enum mr_result rc = fds[0] >= 0 ? send_fds(link, fds, 1, err) : MR_ESYS;
    if (rc == MR_OK)
        rc = send_fds(link, fds + 1, n - 1, err);
    if (fds[0] >= 0)
        (void)close(fds[0]);
    free(fds);
    return rc;
}

/* ---- the old master ---- */

static _Noreturn void become_new(const struct mr_upgrade *u, int link)
{
    char number[16];

    (void)fcntl(link, F_SETFD, 0);
    (void)snprintf(number, sizeof(number), "%d", link);
    (void)setenv(MR_UPGRADE_ENV, number, 1);
    mr_notify_export();
    (void)execv(u->exe, u->argv);
    mr_log(MR_LOG_ERR, "upgrade_failed exec=%s error=\"%s\"", u->exe, strerror(errno));
    _exit(1);
}

enum mr_result mr_upgrade_start(const struct mr_upgrade *u, const struct mr_generation *g,
                                const struct mr_ways *ways_in, pid_t *pid, int *link,
                                struct mr_error *err)
{
    int ends[2];

    if (mr_channel_open(ends, err) != MR_OK)
        return MR_ESYS;
    const pid_t child = fork();
    if (child == 0)
        become_new(u, ends[1]);
    if (child < 0)
        (void)mr_fail_sys(err, "fork");
    mr_channel_close(ends[1]);
    if (child > 0 && give(u, g, ends[0], ways_in, err) == MR_OK) {
        *pid = child;
        *link = ends[0];
        return MR_OK;
    }
    if (child > 0) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    }
    mr_channel_close(ends[0]);
    return MR_ESYS;
}

/* ---- the new master ---- */

static enum mr_result read_document(int fd, json_t **doc, struct mr_error *err)
{
    json_error_t why;

    if (lseek(fd, 0, SEEK_SET) < 0)
        return mr_fail_sys(err, "read the old process's description");
    *doc = json_loadfd(fd, JSON_REJECT_DUPLICATES, &why);
    if (*doc == NULL)
        return mr_fail(err, MR_EPROTO, "cannot parse the old process's description: %s", why.text);
    if (json_integer_value(json_object_get(*doc, "format")) != FORMAT) {
        json_decref(*doc);
        return mr_fail(err, MR_EPROTO,
                       "the running version uses handover format %lld, this one %u; "
                       "stop and start instead",
                       (long long)json_integer_value(json_object_get(*doc, "format")), FORMAT);
    }
    return MR_OK;
}

static uint64_t number_of(const json_t *doc, const char *key)
{
    const json_int_t v = json_integer_value(json_object_get(doc, key));

    return v < 0 ? 0 : (uint64_t)v;
}

/* Counters with another layout start from zero; everything else continues. */
static void attach(struct mr_metrics *m, int fd, const struct mr_config *config)
{
    struct mr_error err;

    if (mr_metrics_attach(m, fd, config->n_pools, config->n_servers, &err) == MR_OK)
        return;
    mr_log(MR_LOG_WARN, "counters_lost error=\"%s\"", err.text);
    (void)close(fd);
    MR_CHECK(mr_metrics_open(m, config->n_pools, config->n_servers, &err) == MR_OK);
}

/* Servers with missing or invalid health start as unknown. */
static void unpack_health(struct mr_runtime *rt, const json_t *all)
{
    for (uint32_t i = 0; i < rt->config->n_servers; i++) {
        const json_t *one = json_array_get(all, i);
        if (number_of(one, "state") > MR_HEALTH_DOWN || number_of(one, "role") > MR_ROLE_REPLICA)
            continue;
        for (size_t k = 0; k < MR_COUNT(KNOWN); k++)
            *known(&rt->health[i], k) = number_of(one, KNOWN[k].name);
    }
}

static void take(struct mr_inheritance *in, const int *fds, bool pidfile)
{
    struct mr_generation *g = &in->previous;
    struct mr_runtime *rt = &g->runtime;

    mr_ports_take(&g->ports, g->config, fds);
    fds += g->ports.n;
    g->listeners.config = g->config;
    g->listeners.n_slots = rt->n_slots;
    g->listeners.n = g->config->n_listens;
    g->listeners.fds = malloc(rt->n_slots * g->listeners.n * sizeof(int));
    in->ways_in = (struct mr_ways){malloc(rt->n_slots * sizeof(int)), rt->n_slots};
    rt->slots = calloc(rt->n_slots, sizeof(*rt->slots));
    rt->bases = calloc(rt->n_slots, sizeof(*rt->bases));
    rt->addresses = calloc(g->config->n_servers + 1, sizeof(*rt->addresses));
    MR_CHECK(g->listeners.fds != NULL && in->ways_in.fds != NULL && rt->slots != NULL &&
             rt->bases != NULL && rt->addresses != NULL);
    for (uint32_t i = 0; i < g->listeners.n * rt->n_slots; i++)
        g->listeners.fds[i] = *fds++;
    for (uint32_t i = 0; i < rt->n_slots; i++) {
        attach(&rt->slots[i], *fds++, g->config);
        attach(&rt->bases[i], *fds++, g->config);
        in->ways_in.fds[i] = *fds++;
    }
    in->pidfile = pidfile ? *fds : -1;
}

static enum mr_result receive_all(struct mr_inheritance *in, const json_t *doc,
                                  struct mr_error *err)
{
    struct mr_generation *g = &in->previous;
    const char *conf = json_string_value(json_object_get(doc, "conf"));
    const bool pidfile = json_is_true(json_object_get(doc, "pidfile"));

    if (conf == NULL)
        return mr_fail(err, MR_EPROTO, "the old process sent no configuration");
    enum mr_result rc =
        mr_config_parse(&g->config, "text", mr_slice_of(conf), MR_KEY_BYTES_DEFAULT, NULL, err);
    if (rc != MR_OK) {
        mr_error_prefix(err, "configuration of the running version");
        return rc;
    }
    if (number_of(doc, "pid") == (uint64_t)getppid()) /* otherwise it has died */
        in->pid = getppid();
    g->number = (uint32_t)number_of(doc, "generation");
    g->runtime.config = g->config;
    g->runtime.n_slots = (uint32_t)number_of(doc, "slots");
    g->runtime.started_us = number_of(doc, "started_us");
    const uint64_t n = number_of(doc, "descriptors");
    if (g->runtime.n_slots == 0 || n > FDS_MAX ||
        n != fds_needed(1 + g->config->admin.n, g->runtime.n_slots, g->config->n_listens, pidfile))
        return mr_fail(err, MR_EPROTO, "the old process sent an unexpected number of descriptors");
    int *fds = malloc(n * sizeof(*fds));
    MR_CHECK(fds != NULL);
    rc = mr_generation_share_health(g, err);
    if (rc == MR_OK)
        rc = receive_fds(in->link, fds, (uint32_t)n - 1, err);
    if (rc == MR_OK) {
        unpack_health(&g->runtime, json_object_get(doc, "health"));
        take(in, fds, pidfile);
    }
    free(fds);
    return rc;
}

enum mr_result mr_inheritance_receive(struct mr_inheritance *in, int fd, struct mr_error *err)
{
    json_t *doc;
    int doc_fd;

    *in = (struct mr_inheritance){.link = fd, .pidfile = -1};
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    enum mr_result rc = receive_fds(fd, &doc_fd, 1, err);
    if (rc != MR_OK)
        return rc;
    rc = read_document(doc_fd, &doc, err);
    (void)close(doc_fd);
    if (rc != MR_OK)
        return rc;
    rc = receive_all(in, doc, err);
    json_decref(doc);
    return rc;
}

void mr_inheritance_close(struct mr_inheritance *in, const struct mr_generation *heir)
{
    if (in->link < 0)
        return;
    in->link = -1;
    mr_generation_close(&in->previous, heir);
}
