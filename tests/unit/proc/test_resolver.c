/* test_resolver.c - which of a name's addresses a server gets. */
#include "proc/resolver.h"
#include "unit/test.h"

static struct mr_addr answers[3];

static void read_answers(const char *a, const char *b, const char *c)
{
    const char *texts[] = {a, b, c};

    for (size_t i = 0; i < MR_COUNT(texts); i++)
        assert_true(mr_addr_numeric(&answers[i], mr_slice_of(texts[i]), 1));
}

static const char *choose(const char *known, bool fails)
{
    struct mr_addr addr = {.len = 0};

    if (known != NULL)
        assert_true(mr_addr_numeric(&addr, mr_slice_of(known), 1));
    return mr_resolver_choose(answers, 3, &addr, fails)->text;
}

static void the_order_of_answers_does_not_matter(void **state)
{
    (void)state;
    read_answers("10.0.0.1", "10.0.0.2", "::1");
    assert_string_equal(choose(NULL, false), "10.0.0.1:1");
    assert_string_equal(choose("10.0.0.1", false), "10.0.0.1:1");
    assert_string_equal(choose("::1", false), "[::1]:1");
    read_answers("10.0.0.2", "::1", "10.0.0.1");
    assert_string_equal(choose("10.0.0.1", false), "10.0.0.1:1");
    assert_string_equal(choose("10.0.0.9", false), "10.0.0.2:1"); /* gone: use the preferred one */
    assert_string_equal(choose("10.0.0.9", true), "10.0.0.2:1");
}

/* While the server fails, each round tries the next address. */
static void an_address_that_fails_makes_way(void **state)
{
    const char *at = "10.0.0.1:1";
    char seen[200] = "";

    (void)state;
    for (int i = 0; i < 6; i++) {
        char host[64];

        if (i % 2 == 0)
            read_answers("10.0.0.2", "::1", "10.0.0.1");
        else
            read_answers("::1", "10.0.0.1", "10.0.0.2");
        (void)snprintf(host, sizeof(host), "%s", at);
        *strrchr(host, ':') = '\0';
        at = choose(host[0] == '[' ? "::1" : host, true);
        strcat(strcat(seen, at), " ");
    }
    assert_non_null(strstr(seen, "10.0.0.2:1 "));
    assert_non_null(strstr(seen, "[::1]:1 "));
    assert_non_null(strstr(seen, "10.0.0.1:1 "));
}

RUN(T(the_order_of_answers_does_not_matter), T(an_address_that_fails_makes_way))
