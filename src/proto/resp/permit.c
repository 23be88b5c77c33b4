/* permit.c - checks which commands and keys a user may use. */
#include "proto/resp/internal.h"

#include "proto/user.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define CATEGORIES(X)                                                                              \
    X(KEYSPACE, "keyspace")                                                                        \
    X(READ, "read")                                                                                \
    X(WRITE, "write")                                                                              \
    X(SET, "set")                                                                                  \
    X(SORTEDSET, "sortedset")                                                                      \
    X(LIST, "list")                                                                                \
    X(HASH, "hash")                                                                                \
    X(STRING, "string")                                                                            \
    X(BITMAP, "bitmap")                                                                            \
    X(HYPERLOGLOG, "hyperloglog")                                                                  \
    X(GEO, "geo")                                                                                  \
    X(STREAM, "stream")                                                                            \
    X(PUBSUB, "pubsub")                                                                            \
    X(ADMIN, "admin")                                                                              \
    X(BLOCKING, "blocking")                                                                        \
    X(DANGEROUS, "dangerous")                                                                      \
    X(CONNECTION, "connection")                                                                    \
    X(TRANSACTION, "transaction")                                                                  \
    X(SCRIPTING, "scripting")

enum category_index {
#define X(name, text) INDEX_##name,
    CATEGORIES(X)
#undef X
};

enum category {
#define X(name, text) name = 1 << INDEX_##name,
    CATEGORIES(X)
#undef X
};

#define EVERY UINT32_MAX

static const struct {
    const char *name;
    uint32_t bit;
} BITS[] = {{"all", EVERY},
#define X(name, text) {text, name},
            CATEGORIES(X)
#undef X
};

/* A command or a subcommand. */
static const struct entry {
    const char *name;
    uint32_t categories;
} ENTRIES[] = {
#define X(name, categories) {name, categories},
#include "proto/resp/categories.def"
};

/* ---- which commands ---- */

/*
 * A user has a bit per row of the command table, set if all of the command is allowed. After these
 * there is a bit per entry, for subcommands, and two for commands outside the table: those that
 * read and those that may write.
 */
static bool is_in_table(const struct mr_resp_command *cmd)
{
    const uintptr_t at = (uintptr_t)cmd, first = (uintptr_t)MR_RESP_COMMANDS;

    return at >= first && at < first + MR_RESP_COMMAND_COUNT * sizeof(*cmd);
}

static uint32_t bit_of_others(bool write)
{
    return MR_RESP_COMMAND_COUNT + (uint32_t)MR_COUNT(ENTRIES) + write;
}

static uint32_t bit_of_command(const struct mr_resp_command *cmd)
{
    return is_in_table(cmd) ? (uint32_t)(cmd - MR_RESP_COMMANDS)
                            : bit_of_others(cmd->class != MR_CLASS_READ);
}

static uint32_t bit_of_entry(const struct entry *entry)
{
    return MR_RESP_COMMAND_COUNT + (uint32_t)(entry - ENTRIES);
}

static bool has(const struct mr_user *user, uint32_t bit)
{
    return (user->permits[bit / 64] >> bit % 64 & 1) != 0;
}

static void set(struct mr_user *user, uint32_t bit, bool allowed)
{
    uint64_t *word = &user->permits[bit / 64];

    MR_CHECK(bit < 64 * MR_PERMIT_WORDS);
    *word = allowed ? *word | UINT64_C(1) << bit % 64 : *word & ~(UINT64_C(1) << bit % 64);
}

static int by_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct entry *)entry)->name);
}

/* The entry of a name in lower case, or NULL. */
static const struct entry *find_entry(const char *name)
{
    return bsearch(name, ENTRIES, MR_COUNT(ENTRIES), sizeof(*ENTRIES), by_name);
}

/* The row of an entry, or of the command that it is a subcommand of. */
static const struct mr_resp_command *row_of(const struct entry *entry)
{
    return mr_resp_command_among(MR_RESP_COMMANDS, MR_RESP_COMMAND_COUNT,
                                 (struct mr_slice){entry->name, strcspn(entry->name, "|")});
}

/* Without one of its subcommands, a command is not fully allowed. */
static void permit_entry(struct mr_user *user, const struct entry *entry, bool allowed)
{
    const bool whole = strchr(entry->name, '|') == NULL;
    const struct mr_resp_command *row = row_of(entry);

    if (row == NULL)
        return;
    set(user, bit_of_entry(entry), allowed);
    if (whole || !allowed)
        set(user, bit_of_command(row), allowed);
}

static void permit_category(struct mr_user *user, uint32_t bit, bool allowed)
{
    for (const struct entry *e = ENTRIES; e < ENTRIES + MR_COUNT(ENTRIES); e++)
        if (bit == EVERY || (e->categories & bit) != 0)
            permit_entry(user, e, allowed);
    if ((bit & READ) != 0)
        set(user, bit_of_others(false), allowed);
    if ((bit & WRITE) != 0)
        set(user, bit_of_others(true), allowed);
}

static bool is_subcommand_of(const struct entry *entry, const char *name)
{
    const size_t len = strlen(name);

    return strncmp(entry->name, name, len) == 0 && entry->name[len] == '|';
}

/* Grants or revokes a command with its subcommands, or one subcommand. */
static void permit_command(struct mr_user *user, const struct entry *entry, bool allowed)
{
    permit_entry(user, entry, allowed);
    for (const struct entry *e = entry + 1;
         e < ENTRIES + MR_COUNT(ENTRIES) && is_subcommand_of(e, entry->name); e++)
        permit_entry(user, e, allowed);
}

bool mr_resp_permit(struct mr_user *user, struct mr_slice word, bool allowed)
{
    char name[64];

    if (word.len == 0 || word.len >= sizeof(name))
        return false;
    for (size_t i = 0; i < word.len; i++)
        name[i] = (char)tolower((unsigned char)word.at[i]);
    name[word.len] = '\0';
    for (size_t i = 0; i < MR_COUNT(BITS) && name[0] == '@'; i++)
        if (strcmp(name + 1, BITS[i].name) == 0) {
            permit_category(user, BITS[i].bit, allowed);
            return true;
        }
    const struct entry *entry = find_entry(name);
    if (entry == NULL || row_of(entry) == NULL)
        return false;
    permit_command(user, entry, allowed);
    return true;
}

/* The entry for the subcommand that the message names, or NULL. */
static const struct entry *subcommand_of(const struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = msg->command;
    char name[64];

    if (msg->n_args < 2 || msg->args[1].len > 32)
        return NULL;
    int n = snprintf(name, sizeof(name), "%s|", cmd->name);
    for (size_t i = 0; i < msg->args[1].len; i++)
        name[n++] = (char)tolower((unsigned char)msg->args[1].at[i]);
    name[n] = '\0';
    return find_entry(name);
}

static bool has_subcommands(const struct mr_resp_command *cmd)
{
    const struct entry *next = find_entry(cmd->name);

    return next++ != NULL && next < ENTRIES + MR_COUNT(ENTRIES) &&
           is_subcommand_of(next, cmd->name);
}

/* An undeclared command may have more keys than the one it is routed by. */
static bool knows_keys(const struct mr_user *user, const struct mr_resp_command *cmd)
{
    return user->n_prefixes == 0 || cmd->name[0] != '\0';
}

/* In lower case. */
static const char *name_of(const struct mr_msg *msg, char name[MR_RESP_NAME_BYTES + 1])
{
    const struct mr_slice said = msg->args[0];
    size_t n = 0;

    for (; n < said.len && n < MR_RESP_NAME_BYTES; n++)
        name[n] = (char)tolower((unsigned char)said.at[n]);
    name[n] = '\0';
    return name;
}

/* Whether the user may run the command; refuses it otherwise. */
static bool permits_command(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct mr_user *user = ctx->session->user;
    const struct mr_resp_command *cmd = msg->command;
    char name[MR_RESP_NAME_BYTES + 1];

    if (cmd->traits & MR_RESP_OPEN || (has(user, bit_of_command(cmd)) && knows_keys(user, cmd)))
        return true;
    const struct entry *sub = subcommand_of(msg);
    if (sub != NULL && has(user, bit_of_entry(sub)))
        return true;
    if (sub == NULL && msg->n_args > 1 && has_subcommands(cmd))
        mr_resp_refuse_subcommand(ctx, msg);
    else
        mr_resp_refuse(ctx, msg, "NOPERM this user has no permissions to run the '%s' command",
                       sub != NULL ? sub->name : name_of(msg, name));
    return false;
}

/* ---- which keys ---- */

/*
 * Whether a pattern can match only keys of the user: it begins with a prefix that has no wildcards.
 */
static bool permits_pattern(const struct mr_user *user, struct mr_slice pattern)
{
    for (uint32_t i = 0; i < user->n_prefixes; i++) {
        const char *prefix = user->prefixes[i];
        const size_t len = strlen(prefix);
        if (pattern.len >= len && memcmp(pattern.at, prefix, len) == 0 &&
            strpbrk(prefix, "*?[\\") == NULL)
            return true;
    }
    return false;
}

/* SCAN with a pattern; the last one counts. */
static bool permits_scan(const struct mr_user *user, const struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    bool permitted = false;

    for (uint32_t i = 2; i + 1 < msg->n_args; i += 2) {
        const bool match = mr_slice_eq_nocase(mr_resp_arg(msg, &walk, i), "match");
        const struct mr_slice value = mr_resp_arg(msg, &walk, i + 1);
        if (match)
            permitted = permits_pattern(user, value);
    }
    return permitted;
}

/* Commands about all keys that can be limited to those of the user. */
static bool permits_whole(const struct mr_user *user, const struct mr_msg *msg)
{
    const struct mr_resp_command *cmd = msg->command;

    if (strcmp(cmd->name, "scan") == 0)
        return permits_scan(user, msg);
    if (strcmp(cmd->name, "keys") == 0)
        return permits_pattern(user, msg->args[1]);
    return cmd->class == MR_CLASS_OTHER; /* it touches none */
}

/* Refuses a SORT whose patterns may access other keys than the user's. */
static void check_sort(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};

    for (uint32_t i = 2; i + 1 < msg->n_args; i++) {
        const struct mr_slice word = mr_resp_arg(msg, &walk, i);
        const bool by = mr_slice_eq_nocase(word, "by");
        if (mr_slice_eq_nocase(word, "limit"))
            i += 2;
        if (!by && !mr_slice_eq_nocase(word, "get"))
            continue;
        const struct mr_slice pattern = mr_resp_arg(msg, &walk, ++i);
        const bool no_key = memchr(pattern.at, '*', pattern.len) == NULL;
        if (no_key || permits_pattern(ctx->session->user, pattern))
            continue;
        mr_resp_refuse(ctx, msg,
                       "ERR %s option of SORT denied due to insufficient ACL permissions.",
                       by ? "BY" : "GET");
        return;
    }
}

static bool permits_keys(const struct mr_user *user, const struct mr_msg *msg)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    switch (msg->action) {
    case MR_MSG_BY_KEY:
        return mr_user_may_use_key(user, msg->key);
    case MR_MSG_BY_KEYS:
        while (mr_resp_next_key(msg, &walk, &key))
            if (!mr_user_may_use_key(user, key))
                return false;
        return true;
    default:
        return ((const struct mr_resp_command *)msg->command)->handling != MR_RESP_WHOLE ||
               permits_whole(user, msg);
    }
}

void mr_resp_check_permits(const struct mr_proto_ctx *ctx, struct mr_msg *msg)
{
    const struct mr_user *user = ctx->session->user;
    const struct mr_resp_command *cmd = msg->command;

    if (!permits_command(ctx, msg) || user->n_prefixes == 0)
        return;
    if (!permits_keys(user, msg))
        mr_resp_refuse(ctx, msg,
                       "NOPERM this user has no permissions to access one of the keys used as "
                       "arguments");
    else if (strncmp(cmd->name, "sort", 4) == 0)
        check_sort(ctx, msg);
}
