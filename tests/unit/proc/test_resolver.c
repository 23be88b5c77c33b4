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

/* Places and answers are numbers of ports; 0 is none. */
static void share_out(const char *before, const char *answer, bool partial, const char *after)
{
    struct mr_addr places[4] = {0}, given[6] = {0};
    uint32_t n = 0;

    for (size_t i = 0; i < 4; i++)
        if (before[i] != '0')
            assert_true(
                mr_addr_numeric(&places[i], mr_slice_of("10.0.0.1"), (uint16_t)(before[i] - '0')));
    for (; answer[n] != '\0'; n++)
        assert_true(
            mr_addr_numeric(&given[n], mr_slice_of("10.0.0.1"), (uint16_t)(answer[n] - '0')));
    mr_resolver_share_out(given, n, partial, places, 4);
    for (size_t i = 0; i < 4; i++) {
        const char want[] = {'1', ':', after[i], '\0'};
        if (after[i] == '0')
            assert_int_equal(places[i].len, 0);
        else
            assert_string_equal(strstr(places[i].text, ".1:") + 1, want);
    }
}

static void addresses_of_a_service_keep_their_places(void **state)
{
    (void)state;
    share_out("0000", "12", false, "1200");
    share_out("1200", "21", false, "1200"); /* in any order */
    share_out("1230", "4312", false, "1234");
    share_out("1234", "14", false, "1004"); /* some are gone */
    share_out("1234", "5", false, "5000");
    share_out("1234", "154", false, "1504");
    share_out("1004", "123456", false, "1234"); /* more than places */
    share_out("1234", "567891", true, "1234");  /* perhaps the others are still there */
    share_out("1200", "13", true, "1230");
    share_out("1234", "12", true, "1234");
}

RUN(T(the_order_of_answers_does_not_matter), T(an_address_that_fails_makes_way),
    T(addresses_of_a_service_keep_their_places))
