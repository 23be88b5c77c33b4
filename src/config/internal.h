/* internal.h - what the files that read a configuration share. */
#pragma once

#include "config/config.h"
#include "config/schema.h"
#include "config/yaml.h"

/** What every step of reading needs. */
struct mr_config_reader {
    struct mr_config *config;
    const char *path;
    struct mr_error *err;
};

/** Fails with a sentence about the place of the node. */
enum mr_result mr_config_fail(const struct mr_config_reader *r, const struct mr_yaml *node,
                              const char *fmt, ...) MR_PRINTF(3, 4);

/** Adds a line to the warnings. */
void mr_config_warn(struct mr_config *config, const char *fmt, ...) MR_PRINTF(2, 3);

/* ---- section.c ---- */

/** Puts the default of every key of the scope into the struct at `base`. */
void mr_config_set_defaults(const struct mr_config_reader *r, enum mr_config_scope scope,
                            void *base);

/** Another default for one key. */
enum mr_result mr_config_set_default(const struct mr_config_reader *r, enum mr_config_scope scope,
                                     const char *name, const char *text, void *base);

/** Applies a mapping of keys to the struct at `base`. */
enum mr_result mr_config_read_section(const struct mr_config_reader *r, enum mr_config_scope scope,
                                      const struct mr_yaml *map, void *base);

enum mr_result mr_config_check_duplicates(const struct mr_config_reader *r,
                                          const struct mr_yaml *map);

/* ---- check.c ---- */

/** Settles the pool's protocol and checks what depends on it. */
enum mr_result mr_config_check_protocol(const struct mr_config_reader *r,
                                        const struct mr_yaml *node, struct mr_pool_config *pool);

/** Sorts the pool's servers; checks their names, their topology and their ring. */
enum mr_result mr_config_check_servers(const struct mr_config_reader *r, const struct mr_yaml *node,
                                       struct mr_pool_config *pool);

/** Fills in `listens`, once the pools are where they stay. */
void mr_config_sort_listens(struct mr_config *config);

/** Sorts the pools; checks their names and that no two listen at one address. */
enum mr_result mr_config_check_pools(const struct mr_config_reader *r, const struct mr_yaml *root);
