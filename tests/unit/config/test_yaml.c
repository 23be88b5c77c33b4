/* test_yaml.c - YAML trees and what is wrong with a file. */
#include "config/yaml.h"
#include "unit/test.h"

static void reads_a_tree(void **state)
{
    struct mr_yaml *root;
    struct mr_error err;
    const char *text = "# comment\na:\n  k: v # more\n  list: [x, 'y z']\n  s:\n   - 1\n   - 2\n";

    (void)state;
    assert_int_equal(mr_yaml_parse(&root, "f", mr_slice_of(text), &err), MR_OK);
    const struct mr_yaml *a = mr_yaml_get(root, "a");
    assert_int_equal(a->kind, MR_YAML_MAP);
    assert_string_equal(mr_yaml_get(a, "k")->text, "v");
    assert_int_equal(mr_yaml_get(a, "k")->line, 3);
    assert_int_equal(mr_yaml_get(a, "k")->column, 6);
    assert_int_equal(mr_yaml_get(a, "list")->n, 2);
    assert_string_equal(mr_yaml_get(a, "list")->children[1]->text, "y z");
    assert_string_equal(mr_yaml_get(a, "s")->children[1]->text, "2");
    assert_null(mr_yaml_get(a, "none"));
    mr_yaml_free(root);
}

static void says_where_it_is_wrong(void **state)
{
    static const struct {
        const char *text, *error;
    } CASES[] = {
        {"", "f:1:1: the file holds no configuration"},
        {"a: 1\n---\nb: 2\n", "must contain only 1 document"},
        {"a: &x 1\nb: *x\n", "f:2:4: an alias"},
        {"? [a]\n: 1\n", "a key must be plain text"},
        {"a:\n\tb: 1\n", "f:2:1:"},
        {"a: [1\n", "f:"},
        {"a: \"\\0\"\n", "zero byte"},
        {"a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "nested too deep"},
    };
    struct mr_yaml *root;
    struct mr_error err;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        assert_int_equal(mr_yaml_parse(&root, "f", mr_slice_of(CASES[i].text), &err), MR_ECONFIG);
        if (strstr(err.text, CASES[i].error) == NULL)
            fail_msg("'%s': %s", CASES[i].text, err.text);
    }
}

RUN(T(reads_a_tree), T(says_where_it_is_wrong))
