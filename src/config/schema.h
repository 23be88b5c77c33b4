/* schema.h - the table of configuration keys, from schema.def. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum mr_config_scope { MR_KEY_GLOBAL, MR_KEY_POOL };

enum mr_config_type {
    MR_TYPE_BOOL,
    MR_TYPE_UINT,
    MR_TYPE_MSEC,
    MR_TYPE_TIME,
    MR_TYPE_SECONDS,
    MR_TYPE_SIZE,
    MR_TYPE_COUNT_AUTO,
    MR_TYPE_COALESCE,
    MR_TYPE_TEXT,
    MR_TYPE_HASH,
    MR_TYPE_DISTRIBUTION,
    MR_TYPE_TAG,
    MR_TYPE_CROSS,
    MR_TYPE_UNKNOWN,
    MR_TYPE_FAILURE,
    MR_TYPE_TOPOLOGY,
    MR_TYPE_READ_FROM,
    MR_TYPE_PRESENT,
    MR_TYPE_FALLBACK,
    MR_TYPE_HEALTH,
    MR_TYPE_BALANCE,
    MR_TYPE_ENGINE,
    MR_TYPE_ACCEPT,
    MR_TYPE_PROTOCOL,
    MR_TYPE_LISTEN,
    MR_TYPE_SERVERS,
    MR_TYPE_SENTINELS,
    MR_TYPE_NAMES,
    MR_TYPE_COMMANDS,
    MR_TYPE_USERS,
};

struct mr_config_key {
    enum mr_config_scope scope;
    enum mr_config_type type;
    const char *name;
    const char *default_text; /* "" for none */
    const char *help;
    size_t offset; /* offset of the field in struct mr_config or mr_pool_config */
    uint64_t min, max;
};

extern const struct mr_config_key MR_CONFIG_KEYS[];
extern const size_t MR_CONFIG_KEY_COUNT;

/** The key of this name, or NULL. */
const struct mr_config_key *mr_config_find_key(enum mr_config_scope scope, const char *name);

/** The key most similar to a misspelt name, or NULL. */
const struct mr_config_key *mr_config_similar_key(enum mr_config_scope scope, const char *name);
