/*
 * transfer.c - requests that take a key from one pool to another: DUMP and RESTORE.
 *
 * https://redis.io/docs/latest/commands/restore/
 */
#include "core/number.h"
#include "proto/resp/internal.h"

/* ---- databases ---- */

bool mr_resp_transfer_lane(const struct mr_proto_options *from, uint8_t lane,
                           const struct mr_proto_options *to, uint8_t *to_lane)
{
    *to_lane = MR_RESP_2;
    return lane / MR_RESP_VERSIONS == 0 ||
           mr_resp_lane_of(to, MR_RESP_2, mr_resp_lane_db(from, lane), to_lane);
}

/* The number after the last DB; empty if there is none. */
static struct mr_slice database_of_copy(const struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    struct mr_slice number = {NULL, 0};

    for (uint32_t i = 3; i + 1 < msg->n_args; i++)
        if (mr_slice_eq_nocase(mr_resp_arg(msg, &walk, i), "db"))
            number = mr_resp_arg(msg, &walk, ++i);
    return number;
}

bool mr_resp_other_lane(const struct mr_proto_options *options, const struct mr_msg *msg,
                        uint8_t *lane)
{
    const struct mr_resp_command *cmd = msg->command;
    struct mr_slice number = {NULL, 0};
    uint64_t db;

    if (cmd->keys == MR_RESP_COPY_KEYS)
        number = database_of_copy(msg);
    else if (cmd->keys == MR_RESP_MOVE_KEYS)
        number = msg->args[2];
    return mr_parse_uint(number, UINT32_MAX, &db) &&
           mr_resp_lane_of(options, MR_RESP_2, (uint32_t)db, lane);
}

bool mr_resp_empties(const struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = msg->command;

    return strcmp(cmd->name, "flushall") == 0 || strcmp(cmd->name, "flushdb") == 0;
}

/* ---- one key ---- */

static void put_request(struct mr_buf *out, struct mr_slab *slab, const struct mr_slice *args,
                        uint32_t n)
{
    mr_resp_put_head(out, slab, '*', n);
    for (uint32_t i = 0; i < n; i++)
        mr_resp_put_bulk(out, slab, args[i]);
}

static void put_2(struct mr_buf *out, struct mr_slab *slab, const char *command,
                  struct mr_slice key)
{
    const struct mr_slice args[] = {mr_slice_of(command), key};

    put_request(out, slab, args, MR_COUNT(args));
}

void mr_resp_fetch(struct mr_slice key, struct mr_slab *slab, struct mr_buf *out)
{
    put_2(out, slab, "PTTL", key);
    put_2(out, slab, "DUMP", key);
}

bool mr_resp_read_ttl(struct mr_slice reply, int64_t *ms)
{
    const char *p = reply.at;

    if (!mr_resp_next_head(&p, reply.at + reply.len, ':', ms))
        return false;
    if (*ms < 0) /* -2: there is no key */
        *ms = -1;
    return true;
}

enum mr_holding mr_resp_read_value(struct mr_slice reply, struct mr_slice *value)
{
    const char *p = reply.at;

    if (mr_slice_eq(reply, mr_slice_of("$-1\r\n")) || mr_slice_eq(reply, mr_slice_of("_\r\n")))
        return MR_HOLDS_NOTHING;
    return mr_resp_next_bulk(&p, reply.at + reply.len, value) ? MR_HOLDS_VALUE : MR_HOLDING_UNKNOWN;
}

void mr_resp_store(struct mr_slice key, struct mr_slice value, uint64_t until_ms,
                   struct mr_slab *slab, struct mr_buf *out)
{
    char digits[20];
    const size_t n = mr_format_uint(digits, until_ms);
    const struct mr_slice args[] = {
        mr_slice_of("RESTORE"), key, {digits, n}, value, mr_slice_of("REPLACE"),
        mr_slice_of("ABSTTL")};

    put_request(out, slab, args, until_ms > 0 ? 6 : 5);
}

void mr_resp_remove(struct mr_slice key, struct mr_slab *slab, struct mr_buf *out)
{
    put_2(out, slab, "UNLINK", key);
}

bool mr_resp_transferred(struct mr_slice reply)
{
    return reply.len > 0 && (reply.at[0] == '+' || reply.at[0] == ':');
}
