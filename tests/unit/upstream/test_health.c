/* test_health.c - back-off, failures that count once, ejection. */
#include "unit/test.h"
#include "upstream/health.h"

#include <errno.h>

#define NOW UINT64_C(5000000)

static struct mr_health h;

static int fresh(void **state)
{
    (void)state;
    memset(&h, 0, sizeof(h));
    return 0;
}

static uint64_t strike(uint64_t now_us, enum mr_failure failure)
{
    return mr_health_failed(&h, now_us, ECONNREFUSED, failure, 400000);
}

static void one_cut_delays_no_connect(void **state)
{
    (void)state;
    assert_int_equal(strike(NOW, MR_FAILURE_CUT), 1);
    assert_int_equal(h.failures, 1);
    assert_int_equal(mr_health_may_connect(&h, NOW), 0);
    assert_int_equal(mr_health_may_connect(&h, NOW), 0);
    assert_true(mr_health_is_well(&h, NOW));
}

/* Each attempt doubles the wait, up to a second, and only one of those who ask may try. */
static void silence_makes_all_back_off(void **state)
{
    static const uint64_t WAITS_US[] = {10000,  20000,  40000,   80000,  160000,
                                        320000, 640000, 1000000, 1000000};
    uint64_t now = NOW;

    (void)state;
    (void)strike(now, MR_FAILURE_SILENT);
    for (size_t i = 0; i < MR_COUNT(WAITS_US); i++) {
        now += WAITS_US[i];
        assert_int_equal(mr_health_may_connect(&h, now - 1), ECONNREFUSED);
        assert_false(mr_health_is_well(&h, now - 1));
        assert_int_equal(mr_health_may_connect(&h, now), 0);
        assert_int_equal(mr_health_may_connect(&h, now), ECONNREFUSED);
        (void)strike(now, MR_FAILURE_SILENT); /* counted by the attempt */
    }
    mr_health_answered(&h);
    assert_int_equal(mr_health_may_connect(&h, now), 0);
    assert_true(mr_health_is_well(&h, now));
}

static void an_unknown_error_is_a_refusal(void **state)
{
    (void)state;
    (void)mr_health_failed(&h, NOW, 0, MR_FAILURE_SILENT, 0);
    assert_int_equal(mr_health_may_connect(&h, NOW), ECONNREFUSED);
}

static void what_happens_at_once_counts_once(void **state)
{
    (void)state;
    assert_int_equal(strike(NOW, MR_FAILURE_CUT), 1);
    assert_int_equal(strike(NOW + 99999, MR_FAILURE_CUT), 1);
    assert_int_equal(strike(NOW + 100000, MR_FAILURE_CUT), 2);
    assert_int_equal(strike(NOW + 100000, MR_FAILURE_TIMEOUT), 3); /* another kind */
    assert_int_equal(strike(NOW + 499999, MR_FAILURE_TIMEOUT), 3);
    assert_int_equal(strike(NOW + 500000, MR_FAILURE_TIMEOUT), 4);
    assert_int_equal(strike(NOW + 500000, MR_FAILURE_SILENT), 5);
    assert_int_equal(strike(NOW + 500000, MR_FAILURE_SILENT), 6);
    mr_health_answered(&h);
    assert_int_equal(strike(NOW + 500000, MR_FAILURE_SILENT), 1);
}

static void the_first_to_eject_or_restore_does(void **state)
{
    (void)state;
    (void)strike(NOW, MR_FAILURE_SILENT);
    assert_false(mr_health_restore(&h, &h));
    assert_true(mr_health_eject(&h, &h, NOW));
    assert_false(mr_health_eject(&h, &h, NOW + 1));
    assert_int_equal(h.ejected_us, NOW);
    assert_false(mr_health_is_well(&h, NOW + 10000000));
    assert_int_equal(mr_health_ring_changes(&h), 1);
    assert_true(mr_health_restore(&h, &h));
    assert_false(mr_health_restore(&h, &h));
    assert_int_equal(h.strikes, 0);
    assert_int_equal(mr_health_ring_changes(&h), 2);
}

static void one_that_is_down_is_not_well(void **state)
{
    (void)state;
    h.state = MR_HEALTH_DOWN;
    assert_false(mr_health_is_well(&h, NOW));
    assert_int_equal(mr_health_may_connect(&h, NOW), 0);
    assert_string_equal(mr_health_state_name(MR_HEALTH_DOWN), "down");
    assert_string_equal(mr_health_state_name(MR_HEALTH_STATES), "unknown");
}

static void only_our_own_machine_is_short(void **state)
{
    static const int OWN[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS, EADDRNOTAVAIL};
    static const int THEIRS[] = {0,      ECONNREFUSED, ECONNRESET, ETIMEDOUT,
                                 EPIPE,  EHOSTUNREACH, EHOSTDOWN,  EAGAIN,
                                 EPROTO, EINVAL};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(OWN); i++)
        assert_true(mr_health_is_shortage(OWN[i]));
    for (size_t i = 0; i < MR_COUNT(THEIRS); i++)
        assert_false(mr_health_is_shortage(THEIRS[i]));
}

#define F(name) cmocka_unit_test_setup(name, fresh)
RUN(F(one_cut_delays_no_connect), F(silence_makes_all_back_off), F(an_unknown_error_is_a_refusal),
    F(what_happens_at_once_counts_once), F(the_first_to_eject_or_restore_does),
    F(one_that_is_down_is_not_well), F(only_our_own_machine_is_short))
