/* test_yaml.c - YAML trees and errors. */
#include "config/yaml.h"
#include "unit/test.h"

static void reads_a_tree(void **state)
{
    struct mr_yaml *root;
    struct mr_place where;
    struct mr_error err;
    const char *text = "# comment\na:\n  k: v # more\n  list: [x, 'y z']\n  s:\n   - 1\n   - 2\n";

    (void)state;
    assert_int_equal(mr_yaml_parse(&root, mr_slice_of(text), &where, &err), MR_OK);
    const struct mr_yaml *a = mr_yaml_get(root, "a");
    assert_int_equal(a->kind, MR_YAML_MAP);
    assert_string_equal(mr_yaml_get(a, "k")->text, "v");
    assert_int_equal(mr_yaml_get(a, "k")->at.line, 3);
    assert_int_equal(mr_yaml_get(a, "k")->at.column, 6);
    assert_int_equal(mr_yaml_get(a, "list")->n, 2);
    assert_string_equal(mr_yaml_get(a, "list")->children[1]->text, "y z");
    assert_string_equal(mr_yaml_get(a, "s")->children[1]->text, "2");
    assert_null(mr_yaml_get(a, "none"));
    mr_yaml_free(root);
}

static void a_byte_order_mark_is_no_part_of_a_key(void **state)
{
    struct mr_yaml *root;
    struct mr_place where;
    struct mr_error err;

    (void)state;
    assert_int_equal(mr_yaml_parse(&root,
                                   mr_slice_of("\xef\xbb\xbf"
                                               "a: 1\n"),
                                   &where, &err),
                     MR_OK);
    assert_non_null(mr_yaml_get(root, "a"));
    mr_yaml_free(root);
}

static void says_where_it_is_wrong(void **state)
{
    static const struct {
        const char *text, *error;
        struct mr_place where; /* 0: anywhere */
    } CASES[] = {
        {"", "the file holds no configuration", {1, 1}},
        {"a: 1\n---\nb: 2\n", "must contain only 1 document", {0}},
        {"a: &x 1\nb: *x\n", "an alias", {2, 4}},
        {"? [a]\n: 1\n", "a key must be plain text", {0}},
        {"a:\n\tb: 1\n", "", {2, 1}},
        {"a: [1\n", "", {0}},
        {"a: \"\\0\"\n", "zero byte", {0}},
        {"\xff\xfe: 1\n", "UTF-8", {0}}, /* a UTF-16 byte order mark */
        {"a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "nested too deep", {0}},
    };
    struct mr_yaml *root;
    struct mr_place where;
    struct mr_error err;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        assert_int_equal(mr_yaml_parse(&root, mr_slice_of(CASES[i].text), &where, &err),
                         MR_ECONFIG);
        if (CASES[i].where.line > 0)
            assert_int_equal(mr_place_compare(where, CASES[i].where), 0);
        if (strstr(err.text, CASES[i].error) == NULL)
            fail_msg("'%s': %s", CASES[i].text, err.text);
    }
}

RUN(T(reads_a_tree), T(a_byte_order_mark_is_no_part_of_a_key), T(says_where_it_is_wrong))
