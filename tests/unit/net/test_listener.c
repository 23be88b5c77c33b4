/* test_listener.c - listening: ports in use, stale and live unix sockets, modes, accepting. */
#include "net/listener.h"

#include "core/clock.h"
#include "unit/test.h"

#include <pthread.h>
#include <sys/epoll.h>
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
    /* a group: members join, and a probe notices them */
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
    assert_int_equal(mr_listen(&second, &a, &o, &err), MR_ESYS); /* still served */
    close(fd);
    assert_int_equal(mr_listen(&fd, &a, &o, &err), MR_OK); /* a stale file is replaced */
    close(fd);
    unlink(path);
    FILE *f = fopen(path, "w"); /* not a socket: left alone */
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
    mr_acceptor_stop(&acceptor); /* allowed although it never started */
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    const int fd = listen_any(&PLAIN);
    const struct mr_addr a = bound(fd);
    mr_acceptor_start(&acceptor, &loop, fd, false, false, on_accept);
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

static void *wait_and_do_nothing(void *arg)
{
    struct epoll_event event;

    assert_int_equal(epoll_wait(*(int *)arg, &event, 1, 5000), 1);
    return NULL;
}

/* The kernel wakes only one waiter, and this one is about to die. */
static void a_connection_announced_to_another_is_found(void **state)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    struct mr_loop loop;
    struct mr_acceptor acceptor;
    struct mr_error err;
    pthread_t thread;

    (void)state;
    accepted = 0;
    assert_int_equal(mr_loop_init(&loop, test_engine(), &err), MR_OK);
    const int fd = listen_any(&PLAIN);
    const struct mr_addr a = bound(fd);
    int other = epoll_create1(0);
    assert_int_equal(epoll_ctl(other, EPOLL_CTL_ADD, fd, &event), 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_and_do_nothing, &other), 0);
    usleep(50000);
    mr_acceptor_start(&acceptor, &loop, fd, true, false, on_accept);
    mr_loop_turn(&loop, 0);
    const int client = connect_to(&a);
    assert_int_equal(pthread_join(thread, NULL), 0);
    close(other);
    const uint64_t end = mr_clock_mono_us() + 2000000;
    while (accepted == 0 && mr_clock_mono_us() < end)
        mr_loop_turn(&loop, 100);
    assert_int_equal(accepted, 1);
    mr_acceptor_stop(&acceptor);
    close(client);
    close(fd);
    mr_loop_fini(&loop);
}

RUN(T(a_used_port_is_an_error), T(unix_sockets), T(accepts_stops_and_drains),
    T(a_connection_announced_to_another_is_found))
