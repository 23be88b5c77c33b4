/* yaml.c - parses YAML into a tree, using libyaml. */
#include "config/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define DEPTH_MAX 8

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    struct mr_place *where;
    struct mr_error *err;
};

static struct mr_place place_of(yaml_mark_t mark)
{
    return (struct mr_place){(uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

static enum mr_result fail_at(struct reader *r, yaml_mark_t at, const char *what)
{
    *r->where = place_of(at);
    return mr_fail(r->err, MR_ECONFIG, "%s", what);
}

static enum mr_result next(struct reader *r)
{
    if (yaml_parser_parse(&r->parser, &r->event))
        return MR_OK;
    const char *problem = r->parser.problem != NULL ? r->parser.problem : "not YAML";
    return fail_at(r, r->parser.problem_mark, problem);
}

static struct mr_yaml *new_node(const struct reader *r, enum mr_yaml_kind kind)
{
    struct mr_yaml *node = calloc(1, sizeof(*node));

    MR_CHECK(node != NULL);
    node->kind = kind;
    node->at = place_of(r->event.start_mark);
    return node;
}

void mr_yaml_free(struct mr_yaml *node)
{
    if (node == NULL)
        return;
    for (uint32_t i = 0; i < node->n; i++)
        mr_yaml_free(node->children[i]);
    mr_yaml_free(node->key);
    free(node->children);
    free(node->text);
    free(node);
}

const struct mr_yaml *mr_yaml_get(const struct mr_yaml *map, const char *key)
{
    for (uint32_t i = 0; map->kind == MR_YAML_MAP && i < map->n; i++)
        if (strcmp(map->children[i]->key->text, key) == 0)
            return map->children[i];
    return NULL;
}

static void append(struct mr_yaml *parent, struct mr_yaml *child)
{
    parent->children = realloc(parent->children, (parent->n + 1) * sizeof(struct mr_yaml *));
    MR_CHECK(parent->children != NULL);
    parent->children[parent->n++] = child;
}

static enum mr_result read_scalar(struct reader *r, struct mr_yaml **out)
{
    const size_t len = r->event.data.scalar.length;
    const char *value = (const char *)r->event.data.scalar.value;

    if (memchr(value, '\0', len) != NULL)
        return fail_at(r, r->event.start_mark, "a value holds a zero byte");
    struct mr_yaml *node = new_node(r, MR_YAML_SCALAR);
    node->text = strndup(value, len);
    MR_CHECK(node->text != NULL);
    *out = node;
    return MR_OK;
}

static enum mr_result read_node(struct reader *r, int depth, struct mr_yaml **out);

/* Reads the children of a mapping or sequence that starts at the current event. */
static enum mr_result read_children(struct reader *r, int depth, struct mr_yaml *parent)
{
    const bool map = parent->kind == MR_YAML_MAP;
    const yaml_event_type_t end = map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;

    for (;;) {
        struct mr_yaml *key = NULL, *child = NULL;
        enum mr_result rc = next(r);
        if (rc != MR_OK)
            return rc;
        if (r->event.type == end) {
            yaml_event_delete(&r->event);
            return MR_OK;
        }
        if (map && r->event.type != YAML_SCALAR_EVENT) {
            rc = fail_at(r, r->event.start_mark, "a key must be plain text");
            yaml_event_delete(&r->event);
            return rc;
        }
        rc = read_node(r, depth + 1, map ? &key : &child);
        if (rc == MR_OK && map && (rc = next(r)) == MR_OK)
            rc = read_node(r, depth + 1, &child);
        if (rc != MR_OK) {
            mr_yaml_free(key);
            return rc;
        }
        child->key = key;
        append(parent, child);
    }
}

/* Consumes the current event, which is deleted on return. */
static enum mr_result read_node(struct reader *r, int depth, struct mr_yaml **out)
{
    struct mr_yaml *node = NULL;
    enum mr_result rc = MR_OK;

    if (depth > DEPTH_MAX) {
        rc = fail_at(r, r->event.start_mark, "nested too deep");
    } else if (r->event.type == YAML_SCALAR_EVENT) {
        rc = read_scalar(r, &node);
    } else if (r->event.type == YAML_MAPPING_START_EVENT) {
        node = new_node(r, MR_YAML_MAP);
    } else if (r->event.type == YAML_SEQUENCE_START_EVENT) {
        node = new_node(r, MR_YAML_LIST);
    } else if (r->event.type == YAML_ALIAS_EVENT) {
        rc = fail_at(r, r->event.start_mark, "an alias (*name) is not allowed here");
    } else {
        rc = fail_at(r, r->event.start_mark, "there is nothing here");
    }
    yaml_event_delete(&r->event);
    if (rc == MR_OK && node->kind != MR_YAML_SCALAR)
        rc = read_children(r, depth, node);
    if (rc != MR_OK) {
        mr_yaml_free(node);
        return rc;
    }
    *out = node;
    return MR_OK;
}

static enum mr_result expect(struct reader *r, yaml_event_type_t type, const char *otherwise)
{
    enum mr_result rc = next(r);

    if (rc != MR_OK)
        return rc;
    if (r->event.type != type)
        rc = fail_at(r, r->event.start_mark, otherwise);
    yaml_event_delete(&r->event);
    return rc;
}

static enum mr_result read_document(struct reader *r, struct mr_yaml **out)
{
    struct mr_yaml *root = NULL;
    enum mr_result rc = expect(r, YAML_STREAM_START_EVENT, "not YAML");

    if (rc == MR_OK)
        rc = expect(r, YAML_DOCUMENT_START_EVENT, "the file holds no configuration");
    if (rc == MR_OK)
        rc = next(r);
    if (rc == MR_OK)
        rc = read_node(r, 0, &root);
    if (rc == MR_OK)
        rc = expect(r, YAML_DOCUMENT_END_EVENT, "not YAML");
    if (rc == MR_OK)
        rc = expect(r, YAML_STREAM_END_EVENT, "must contain only 1 document");
    if (rc != MR_OK) {
        mr_yaml_free(root);
        return rc;
    }
    *out = root;
    return MR_OK;
}

enum mr_result mr_yaml_parse(struct mr_yaml **out, struct mr_slice text, struct mr_place *where,
                             struct mr_error *err)
{
    struct reader r = {.where = where, .err = err};

    MR_CHECK(yaml_parser_initialize(&r.parser));
    /* else libyaml takes UTF-16 too, and the text could not travel in an upgrade */
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.at, text.len);
    const enum mr_result rc = read_document(&r, out);
    yaml_parser_delete(&r.parser);
    return rc;
}
