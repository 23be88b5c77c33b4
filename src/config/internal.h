/* internal.h - shared by the files that read a configuration. */
#pragma once

#include "config/config.h"
#include "config/schema.h"
#include "config/yaml.h"

/*
 * State of reading. Reading continues after an error, to find them all; checks that depend on an
 * invalid value (a node marked `bad`) are skipped.
 */
struct mr_config_reader {
    struct mr_config *config;
    const char *path;
    struct mr_findings *found;
};

/** Reports an error; returns MR_ECONFIG. */
enum mr_result mr_config_fail(const struct mr_config_reader *r, struct mr_place at, const char *fmt,
                              ...) MR_PRINTF(3, 4);

void mr_config_warn(const struct mr_config_reader *r, struct mr_place at, const char *fmt, ...)
    MR_PRINTF(3, 4);

/** Place of the key in the map, or of the map itself if it lacks the key. */
struct mr_place mr_config_place_of(const struct mr_yaml *map, const char *key);

/** False if one of these keys (a NULL-terminated list) has an invalid value. */
bool mr_config_sound(const struct mr_yaml *map, const char *const *keys);

/* ---- section.c ---- */

/** Sets every key of the scope to its default in the struct at `base`. */
void mr_config_set_defaults(const struct mr_config_reader *r, enum mr_config_scope scope,
                            void *base);

/** Overrides the default of one key. */
enum mr_result mr_config_set_default(const struct mr_config_reader *r, enum mr_config_scope scope,
                                     const char *name, const char *text, void *base);

/** Applies a mapping of keys to the struct at `base`. */
void mr_config_read_section(const struct mr_config_reader *r, enum mr_config_scope scope,
                            const struct mr_yaml *map, void *base);

/** Reports keys that occur twice, and marks them `bad`. */
void mr_config_check_duplicates(const struct mr_config_reader *r, const struct mr_yaml *map);

/* ---- users.c ---- */

enum mr_result mr_config_read_users(const struct mr_config_reader *r, const struct mr_yaml *map);

/** Assigns each pool its users, once all pools have been read. */
void mr_config_settle_users(const struct mr_config_reader *r);

void mr_config_free_users(struct mr_config *config);

/* ---- check.c ---- */

/** Determines the pool's protocol and checks what depends on it. */
void mr_config_check_protocol(const struct mr_config_reader *r, const struct mr_yaml *node,
                              struct mr_pool_config *pool);

/** Sorts the pool's servers and checks names, topology and ring. */
void mr_config_check_servers(const struct mr_config_reader *r, const struct mr_yaml *node,
                             struct mr_pool_config *pool);

/** Fills `listens`. The pools must not move afterwards. */
void mr_config_sort_listens(struct mr_config *config);

/** Sorts the pools; checks their names, and that their listen addresses differ. */
void mr_config_check_pools(const struct mr_config_reader *r);
