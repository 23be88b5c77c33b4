/* test_listener.c - listening: ports in use, stale and live unix sockets, modes, accepting. */
#include "net/listener.h"
#include "unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

static const struct mr_listen_options PLAIN = {.backlog = 16};
static int accepted;

static struct mr_addr bound(int fd)
{
    struct mr_addr a = {.len = sizeof(a.sa)};

    assert_int_equal(getsockname(fd, &a.sa.any, &a.len), 0);
    return a;
}

static int listen_any(const struct mr_listen_options *o)
{
    struct mr_addr a;
    struct mr_error err;
    int fd = -1;

    assert_true(mr_addr_numeric(&a, mr_slice_of("127.0.0.1"), 0));
    assert_int_equal(mr_listen(&fd, &a, o, &err), MR_OK);
    return fd;
}

static void a_used_port_is_an_error(void **state)
{
    const struct mr_listen_options group = {.backlog = 16, .reuse_port = true};
    struct mr_error err;
    int second = -1;

    (void)state;
    const int fd = listen_any(&PLAIN);
    const struct mr_addr a = bound(fd);
    assert_int_equal(mr_listen(&second, &a, &PLAIN, &err), MR_ESYS);
    assert_int_equal(second, -1);
    assert_int_equal(mr_listen_probe(&a, &err), MR_ESYS);
    close(fd);
    assert_int_equal(mr_listen_probe(&a, &err), MR_OK);
    /* a group: members join, a probe notices that somebody is there */
    const int first = listen_any(&group);
    const struct mr_addr g = bound(first);
    assert_int_equal(mr_listen(&second, &g, &group, &err), MR_OK);
    assert_int_equal(mr_listen_probe(&g, &err), MR_ESYS);
    close(first);
    close(second);
}

static void unix_sockets(void **state)
{
    char path[64];
    struct mr_addr a;
    struct mr_error err;
    struct stat st;
    struct mr_listen_options o = {.backlog = 16, .mode = 0600};
    int fd = -1, second = -1;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/millrace-test-%d.sock", (int)getpid());
    assert_int_equal(mr_addr_unix(&a, mr_slice_of(path), &err), MR_OK);
    assert_int_equal(mr_listen(&fd, &a, &o, &err), MR_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(mr_listen(&second, &a, &o, &err), MR_ESYS); /* somebody serves it */
    close(fd);
    assert_int_equal(mr_listen(&fd, &a, &o, &err), MR_OK); /* a stale file is replaced */
    close(fd);
    unlink(path);
    FILE *f = fopen(path, "w"); /* a file that is no socket is left alone */
    fclose(f);
    assert_int_equal(mr_listen(&fd, &a, &o, &err), MR_ECONFIG);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
}

static void on_accept(struct mr_acceptor *a, int fd)
{
    (void)a;
    accepted++;
    close(fd);
}

static int connect_to(const struct mr_addr *a)
{
    const int fd = socket(a->sa.any.sa_family, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, &a->sa.any, a->len), 0);
    return fd;
}

static void accepts_stops_and_drains(void **state)
{
    struct mr_loop loop;
    struct mr_acceptor acceptor = {.loop = NULL};
    struct mr_error err;
    int clients[10];

    (void)state;
    mr_acceptor_stop(&acceptor); /* never started: fine */
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    const int fd = listen_any(&PLAIN);
    const struct mr_addr a = bound(fd);
    mr_acceptor_start(&acceptor, &loop, fd, false, on_accept);
    for (int i = 0; i < 5; i++)
        clients[i] = connect_to(&a);
    mr_loop_turn(&loop, 1000);
    assert_int_equal(accepted, 5);
    mr_acceptor_stop(&acceptor);
    for (int i = 5; i < 10; i++)
        clients[i] = connect_to(&a);
    mr_loop_turn(&loop, 0);
    assert_int_equal(accepted, 5);
    mr_acceptor_drain(&acceptor);
    assert_int_equal(accepted, 10);
    for (int i = 0; i < 10; i++)
        close(clients[i]);
    close(fd);
    mr_loop_fini(&loop);
}

RUN(T(a_used_port_is_an_error), T(unix_sockets), T(accepts_stops_and_drains))
