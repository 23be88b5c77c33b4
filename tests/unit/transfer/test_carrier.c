/* test_carrier.c - keys on their way to another pool; the test plays the server of both. */
#include "transfer/carrier.h"
#include "unit/upstream/pool_fixture.h"

#include <errno.h>

#define FETCH(key) "*2\r\n$4\r\nPTTL\r\n$1\r\n" key "\r\n*2\r\n$4\r\nDUMP\r\n$1\r\n" key "\r\n"
#define STORE(key, value)                                                                          \
    "*5\r\n$7\r\nRESTORE\r\n$1\r\n" key "\r\n$1\r\n0\r\n$1\r\n" value "\r\n$7\r\nREPLACE\r\n"
#define HAS(value) ":-1\r\n$1\r\n" value "\r\n"
#define HAS_NOT    ":-2\r\n$-1\r\n"

static struct mr_carrier carrier;
static uint64_t carried, errors, dropped, pending;
static int server;

static void begin(size_t max_bytes)
{
    open_pool("  timeout: 0\n  health_checks: off\n");
    carried = errors = dropped = pending = 0;
    mr_carrier_init(&carrier,
                    &(struct mr_carrier_setup){.loop = &loop,
                                               .from = &pool,
                                               .to = &pool,
                                               .max_bytes = max_bytes,
                                               .max_active = 2,
                                               .tries = 2,
                                               .counts = {&carried, &errors, &dropped, &pending}});
    server = -1;
}

static void end(void)
{
    mr_carrier_stop(&carrier);
    mr_pool_close(&pool);
    mr_loop_settle(&loop);
    mr_carrier_fini(&carrier);
    assert_int_equal(pending, 0);
    close(server);
    close_pool();
}

static void add(const char *key, bool doubtful)
{
    mr_carrier_add(&carrier,
                   &(struct mr_carrier_key){.key = mr_slice_of(key), .doubtful = doubtful});
}

/* The server gets this and answers. */
static void expect(const char *request, const char *answer)
{
    char got[1024];
    size_t len = 0, want = strlen(request);

    if (server < 0)
        server = accept_one();
    for (unsigned tries = 0; len < want && tries < 500; tries++) {
        const ssize_t n = recv(server, got + len, sizeof(got) - 1 - len, MSG_DONTWAIT);
        if (n > 0)
            len += (size_t)n;
        else
            turns(2);
    }
    got[len] = '\0';
    assert_string_equal(got, request);
    assert_int_equal(send(server, answer, strlen(answer), MSG_NOSIGNAL), (ssize_t)strlen(answer));
    turns(2);
}

static void assert_silence(void)
{
    char c;

    turns(5);
    assert_int_equal(recv(server, &c, 1, MSG_DONTWAIT), -1);
}

static void stores_until_nothing_has_changed(void **state)
{
    (void)state;
    begin(100000);
    add("a", false);
    assert_int_equal(pending, 1);
    expect(FETCH("a"), HAS("1"));
    expect(STORE("a", "1"), "+OK\r\n");
    expect(FETCH("a"), HAS("2"));
    expect(STORE("a", "2"), "+OK\r\n");
    assert_false(mr_carrier_settled(&carrier));
    expect(FETCH("a"), HAS("2"));
    assert_int_equal(carried, 1);
    assert_int_equal(pending, 0);
    assert_true(mr_carrier_settled(&carrier));
    end();
}

static void removes_what_is_gone(void **state)
{
    (void)state;
    begin(100000);
    add("a", false);
    expect(FETCH("a"), HAS_NOT);
    expect("*2\r\n$6\r\nUNLINK\r\n$1\r\na\r\n", ":1\r\n");
    expect(FETCH("a"), HAS_NOT);
    assert_int_equal(carried, 1);
    end();
}

static void takes_a_key_once_however_often_it_is_written(void **state)
{
    (void)state;
    begin(100000);
    for (unsigned i = 0; i < 3; i++)
        add("a", false); /* the first is on its way already, the others count as one */
    expect(FETCH("a"), HAS("1"));
    expect(STORE("a", "1"), "+OK\r\n");
    expect(FETCH("a"), HAS("1"));
    expect(FETCH("a"), HAS("1"));
    expect(STORE("a", "1"), "+OK\r\n");
    expect(FETCH("a"), HAS("1"));
    assert_int_equal(carried, 2);
    assert_int_equal(pending, 0);
    assert_silence();
    end();
}

static void keeps_the_time_to_live(void **state)
{
    char got[512];

    (void)state;
    begin(100000);
    add("a", false);
    expect(FETCH("a"), ":5000\r\n$1\r\n1\r\n");
    turns(10);
    const ssize_t n = recv(server, got, sizeof(got) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    got[n] = '\0';
    assert_non_null(strstr(got, "$6\r\nABSTTL\r\n"));
    assert_int_equal(send(server, "+OK\r\n", 5, MSG_NOSIGNAL), 5);
    expect(FETCH("a"), ":4900\r\n$1\r\n1\r\n"); /* the same expiry, read a moment later */
    assert_int_equal(carried, 1);
    end();
}

static void gives_up_what_is_refused(void **state)
{
    (void)state;
    begin(100000);
    add("a", false);
    for (unsigned i = 0; i < 2; i++) {
        expect(FETCH("a"), HAS("1"));
        expect(STORE("a", "1"), "-OOM no memory\r\n");
    }
    assert_int_equal(errors, 2);
    assert_int_equal(dropped, 1);
    assert_int_equal(pending, 0);
    end();
}

static void tries_again_without_a_reply_and_looks_once_more(void **state)
{
    (void)state;
    begin(100000);
    add("a", false);
    expect(FETCH("a"), ""); /* and then */
    close(server);
    server = -1;
    turns(20);
    assert_int_equal(errors, 1);
    assert_int_equal(pending, 1);
    turns(250);
    expect(FETCH("a"), HAS_NOT);
    expect("*2\r\n$6\r\nUNLINK\r\n$1\r\na\r\n", ":0\r\n");
    expect(FETCH("a"), HAS_NOT);
    assert_int_equal(pending, 1); /* the write may have been on the connection that broke */
    turns(1050);
    expect(FETCH("a"), HAS("1"));
    expect(STORE("a", "1"), "+OK\r\n");
    expect(FETCH("a"), HAS("1"));
    assert_int_equal(pending, 0);
    end();
}

static void bounds_keys_and_values(void **state)
{
    char answer[900] = ":-1\r\n$700\r\n";

    (void)state;
    begin(700); /* one key, and less than its value */
    add("a", false);
    add("b", false);
    assert_int_equal(dropped, 1);
    memset(answer + strlen(answer), 'x', 700);
    strcat(answer, "\r\n");
    expect(FETCH("a"), answer);
    expect(FETCH("a"), answer); /* alone */
    assert_int_equal(dropped, 2);
    assert_int_equal(pending, 0);
    end();
}

static void a_pool_that_is_gone_does_not_keep_us_busy(void **state)
{
    static const char *const KEYS[] = {"a", "b", "c", "d", "e", "f"};

    (void)state;
    begin(100000);
    close(listener);
    listener = -1;
    for (size_t i = 0; i < MR_COUNT(KEYS); i++)
        add(KEYS[i], false);
    turns(150);
    assert_true(errors >= 2 && errors <= 4);
    assert_int_equal(pending, 6);
    assert_true(mr_carrier_settled(&carrier)); /* nothing comes of waiting */
    end();
    assert_int_equal(dropped, 6);
}

RUN(T(stores_until_nothing_has_changed), T(removes_what_is_gone),
    T(takes_a_key_once_however_often_it_is_written), T(keeps_the_time_to_live),
    T(gives_up_what_is_refused), T(tries_again_without_a_reply_and_looks_once_more),
    T(bounds_keys_and_values), T(a_pool_that_is_gone_does_not_keep_us_busy))
