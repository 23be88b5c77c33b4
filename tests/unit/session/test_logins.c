/* test_logins.c - failed logins: how many are free, and whose they are. */
#include "session/logins.h"
#include "unit/test.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#define NOW    UINT64_C(7000000)
#define SECOND UINT64_C(1000000)

static struct mr_logins logins;

static void a_burst_is_free_then_one_each_second(void **state)
{
    uint64_t entry = 0;

    (void)state;
    for (unsigned i = 0; i < MR_LOGIN_BURST; i++) {
        assert_true(mr_logins_allow(&entry, NOW));
        mr_logins_failed(&entry, NOW);
    }
    assert_false(mr_logins_allow(&entry, NOW));
    mr_logins_failed(&entry, NOW); /* one that was refused does not count */
    assert_false(mr_logins_allow(&entry, NOW + SECOND - 1));
    assert_true(mr_logins_allow(&entry, NOW + SECOND));
    mr_logins_failed(&entry, NOW + SECOND);
    assert_false(mr_logins_allow(&entry, NOW + SECOND));
    for (unsigned i = 0; i < MR_LOGIN_BURST; i++) { /* all is forgiven in time */
        assert_true(mr_logins_allow(&entry, NOW + 100 * SECOND));
        mr_logins_failed(&entry, NOW + 100 * SECOND);
    }
    assert_false(mr_logins_allow(&entry, NOW + 100 * SECOND));
}

/* Our end of a connection from this IPv4 loopback address. */
static int peer(const char *from)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(from)};
    socklen_t len = sizeof(at);

    const int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    assert_int_equal(bind(client, (struct sockaddr *)&source, sizeof(source)), 0);
    assert_int_equal(connect(client, (struct sockaddr *)&at, sizeof(at)), 0);
    const int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    close(listener);
    close(client);
    return fd;
}

static uint64_t *entry_of(int fd, const char *user)
{
    return mr_logins_entry(&logins, fd, mr_slice_of(user));
}

static void an_entry_is_of_an_address_and_a_user(void **state)
{
    const int a = peer("127.0.0.2"), again = peer("127.0.0.2"), b = peer("127.0.0.3");
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    logins.seed = 1; /* with which these do not share an entry by chance */
    assert_ptr_equal(entry_of(a, "bob"), entry_of(again, "bob")); /* whatever the port */
    assert_ptr_not_equal(entry_of(a, "bob"), entry_of(b, "bob"));
    assert_ptr_not_equal(entry_of(a, "bob"), entry_of(a, "eve"));
    assert_ptr_not_equal(entry_of(a, "bob"), entry_of(ends[0], "bob"));
    assert_ptr_equal(entry_of(ends[0], "bob"), entry_of(ends[1], "bob"));
    close(a);
    close(again);
    close(b);
    close(ends[0]);
    close(ends[1]);
}

static void long_names_stay_within_the_table(void **state)
{
    static char name[1000];

    (void)state;
    for (size_t len = 90; len < sizeof(name); len++) {
        memset(name, 'x', len);
        const uint64_t *entry = mr_logins_entry(&logins, -1, (struct mr_slice){name, len});
        assert_true(entry >= logins.free_us && entry < logins.free_us + MR_LOGIN_ENTRIES);
    }
}

static void the_choice_of_entries_is_not_known_before(void **state)
{
    static struct mr_logins other;

    (void)state;
    mr_logins_init(&logins);
    mr_logins_init(&other);
    assert_int_not_equal(logins.seed, other.seed);
}

RUN(T(a_burst_is_free_then_one_each_second), T(an_entry_is_of_an_address_and_a_user),
    T(long_names_stay_within_the_table), T(the_choice_of_entries_is_not_known_before))
