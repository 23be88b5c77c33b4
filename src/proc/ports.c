/* ports.c - sockets of the statistics port and the admin addresses. */
#include "proc/ports.h"

#include "net/listener.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 128

static int find(const struct mr_ports *ports, const struct mr_addr *addr)
{
    for (uint32_t i = 0; ports != NULL && i < ports->n; i++)
        if (ports->fds[i] >= 0 && mr_addr_eq(&ports->addrs[i], addr))
            return (int)i;
    return -1;
}

static enum mr_result open_one(struct mr_ports *ports, uint32_t i, int mode,
                               const struct mr_ports *before, struct mr_error *err)
{
    const struct mr_listen_options options = {.backlog = BACKLOG, .mode = mode};
    const int old = find(before, &ports->addrs[i]);

    if (old < 0)
        return mr_listen(&ports->fds[i], &ports->addrs[i], &options, err);
    ports->fds[i] = fcntl(before->fds[old], F_DUPFD_CLOEXEC, 0);
    if (ports->fds[i] < 0)
        return mr_fail_sys(err, "dup of a socket");
    if (mode != 0 && ports->addrs[i].sa.any.sa_family == AF_UNIX &&
        chmod(ports->addrs[i].sa.un.sun_path, (mode_t)mode) < 0)
        return mr_fail_sys(err, "chmod %o %s", (unsigned)mode, ports->addrs[i].text);
    return MR_OK;
}

static void allocate(struct mr_ports *ports, uint32_t n)
{
    ports->n = n;
    ports->addrs = calloc(n, sizeof(*ports->addrs));
    ports->fds = malloc(n * sizeof(*ports->fds));
    MR_CHECK(ports->addrs != NULL && ports->fds != NULL);
    for (uint32_t i = 0; i < n; i++)
        ports->fds[i] = -1;
}

enum mr_result mr_ports_open(struct mr_ports *ports, const struct mr_config *config,
                             const struct mr_options *options, const struct mr_ports *before,
                             struct mr_error *err)
{
    const char *host = options->stats_addr != NULL ? options->stats_addr : config->stats_addr;
    const uint32_t port = options->stats_port != 0 ? options->stats_port : config->stats_port;
    uint32_t n;

    allocate(ports, 1 + config->admin.n);
    enum mr_result rc =
        mr_addr_resolve(&ports->addrs[0], 1, &n, mr_slice_of(host), (uint16_t)port, err);
    if (rc == MR_OK)
        rc = open_one(ports, 0, 0, before, err);
    if (rc != MR_OK)
        mr_error_prefix(err, "statistics port");
    for (uint32_t i = 0; rc == MR_OK && i < config->admin.n; i++) {
        ports->addrs[i + 1] = config->admin.at[i].addr;
        rc = open_one(ports, i + 1, config->admin.at[i].mode, before, err);
        if (rc != MR_OK)
            mr_error_prefix(err, "admin");
    }
    return rc;
}

void mr_ports_take(struct mr_ports *ports, const struct mr_config *config, const int *fds)
{
    struct mr_addr *stats;

    allocate(ports, 1 + config->admin.n);
    memcpy(ports->fds, fds, ports->n * sizeof(*fds));
    for (uint32_t i = 0; i < config->admin.n; i++)
        ports->addrs[i + 1] = config->admin.at[i].addr;
    stats = &ports->addrs[0]; /* as the options of that process said */
    stats->len = sizeof(stats->sa);
    if (getsockname(fds[0], &stats->sa.any, &stats->len) < 0)
        stats->len = 0;
}

void mr_ports_retire(const struct mr_ports *ports, const struct mr_ports *heir)
{
    for (uint32_t i = 0; i < ports->n; i++)
        if (ports->fds[i] >= 0 && find(heir, &ports->addrs[i]) < 0)
            mr_unlisten(ports->fds[i], &ports->addrs[i]);
}

void mr_ports_close(struct mr_ports *ports, const struct mr_ports *heir)
{
    for (uint32_t i = 0; i < ports->n; i++)
        if (ports->fds[i] >= 0 && ports->addrs[i].sa.any.sa_family == AF_UNIX &&
            find(heir, &ports->addrs[i]) < 0)
            mr_unlisten(ports->fds[i], &ports->addrs[i]);
    for (uint32_t i = 0; i < ports->n; i++)
        if (ports->fds[i] >= 0)
            (void)close(ports->fds[i]);
    free(ports->addrs);
    free(ports->fds);
    *ports = (struct mr_ports){0};
}
