/* users.c - reads who may log in, and what they may do. */
#include "config/internal.h"

#include "config/value.h"

#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 64u
#define HEX_BYTES  (2 * MR_PASSWORD_BYTES)

enum word { PASSWORD, POOLS, READ_ONLY, ALLOW, DENY, KEY_PREFIXES };

static const char *const WORDS[] = {
    [PASSWORD] = "password", [POOLS] = "pools", [READ_ONLY] = "read_only",
    [ALLOW] = "allow",       [DENY] = "deny",   [KEY_PREFIXES] = "key_prefixes"};

/* A user being read. */
struct reading {
    const struct mr_config_reader *r;
    struct mr_user_config *out;
    const struct mr_yaml *allow, *deny;
    bool read_only;
};

static int digit_of(char c)
{
    static const char DIGITS[] = "0123456789abcdef";
    const char *at = c != '\0' ? strchr(DIGITS, c) : NULL;

    return at != NULL ? (int)(at - DIGITS) : -1;
}

/* Parses "#" and the SHA-256 of a password; false if it is something else. */
static bool read_hash(const char *text, uint8_t *hash)
{
    if (strlen(text) != 1 + HEX_BYTES)
        return false;
    for (uint32_t i = 0; i < MR_PASSWORD_BYTES; i++) {
        const int high = digit_of(text[1 + 2 * i]), low = digit_of(text[2 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        hash[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static void add_password(struct reading *u, const struct mr_yaml *value)
{
    struct mr_user *user = &u->out->user;

    user->passwords = realloc(user->passwords, (user->n_passwords + 1) * sizeof(*user->passwords));
    MR_CHECK(user->passwords != NULL);
    uint8_t *hash = user->passwords[user->n_passwords++];
    if (value->text[0] != '#')
        mr_user_hash(mr_slice_of(value->text), hash);
    else if (!read_hash(value->text, hash))
        (void)mr_config_fail(u->r, value->at,
                             "user '%s': what follows # is not a SHA-256 hash, %u digits 0-9a-f",
                             user->name, HEX_BYTES);
}

static char *copy(const char *text)
{
    char *own = strdup(text);

    MR_CHECK(own != NULL);
    return own;
}

static void add_pool(struct reading *u, const struct mr_yaml *value)
{
    struct mr_user_config *out = u->out;

    out->pools = realloc(out->pools, (out->n_pools + 1) * sizeof(*out->pools));
    MR_CHECK(out->pools != NULL);
    out->pools[out->n_pools++] = (struct mr_user_pool){copy(value->text), value->at};
}

static void add_prefix(struct reading *u, const struct mr_yaml *value)
{
    struct mr_user *user = &u->out->user;

    user->prefixes = realloc(user->prefixes, (user->n_prefixes + 1) * sizeof(*user->prefixes));
    MR_CHECK(user->prefixes != NULL);
    user->prefixes[user->n_prefixes++] = copy(value->text);
}

static void set_read_only(struct reading *u, const struct mr_yaml *value)
{
    u->read_only = strcmp(value->text, "true") == 0;
    if (!u->read_only && strcmp(value->text, "false") != 0)
        (void)mr_config_fail(u->r, value->at,
                             "user '%s': value \"%s\" is not \"true\" or \"false\"",
                             u->out->user.name, value->text);
}

static bool permit(struct mr_user *user, const char *word, bool allowed)
{
    return mr_proto_by_name(mr_slice_of("redis"))->client.permit(user, mr_slice_of(word), allowed);
}

static void check_command(struct reading *u, const struct mr_yaml *value)
{
    struct mr_user nobody = {0};

    if (!permit(&nobody, value->text, true))
        (void)mr_config_fail(u->r, value->at,
                             "user '%s': \"%s\" is no command, subcommand (as in client|list) or "
                             "category (as in @write)",
                             u->out->user.name, value->text);
}

static void take_value(struct reading *u, enum word word, const struct mr_yaml *value)
{
    if (value->kind != MR_YAML_SCALAR || value->text[0] == '\0') {
        (void)mr_config_fail(u->r, value->at, "user '%s': \"%s\" has an entry without a value",
                             u->out->user.name, WORDS[word]);
        return;
    }
    switch (word) {
    case PASSWORD:
        add_password(u, value);
        return;
    case POOLS:
        add_pool(u, value);
        return;
    case READ_ONLY:
        set_read_only(u, value);
        return;
    case ALLOW:
    case DENY:
        check_command(u, value);
        return;
    case KEY_PREFIXES:
        add_prefix(u, value);
        return;
    }
}

static void take(struct reading *u, const struct mr_yaml *value)
{
    size_t word = 0;

    while (word < MR_COUNT(WORDS) && strcmp(WORDS[word], value->key->text) != 0)
        word++;
    if (word == MR_COUNT(WORDS)) {
        (void)mr_config_fail(u->r, value->key->at,
                             "user '%s': directive \"%s\" is unknown; allowed: password, pools, "
                             "read_only, allow, deny, key_prefixes",
                             u->out->user.name, value->key->text);
        return;
    }
    if (word == ALLOW)
        u->allow = value;
    if (word == DENY)
        u->deny = value;
    if (value->kind != MR_YAML_LIST || word == READ_ONLY) {
        take_value(u, (enum word)word, value);
        return;
    }
    if (value->n == 0) /* an empty list is not the same as no limit */
        (void)mr_config_fail(u->r, value->at, "user '%s': the list \"%s\" is empty",
                             u->out->user.name, WORDS[word]);
    for (uint32_t i = 0; i < value->n; i++)
        take_value(u, (enum word)word, value->children[i]);
}

static void permit_all(struct mr_user *user, const struct mr_yaml *words, bool allowed)
{
    if (words != NULL && words->kind == MR_YAML_SCALAR)
        (void)permit(user, words->text, allowed);
    for (uint32_t i = 0; words != NULL && words->kind == MR_YAML_LIST && i < words->n; i++)
        if (words->children[i]->kind == MR_YAML_SCALAR)
            (void)permit(user, words->children[i]->text, allowed);
}

/*
 * Scripts can reach keys that are not among their arguments, and may write. So users with key
 * prefixes may run them only if allowed by name.
 */
static void settle_commands(struct reading *u)
{
    static const char *const WRITES[] = {"@write", "eval", "evalsha", "fcall"};
    struct mr_user *user = &u->out->user;

    (void)permit(user, u->allow == NULL ? "@all" : "@connection", true);
    if (u->allow == NULL && user->n_prefixes > 0)
        (void)permit(user, "@scripting", false);
    permit_all(user, u->allow, true);
    for (size_t i = 0; i < MR_COUNT(WRITES) && u->read_only; i++)
        (void)permit(user, WRITES[i], false);
    permit_all(user, u->deny, false);
}

static void check_name(const struct mr_config_reader *r, const struct mr_yaml *key)
{
    for (const char *c = key->text; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~') {
            (void)mr_config_fail(r, key->at,
                                 "a user has a name with a blank, or another character "
                                 "that is not plain ASCII");
            return;
        }
    if (key->text[0] == '\0' || strlen(key->text) > NAME_BYTES)
        (void)mr_config_fail(r, key->at, "a user's name has 1 to %u characters", NAME_BYTES);
}

static void read_user(const struct mr_config_reader *r, const struct mr_yaml *node)
{
    struct reading u = {.r = r, .out = &r->config->users[r->config->n_users++]};

    check_name(r, node->key);
    u.out->user.name = copy(node->key->text);
    if (node->kind != MR_YAML_MAP) {
        (void)mr_config_fail(r, node->at, "user '%s' must be a mapping of directives",
                             node->key->text);
        return;
    }
    mr_config_check_duplicates(r, node);
    for (uint32_t i = 0; i < node->n; i++)
        if (!node->children[i]->bad)
            take(&u, node->children[i]);
    if (mr_yaml_get(node, WORDS[PASSWORD]) == NULL)
        (void)mr_config_fail(r, node->key->at, "user '%s': directive \"password:\" is missing",
                             node->key->text);
    settle_commands(&u);
}

enum mr_result mr_config_read_users(const struct mr_config_reader *r, const struct mr_yaml *map)
{
    struct mr_config *config = r->config;
    const uint32_t errors = r->found->n_errors;

    if (map->kind != MR_YAML_MAP)
        return mr_config_fail(r, map->at, "\"users\" must be a mapping of names to directives");
    mr_config_check_duplicates(r, map);
    config->users = calloc(map->n + 1, sizeof(*config->users));
    MR_CHECK(config->users != NULL);
    for (uint32_t i = 0; i < map->n; i++)
        if (!map->children[i]->bad)
            read_user(r, map->children[i]);
    return r->found->n_errors == errors ? MR_OK : MR_ECONFIG;
}

static void check_pools(const struct mr_config_reader *r, const struct mr_user_config *u)
{
    for (uint32_t i = 0; i < u->n_pools; i++) {
        const struct mr_pool_config *pool = mr_config_pool(r->config, u->pools[i].name);
        if (pool == NULL)
            (void)mr_config_fail(r, u->pools[i].place, "user '%s': there is no pool '%s'",
                                 u->user.name, u->pools[i].name);
        else if (!pool->redis)
            (void)mr_config_fail(r, u->pools[i].place,
                                 "user '%s': pool '%s' is not a redis pool, nobody logs in there",
                                 u->user.name, u->pools[i].name);
    }
}

static bool is_for(const struct mr_user_config *u, const struct mr_pool_config *pool)
{
    for (uint32_t i = 0; i < u->n_pools; i++)
        if (strcmp(u->pools[i].name, pool->name) == 0)
            return true;
    return u->n_pools == 0;
}

void mr_config_settle_users(const struct mr_config_reader *r)
{
    struct mr_config *config = r->config;

    for (uint32_t i = 0; i < config->n_users; i++)
        check_pools(r, &config->users[i]);
    for (uint32_t p = 0; p < config->n_pools; p++) {
        struct mr_pool_config *pool = &config->pools[p];
        if (!pool->redis || config->n_users == 0)
            continue;
        pool->users.at = calloc(config->n_users, sizeof(struct mr_user *));
        MR_CHECK(pool->users.at != NULL);
        for (uint32_t i = 0; i < config->n_users; i++)
            if (is_for(&config->users[i], pool))
                pool->users.at[pool->users.n++] = &config->users[i].user;
        if (pool->users.n > 0)
            pool->options.users = &pool->users;
    }
}

void mr_config_free_users(struct mr_config *config)
{
    for (uint32_t i = 0; i < config->n_users; i++) {
        struct mr_user_config *u = &config->users[i];
        for (uint32_t k = 0; k < u->n_pools; k++)
            free(u->pools[k].name);
        for (uint32_t k = 0; k < u->user.n_prefixes; k++)
            free(u->user.prefixes[k]);
        free(u->user.prefixes);
        free(u->user.passwords);
        free(u->user.name);
        free(u->pools);
    }
    free(config->users);
}
