/* classify.c - decides what to do with a request, and finds its keys. */
#include "proto/resp/internal.h"

#include "core/number.h"
#include "proto/user.h"

#include <ctype.h>
#include <stdio.h>

#define SHOWN_ARGS_BYTES 128u /* of the arguments, in the reply to an unknown command */

/* For unknown commands that go by their first argument. They may write. */
static const struct mr_resp_command UNDECLARED = {.name = "",
                                                  .arity = -2,
                                                  .class = MR_CLASS_WRITE,
                                                  .handling = MR_RESP_ROUTE,
                                                  .keys = MR_RESP_KEYS,
                                                  .a = 1,
                                                  .b = 1,
                                                  .c = 1};

struct mr_slice mr_resp_arg(const struct mr_msg *msg, struct mr_key_walk *walk, uint32_t number)
{
    const char *end = msg->wire.at + msg->wire.len;
    const char *p = walk->at;
    int64_t n = 0;

    if (p == NULL) { /* start at the closest recorded argument before it */
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

/* Advances the walk behind the key at argument `number` and the arguments that belong to it. */
static void take_values(const struct mr_msg *msg, struct mr_key_walk *walk, uint32_t number,
                        struct mr_slice key)
{
    const char *start = key.at - 3, *end = msg->wire.at + msg->wire.len;

    while (*start != '$')
        start--;
    walk->at = key.at + key.len + 2;
    walk->arg = number + 1;
    for (uint32_t i = 1; i < msg->keys.step; i++, walk->arg++) {
        const char *body = walk->at + 1;
        int64_t n = 0;
        MR_CHECK(mr_resp_read_length(&body, end, &n) == MR_OK && n >= 0 && n <= end - body - 2);
        walk->at = body + n + 2;
    }
    walk->bytes = (struct mr_slice){start, (size_t)(walk->at - start)};
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
    if (msg->splittable)
        take_values(msg, walk, number, *key);
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

void mr_resp_refuse_subcommand(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = msg->command;
    const struct mr_slice said = msg->args[1];
    char name[32];
    size_t n = 0;

    for (; cmd->name[n] != '\0' && n + 1 < sizeof(name); n++)
        name[n] = (char)toupper((unsigned char)cmd->name[n]);
    mr_resp_refuse(ctx, msg, "ERR unknown subcommand '%.*s'. Try %.*s HELP.",
                   (int)(said.len < SHOWN_ARGS_BYTES ? said.len : SHOWN_ARGS_BYTES), said.at,
                   (int)n, name);
}

static bool arity_ok(const struct mr_resp_command *cmd, uint32_t n_args)
{
    return cmd->arity >= 0 ? n_args == (uint32_t)cmd->arity : n_args >= (uint32_t)-cmd->arity;
}

/* Keys counted by argument `a`, right after it. */
static bool find_counted(struct mr_msg *msg, const struct mr_resp_command *cmd)
{
    const uint32_t at = (uint32_t)cmd->a;
    struct mr_key_walk walk = {0};
    int64_t n;

    if (at >= msg->n_args || !mr_parse_int64(mr_resp_arg(msg, &walk, at), &n) || n < 0 ||
        n > (int64_t)(msg->n_args - at - 1))
        return false;
    msg->keys = (struct mr_msg_keys){
        .before = (uint32_t)cmd->b, .first = at + 1, .count = (uint32_t)n, .step = 1};
    msg->n_keys = (uint32_t)n + (cmd->b > 0);
    return true;
}

/* Argument 1, and argument `store` unless it is 0. */
static void set_stored(struct mr_msg *msg, uint32_t store)
{
    msg->keys = (struct mr_msg_keys){.first = 1, .count = 1, .step = 1, .after = store};
    msg->n_keys = store > 0 ? 2 : 1;
}

/* The key after the last STORE or STOREDIST; Redis uses the last one, too. */
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

/* The same, but the values of BY, GET and LIMIT are skipped, since they may be any word. */
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

static bool find_streams(struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    uint32_t i = 1;

    for (; i < msg->n_args; i++) {
        const struct mr_slice word = mr_resp_arg(msg, &walk, i);
        if (mr_slice_eq_nocase(word, "streams"))
            break;
        if (mr_slice_eq_nocase(word, "group"))
            i += 2; /* group and consumer may be any word */
        if (mr_slice_eq_nocase(word, "block"))
            msg->step = MR_STEP_BLOCK;
    }
    const uint32_t behind = i < msg->n_args ? msg->n_args - i - 1 : 0;
    if (behind == 0 || behind % 2 != 0)
        return false;
    msg->keys = (struct mr_msg_keys){.first = i + 1, .count = behind / 2, .step = 1};
    msg->n_keys = behind / 2;
    for (i += 1 + behind / 2; i < msg->n_args; i++) /* `$` means another ID later */
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

/* False after refusing a database that the client may not select. */
static bool allows_db(const struct mr_proto_ctx *ctx, struct mr_msg *msg, struct mr_slice number)
{
    int64_t db;
    uint8_t lane;

    if (!mr_parse_int64(number, &db) || /* its server will report that */
        (db >= 0 && mr_resp_lane_of(ctx->options, MR_RESP_2, (uint64_t)db, &lane)))
        return true;
    mr_resp_refuse(ctx, msg, "ERR DB index is out of range");
    return false;
}

static bool allows_copy(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};

    for (uint32_t i = 3; i + 1 < msg->n_args; i++)
        if (mr_slice_eq_nocase(mr_resp_arg(msg, &walk, i), "db") &&
            !allows_db(ctx, msg, mr_resp_arg(msg, &walk, i + 1)))
            return false;
    return true;
}

static bool allows_memory(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    static const char *const REFUSED[] = {"doctor", "malloc-stats", "purge", "stats"};

    for (size_t i = 0; i < MR_COUNT(REFUSED); i++)
        if (mr_slice_eq_nocase(msg->args[1], REFUSED[i])) {
            refuse_group(ctx, msg, msg->command, "it administers one server");
            return false;
        }
    return true;
}

/* Refuses what a command must not do through the proxy, whatever its keys. False if refused. */
static bool allows(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    switch ((enum mr_resp_keys)((const struct mr_resp_command *)msg->command)->keys) {
    case MR_RESP_COPY_KEYS:
        return allows_copy(ctx, msg);
    case MR_RESP_MOVE_KEYS:
        return allows_db(ctx, msg, msg->args[2]);
    case MR_RESP_USAGE_KEYS:
        return allows_memory(ctx, msg);
    default:
        return true;
    }
}

/* Sets msg->keys and n_keys by the command's rule. False if they cannot be determined. */
static bool find_keys(struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = msg->command;

    msg->n_keys = 0;
    switch ((enum mr_resp_keys)cmd->keys) {
    case MR_RESP_NO_KEYS:
        return true;
    case MR_RESP_KEYS:
    case MR_RESP_COPY_KEYS:
    case MR_RESP_MOVE_KEYS:
        find_range(msg, cmd);
        return true;
    case MR_RESP_USAGE_KEYS:
        if (mr_slice_eq_nocase(msg->args[1], "usage"))
            find_range(msg, cmd);
        return true;
    case MR_RESP_NUM_KEYS:
        return find_counted(msg, cmd);
    case MR_RESP_STORE_KEYS:
        find_store(msg, cmd);
        return true;
    case MR_RESP_SORT_KEYS:
        find_sort_store(msg);
        return true;
    case MR_RESP_STREAM_KEYS:
        return find_streams(msg);
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

    if (cmd->keys == MR_RESP_KEYS && cmd->a == 1 && cmd->b == 1) { /* nearly all commands */
        if (key_fits(ctx, msg, msg->args[1])) {
            msg->action = MR_MSG_BY_KEY;
            msg->key = msg->args[1];
        }
        return;
    }
    if (!allows(ctx, msg))
        return;
    if (!find_keys(msg) && ctx->session->user != NULL && ctx->session->user->n_prefixes > 0) {
        mr_resp_refuse(ctx, msg, "ERR syntax error"); /* it may have keys of others */
        return;
    }
    if (msg->wire.len > ctx->options->max_key_bytes) /* otherwise no key exceeds it */
        while (mr_resp_next_key(msg, &walk, &key))
            if (!key_fits(ctx, msg, key))
                return;
    walk = (struct mr_key_walk){0};
    if (mr_resp_next_key(msg, &walk, &msg->key)) {
        msg->action = msg->n_keys == 1 ? MR_MSG_BY_KEY : MR_MSG_BY_KEYS;
    } else {
        msg->action = MR_MSG_ANYWHERE; /* no keys, or invalid: its server says so */
        msg->key = (struct mr_slice){NULL, 0};
    }
}

static void take_step(const struct mr_proto_ctx *ctx, struct mr_msg *msg, enum mr_step step)
{
    route(ctx, msg, msg->command);
    if (msg->action != MR_MSG_REFUSE)
        msg->step = (uint8_t)step;
}

/* Row of a command that is not in the table, or NULL. */
static const struct mr_resp_command *find_declared(const struct mr_proto_ctx *ctx,
                                                   const struct mr_msg *msg)
{
    const struct mr_proto_options *o = ctx->options;
    const struct mr_resp_command *cmd =
        mr_resp_command_among(o->commands, o->n_commands, msg->args[0]);

    return cmd == NULL && o->unknown_by_key && msg->n_args > 1 ? &UNDECLARED : cmd;
}

/* In RESP2 a subscribed client may send hardly anything. */
static bool is_out_of_place(const struct mr_proto_ctx *ctx, const struct mr_resp_command *cmd)
{
    return ctx->session->n_topics > 0 && !(cmd->traits & MR_RESP_LISTENS) &&
           mr_resp_version(ctx->session->dialect) == MR_RESP_2;
}

/* Whether the client may send the command now, in this form. False after refusing it. */
static MR_ALWAYS_INLINE bool admits(const struct mr_proto_ctx *ctx, struct mr_msg *msg,
                                    const struct mr_resp_command *cmd)
{
    if (MR_UNLIKELY(cmd == NULL)) {
        unknown_command(ctx, msg);
        return false;
    }
    if (MR_UNLIKELY(!arity_ok(cmd, msg->n_args))) {
        mr_resp_refuse(ctx, msg, "ERR wrong number of arguments for '%s' command", cmd->name);
        return false;
    }
    if (MR_UNLIKELY(!ctx->session->authed && !(cmd->traits & MR_RESP_OPEN))) {
        mr_resp_refuse(ctx, msg, "NOAUTH Authentication required.");
        return false;
    }
    if (MR_UNLIKELY(is_out_of_place(ctx, cmd))) {
        mr_resp_refuse(ctx, msg,
                       "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / "
                       "QUIT / RESET are allowed in this context",
                       cmd->name);
        return false;
    }
    return true;
}

static MR_ALWAYS_INLINE void classify(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = mr_resp_command(msg->args[0]);

    if (MR_UNLIKELY(cmd == NULL))
        cmd = find_declared(ctx, msg);
    msg->command = cmd;
    if (!admits(ctx, msg, cmd))
        return;
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
    case MR_RESP_PUBLISH:
        route(ctx, msg, cmd);
        if (ctx->options->relays && msg->action == MR_MSG_BY_KEY)
            msg->action = MR_MSG_ANYWHERE;
        return;
    case MR_RESP_SUBSCRIBE:
    case MR_RESP_UNSUBSCRIBE:
        route(ctx, msg, cmd);
        if (msg->action != MR_MSG_REFUSE)
            mr_resp_classify_topics(msg, cmd->handling == MR_RESP_SUBSCRIBE);
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
        msg->key = (struct mr_slice){NULL, 0};
        return;
    case MR_RESP_FACADE:
        if (mr_resp_is_presented(ctx->options, cmd))
            msg->action = MR_MSG_LOCAL;
        else if (mr_slice_eq_nocase(msg->args[0], "sentinel")) /* Redis does not know it */
            unknown_command(ctx, msg);
        else
            refuse_group(ctx, msg, cmd, "it administers one server");
        return;
    case MR_RESP_REFUSE_ADMIN:
        refuse_group(ctx, msg, cmd, "it administers one server");
        return;
    case MR_RESP_WHOLE:
        mr_resp_classify_whole(ctx, msg);
        return;
    case MR_RESP_CONFIRM:
        if (!ctx->options->lone && !ctx->options->replicated) {
            refuse_group(ctx, msg, cmd, "it concerns all keys of all servers");
            return;
        }
        take_step(ctx, msg, MR_STEP_BLOCK);
        msg->confirms = true;
        return;
    case MR_RESP_REFUSE_WHOLE:
        refuse_group(ctx, msg, cmd, "it concerns all keys of all servers");
        return;
    }
}

void mr_resp_classify(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    classify(ctx, msg);
    if (MR_UNLIKELY(ctx->session->user != NULL) && msg->action != MR_MSG_REFUSE)
        mr_resp_check_permits(ctx, msg);
}
