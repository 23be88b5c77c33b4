/* batch.c - how long requests are held back for others. */
#include "upstream/batch.h"

#include "net/stream.h"
#include "upstream/backend.h"
#include "upstream/pool.h"

#define BATCH_BYTES 16384u /* leaves at once; redis-server reads as much */

static void release(struct mr_backend *b)
{
    b->batch.state = MR_BATCH_NONE;
    b->batch.held = 0;
    mr_alarm_cancel(&b->batch.alarm);
    mr_lull_cancel(&b->batch.lull);
    mr_stream_uncork(&b->stream);
}

static void on_alarm(struct mr_alarm *alarm)
{
    release(MR_CONTAINER_OF(alarm, struct mr_backend, batch.alarm));
}

static void on_lull(struct mr_lull *lull)
{
    release(MR_CONTAINER_OF(lull, struct mr_backend, batch.lull));
}

void mr_batch_init(struct mr_backend *b)
{
    b->batch.alarm.fire = on_alarm;
    b->batch.lull.on_lull = on_lull;
}

static void await_lull(struct mr_backend *b)
{
    b->batch.state = MR_BATCH_LULL;
    mr_loop_await_lull(b->stream.loop, &b->batch.lull);
}

static void hold(struct mr_backend *b, uint32_t setting)
{
    mr_stream_cork(&b->stream);
    if (setting != MR_AUTO) {
        b->batch.state = MR_BATCH_CLOCKED;
        mr_loop_alarm(b->stream.loop, &b->batch.alarm, setting);
    } else if (mr_backend_idle(b)) {
        await_lull(b);
    } else {
        b->batch.state = MR_BATCH_REPLY;
    }
}

/*
 * While a batch is unanswered the server is busy, so that requests held back would only wait there;
 * holding costs them one trip to the server. No timer limits it: such short timers cost more than
 * the batch saves, and a reply or the end of the connection always comes. Towards an idle server,
 * requests wait only as long as others are already there to be read.
 */
void mr_batch_add(struct mr_backend *b, size_t len)
{
    const uint32_t setting = b->server->pool->config->coalesce_us;

    if (setting == 0 || b->kind != MR_BACKEND_SHARED || b->state != MR_BACKEND_READY)
        return;
    if (mr_stream_pending(&b->stream) + len >= BATCH_BYTES) {
        if (b->batch.state != MR_BATCH_NONE)
            release(b);
        return;
    }
    if (b->batch.state == MR_BATCH_NONE && mr_stream_pending(&b->stream) == 0 &&
        (setting != MR_AUTO || b->near))
        hold(b, setting);
    if (b->batch.state != MR_BATCH_NONE)
        b->batch.held++;
}

/*
 * A batch as large as the one that came back leaves at once, so that the server gets it before the
 * clients get their replies. A smaller one waits for those of them whose next request is near:
 * otherwise small batches, which make everybody wake up more often, would stay small for ever.
 */
void mr_batch_answered(struct mr_backend *b, uint64_t n)
{
    if (b->batch.state == MR_BATCH_NONE ||
        (b->batch.state == MR_BATCH_REPLY && b->n_calls > 2 * b->batch.held))
        return;
    if (b->batch.state == MR_BATCH_CLOCKED || b->batch.held >= n)
        release(b);
    else
        await_lull(b);
}

void mr_batch_drop(struct mr_backend *b)
{
    mr_alarm_cancel(&b->batch.alarm);
    mr_lull_cancel(&b->batch.lull);
}
