/* test_diff.c - the described effects of a configuration change. */
#include "config/diff.h"
#include "unit/test.h"

#define POOL(name, listen) name ":\n  listen: 127.0.0.1:" listen "\n  redis: true\n"
#define ONE_TO_FOUR                                                                                \
    "  servers: ['10.0.0.1:1:1 a', '10.0.0.2:1:1 b', '10.0.0.3:1:1 c', '10.0.0.4:1:1 d']\n"

static char text[4096];

static void line(void *arg, const char *sentence)
{
    (void)arg;
    strcat(text, sentence);
    strcat(text, "\n");
}

static struct mr_config *parse(const char *yaml)
{
    struct mr_config *config;
    struct mr_error err;

    if (mr_config_parse(&config, "t", mr_slice_of(yaml), 1000, NULL, &err) != MR_OK)
        fail_msg("%s", err.text);
    return config;
}

static double share(const char *now, const char *before)
{
    struct mr_config *a = parse(now), *b = parse(before);
    const double moved = mr_config_moved_share(&a->pools[0], &b->pools[0]);

    text[0] = '\0';
    mr_config_diff(a, b, line, NULL);
    mr_config_free(a);
    mr_config_free(b);
    return moved;
}

static void nothing_changes(void **state)
{
    (void)state;
    assert_true(share(POOL("p", "1") ONE_TO_FOUR, POOL("p", "1") ONE_TO_FOUR) == 0);
    assert_string_equal(text, "");
    /* the order of lines does not matter */
    assert_true(share(POOL("p", "1") ONE_TO_FOUR,
                      POOL("p", "1") "  servers: ['10.0.0.4:1:1 d', '10.0.0.3:1:1 c', "
                                     "'10.0.0.2:1:1 b', '10.0.0.1:1:1 a']\n") == 0);
}

static void a_server_less(void **state)
{
    (void)state;
    const double moved =
        share(POOL("p", "1") "  servers: ['10.0.0.1:1:1 a', '10.0.0.2:1:1 b', '10.0.0.3:1:1 c']\n",
              POOL("p", "1") ONE_TO_FOUR);
    assert_true(moved > 0.1 && moved < 0.45);
    assert_non_null(strstr(text, "pool p: server removed: 10.0.0.4:1:1 d\n"));
    assert_non_null(strstr(text, "% of the keys move to another server\n"));
}

static void a_server_moves_house(void **state)
{
    (void)state;
    const double moved = share(POOL("p", "1") "  servers: ['10.0.0.9:1:1 a']\n",
                               POOL("p", "1") "  servers: ['10.0.0.1:1:1 a']\n");
    assert_true(moved == 1);
}

static void another_hash_moves_nearly_all(void **state)
{
    (void)state;
    const double moved = share(POOL("p", "1") "  hash: murmur\n" ONE_TO_FOUR,
                               POOL("p", "1") "  hash: md5\n" ONE_TO_FOUR);
    assert_true(moved > 0.6);
    assert_non_null(strstr(text, "pool p: the hash or distribution changes\n"));
}

static void pools_and_listeners(void **state)
{
    (void)state;
    (void)share(POOL("p", "1") ONE_TO_FOUR POOL("q", "2") ONE_TO_FOUR,
                POOL("p", "3") ONE_TO_FOUR POOL("r", "2") ONE_TO_FOUR);
    assert_string_equal(text, "pool added: q\npool removed: r; its clients are disconnected\n"
                              "listener added: 127.0.0.1:1 (pool p)\n"
                              "listener removed: 127.0.0.1:3 (pool p)\n");
}

RUN(T(nothing_changes), T(a_server_less), T(a_server_moves_house), T(another_hash_moves_nearly_all),
    T(pools_and_listeners))
