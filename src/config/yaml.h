/* yaml.h - a YAML document as a tree of scalars, mappings and sequences that know their place. */
#pragma once

#include "core/result.h"
#include "core/slice.h"

#include <stdint.h>

enum mr_yaml_kind { MR_YAML_SCALAR, MR_YAML_MAP, MR_YAML_LIST };

struct mr_yaml {
    enum mr_yaml_kind kind;
    uint32_t line, column; /* from 1 */
    char *text;            /* scalar: its value, NUL-terminated; may hold no NUL inside */
    struct mr_yaml *key;   /* of a child of a mapping, else NULL */
    struct mr_yaml **children;
    uint32_t n;
};

/** Reads exactly one document; `path` only names it in messages. Caller frees *out. */
enum mr_result mr_yaml_parse(struct mr_yaml **out, const char *path, struct mr_slice text,
                             struct mr_error *err) MR_MUST_USE;

void mr_yaml_free(struct mr_yaml *node);

/** The child of a mapping with this key, or NULL. */
const struct mr_yaml *mr_yaml_get(const struct mr_yaml *map, const char *key);
