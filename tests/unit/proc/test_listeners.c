/* test_listeners.c - sockets for each slot, shared unix sockets, and failures. */
#include "proc/listeners.h"
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
    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 100, &err), MR_OK);
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
    assert_int_not_equal(l.fds[0], l.fds[2]); /* TCP: one for each slot */
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

RUN(T(each_slot_has_its_sockets), T(a_failure_leaves_nothing_open))
