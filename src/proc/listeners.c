/* listeners.c - all listening sockets of a configuration. */
#include "proc/listeners.h"

#include "core/log.h"
#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_unix(const struct mr_listen_config *listen)
{
    return listen->addr.sa.any.sa_family == AF_UNIX;
}

bool mr_listeners_shared(const struct mr_config *config)
{
    return strcmp(config->accept, "exclusive") == 0 || strcmp(config->accept, "mutex") == 0;
}

/* True if all workers share one socket. */
static bool is_shared(const struct mr_config *config, const struct mr_listen_config *listen)
{
    return is_unix(listen) || mr_listeners_shared(config);
}

/* Index of the address in `l` (may be NULL), or -1. */
static int find(const struct mr_listeners *l, const struct mr_addr *addr)
{
    const struct mr_listen_ref *ref = l != NULL ? mr_config_listen(l->config, addr) : NULL;

    return ref != NULL ? (int)ref->index : -1;
}

/* Duplicates an open socket and applies the current settings to it. */
static enum mr_result take_over(int *fd, int old, const struct mr_pool_config *pool,
                                const struct mr_listen_config *listen_config, struct mr_error *err)
{
    const int keepalive = pool->tcpkeepalive;

    *fd = fcntl(old, F_DUPFD_CLOEXEC, 0);
    if (*fd < 0)
        return mr_fail_sys(err, "dup of a socket");
    if (listen(*fd, (int)pool->backlog) < 0)
        return mr_fail_sys(err, "listen on %s", listen_config->addr.text);
    if (!is_unix(listen_config))
        (void)setsockopt(*fd, SOL_SOCKET, SO_KEEPALIVE, &keepalive, sizeof(keepalive));
    else if (listen_config->mode != 0 &&
             chmod(listen_config->addr.sa.un.sun_path, (mode_t)listen_config->mode) < 0)
        return mr_fail_sys(err, "chmod %o %s", (unsigned)listen_config->mode,
                           listen_config->addr.text);
    return MR_OK;
}

/*
 * Limits new connections to the first `n` sockets of the group of `fd`; 0: all, by the kernel's
 * hash. Sockets are numbered in the order of their bind, so those that stay come first.
 */
static void steer(int fd, const struct mr_listen_config *listen, uint32_t n)
{
    struct sock_filter code[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM)},
        {BPF_ALU | BPF_MOD | BPF_K, 0, 0, n},
        {BPF_RET | BPF_A, 0, 0, 0},
    };
    const int none = 0; /* the kernel requires a value */
    const struct sock_fprog program = {.len = MR_COUNT(code), .filter = code};

    if (n == 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &none, sizeof(none));
    else if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) < 0)
        mr_log(MR_LOG_WARN, "steer_failed listen=%s error=\"%s\"", listen->addr.text,
               strerror(errno));
}

/* Opens one address: a socket per slot, or one for all. */
static enum mr_result open_address(struct mr_listeners *l, uint32_t index,
                                   const struct mr_pool_config *pool,
                                   const struct mr_listen_config *listen,
                                   const struct mr_listeners *before, struct mr_error *err)
{
    /* REUSEPORT even for one worker: a reload may add more */
    const struct mr_listen_options options = {.backlog = (int)pool->backlog,
                                              .reuse_port = true,
                                              .keepalive = pool->tcpkeepalive,
                                              .mode = listen->mode};
    const int old = find(before, &listen->addr);
    enum mr_result rc = MR_OK;

    if (!pool->reuseport && old < 0)
        rc = mr_listen_probe(&listen->addr, err);
    if (old >= 0 && l->n_slots > before->n_slots && !is_shared(l->config, listen))
        /* nobody accepts on the new sockets yet, and maybe never will */
        steer(before->fds[old], listen, before->n_slots);
    for (uint32_t s = 0; s < l->n_slots && rc == MR_OK; s++) {
        int *fd = &l->fds[s * l->n + index];
        if (s > 0 && is_shared(l->config, listen))
            *fd = l->fds[index];
        else if (old >= 0 && s < before->n_slots)
            rc = take_over(fd, before->fds[s * before->n + (uint32_t)old], pool, listen, err);
        else
            rc = mr_listen(fd, &listen->addr, &options, err);
    }
    if (rc != MR_OK)
        mr_error_prefix(err, "pool '%s'", pool->name);
    return rc;
}

enum mr_result mr_listeners_open(struct mr_listeners *l, const struct mr_config *config,
                                 uint32_t n_slots, const struct mr_listeners *before,
                                 struct mr_error *err)
{
    enum mr_result rc = MR_OK;
    uint32_t index = 0;

    *l = (struct mr_listeners){.config = config, .n_slots = n_slots, .n = config->n_listens};
    l->fds = malloc((size_t)n_slots * l->n * sizeof(int));
    MR_CHECK(l->fds != NULL);
    memset(l->fds, 0xff, (size_t)n_slots * l->n * sizeof(int));
    for (uint32_t p = 0; p < config->n_pools; p++) {
        const struct mr_pool_config *pool = &config->pools[p];
        for (uint32_t i = 0; i < pool->listens.n && rc == MR_OK; i++)
            rc = open_address(l, index++, pool, &pool->listens.at[i], before, err);
    }
    if (rc != MR_OK)
        mr_listeners_close(l, before);
    return rc;
}

void mr_listeners_steer(const struct mr_listeners *l, const struct mr_listeners *before)
{
    for (uint32_t i = 0; i < l->n; i++) {
        const struct mr_listen_ref *ref = &l->config->listens[i];
        if (!is_shared(l->config, ref->listen) && find(before, &ref->listen->addr) >= 0)
            steer(l->fds[ref->index], ref->listen, before->n_slots <= l->n_slots ? 0 : l->n_slots);
    }
}

void mr_listeners_retire(const struct mr_listeners *l, const struct mr_listeners *heir)
{
    for (uint32_t i = 0; i < l->n; i++) {
        const struct mr_listen_ref *ref = &l->config->listens[i];
        if (find(heir, &ref->listen->addr) < 0)
            for (uint32_t s = 0; s < l->n_slots; s++)
                mr_unlisten(l->fds[s * l->n + ref->index], &ref->listen->addr);
    }
}

static void close_slot(struct mr_listeners *l, uint32_t slot)
{
    for (uint32_t i = 0; i < l->n; i++) {
        const int fd = l->fds[slot * l->n + i];
        if (fd >= 0 && (slot == 0 || fd != l->fds[i])) /* slot 0 owns the shared sockets */
            (void)close(fd);
    }
}

void mr_listeners_close(struct mr_listeners *l, const struct mr_listeners *heir)
{
    for (uint32_t i = 0; i < l->n; i++) {
        const struct mr_listen_ref *ref = &l->config->listens[i];
        if (is_unix(ref->listen) && l->fds[ref->index] >= 0 && find(heir, &ref->listen->addr) < 0)
            mr_unlisten(l->fds[ref->index], &ref->listen->addr);
    }
    for (uint32_t s = l->n_slots; s-- > 0;)
        close_slot(l, s);
    free(l->fds);
    l->fds = NULL;
}
