/* test_value.c - parsing of addresses, servers, times and sizes. */
#include "config/value.h"
#include "unit/test.h"

static void servers(void **state)
{
    static const struct {
        const char *line, *name, *host;
        unsigned port, weight;
    } GOOD[] = {
        {"127.0.0.1:6379:1", "127.0.0.1:6379", "127.0.0.1", 6379, 1},
        {"127.0.0.1:6379:2 alpha", "alpha", "127.0.0.1", 6379, 2},
        {"127.0.0.1:11211:1", "127.0.0.1", "127.0.0.1", 11211, 1}, /* memcached's port */
        {"127.0.0.1:11211:1 m", "m", "127.0.0.1", 11211, 1},
        {"::1:6379:1", "::1:6379", "::1", 6379, 1},
        {"[::1]:6379:1", "[::1]:6379", "[::1]", 6379, 1},
        {"cache.example.com:6379:2147483647", "cache.example.com:6379", "cache.example.com", 6379,
         2147483647},
        {"/tmp/a.sock:1", "/tmp/a.sock:", NULL, 0, 1},
        {"/tmp/a.sock:3 nm", "nm", NULL, 0, 3},
        {"/tmp/with blank.sock:1 nm", "nm", NULL, 0, 1},
        {"_redis._tcp.example.com", "_redis._tcp.example.com", "_redis._tcp.example.com", 0, 1},
        {"_redis._tcp.example.com seeds", "seeds", "_redis._tcp.example.com", 0, 1},
        {"_host:6379:1", "_host:6379", "_host", 6379, 1}, /* no service: it has a port */
    };
    static const struct {
        const char *line, *error;
    } BAD[] = {
        {"127.0.0.1:6379:1 ", "an empty name"},
        {"127.0.0.1:6379:1 a\nb", "a control character"},
        {"/tmp/a\x7f.sock:1", "a control character"},
        {"127.0.0.1:6379", "format string"},
        {"127.0.0.1:6379:0", "a zero weight"},
        {"127.0.0.1:6379:x", "an invalid weight"},
        {"127.0.0.1:6379:-1", "an invalid weight"},
        {"127.0.0.1:6379:2147483648", "an invalid weight"},
        {"127.0.0.1:0:1", "an invalid port"},
        {"127.0.0.1:65536:1", "an invalid port"},
        {":6379:1", "an empty hostname"},
        {"nonsense", "format string"},
        {"_redis._tcp.example.com ", "an empty name"},
        {"_redis\x01._tcp.example.com", "a control character"},
        {"[]:6379:1", "an empty hostname"},
        {"/tmp/a.sock", "format string"},
        {"", "format string"},
    };
    struct mr_server_config s;
    struct mr_error err;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(GOOD); i++) {
        assert_int_equal(mr_value_server(&s, GOOD[i].line, &err), MR_OK);
        assert_string_equal(s.name, GOOD[i].name);
        if (GOOD[i].host != NULL)
            assert_string_equal(s.host, GOOD[i].host);
        else
            assert_null(s.host);
        assert_int_equal(s.port, GOOD[i].port);
        assert_int_equal(s.weight, GOOD[i].weight);
        mr_server_config_fini(&s);
    }
    for (size_t i = 0; i < MR_COUNT(BAD); i++) {
        assert_int_equal(mr_value_server(&s, BAD[i].line, &err), MR_ECONFIG);
        if (strstr(err.text, BAD[i].error) == NULL)
            fail_msg("'%s': %s", BAD[i].line, err.text);
    }
}

static void listens(void **state)
{
    static const struct {
        const char *text, *addr;
        int mode;
    } GOOD[] = {
        {"127.0.0.1:22121", "127.0.0.1:22121", 0}, {"0.0.0.0:1", "0.0.0.0:1", 0},
        {"::1:65535", "[::1]:65535", 0},           {"[::1]:80", "[::1]:80", 0},
        {"/tmp/x.sock", "/tmp/x.sock", 0},         {"/tmp/x.sock 0660", "/tmp/x.sock", 0660},
        {"/tmp/x.sock 777", "/tmp/x.sock", 0777},
    };
    static const struct {
        const char *text, *error;
    } BAD[] = {
        {"22121", "\"hostname:port\""},     {":22121", "\"hostname:port\""},
        {"127.0.0.1:0", "invalid port"},    {"127.0.0.1:65536", "invalid port"},
        {"127.0.0.1:x", "invalid port"},    {"no-such-host.invalid:1", "does not resolve"},
        {"/tmp/x.sock 1777", "permission"}, {"/tmp/x.sock abc", "permission"},
        {"/tmp/x.sock 999", "permission"},  {"/tmp/x.sock ", "permission"},
    };
    struct mr_listen_config l;
    struct mr_error err;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(GOOD); i++) {
        assert_int_equal(mr_value_listen(&l, GOOD[i].text, &err), MR_OK);
        assert_string_equal(l.addr.text, GOOD[i].addr);
        assert_int_equal(l.mode, GOOD[i].mode);
        mr_listen_config_fini(&l);
    }
    for (size_t i = 0; i < MR_COUNT(BAD); i++) {
        assert_int_equal(mr_value_listen(&l, BAD[i].text, &err), MR_ECONFIG);
        if (strstr(err.text, BAD[i].error) == NULL)
            fail_msg("'%s': %s", BAD[i].text, err.text);
    }
}

static void times_and_sizes(void **state)
{
    uint64_t v;

    (void)state;
    assert_true(mr_value_time_us("50us", &v) && v == 50);
    assert_true(mr_value_time_us("2ms", &v) && v == 2000);
    assert_false(mr_value_time_us("2", &v));
    assert_false(mr_value_time_us("1s", &v));
    assert_true(mr_value_time_ms("250ms", &v) && v == 250);
    assert_true(mr_value_time_ms("30s", &v) && v == 30000);
    assert_true(mr_value_time_ms("2m", &v) && v == 120000);
    assert_true(mr_value_time_ms("1h", &v) && v == 3600000);
    assert_false(mr_value_time_ms("30", &v));
    assert_false(mr_value_time_ms("s", &v));
    assert_false(mr_value_time_ms("1d", &v));
    assert_false(mr_value_time_ms("99999999999999999999h", &v));
    assert_true(mr_value_size("10", &v) && v == 10);
    assert_true(mr_value_size("4KB", &v) && v == 4096);
    assert_true(mr_value_size("64mb", &v) && v == 67108864);
    assert_true(mr_value_size("1gb", &v) && v == 1073741824);
    assert_false(mr_value_size("1 mb", &v));
    assert_false(mr_value_size("1.5mb", &v));
    assert_false(mr_value_size("18446744073709551615gb", &v));
}

static void commands(void **state)
{
    static const char *const BAD[] = {
        "",
        "get",
        " 2 read 1 1 1",
        "get x read 1 1 1",
        "get 0 read 1 1 1",
        "get 2 other 1 1 1",
        "get 2 read 1 1",
        "get 2 read 1 1 1 1",
        "get 2 read 2 1 1",
        "get 2 read 1 1 0",
        "get 2 read 0 1 1",
        "get 2 read -1 1 1",
        "get 2 read 1 128 1",
        "get 32768 read 1 1 1",
        "get 2 read 1 1 1x",
        "get\t 2 read 1 1 1",
        "a.name.of.24.characters. 2 read 1 1 1",
    };
    struct mr_resp_command c;
    struct mr_error err;

    (void)state;
    assert_int_equal(mr_value_command(&c, "Json.MGet -3 read 1 -2 1", &err), MR_OK);
    assert_string_equal(c.name, "json.mget");
    assert_int_equal(c.arity, -3);
    assert_int_equal(c.class, MR_CLASS_READ);
    assert_int_equal(c.keys, MR_RESP_KEYS);
    assert_int_equal(c.a, 1);
    assert_int_equal(c.b, -2);
    assert_int_equal(c.c, 1);
    mr_value_command_fini(&c);
    assert_int_equal(mr_value_command(&c, "a.name.of.23.characters 1 write 0 0 0", &err), MR_OK);
    assert_int_equal(c.class, MR_CLASS_WRITE);
    assert_int_equal(c.keys, MR_RESP_NO_KEYS);
    mr_value_command_fini(&c);
    for (size_t i = 0; i < MR_COUNT(BAD); i++)
        if (mr_value_command(&c, BAD[i], &err) != MR_ECONFIG)
            fail_msg("'%s' was taken", BAD[i]);
}

RUN(T(servers), T(listens), T(times_and_sizes), T(commands))
