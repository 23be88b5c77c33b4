/* pubsub.c - publish and subscribe: what servers are told, and what clients are. */
#include "proto/resp/internal.h"

static const char *const ON[] = {"subscribe", "psubscribe", "ssubscribe"};
static const char *const OFF[] = {"unsubscribe", "punsubscribe", "sunsubscribe"};
static const char *const MESSAGE[] = {"message", "pmessage", "smessage"};

/* ---- requests of clients ---- */

static enum mr_topic_kind kind_of(const struct mr_resp_command *cmd)
{
    return cmd->name[0] == 'p' ? MR_TOPIC_PATTERN
           : strncmp(cmd->name, "ss", 2) == 0 || strncmp(cmd->name, "sun", 3) == 0
               ? MR_TOPIC_SHARD
               : MR_TOPIC_CHANNEL;
}

void mr_resp_classify_topics(struct mr_msg *msg, bool on)
{
    msg->step = on ? MR_STEP_SUBSCRIBE : MR_STEP_UNSUBSCRIBE;
    msg->topic = (uint8_t)kind_of(msg->command);
}

/* ---- server connections, which speak RESP2 ---- */

void mr_resp_order_topic(enum mr_topic_kind kind, bool on, struct mr_slice name,
                         struct mr_slab *slab, struct mr_buf *out)
{
    mr_resp_put_head(out, slab, '*', 2);
    mr_resp_put_bulk(out, slab, mr_slice_of((on ? ON : OFF)[kind]));
    mr_resp_put_bulk(out, slab, name);
}

static bool is_kind(struct mr_slice word, const char *const *words, enum mr_topic_kind *kind)
{
    for (int i = 0; i < MR_TOPIC_KINDS; i++)
        if (mr_slice_eq(word, mr_slice_of(words[i]))) {
            *kind = (enum mr_topic_kind)i;
            return true;
        }
    return false;
}

/* https://redis.io/docs/latest/develop/interact/pubsub/ */
bool mr_resp_read_push(struct mr_slice reply, struct mr_push *push)
{
    const char *p = reply.at, *end = reply.at + reply.len;
    struct mr_slice word;
    int64_t n;

    if (!mr_resp_next_head(&p, end, '*', &n) || n < 3 || !mr_resp_next_bulk(&p, end, &word))
        return false;
    push->ended = is_kind(word, OFF, &push->kind);
    return (push->ended || is_kind(word, MESSAGE, &push->kind)) &&
           mr_resp_next_bulk(&p, end, &push->name);
}

/* ---- what clients are told ---- */

void mr_resp_confirm_topic(const struct mr_session *session, enum mr_topic_kind kind, bool on,
                           struct mr_slice name, struct mr_slab *slab, struct mr_buf *out)
{
    const bool resp3 = mr_resp_version(session->dialect) == MR_RESP_3;
    const uint32_t n = kind == MR_TOPIC_SHARD
                           ? session->topics[MR_TOPIC_SHARD]
                           : session->topics[MR_TOPIC_CHANNEL] + session->topics[MR_TOPIC_PATTERN];

    mr_resp_put_head(out, slab, resp3 ? '>' : '*', 3);
    mr_resp_put_bulk(out, slab, mr_slice_of((on ? ON : OFF)[kind]));
    if (name.at != NULL)
        mr_resp_put_bulk(out, slab, name);
    else
        mr_buf_put(out, slab, resp3 ? "_\r\n" : "$-1\r\n", resp3 ? 3 : 5);
    mr_resp_put_head(out, slab, ':', n);
}

char mr_resp_message_mark(const struct mr_session *session)
{
    return mr_resp_version(session->dialect) == MR_RESP_3 ? '>' : '*';
}
