/* yaml.h - a YAML document as a tree of scalars, mappings and sequences with their places. */
#pragma once

#include "config/place.h"
#include "core/result.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum mr_yaml_kind { MR_YAML_SCALAR, MR_YAML_MAP, MR_YAML_LIST };

struct mr_yaml {
    enum mr_yaml_kind kind;
    struct mr_place at;
    bool bad;            /* set by the reader of the tree: the value is invalid */
    char *text;          /* of a scalar; NUL-terminated, contains no other NUL */
    struct mr_yaml *key; /* key of a mapping's child, else NULL */
    struct mr_yaml **children;
    uint32_t n;
};

/** Parses exactly one document. On failure *where is the place of the error. Caller frees *out. */
enum mr_result mr_yaml_parse(struct mr_yaml **out, struct mr_slice text, struct mr_place *where,
                             struct mr_error *err) MR_MUST_USE;

void mr_yaml_free(struct mr_yaml *node);

/** The mapping's child with this key, or NULL. */
const struct mr_yaml *mr_yaml_get(const struct mr_yaml *map, const char *key);
