/* test_addr.c - parsing of addresses. */
#include "net/addr.h"
#include "unit/test.h"

static void numeric(void **state)
{
    static const struct {
        const char *host;
        bool ok;
        const char *text;
    } CASES[] = {
        {"127.0.0.1", true, "127.0.0.1:80"}, {"::1", true, "[::1]:80"}, {"[::1]", true, "[::1]:80"},
        {"localhost", false, NULL},          {"", false, NULL},         {"[]", false, NULL},
        {"1.2.3.256", false, NULL},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        struct mr_addr a = {0};
        assert_int_equal(mr_addr_numeric(&a, mr_slice_of(CASES[i].host), 80), CASES[i].ok);
        if (CASES[i].ok)
            assert_string_equal(a.text, CASES[i].text);
    }
}

static void unix_paths(void **state)
{
    struct mr_addr a;
    struct mr_error err;
    char path[200];

    (void)state;
    memset(path, 'p', sizeof(path));
    assert_int_equal(mr_addr_unix(&a, (struct mr_slice){path, 107}, &err), MR_OK);
    assert_int_equal(mr_addr_unix(&a, (struct mr_slice){path, 108}, &err), MR_ELIMIT);
    assert_int_equal(mr_addr_unix(&a, (struct mr_slice){path, 0}, &err), MR_ELIMIT);
}

static void resolves_and_compares(void **state)
{
    struct mr_addr a, b, c;
    struct mr_error err;
    uint32_t n;

    (void)state;
    assert_int_equal(mr_addr_resolve(&a, 1, &n, mr_slice_of("localhost"), 80, &err), MR_OK);
    assert_int_equal(mr_addr_resolve(&b, 1, &n, mr_slice_of("no-such-host.invalid"), 80, &err),
                     MR_ESYS);
    assert_non_null(strstr(err.text, "no-such-host.invalid"));
    assert_true(mr_addr_numeric(&b, mr_slice_of("10.0.0.1"), 1));
    assert_true(mr_addr_numeric(&c, mr_slice_of("10.0.0.1"), 1));
    assert_true(mr_addr_eq(&b, &c));
    assert_true(mr_addr_numeric(&c, mr_slice_of("10.0.0.1"), 2));
    assert_false(mr_addr_eq(&b, &c));
    assert_true(mr_addr_numeric(&c, mr_slice_of("::1"), 1));
    assert_false(mr_addr_eq(&b, &c));
    memset(&c, 0, sizeof(c));
    assert_false(mr_addr_eq(&c, &c)); /* an unknown address equals nothing */
}

static void from_a_socket_address(void **state)
{
    struct mr_addr a, b;
    struct mr_error err;

    (void)state;
    assert_true(mr_addr_numeric(&a, mr_slice_of("10.0.0.1"), 1));
    assert_true(mr_addr_inet(&b, &a.sa.any, a.len, 2));
    assert_string_equal(b.text, "10.0.0.1:2");
    assert_false(mr_addr_inet(&b, &a.sa.any, a.len - 1, 2));
    assert_true(mr_addr_numeric(&a, mr_slice_of("::1"), 1));
    assert_true(mr_addr_inet(&b, &a.sa.any, a.len, 65535));
    assert_string_equal(b.text, "[::1]:65535");
    assert_int_equal(mr_addr_unix(&a, mr_slice_of("/tmp/a"), &err), MR_OK);
    assert_false(mr_addr_inet(&b, &a.sa.any, a.len, 2));
}

RUN(T(from_a_socket_address), T(numeric), T(unix_paths), T(resolves_and_compares))
