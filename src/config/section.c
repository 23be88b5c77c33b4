/* section.c - reads a mapping of keys into a struct. */
#include "config/internal.h"

#include "config/value.h"
#include "core/number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define X(name) " " #name
static const char *const BAD_HASH = "is not a valid hash; allowed:"
#include "route/hashes.def"
    ;

/* Types whose value is one of a few words, in the order of their enums. */
static const char *const WORDS[][5] = {
    [MR_TYPE_CROSS] = {"refuse", "first_key"},
    [MR_TYPE_UNKNOWN] = {"error", "first_key"},
    [MR_TYPE_FAILURE] = {"error", "miss"},
    [MR_TYPE_TOPOLOGY] = {"shards", "replicated", "cluster", "sentinel"},
    [MR_TYPE_READ_FROM] = {"master", "prefer_replica", "replica", "nearest"},
    [MR_TYPE_PRESENT] = {"none", "cluster", "sentinel"},
    [MR_TYPE_FALLBACK] = {"master", "none"},
    [MR_TYPE_HEALTH] = {"auto", "always", "off"},
    [MR_TYPE_BALANCE] = {"least_connections", "round_robin", "source_hash"},
    [MR_TYPE_ENGINE] = {"auto", "epoll", "io_uring"},
    [MR_TYPE_ACCEPT] = {"auto", "reuseport", "exclusive", "mutex"},
};

static enum mr_result unknown_key(const struct mr_config_reader *r, enum mr_config_scope scope,
                                  const struct mr_yaml *key)
{
    const struct mr_config_key *like = mr_config_similar_key(scope, key->text);

    if (like != NULL)
        return mr_config_fail(r, key->at, "directive \"%s\" is unknown; did you mean \"%s\"?",
                              key->text, like->name);
    return mr_config_fail(r, key->at, "directive \"%s\" is unknown", key->text);
}

static enum mr_result bad_value(const struct mr_config_reader *r, const struct mr_config_key *k,
                                const struct mr_yaml *value, const char *why)
{
    return mr_config_fail(r, value->at, "directive \"%s\": value \"%s\" %s", k->name, value->text,
                          why);
}

static enum mr_result set_uint(const struct mr_config_reader *r, const struct mr_config_key *k,
                               const struct mr_yaml *value, void *field)
{
    uint64_t v = 0;
    bool ok;

    switch (k->type) {
    case MR_TYPE_TIME:
        if (!mr_value_time_ms(value->text, &v))
            return bad_value(r, k, value, "is not a time; allowed: digits with ms, s, m or h");
        break;
    case MR_TYPE_COALESCE:
        if (!mr_value_time_us(value->text, &v))
            return bad_value(r, k, value, "is not known; allowed: auto, off, digits with us or ms");
        break;
    case MR_TYPE_SECONDS:
        ok = mr_parse_uint(mr_slice_of(value->text), UINT32_MAX, &v);
        v *= 1000;
        if (!ok && !mr_value_time_ms(value->text, &v))
            return bad_value(r, k, value,
                             "is not a time; allowed: seconds, or digits with ms, s, m or h");
        break;
    case MR_TYPE_SIZE:
        if (!mr_value_size(value->text, &v))
            return bad_value(r, k, value, "is not a size; allowed: digits with b, kb, mb or gb");
        break;
    default:
        if (!mr_parse_uint(mr_slice_of(value->text), UINT64_MAX, &v))
            return bad_value(r, k, value, "is not a number");
        break;
    }
    if (v < k->min || v > k->max) {
        if (v == 0 && k->min == 1)
            return mr_config_fail(r, value->at, "directive \"%s\" cannot be 0", k->name);
        return mr_config_fail(
            r, value->at, "directive \"%s\": value \"%s\" is out of range; allowed: %llu to %llu",
            k->name, value->text, (unsigned long long)k->min, (unsigned long long)k->max);
    }
    *(uint32_t *)field = (uint32_t)v;
    return MR_OK;
}

/* Index of the word, or -1 after reporting an error. */
static int find_choice(const struct mr_config_reader *r, const struct mr_config_key *k,
                       const struct mr_yaml *value)
{
    const char *const *words = WORDS[k->type];
    char why[100] = "is not known; allowed:";
    size_t n = strlen(why);
    int i;

    for (i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], value->text) == 0)
            return i;
        n += (size_t)snprintf(why + n, sizeof(why) - n, "%s %s", i > 0 ? "," : "", words[i]);
    }
    (void)bad_value(r, k, value, why);
    return -1;
}

static enum mr_result set_choice(const struct mr_config_reader *r, const struct mr_config_key *k,
                                 const struct mr_yaml *value, unsigned *field)
{
    const int choice = find_choice(r, k, value);

    if (choice < 0)
        return MR_ECONFIG;
    *field = (unsigned)choice;
    return MR_OK;
}

static enum mr_result set_word(const struct mr_config_reader *r, const struct mr_config_key *k,
                               const struct mr_yaml *value, void *field)
{
    const struct mr_slice text = mr_slice_of(value->text);

    switch (k->type) {
    case MR_TYPE_HASH:
        return mr_hash_by_name(text, field) ? MR_OK : bad_value(r, k, value, BAD_HASH);
    case MR_TYPE_DISTRIBUTION:
        return mr_distribution_by_name(text, field)
                   ? MR_OK
                   : bad_value(r, k, value,
                               "is not a valid distribution; allowed: ketama, modula, random");
    default: /* MR_TYPE_PROTOCOL */
        *(const struct mr_proto **)field = mr_proto_by_name(text);
        return *(const struct mr_proto **)field != NULL
                   ? MR_OK
                   : bad_value(r, k, value, "is not a protocol; allowed: redis, memcache, tcp");
    }
}

static enum mr_result set_text(const struct mr_config_reader *r, const struct mr_config_key *k,
                               const struct mr_yaml *value, char **field)
{
    if (k->type != MR_TYPE_TEXT && find_choice(r, k, value) < 0)
        return MR_ECONFIG;
    if (strlen(value->text) < k->min)
        return mr_config_fail(r, value->at,
                              "directive \"%s\" is too short; it needs at least %llu characters",
                              k->name, (unsigned long long)k->min);
    free(*field);
    *field = strdup(value->text);
    MR_CHECK(*field != NULL);
    return MR_OK;
}

static enum mr_result add_listen(const struct mr_config_reader *r, const struct mr_config_key *k,
                                 const struct mr_yaml *value, struct mr_listens *list)
{
    struct mr_error why;
    struct mr_listen_config one;

    if (value->kind != MR_YAML_SCALAR)
        return mr_config_fail(r, value->at, "directive \"%s\" must be an address", k->name);
    if (mr_value_listen(&one, value->text, &why) != MR_OK)
        return bad_value(r, k, value, why.text);
    one.place = value->at;
    list->at = realloc(list->at, (list->n + 1) * sizeof(one));
    MR_CHECK(list->at != NULL);
    list->at[list->n++] = one;
    return MR_OK;
}

static enum mr_result add_server(const struct mr_config_reader *r, const struct mr_config_key *k,
                                 const struct mr_yaml *value, struct mr_servers *list)
{
    struct mr_error why;
    struct mr_server_config one;

    if (value->kind != MR_YAML_SCALAR)
        return mr_config_fail(r, value->at, "directive \"%s\" must be a list of servers", k->name);
    const enum mr_result rc = k->type == MR_TYPE_SENTINELS
                                  ? mr_value_sentinel(&one, value->text, &why)
                                  : mr_value_server(&one, value->text, &why);
    if (rc != MR_OK)
        return bad_value(r, k, value, why.text);
    one.place = value->at;
    list->at = realloc(list->at, (list->n + 1) * sizeof(one));
    MR_CHECK(list->at != NULL);
    list->at[list->n++] = one;
    return MR_OK;
}

static enum mr_result add_name(const struct mr_config_reader *r, const struct mr_config_key *k,
                               const struct mr_yaml *value, struct mr_names *list)
{
    if (value->kind != MR_YAML_SCALAR || value->text[0] == '\0' ||
        strlen(value->text) > MR_NAME_BYTES || mr_value_has_control(value->text))
        return mr_config_fail(r, value->at, "directive \"%s\" must be a name of at most %u bytes",
                              k->name, MR_NAME_BYTES);
    list->at = realloc(list->at, (list->n + 1) * sizeof(*list->at));
    MR_CHECK(list->at != NULL);
    list->at[list->n] = strdup(value->text);
    MR_CHECK(list->at[list->n] != NULL);
    list->n++;
    return MR_OK;
}

static enum mr_result add_command(const struct mr_config_reader *r, const struct mr_config_key *k,
                                  const struct mr_yaml *value, struct mr_commands *list)
{
    struct mr_error why;
    struct mr_resp_command one;

    if (value->kind != MR_YAML_SCALAR)
        return mr_config_fail(r, value->at, "directive \"%s\" must be a list of commands", k->name);
    if (mr_value_command(&one, value->text, &why) != MR_OK)
        return bad_value(r, k, value, why.text);
    list->at = realloc(list->at, (list->n + 1) * sizeof(one));
    MR_CHECK(list->at != NULL);
    list->at[list->n++] = one;
    return MR_OK;
}

static enum mr_result add(const struct mr_config_reader *r, const struct mr_config_key *k,
                          const struct mr_yaml *value, void *list)
{
    switch (k->type) {
    case MR_TYPE_LISTEN:
        return add_listen(r, k, value, list);
    case MR_TYPE_SERVERS:
    case MR_TYPE_SENTINELS:
        return add_server(r, k, value, list);
    case MR_TYPE_NAMES:
        return add_name(r, k, value, list);
    default: /* MR_TYPE_COMMANDS */
        return add_command(r, k, value, list);
    }
}

static enum mr_result set_list(const struct mr_config_reader *r, const struct mr_config_key *k,
                               const struct mr_yaml *value, void *field)
{
    enum mr_result all = MR_OK;

    if ((k->type == MR_TYPE_LISTEN || k->type == MR_TYPE_NAMES) && value->kind == MR_YAML_SCALAR)
        return add(r, k, value, field);
    if (value->kind != MR_YAML_LIST || value->n == 0)
        return mr_config_fail(r, value->at,
                              "directive \"%s\" must be a list with at least one entry", k->name);
    for (uint32_t i = 0; i < value->n; i++) {
        const enum mr_result rc = add(r, k, value->children[i], field);
        all = rc != MR_OK ? rc : all;
    }
    return all;
}

static enum mr_result set_tag(const struct mr_config_reader *r, const struct mr_config_key *k,
                              const struct mr_yaml *value, struct mr_pool_config *pool)
{
    if (strlen(value->text) != 2)
        return bad_value(r, k, value, "is not a valid hash tag string with two characters");
    memcpy(pool->hash_tag, value->text, 2);
    pool->has_hash_tag = true;
    return MR_OK;
}

static enum mr_result set_bool(const struct mr_config_reader *r, const struct mr_config_key *k,
                               const struct mr_yaml *value, bool *field)
{
    const bool yes = strcmp(value->text, "true") == 0;

    if (!yes && strcmp(value->text, "false") != 0)
        return bad_value(r, k, value, "is not \"true\" or \"false\"");
    *field = yes;
    return MR_OK;
}

/* Stores one value in the struct at `base`. */
static enum mr_result set(const struct mr_config_reader *r, const struct mr_config_key *k,
                          const struct mr_yaml *value, void *base)
{
    void *field = (char *)base + k->offset;

    if (k->type == MR_TYPE_LISTEN || k->type == MR_TYPE_SERVERS || k->type == MR_TYPE_SENTINELS ||
        k->type == MR_TYPE_NAMES || k->type == MR_TYPE_COMMANDS)
        return set_list(r, k, value, field);
    if (k->type == MR_TYPE_USERS)
        return mr_config_read_users(r, value);
    if (value->kind != MR_YAML_SCALAR)
        return mr_config_fail(r, value->at, "directive \"%s\" must be a single value", k->name);
    if (value->text[0] == '\0')
        return mr_config_fail(r, value->at, "directive \"%s\" has no value", k->name);
    switch (k->type) {
    case MR_TYPE_BOOL:
        return set_bool(r, k, value, field);
    case MR_TYPE_COALESCE:
        if (strcmp(value->text, "off") == 0) {
            *(uint32_t *)field = 0;
            return MR_OK;
        }
        MR_FALLTHROUGH;
    case MR_TYPE_COUNT_AUTO:
        if (strcmp(value->text, "auto") == 0) {
            *(uint32_t *)field = MR_AUTO;
            return MR_OK;
        }
        MR_FALLTHROUGH;
    case MR_TYPE_UINT:
    case MR_TYPE_MSEC:
    case MR_TYPE_TIME:
    case MR_TYPE_SECONDS:
    case MR_TYPE_SIZE:
        return set_uint(r, k, value, field);
    case MR_TYPE_TEXT:
    case MR_TYPE_ACCEPT:
    case MR_TYPE_ENGINE:
        return set_text(r, k, value, field);
    case MR_TYPE_CROSS:
    case MR_TYPE_UNKNOWN:
    case MR_TYPE_FAILURE:
    case MR_TYPE_TOPOLOGY:
    case MR_TYPE_READ_FROM:
    case MR_TYPE_PRESENT:
    case MR_TYPE_FALLBACK:
    case MR_TYPE_HEALTH:
    case MR_TYPE_BALANCE:
        return set_choice(r, k, value, field);
    case MR_TYPE_HASH:
    case MR_TYPE_DISTRIBUTION:
    case MR_TYPE_PROTOCOL:
        return set_word(r, k, value, field);
    case MR_TYPE_TAG:
        return set_tag(r, k, value, base);
    case MR_TYPE_LISTEN:
    case MR_TYPE_SERVERS:
    case MR_TYPE_SENTINELS:
    case MR_TYPE_NAMES:
    case MR_TYPE_COMMANDS:
    case MR_TYPE_USERS:
        break;
    }
    MR_BUG("a key of no type");
}

enum mr_result mr_config_set_default(const struct mr_config_reader *r, enum mr_config_scope scope,
                                     const char *name, const char *text, void *base)
{
    struct mr_yaml value = {.kind = MR_YAML_SCALAR, .text = (char *)(uintptr_t)text};

    return set(r, mr_config_find_key(scope, name), &value, base);
}

void mr_config_set_defaults(const struct mr_config_reader *r, enum mr_config_scope scope,
                            void *base)
{
    for (size_t i = 0; i < MR_CONFIG_KEY_COUNT; i++)
        if (MR_CONFIG_KEYS[i].scope == scope && MR_CONFIG_KEYS[i].default_text[0] != '\0')
            MR_CHECK(mr_config_set_default(r, scope, MR_CONFIG_KEYS[i].name,
                                           MR_CONFIG_KEYS[i].default_text, base) == MR_OK);
}

static int by_key_and_place(const void *a, const void *b)
{
    const struct mr_yaml *x = (*(struct mr_yaml *const *)a)->key;
    const struct mr_yaml *y = (*(struct mr_yaml *const *)b)->key;
    const int c = strcmp(x->text, y->text);

    return c != 0 ? c : mr_place_compare(x->at, y->at);
}

void mr_config_check_duplicates(const struct mr_config_reader *r, const struct mr_yaml *map)
{
    struct mr_yaml **sorted = calloc(map->n + 1, sizeof(*sorted));

    MR_CHECK(sorted != NULL);
    if (map->n > 0)
        memcpy(sorted, map->children, map->n * sizeof(*sorted));
    qsort(sorted, map->n, sizeof(*sorted), by_key_and_place);
    for (uint32_t i = 1; i < map->n; i++)
        if (strcmp(sorted[i - 1]->key->text, sorted[i]->key->text) == 0) {
            sorted[i]->bad = true;
            (void)mr_config_fail(r, sorted[i]->key->at, "directive \"%s\" is a duplicate",
                                 sorted[i]->key->text);
        }
    free(sorted);
}

void mr_config_read_section(const struct mr_config_reader *r, enum mr_config_scope scope,
                            const struct mr_yaml *map, void *base)
{
    if (map->kind != MR_YAML_MAP) {
        (void)mr_config_fail(r, map->at, "\"%s\" must be a mapping of directives", map->key->text);
        return;
    }
    mr_config_check_duplicates(r, map);
    for (uint32_t i = 0; i < map->n; i++) {
        struct mr_yaml *value = map->children[i];
        const struct mr_config_key *k = mr_config_find_key(scope, value->key->text);
        if (value->bad)
            continue;
        value->bad =
            (k != NULL ? set(r, k, value, base) : unknown_key(r, scope, value->key)) != MR_OK;
    }
}
