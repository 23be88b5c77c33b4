/* split.c - requests whose keys live on several servers: taken apart, replies put together. */
#include "proto/resp/internal.h"

#include "core/number.h"

static uint32_t args_per_key(const struct mr_resp_command *cmd)
{
    return cmd->handling == MR_RESP_SPLIT_MSET ? 2 : 1;
}

void mr_resp_split(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab)
{
    const struct mr_resp_command *cmd = msg->command;
    const uint32_t per_key = args_per_key(cmd);
    struct mr_key_walk walk = {0};

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        struct mr_part *part = &plan->parts[i];
        mr_resp_put_head(&part->request, slab, '*', 1 + (uint64_t)part->n_keys * per_key);
        mr_resp_put_bulk(&part->request, slab, mr_slice_of(cmd->name));
    }
    for (uint32_t k = 0; k < plan->n_keys; k++) {
        struct mr_part *part = &plan->parts[plan->part_of_key[k]];
        for (uint32_t j = 0; j < per_key; j++)
            mr_resp_put_bulk(&part->request, slab, mr_resp_arg(msg, &walk, 1 + k * per_key + j));
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
    return mr_buf_slice(&plan->parts[part].reply);
}

/* A server's own error stands for the whole; any other reply of the wrong type is a bad reply. */
static bool join_error(const struct mr_plan *plan, char wanted, struct mr_slab *slab,
                       struct mr_buf *out)
{
    const char *failure = first_failure(plan);

    for (uint32_t i = 0; i < plan->n_parts && failure == NULL; i++) {
        const struct mr_slice reply = reply_of(plan, i);
        if (reply.at[0] == '-' || reply.at[0] == '!') {
            mr_buf_put(out, slab, reply.at, reply.len);
            return true;
        }
        if (reply.at[0] != wanted)
            failure = "Invalid argument";
    }
    if (failure == NULL)
        return false;
    mr_resp_put_failure(out, slab, failure);
    return true;
}

static void join_sum(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    uint64_t sum = 0;

    if (join_error(plan, ':', slab, out))
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
    if (!join_error(plan, '+', slab, out))
        mr_buf_put(out, slab, "+OK\r\n", 5);
}

/* Checks that part i answered with one element for each of its keys; *at is the first one. */
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

    if (join_error(plan, '*', slab, out))
        return;
    at = mr_slab_try(slab, plan->n_parts * sizeof(*at)); /* each part's next element */
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
                                    &n) == MR_OK); /* the whole reply was scanned when it came */
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
    else
        join_sum(plan, slab, out);
}
