/* batch.c - how long requests are held back for others. */
#include "upstream/batch.h"

#define BATCH_BYTES 16384u /* leaves at once; redis-server reads as much */

static void release(struct mr_batch *batch)
{
    batch->state = MR_BATCH_NONE;
    batch->held = 0;
    mr_batch_drop(batch);
    mr_stream_uncork(batch->stream);
}

static void on_alarm(struct mr_alarm *alarm)
{
    release(MR_CONTAINER_OF(alarm, struct mr_batch, alarm));
}

static void on_lull(struct mr_lull *lull)
{
    release(MR_CONTAINER_OF(lull, struct mr_batch, lull));
}

void mr_batch_init(struct mr_batch *batch, struct mr_stream *stream)
{
    *batch = (struct mr_batch){.stream = stream, .alarm.fire = on_alarm, .lull.on_lull = on_lull};
}

static void await_lull(struct mr_batch *batch)
{
    batch->state = MR_BATCH_LULL;
    mr_loop_await_lull(batch->stream->loop, &batch->lull);
}

static void hold(struct mr_batch *batch, uint32_t clock_us, uint32_t unanswered)
{
    mr_stream_cork(batch->stream);
    if (clock_us > 0) {
        batch->state = MR_BATCH_CLOCKED;
        mr_loop_alarm(batch->stream->loop, &batch->alarm, clock_us);
    } else if (unanswered == 0) {
        await_lull(batch);
    } else {
        batch->state = MR_BATCH_REPLY;
    }
}

/*
 * While a batch is unanswered the server is busy, so that requests held back would only wait there;
 * holding costs them one trip to the server. No timer limits it: such short timers cost more than
 * the batch saves, and a reply or the end of the connection always comes. Towards an idle server,
 * requests wait only as long as others are already there to be read.
 */
void mr_batch_add(struct mr_batch *batch, uint32_t clock_us, uint32_t unanswered, size_t len)
{
    const size_t pending = mr_stream_pending(batch->stream);

    if (pending + len >= BATCH_BYTES) {
        if (batch->state != MR_BATCH_NONE)
            release(batch);
        return;
    }
    if (batch->state == MR_BATCH_NONE && pending == 0)
        hold(batch, clock_us, unanswered);
    if (batch->state != MR_BATCH_NONE)
        batch->held++;
}

/*
 * A batch as large as the one that came back leaves at once, so that the server gets it before the
 * clients get their replies. A smaller one waits for those of them whose next request is near:
 * otherwise small batches, which make everybody wake up more often, would stay small for ever.
 */
void mr_batch_answered(struct mr_batch *batch, uint64_t n, uint32_t unanswered)
{
    if (batch->state == MR_BATCH_NONE ||
        (batch->state == MR_BATCH_REPLY && unanswered > 2 * batch->held))
        return;
    if (batch->state == MR_BATCH_CLOCKED || batch->held >= n)
        release(batch);
    else
        await_lull(batch);
}

void mr_batch_drop(struct mr_batch *batch)
{
    mr_alarm_cancel(&batch->alarm);
    mr_lull_cancel(&batch->lull);
}
