/* split.c - splits requests over servers and joins the replies. */
#include "proto/resp/internal.h"

#include "core/number.h"

#define HEAD_ROOM  10u  /* "*1048576" CR LF: the number of arguments is known last */
#define FIRST_ROOM 512u /* most parts are no longer, so they need not grow */

static const char *start_of_bulk(struct mr_slice body)
{
    const char *p = body.at - 3; /* the last digit of its length */

    while (*p != '$')
        p--;
    return p;
}

void mr_resp_begin_part(const struct mr_msg *msg, struct mr_slab *slab, struct mr_part *part)
{
    const struct mr_slice name = msg->args[0];
    const char *start = start_of_bulk(name);
    const size_t head = HEAD_ROOM + (size_t)(name.at + name.len + 2 - start);
    const size_t likely = msg->wire.len < FIRST_ROOM ? msg->wire.len : FIRST_ROOM;
    char *at = mr_buf_reserve(&part->request, slab, HEAD_ROOM + likely);

    if (at == NULL) {
        mr_buf_fail(&part->request, slab);
        return;
    }
    part->request.end += HEAD_ROOM;
    mr_buf_put(&part->request, slab, start, head - HEAD_ROOM);
}

void mr_resp_end_parts(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab)
{
    char head[24];

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        struct mr_buf *request = &plan->parts[i].request;
        if (mr_buf_failed(request))
            continue;
        head[0] = '*';
        const uint64_t n_args = 1 + (uint64_t)plan->parts[i].n_keys * msg->keys.step;
        size_t len = 1 + mr_format_uint(head + 1, n_args);
        memcpy(head + len, "\r\n", 2);
        len += 2;
        mr_buf_consume(request, slab, HEAD_ROOM - len);
        memcpy(request->mem + request->start, head, len);
    }
}

static const char *first_failure(const struct mr_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (plan->parts[i].failure != NULL)
            return plan->parts[i].failure;
    return NULL;
}

static struct mr_slice reply_of(const struct mr_plan *plan, uint32_t part)
{
    return plan->parts[part].reply;
}

/* A server's error becomes the whole reply; any other wrong type is a bad reply. */
bool mr_resp_join_error(const struct mr_plan *plan, char wanted, struct mr_slab *slab,
                        struct mr_buf *out)
{
    const char *failure = first_failure(plan);

    for (uint32_t i = 0; i < plan->n_parts && failure == NULL; i++) {
        const struct mr_slice reply = reply_of(plan, i);
        if (reply.at[0] == '-' || reply.at[0] == '!') {
            mr_buf_put(out, slab, reply.at, reply.len);
            return true;
        }
        if (wanted != '\0' && reply.at[0] != wanted)
            failure = "Invalid argument";
    }
    if (failure == NULL)
        return false;
    mr_resp_put_failure(out, slab, failure);
    return true;
}

void mr_resp_join_sum(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    uint64_t sum = 0;

    if (mr_resp_join_error(plan, ':', slab, out))
        return;
    for (uint32_t i = 0; i < plan->n_parts; i++) {
        const struct mr_slice reply = reply_of(plan, i);
        uint64_t v = 0;
        (void)mr_parse_uint((struct mr_slice){reply.at + 1, reply.len - 3}, UINT64_MAX >> 8, &v);
        sum += v;
    }
    mr_resp_put_head(out, slab, ':', sum);
}

static void join_mset(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    if (!mr_resp_join_error(plan, '+', slab, out))
        mr_buf_put(out, slab, "+OK\r\n", 5);
}

/* Checks that part i returned one element per key; *at is the first. */
static bool array_matches(const struct mr_plan *plan, uint32_t i, const char **at)
{
    const struct mr_slice reply = reply_of(plan, i);
    int64_t n;

    *at = reply.at + 1;
    return mr_resp_read_length(at, reply.at + reply.len, &n) == MR_OK &&
           n == (int64_t)plan->parts[i].n_keys;
}

static void join_mget(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const char **at;

    if (mr_resp_join_error(plan, '*', slab, out))
        return;
    at = mr_slab_try(slab, plan->n_parts * sizeof(*at)); /* next element of each part */
    if (at == NULL) {
        mr_buf_fail(out, slab);
        return;
    }
    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (!array_matches(plan, i, &at[i])) {
            mr_buf_printf(out, slab, "-ERR Invalid argument\r\n");
            goto put_at;
        }
    mr_resp_put_head(out, slab, '*', plan->n_keys);
    for (uint32_t k = 0; k < plan->n_keys; k++) {
        const uint32_t i = plan->part_of_key[k];
        const struct mr_slice reply = reply_of(plan, i);
        struct mr_reply_state state = {0};
        size_t n = 0;
        MR_CHECK(mr_resp_scan_reply(MR_RESP_3, &state, at[i],
                                    (size_t)(reply.at + reply.len - at[i]),
                                    &n) == MR_OK); /* checked on arrival */
        mr_buf_put(out, slab, at[i], n);
        at[i] += n;
    }
put_at:
    mr_slab_put(slab, at, plan->n_parts * sizeof(*at));
}

void mr_resp_join(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_resp_command *cmd = plan->command;

    if (cmd->handling == MR_RESP_SPLIT_MGET)
        join_mget(plan, slab, out);
    else if (cmd->handling == MR_RESP_SPLIT_MSET)
        join_mset(plan, slab, out);
    else if (cmd->handling == MR_RESP_WHOLE)
        mr_resp_join_whole(plan, slab, out);
    else
        mr_resp_join_sum(plan, slab, out);
}
