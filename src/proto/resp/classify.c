/* classify.c - from a request's arguments to what the proxy does with it, and its keys. */
#include "proto/resp/internal.h"

#include "core/number.h"

#include <stdio.h>

#define SHOWN_ARGS_BYTES 128u /* of the arguments that an "unknown command" reply repeats */

struct mr_slice mr_resp_arg(const struct mr_msg *msg, struct mr_key_walk *walk, uint32_t number)
{
    const char *end = msg->wire.at + msg->wire.len;
    const char *p = walk->at;
    int64_t n = 0;

    if (p == NULL) { /* start at the last remembered argument that is not too far */
        if (number < MR_MSG_ARGS)
            return msg->args[number];
        walk->arg = MR_MSG_ARGS;
        p = msg->args[MR_MSG_ARGS - 1].at + msg->args[MR_MSG_ARGS - 1].len + 2;
    }
    MR_CHECK(number >= walk->arg && number < msg->n_args);
    for (;; walk->arg++) {
        const char *body = p + 1;
        MR_CHECK(mr_resp_read_length(&body, end, &n) == MR_OK && n >= 0 && n <= end - body);
        if (walk->arg == number) {
            walk->at = p;
            return (struct mr_slice){body, (size_t)n};
        }
        p = body + n + 2;
    }
}

bool mr_resp_next_key(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key)
{
    const struct mr_msg_keys *k = &msg->keys;
    uint32_t i = walk->index;
    uint32_t number;

    if (i >= msg->n_keys)
        return false;
    walk->index++;
    if (k->before > 0 && i-- == 0) {
        number = k->before;
    } else if (i < k->count) {
        number = k->first + i * k->step;
    } else {
        number = k->after;
    }
    *key = mr_resp_arg(msg, walk, number);
    return true;
}

static void unknown_command(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    char args[SHOWN_ARGS_BYTES + 8];
    struct mr_key_walk walk = {0};
    size_t n = 0;

    args[0] = '\0';
    for (uint32_t i = 1; i < msg->n_args && n < SHOWN_ARGS_BYTES; i++) {
        const struct mr_slice a = mr_resp_arg(msg, &walk, i);
        const size_t room = SHOWN_ARGS_BYTES - n;
        n += (size_t)snprintf(args + n, sizeof(args) - n, "'%.*s' ",
                              (int)(a.len < room ? a.len : room), a.at);
        if (n > sizeof(args) - 1)
            n = sizeof(args) - 1;
    }
    const struct mr_slice name = msg->args[0];
    mr_resp_refuse(ctx, msg, "ERR unknown command '%.*s', with args beginning with: %s",
                   (int)(name.len < SHOWN_ARGS_BYTES ? name.len : SHOWN_ARGS_BYTES), name.at, args);
}

static bool arity_ok(const struct mr_resp_command *cmd, uint32_t n_args)
{
    return cmd->arity >= 0 ? n_args == (uint32_t)cmd->arity : n_args >= (uint32_t)-cmd->arity;
}

/* The count in argument `a`, and that many keys behind it. */
static bool find_counted(const struct mr_proto_ctx *ctx, struct mr_msg *msg,
                         const struct mr_resp_command *cmd)
{
    const uint32_t at = (uint32_t)cmd->a;
    struct mr_key_walk walk = {0};
    int64_t n;

    if (at >= msg->n_args || !mr_parse_int64(mr_resp_arg(msg, &walk, at), &n)) {
        mr_resp_refuse(ctx, msg, "ERR value is not an integer or out of range");
        return false;
    }
    if (n < 0 || n > (int64_t)(msg->n_args - at - 1)) {
        mr_resp_refuse(ctx, msg,
                       n < 0 ? "ERR Number of keys can't be negative"
                             : "ERR Number of keys can't be greater than number of args");
        return false;
    }
    msg->keys = (struct mr_msg_keys){
        .before = (uint32_t)cmd->b, .first = at + 1, .count = (uint32_t)n, .step = 1};
    msg->n_keys = (uint32_t)n + (cmd->b > 0);
    return true;
}

/* Argument 1, and `store` unless it is 0. */
static void set_stored(struct mr_msg *msg, uint32_t store)
{
    msg->keys = (struct mr_msg_keys){.first = 1, .count = 1, .step = 1, .after = store};
    msg->n_keys = store > 0 ? 2 : 1;
}

/* What the last STORE or STOREDIST names: it counts for Redis too. */
static void find_store(struct mr_msg *msg, const struct mr_resp_command *cmd)
{
    struct mr_key_walk walk = {0};
    uint32_t store = 0;

    for (uint32_t i = (uint32_t)cmd->a; i + 1 < msg->n_args; i++) {
        const struct mr_slice word = mr_resp_arg(msg, &walk, i);
        if (mr_slice_eq_nocase(word, "store") || mr_slice_eq_nocase(word, "storedist"))
            store = ++i;
    }
    set_stored(msg, store);
}

/* The same, among options whose values may be any word. */
static void find_sort_store(struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    uint32_t store = 0;

    for (uint32_t i = 2; i + 1 < msg->n_args; i++) {
        const struct mr_slice word = mr_resp_arg(msg, &walk, i);
        if (mr_slice_eq_nocase(word, "store"))
            store = ++i;
        else if (mr_slice_eq_nocase(word, "by") || mr_slice_eq_nocase(word, "get"))
            i++;
        else if (mr_slice_eq_nocase(word, "limit"))
            i += 2;
    }
    set_stored(msg, store);
}

static bool find_streams(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    uint32_t i = 1;

    for (; i < msg->n_args; i++) {
        const struct mr_slice word = mr_resp_arg(msg, &walk, i);
        if (mr_slice_eq_nocase(word, "streams"))
            break;
        if (mr_slice_eq_nocase(word, "group"))
            i += 2; /* names that may be any word */
        if (mr_slice_eq_nocase(word, "block"))
            msg->step = MR_STEP_BLOCK;
    }
    const uint32_t behind = i < msg->n_args ? msg->n_args - i - 1 : 0;
    if (behind == 0) {
        mr_resp_refuse(ctx, msg, "ERR syntax error");
        return false;
    }
    if (behind % 2 != 0) {
        const struct mr_resp_command *cmd = msg->command;
        mr_resp_refuse(ctx, msg,
                       "ERR Unbalanced '%s' list of streams: for each stream key an ID or '$' "
                       "must be specified.",
                       cmd->name);
        return false;
    }
    msg->keys = (struct mr_msg_keys){.first = i + 1, .count = behind / 2, .step = 1};
    msg->n_keys = behind / 2;
    for (i += 1 + behind / 2; i < msg->n_args; i++) /* `$` would be another place later */
        msg->once |= mr_slice_eq(mr_resp_arg(msg, &walk, i), mr_slice_of("$"));
    return true;
}

static void find_range(struct mr_msg *msg, const struct mr_resp_command *cmd)
{
    const uint32_t first = (uint32_t)cmd->a, step = (uint32_t)cmd->c;
    const int64_t last = cmd->b >= 0 ? cmd->b : (int64_t)msg->n_args + cmd->b;

    msg->keys = (struct mr_msg_keys){.first = first, .step = step};
    if (first < msg->n_args && last >= first)
        msg->keys.count = ((uint32_t)last - first) / step + 1;
    msg->n_keys = msg->keys.count;
}

static void refuse_group(const struct mr_proto_ctx *ctx, struct mr_msg *msg,
                         const struct mr_resp_command *cmd, const char *why)
{
    mr_resp_refuse(ctx, msg, "ERR command '%s' is not supported by this proxy: %s", cmd->name, why);
}

/* Another database of the server is not this client's to write. */
static bool allows_copy(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};

    for (uint32_t i = 3; i < msg->n_args; i++)
        if (mr_slice_eq_nocase(mr_resp_arg(msg, &walk, i), "db")) {
            mr_resp_refuse(ctx, msg, "ERR DB is not supported by this proxy");
            return false;
        }
    return true;
}

static bool asks_for_usage(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    if (mr_slice_eq_nocase(msg->args[1], "usage"))
        return true;
    refuse_group(ctx, msg, msg->command, "it administers one server");
    return false;
}

bool mr_resp_find_keys(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = msg->command;

    switch ((enum mr_resp_keys)cmd->keys) {
    case MR_RESP_NO_KEYS:
        msg->n_keys = 0;
        return true;
    case MR_RESP_KEYS:
        find_range(msg, cmd);
        return true;
    case MR_RESP_NUM_KEYS:
        return find_counted(ctx, msg, cmd);
    case MR_RESP_STORE_KEYS:
        find_store(msg, cmd);
        return true;
    case MR_RESP_SORT_KEYS:
        find_sort_store(msg);
        return true;
    case MR_RESP_COPY_KEYS:
        find_range(msg, cmd);
        return allows_copy(ctx, msg);
    case MR_RESP_USAGE_KEYS:
        find_range(msg, cmd);
        return asks_for_usage(ctx, msg);
    case MR_RESP_STREAM_KEYS:
        return find_streams(ctx, msg);
    }
    MR_BUG("a command without a key rule");
}

static bool key_fits(const struct mr_proto_ctx *ctx, struct mr_msg *msg, struct mr_slice key)
{
    if (MR_LIKELY(key.len <= ctx->options->max_key_bytes))
        return true;
    mr_resp_refuse(ctx, msg, "ERR key of %zu bytes is longer than the limit of %u", key.len,
                   ctx->options->max_key_bytes);
    return false;
}

static void route(const struct mr_proto_ctx *ctx, struct mr_msg *msg,
                  const struct mr_resp_command *cmd)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    if (cmd->keys == MR_RESP_KEYS && cmd->a == 1 && cmd->b == 1) { /* nearly all of them */
        if (key_fits(ctx, msg, msg->args[1])) {
            msg->action = MR_MSG_BY_KEY;
            msg->key = msg->args[1];
        }
        return;
    }
    if (!mr_resp_find_keys(ctx, msg))
        return;
    while (mr_resp_next_key(msg, &walk, &key))
        if (!key_fits(ctx, msg, key))
            return;
    walk = (struct mr_key_walk){0};
    if (mr_resp_next_key(msg, &walk, &msg->key)) {
        msg->action = msg->n_keys == 1 ? MR_MSG_BY_KEY : MR_MSG_BY_KEYS;
    } else {
        msg->action = MR_MSG_ANYWHERE; /* a script without keys, OBJECT HELP */
        msg->key = (struct mr_slice){NULL, 0};
    }
}

static void take_step(const struct mr_proto_ctx *ctx, struct mr_msg *msg, enum mr_step step)
{
    route(ctx, msg, msg->command);
    if (msg->action != MR_MSG_REFUSE)
        msg->step = (uint8_t)step;
}

void mr_resp_classify(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = mr_resp_command(msg->args[0]);

    msg->command = cmd;
    if (MR_UNLIKELY(cmd == NULL)) {
        unknown_command(ctx, msg);
        return;
    }
    if (MR_UNLIKELY(!arity_ok(cmd, msg->n_args))) {
        mr_resp_refuse(ctx, msg, "ERR wrong number of arguments for '%s' command", cmd->name);
        return;
    }
    if (MR_UNLIKELY(!ctx->session->authed && !(cmd->traits & MR_RESP_OPEN))) {
        mr_resp_refuse(ctx, msg, "NOAUTH Authentication required");
        return;
    }
    msg->class = cmd->class;
    msg->to_master = cmd->class != MR_CLASS_READ ||
                     (ctx->options->meitu_reads && !(cmd->traits & MR_RESP_MEITU));
    msg->splittable = false;
    switch ((enum mr_resp_handling)cmd->handling) {
    case MR_RESP_ROUTE:
        route(ctx, msg, cmd);
        return;
    case MR_RESP_SPLIT_MSET:
        if (msg->n_args % 2 == 0) {
            mr_resp_refuse(ctx, msg, "ERR wrong number of arguments for 'mset' command");
            return;
        }
        MR_FALLTHROUGH;
    case MR_RESP_SPLIT_MGET:
    case MR_RESP_SPLIT_SUM:
        route(ctx, msg, cmd);
        msg->splittable = true;
        return;
    case MR_RESP_LOCAL:
        msg->action = MR_MSG_LOCAL;
        msg->queueable = (cmd->traits & MR_RESP_QUEUED) != 0;
        msg->step = cmd->traits & MR_RESP_ENDS ? MR_STEP_END : MR_STEP_NONE;
        return;
    case MR_RESP_BLOCK:
        take_step(ctx, msg, MR_STEP_BLOCK);
        return;
    case MR_RESP_WATCH:
        take_step(ctx, msg, MR_STEP_WATCH);
        return;
    case MR_RESP_UNWATCH:
        take_step(ctx, msg, MR_STEP_UNWATCH);
        return;
    case MR_RESP_BEGIN:
        take_step(ctx, msg, MR_STEP_BEGIN);
        return;
    case MR_RESP_COMMIT:
        take_step(ctx, msg, MR_STEP_COMMIT);
        return;
    case MR_RESP_DISCARD:
        take_step(ctx, msg, MR_STEP_DISCARD);
        return;
    case MR_RESP_ANYWHERE:
        msg->action = MR_MSG_ANYWHERE;
        return;
    case MR_RESP_REFUSE_ADMIN:
        refuse_group(ctx, msg, cmd, "it administers one server");
        return;
    case MR_RESP_REFUSE_PUBSUB:
        refuse_group(ctx, msg, cmd, "publish and subscribe need a connection of their own");
        return;
    case MR_RESP_REFUSE_WHOLE:
        if (ctx->options->replicated && cmd->class == MR_CLASS_READ) {
            msg->action = MR_MSG_ANYWHERE; /* every server has them all; cursors are of one */
            msg->to_master = true;
            return;
        }
        refuse_group(ctx, msg, cmd, "it concerns all keys of all servers");
        return;
    }
}
