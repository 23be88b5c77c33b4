/* loop.c - the event loop of one process. */
#include "net/loop.h"

#include "core/clock.h"
#include "net/engine.h"
#include "net/stream_engine.h"

#include <string.h>

#define TRIM_MS   1000u
#define LUCK_MAX  256u /* every poll for a lull brought events */
#define LUCK_LOW  32u  /* below it, only one lull in LULL_SEEK is polled for */
#define LULL_SEEK 8u

static void trim(struct mr_timer *timer)
{
    struct mr_loop *loop = MR_CONTAINER_OF(timer, struct mr_loop, trim_timer);

    mr_slab_trim(&loop->slab);
    if (loop->slab.cached_bytes > 0)
        mr_loop_timer(loop, timer, TRIM_MS);
}

static const struct mr_engine *find_engine(const char *name)
{
    static const struct mr_engine *const ALL[] = {
        &MR_ENGINE_EPOLL,
#ifdef MR_WITH_URING
        &MR_ENGINE_URING,
#endif
    };

    for (size_t i = 0; i < MR_COUNT(ALL); i++)
        if (strcmp(ALL[i]->name, name) == 0)
            return ALL[i];
    return NULL;
}

const char *mr_loop_choose_engine(const char *setting, struct mr_error *err)
{
    const bool automatic = strcmp(setting, "auto") == 0;
    struct mr_loop loop;

    if (mr_loop_init(&loop, automatic ? MR_ENGINE_AUTO : setting, err) == MR_OK) {
        const char *name = loop.engine->name;
        mr_loop_fini(&loop);
        return name;
    }
    return automatic ? MR_ENGINE_EPOLL.name : NULL;
}

enum mr_result mr_loop_init(struct mr_loop *loop, const char *engine, struct mr_error *err)
{
    const struct mr_engine *found = find_engine(engine);

    if (found == NULL)
        return mr_fail(err, MR_ECONFIG, "this build has no engine '%s'", engine);
    memset(loop, 0, sizeof(*loop));
    loop->engine = found;
    loop->now_us = mr_clock_mono_us();
    mr_slab_init(&loop->slab);
    mr_timers_init(&loop->timers, loop->now_us);
    mr_list_init(&loop->resumed);
    mr_list_init(&loop->alarms);
    mr_list_init(&loop->lulls);
    loop->dirty_tail = &loop->dirty;
    loop->next_alarm_us = UINT64_MAX;
    loop->trim_timer.fire = trim;
    return loop->engine->init(loop, err);
}

void mr_loop_fini(struct mr_loop *loop)
{
    mr_loop_settle(loop);
    MR_CHECK(loop->n_streams == 0); /* owners close what they opened */
    mr_timer_cancel(&loop->trim_timer);
    loop->engine->fini(loop);
    mr_slab_fini(&loop->slab);
}

void mr_loop_abandon(struct mr_loop *loop)
{
    loop->engine->fini(loop);
}

void mr_loop_timer(struct mr_loop *loop, struct mr_timer *timer, uint64_t delay_ms)
{
    mr_timer_set(&loop->timers, timer, loop->now_us, delay_ms);
}

void mr_loop_alarm(struct mr_loop *loop, struct mr_alarm *alarm, uint64_t delay_us)
{
    alarm->at_us = loop->now_us + delay_us;
    mr_list_append(&loop->alarms, &alarm->link);
    if (alarm->at_us < loop->next_alarm_us)
        loop->next_alarm_us = alarm->at_us;
}

void mr_alarm_cancel(struct mr_alarm *alarm)
{
    if (mr_list_linked(&alarm->link))
        mr_list_del(&alarm->link);
}

static void run_alarms(struct mr_loop *loop)
{
    struct mr_list *link, *next;

    if (MR_LIKELY(loop->next_alarm_us > loop->now_us))
        return;
    loop->next_alarm_us = UINT64_MAX;
    for (link = loop->alarms.next; link != &loop->alarms; link = next) {
        struct mr_alarm *alarm = MR_CONTAINER_OF(link, struct mr_alarm, link);
        next = link->next;
        if (alarm->at_us > loop->now_us) {
            if (alarm->at_us < loop->next_alarm_us)
                loop->next_alarm_us = alarm->at_us;
            continue;
        }
        mr_list_del(link);
        alarm->fire(alarm);
    }
}

void mr_loop_await_lull(struct mr_loop *loop, struct mr_lull *lull)
{
    if (mr_list_linked(&lull->link))
        return;
    if (mr_list_empty(&loop->lulls)) {
        loop->busy_turns = 0;
        loop->n_lulls++;
    }
    mr_list_append(&loop->lulls, &lull->link);
}

void mr_lull_cancel(struct mr_lull *lull)
{
    if (mr_list_linked(&lull->link))
        mr_list_del(&lull->link);
}

/* Whether to poll once more before what waits for a lull goes on. */
static bool poll_again(struct mr_loop *loop)
{
    const uint32_t turns = loop->busy_turns++;

    if (turns == 0) /* awaited in this turn */
        return loop->n_events > 0 && (loop->luck >= LUCK_LOW || loop->n_lulls % LULL_SEEK == 0);
    if (turns == 1)
        loop->luck = (15 * loop->luck + (loop->n_events > 0 ? LUCK_MAX : 0)) / 16;
    return loop->n_events > 0 && turns < MR_LULL_TURNS;
}

static void run_lulls(struct mr_loop *loop)
{
    struct mr_list now;

    if (MR_LIKELY(mr_list_empty(&loop->lulls)) || poll_again(loop))
        return;
    mr_list_init(&now);
    mr_list_splice(&now, &loop->lulls);
    while (!mr_list_empty(&now)) {
        struct mr_lull *lull = MR_CONTAINER_OF(now.next, struct mr_lull, link);
        mr_list_del(&lull->link);
        lull->on_lull(lull);
    }
}

/* Microseconds that the engine may wait; -1 for no limit. */
static int64_t wait_us(const struct mr_loop *loop, int max_wait_ms)
{
    const int ceiling = max_wait_ms < 0 ? INT32_MAX : max_wait_ms;

    if (loop->n_resumed > 0 || !mr_list_empty(&loop->lulls) || loop->next_alarm_us <= loop->now_us)
        return 0;
    const int wheel_ms = mr_timers_wait_ms(&loop->timers, loop->now_us, ceiling);
    const int64_t us = wheel_ms == INT32_MAX ? INT64_MAX : (int64_t)wheel_ms * 1000;
    const uint64_t alarm_us = loop->next_alarm_us - loop->now_us;
    if (loop->next_alarm_us != UINT64_MAX && (int64_t)alarm_us < us)
        return (int64_t)alarm_us;
    return us == INT64_MAX ? -1 : us;
}

void mr_watch_start(struct mr_loop *loop, struct mr_watch *watch)
{
    if (watch->active)
        return;
    watch->active = true;
    loop->engine->watch(loop, watch);
}

void mr_watch_stop(struct mr_loop *loop, struct mr_watch *watch)
{
    if (!watch->active)
        return;
    watch->active = false;
    loop->engine->unwatch(loop, watch);
}

/* Delivers once to each resumed stream. Streams resumed meanwhile wait for the next turn. */
static void redeliver(struct mr_loop *loop)
{
    for (uint32_t n = loop->n_resumed; n > 0 && loop->n_resumed > 0; n--) {
        struct mr_stream *s = MR_CONTAINER_OF(loop->resumed.next, struct mr_stream, resumed);
        mr_list_del(&s->resumed);
        loop->n_resumed--;
        mr_stream_redeliver(s);
    }
}

/* Repeated, because each causes the other: on_close answers other streams. */
static void flush_and_reap(struct mr_loop *loop)
{
    for (;;) {
        if (loop->dirty != NULL) {
            struct mr_stream *s = loop->dirty;
            loop->dirty = s->next_dirty;
            if (loop->dirty == NULL)
                loop->dirty_tail = &loop->dirty;
            mr_stream_flush(s);
        } else if (loop->closed != NULL) {
            struct mr_stream *s = loop->closed;
            loop->closed = s->next_closed;
            mr_stream_reap(s);
        } else {
            return;
        }
    }
}

void mr_loop_turn(struct mr_loop *loop, int max_wait_ms)
{
    loop->engine->wait(loop, wait_us(loop, max_wait_ms));
    redeliver(loop);
    mr_timers_run(&loop->timers, loop->now_us);
    run_alarms(loop);
    run_lulls(loop);
    flush_and_reap(loop);
    if (loop->slab.cached_bytes > 0 && !mr_timer_is_set(&loop->trim_timer))
        mr_loop_timer(loop, &loop->trim_timer, TRIM_MS);
}

void mr_loop_settle(struct mr_loop *loop)
{
    while (loop->closed != NULL || loop->n_releasing > 0)
        mr_loop_turn(loop, loop->closed != NULL ? 0 : -1);
}

bool mr_loop_undelivered(const struct mr_loop *loop)
{
    return loop->engine->undelivered(loop);
}

void mr_loop_run(struct mr_loop *loop)
{
    while (!loop->stop)
        mr_loop_turn(loop, -1);
}
