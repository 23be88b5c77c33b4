/* test_listeners.c - sockets per slot, shared unix sockets, and failures. */
#include "proc/listeners.h"

#include "core/log.h"
#include "unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct mr_config *config;
static char path[64];

static void load(int port)
{
    char yaml[512];
    struct mr_error err;

    snprintf(path, sizeof(path), "/tmp/millrace-test-l-%d.sock", (int)getpid());
    snprintf(yaml, sizeof(yaml),
             "p:\n  listen: ['127.0.0.1:%d', '%s']\n  redis: true\n  servers: ['a:1:1']\n", port,
             path);
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 100, NULL, &err), MR_OK);
}

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void each_slot_has_its_sockets(void **state)
{
    struct mr_listeners l;
    struct mr_error err;

    (void)state;
    load(free_port());
    assert_int_equal(mr_listeners_open(&l, config, 3, NULL, &err), MR_OK);
    assert_int_equal(l.n, 2);
    assert_int_not_equal(l.fds[0], l.fds[2]); /* TCP: one per slot */
    assert_int_equal(l.fds[1], l.fds[3]);     /* unix: one for all */
    const int tcp[3] = {l.fds[0], l.fds[2], l.fds[4]}, shared = l.fds[1];
    mr_listeners_close(&l, NULL);
    for (size_t i = 0; i < MR_COUNT(tcp); i++)
        assert_false(is_open(tcp[i]));
    assert_false(is_open(shared));
    assert_int_not_equal(access(path, F_OK), 0);
    mr_config_free(config);
}

static void a_failure_leaves_nothing_open(void **state)
{
    struct mr_listeners l, second;
    struct mr_error err;
    const int port = free_port();

    (void)state;
    load(port);
    assert_int_equal(mr_listeners_open(&l, config, 2, NULL, &err), MR_OK);
    assert_int_equal(mr_listeners_open(&second, config, 2, NULL, &err), MR_ESYS);
    assert_non_null(strstr(err.text, "pool 'p': bind to"));
    assert_int_equal(access(path, F_OK), 0); /* ours is still there */
    const int probe = open("/dev/null", O_RDONLY);
    close(probe);
    assert_true(probe <= l.fds[3] + 2);
    mr_listeners_close(&l, NULL);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(mr_listeners_open(&second, config, 2, NULL, &err),
                     MR_OK); /* the port is free again */
    mr_listeners_close(&second, NULL);
    mr_config_free(config);
}

/* Twenty thousand pools: an algorithm of cubic cost would not finish. */
static void many_pools_are_no_matter(void **state)
{
    enum { POOLS = 20000 };
    struct mr_listeners l = {.n_slots = 1}, before = {.n_slots = 2};
    struct mr_error err;
    size_t at = 0;
    char *yaml = malloc(POOLS * 80);

    (void)state;
    assert_non_null(yaml);
    for (int i = 0; i < POOLS; i++)
        at += (size_t)snprintf(
            yaml + at, 80, "p%d:\n  listen: 127.0.0.1:%d\n  servers: ['a:1:1']\n", i, 31000 - i);
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 100, NULL, &err), MR_OK);
    free(yaml);
    for (uint32_t i = 0; i < POOLS; i++) {
        const struct mr_listen_config *listen = &config->pools[i].listens.at[0];
        assert_int_equal(mr_config_listen(config, &listen->addr)->index, i);
    }
    l.config = before.config = config;
    l.n = before.n = config->n_listens;
    l.fds = malloc(l.n * sizeof(int));
    assert_non_null(l.fds);
    memset(l.fds, 0xff, l.n * sizeof(int));
    mr_log_set_level(0); /* there are no sockets to steer */
    mr_listeners_steer(&l, &before);
    mr_listeners_close(&l, &before);
    mr_config_free(config);
}

RUN(T(each_slot_has_its_sockets), T(a_failure_leaves_nothing_open), T(many_pools_are_no_matter))
