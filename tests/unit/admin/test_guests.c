/*
 * test_guests.c - connections to the proxy's own ports: the oldest is closed first, nobody stays
 * long.
 */
#include "admin/guests.h"
#include "unit/test.h"

struct one {
    struct mr_guest guest;
    unsigned dismissed;
};

static struct mr_loop loop;
static struct mr_guests guests;
static struct one ones[10];

static void on_dismiss(struct mr_guest *guest)
{
    struct one *one = MR_CONTAINER_OF(guest, struct one, guest);

    one->dismissed++;
    mr_guest_leave(guest); /* as its close does later */
}

/* Room for `max` to stay. */
static void open_all(uint32_t max, size_t max_bytes, uint32_t limit_ms)
{
    struct mr_error err;

    memset(ones, 0, sizeof(ones));
    assert_int_equal(mr_loop_init(&loop, "epoll", &err), MR_OK);
    guests = (struct mr_guests){
        .most = 2 * max - 1, .max_bytes = max_bytes, .limit_ms = limit_ms, .dismiss = on_dismiss};
    mr_guests_init(&guests, &loop);
}

static void close_all(void)
{
    mr_guests_dismiss_all(&guests);
    assert_int_equal(guests.n, 0);
    assert_int_equal(guests.bytes, 0);
    mr_loop_fini(&loop);
}

static void enter(unsigned i)
{
    loop.now_us++; /* in a turn of its own */
    mr_guests_enter(&guests, &ones[i].guest);
}

static void assert_dismissed(const char *wanted) /* `wanted` has a digit for each */
{
    for (unsigned i = 0; wanted[i] != '\0'; i++)
        assert_int_equal(ones[i].dismissed, wanted[i] - '0');
}

static void the_oldest_makes_way(void **state)
{
    (void)state;
    open_all(3, 1000, 10000);
    for (unsigned i = 0; i < 3; i++)
        enter(i);
    assert_dismissed("000");
    mr_guest_leave(&ones[1].guest);
    mr_guest_leave(&ones[1].guest);
    enter(3);
    assert_dismissed("0000");
    enter(4);
    enter(5);
    assert_dismissed("101000");
    assert_int_equal(guests.n, 3);
    close_all();
    assert_dismissed("101111");
}

static void those_of_one_turn_are_spared(void **state)
{
    (void)state;
    open_all(3, 1000, 10000);
    enter(0);
    enter(1);
    loop.now_us++;
    for (unsigned i = 2; i < 8; i++)
        mr_guests_enter(&guests, &ones[i].guest);
    assert_dismissed("11000000");
    assert_true(mr_guests_full(&guests));
    enter(8);
    assert_dismissed("1111110000");
    assert_int_equal(guests.n, 3);
    for (unsigned i = 0; i < 4; i++) /* nobody arrives after these */
        mr_guests_enter(&guests, &ones[i].guest);
    assert_dismissed("1111111100");
    for (int turns = 0; guests.n > 3; turns++) {
        assert_true(turns < 1000);
        mr_loop_turn(&loop, 10);
    }
    assert_dismissed("2111111110");
    close_all();
}

static void memory_is_bounded(void **state)
{
    (void)state;
    open_all(10, 1000, 10000);
    for (unsigned i = 0; i < 5; i++)
        enter(i);
    for (unsigned i = 0; i < 4; i++)
        mr_guest_holds(&ones[i].guest, 250);
    assert_dismissed("00000");
    mr_guest_holds(&ones[4].guest, 251);
    assert_dismissed("11000");
    assert_int_equal(guests.bytes, 751);
    mr_guest_holds(&ones[4].guest, 2000); /* served, although it alone exceeds the limit */
    assert_dismissed("11110");
    mr_guest_holds(&ones[0].guest, 1); /* already gone */
    assert_int_equal(guests.bytes, 2251);
    close_all();
}

static void nobody_stays_longer_than_the_limit(void **state)
{
    (void)state;
    open_all(3, 1000, 20);
    enter(0);
    enter(1);
    mr_guest_leave(&ones[1].guest);
    for (int turns = 0; ones[0].dismissed == 0; turns++) {
        mr_guest_holds(&ones[0].guest, 1); /* being busy does not help */
        assert_true(turns < 1000);
        mr_loop_turn(&loop, 10);
    }
    assert_dismissed("10");
    close_all();
}

RUN(T(the_oldest_makes_way), T(those_of_one_turn_are_spared), T(memory_is_bounded),
    T(nobody_stays_longer_than_the_limit))
