/* test_inquiry.c - requests that several workers answer together, in any order of events. */
#include "unit/session/service_fixture.h"

static struct mr_slice question(void)
{
    return (struct mr_slice){asked.text, asked.len};
}

/* Another worker's part. */
static void part(const char *text)
{
    mr_inquiries_take(&inquiries, asked.number, mr_slice_of(text));
    turns(2);
}

static void others(uint32_t n)
{
    mr_inquiries_asked(&inquiries, asked.number, n);
    turns(2);
}

static void wait_for_the_limit(void)
{
    for (struct mr_list *at = inquiries.open.next; at != &inquiries.open; at = inquiries.open.next)
        mr_loop_turn(&loop, 50);
    turns(2);
}

static void parts_are_joined(void **state)
{
    (void)state;
    start("");
    say(client, "CLIENT KILL TYPE pubsub\r\nPING\r\n");
    assert_string_equal(hear(client), "");
    others(3);
    part(":2\r\n");
    part(":0\r\n");
    assert_string_equal(hear(client), "");
    part(":5\r\n");
    assert_string_equal(hear(client), ":7\r\n+PONG\r\n");
    part(":9\r\n"); /* once more: nobody waits for it */
    say(client, "PING\r\n");
    assert_string_equal(hear(client), "+PONG\r\n");

    say(client, "CLIENT KILL 1.2.3.4:5\r\n");
    part("-ERR No such client\r\n"); /* before it is known how many there are */
    part("+OK\r\n");
    others(2);
    assert_string_equal(hear(client), "+OK\r\n");
    say(client, "CLIENT KILL 1.2.3.4:5\r\n");
    part("-ERR No such client\r\n");
    others(1);
    assert_string_equal(hear(client), "-ERR No such client\r\n");
    say(client, "CLIENT KILL TYPE pubsub\r\n");
    others(0);
    assert_string_equal(hear(client), ":0\r\n");
    stop();
}

static void lists_are_in_the_order_of_numbers(void **state)
{
    const char *text;

    (void)state;
    start("");
    say(client, "CLIENT LIST\r\n");
    others(4);
    part("$23\r\nid=20 name=b\nid=9 n=c\n\r\n");
    part("$9\r\nid=9 n=c\n\r\n"); /* it has moved meanwhile */
    part("");                     /* it has no such pool any more */
    part("$0\r\n\r\n");
    text = hear(client);
    const char *first = strstr(text, "\r\nid=1 "), *second = strstr(text, "\nid=9 n=c\n");
    assert_null(strstr(second + 2, "id=9"));
    const char *third = strstr(text, "\nid=20 name=b\n\r\n");
    assert_true(first != NULL && second > first && third > second);
    assert_int_equal(atol(text + 1), strlen(first) - 4);
    stop();
}

static void what_is_here_is_not_asked_elsewhere(void **state)
{
    (void)state;
    start("");
    asked.number = 0;
    say(client, "CLIENT KILL ID 1 SKIPME no\r\n");
    assert_string_equal(hear(client), ":1\r\n");
    client = connect_client();
    turns(2);
    say(client, "CLIENT UNBLOCK 2\r\nCLIENT LIST TYPE x\r\nCLIENT KILL ID 0\r\n");
    assert_int_equal(asked.number, 0);
    say(client, "CLIENT UNBLOCK 77\r\n");
    assert_int_not_equal(asked.number, 0);
    stop();
}

static void a_worker_does_its_part(void **state)
{
    struct mr_buf out = {0};
    char text[256];

    (void)state;
    start("");
    say(client, "CLIENT KILL TYPE normal\r\n"); /* spares the one who asks */
    const struct mr_slice kill = question();
    memcpy(text, kill.at, kill.len);
    others(0);
    assert_string_equal(hear(client), ":0\r\n");
    const int second = connect_client();
    turns(2);
    assert_int_equal(budget.n, 2);
    mr_inquiry_answer(&service, 1, (struct mr_slice){text, kill.len}, &loop.slab, &out);
    assert_int_equal(mr_buf_len(&out), 4);
    assert_memory_equal(mr_buf_slice(&out).at, ":2\r\n", 4); /* nobody here has asked */
    mr_buf_clear(&out, &loop.slab);
    turns(2);
    assert_int_equal(budget.n, 0);
    for (size_t len = 0; len < kill.len; len++) { /* torn, or of a pool that is not here */
        mr_inquiry_answer(&service, 1, (struct mr_slice){text, len}, &loop.slab, &out);
        assert_int_equal(mr_buf_len(&out), 0);
    }
    mr_inquiry_answer(&service, 0, kill, &loop.slab, &out);
    assert_int_equal(mr_buf_len(&out), 0);
    close(second);
    stop();
}

static void a_part_that_never_comes_fails_the_request(void **state)
{
    (void)state;
    start("");
    say(client, "CLIENT LIST\r\nPING\r\n");
    others(2);
    part("$0\r\n\r\n");
    wait_for_the_limit();
    assert_string_equal(hear(client), "-ERR a worker did not answer in time\r\n+PONG\r\n");
    part("$0\r\n\r\n");             /* late */
    say(client, "CLIENT LIST\r\n"); /* the master does not even say how many there are */
    wait_for_the_limit();
    assert_string_equal(hear(client), "-ERR a worker did not answer in time\r\n");
    asked.possible = false;
    say(client, "CLIENT LIST\r\nPING\r\n");
    asked.possible = true;
    assert_string_equal(hear(client), "-ERR the other workers cannot be asked\r\n+PONG\r\n");
    stop();
}

static void nothing_is_left_of_those_who_leave(void **state)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};

    (void)state;
    start("");
    say(client, "CLIENT LIST\r\n");
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
    close(client);
    turns(3);
    assert_int_equal(budget.n, 0);
    others(1);
    part("$0\r\n\r\n");
    assert_true(mr_list_empty(&inquiries.open));
    client = connect_client();
    turns(2);
    say(client, "CLIENT LIST\r\nPING\r\n");
    mr_service_abort(&service); /* for example before a handover */
    turns(2);
    assert_string_equal(hear(client), "-ERR the worker ends\r\n+PONG\r\n");
    say(client, "CLIENT LIST\r\n"); /* still open at the end */
    stop();
}

RUN(T(parts_are_joined), T(lists_are_in_the_order_of_numbers),
    T(what_is_here_is_not_asked_elsewhere), T(a_worker_does_its_part),
    T(a_part_that_never_comes_fails_the_request), T(nothing_is_left_of_those_who_leave))
