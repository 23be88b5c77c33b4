/* test_timer.c - the timer wheel, compared with brute force. */
#include "core/timer.h"
#include "unit/test.h"

#define N 500

struct probe {
    struct mr_timer timer;
    uint64_t due_us;
    uint64_t fired_us; /* 0: not yet */
};

static struct probe probes[N];
static uint64_t now_us;
static struct mr_timers wheel;
static unsigned refires;

static void fired(struct mr_timer *timer)
{
    struct probe *p = MR_CONTAINER_OF(timer, struct probe, timer);

    p->fired_us = now_us;
}

/*
 * Runs the wheel exactly when it asks to, and checks every timer: never early, at most 2 ms late.
 */
static void run_to(uint64_t end_us)
{
    while (now_us < end_us) {
        const int wait = mr_timers_wait_ms(&wheel, now_us, 1000);
        now_us += (uint64_t)(wait > 0 ? wait : 0) * 1000 + 13;
        mr_timers_run(&wheel, now_us);
        for (int i = 0; i < N; i++) {
            if (probes[i].due_us + 2000 <= now_us)
                assert_true(probes[i].fired_us != 0);
            if (probes[i].fired_us != 0)
                assert_true(probes[i].fired_us >= probes[i].due_us);
        }
    }
}

static void fires_on_time(void **state)
{
    unsigned seed = 7;
    uint64_t last = 0;

    (void)state;
    now_us = 123456789;
    mr_timers_init(&wheel, now_us);
    for (int i = 0; i < N; i++) {
        seed = seed * 1103515245u + 12345u;
        const uint64_t spread[] = {70, 5000, 300000, 20000000};
        const uint64_t delay = (seed >> 8) % spread[i % 4];
        probes[i] = (struct probe){.timer = {.fire = fired}, .due_us = now_us + delay * 1000};
        mr_timer_set(&wheel, &probes[i].timer, now_us, delay);
        last = probes[i].due_us > last ? probes[i].due_us : last;
    }
    run_to(last + 5000);
    for (int i = 0; i < N; i++)
        assert_true(probes[i].fired_us != 0 && !mr_timer_is_set(&probes[i].timer));
}

static void cancels_and_sets_anew(void **state)
{
    struct probe a = {.timer = {.fire = fired}}, b = {.timer = {.fire = fired}};

    (void)state;
    now_us = 5000000;
    mr_timers_init(&wheel, now_us);
    mr_timer_cancel(&a.timer); /* allowed although it is not set */
    mr_timer_set(&wheel, &a.timer, now_us, 10);
    mr_timer_set(&wheel, &b.timer, now_us, 10);
    mr_timer_cancel(&a.timer);
    mr_timer_set(&wheel, &b.timer, now_us, 100);
    now_us += 50000;
    mr_timers_run(&wheel, now_us);
    assert_true(a.fired_us == 0 && b.fired_us == 0);
    now_us += 60000;
    mr_timers_run(&wheel, now_us);
    assert_true(a.fired_us == 0 && b.fired_us != 0);
    assert_int_equal(mr_timers_wait_ms(&wheel, now_us, 777), 777);
}

static void again(struct mr_timer *timer)
{
    if (++refires < 5)
        mr_timer_set(&wheel, timer, now_us, 0);
}

static void a_callback_may_set_its_own_timer(void **state)
{
    struct mr_timer t = {.fire = again};

    (void)state;
    now_us = 1;
    refires = 0;
    mr_timers_init(&wheel, now_us);
    mr_timer_set(&wheel, &t, now_us, 0);
    for (int i = 0; i < 20; i++) {
        now_us += 1000;
        mr_timers_run(&wheel, now_us);
    }
    assert_int_equal(refires, 5);
}

static void a_long_sleep_fires_all(void **state)
{
    struct probe a = {.timer = {.fire = fired}}, b = {.timer = {.fire = fired}};

    (void)state;
    now_us = 1000;
    mr_timers_init(&wheel, now_us);
    mr_timer_set(&wheel, &a.timer, now_us, 3);
    mr_timer_set(&wheel, &b.timer, now_us, 3600000);
    now_us += UINT64_C(7200000000);
    mr_timers_run(&wheel, now_us);
    assert_true(a.fired_us != 0 && b.fired_us != 0);
}

RUN(T(fires_on_time), T(cancels_and_sets_anew), T(a_callback_may_set_its_own_timer),
    T(a_long_sleep_fires_all))
