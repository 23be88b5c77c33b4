/* test_split.c - retrievals and statistics from several servers; ends of replies. */
#include "proto/memcache/internal.h"
#include "proto/memcache/memcache.h"

static struct mr_proto_options options = {
    .max_request_bytes = 10000, .max_item_bytes = 1000, .allow_flush = true};
#define OPTIONS options
#define PROTO   MR_PROTO_MEMCACHE
#include "unit/proto/splitting.h"

#include <time.h>

static void values_in_the_order_of_the_keys(void **state)
{
    (void)state;
    split("gets a b c a d\r\n", "01001", 2);
    assert_string_equal(part_request(0), "gets a c a\r\n");
    assert_string_equal(part_request(1), "gets b d\r\n");
    answer(0, "VALUE a 0 5 7\r\nEND\r\n\r\nVALUE a 0 5 7\r\nEND\r\n\r\nEND\r\n"); /* c is missing */
    answer(1, "VALUE b 1 0 8\r\n\r\nVALUE d 2 1 9\r\nx\r\nEND\r\n");
    assert_string_equal(joined(), "VALUE a 0 5 7\r\nEND\r\n\r\nVALUE b 1 0 8\r\n\r\n"
                                  "VALUE a 0 5 7\r\nEND\r\n\r\nVALUE d 2 1 9\r\nx\r\nEND\r\n");
    split("gat 30 a b\r\n", "01", 2);
    assert_string_equal(part_request(0), "gat 30 a\r\n");
    assert_string_equal(part_request(1), "gat 30 b\r\n");
    answer(0, "END\r\n");
    answer(1, "END\r\n");
    assert_string_equal(joined(), "END\r\n");
}

static void failed_parts(void **state)
{
    (void)state;
    split("get a b\r\n", "01", 2);
    answer(0, "VALUE a 0 1\r\nx\r\nEND\r\n");
    parts[1].failure = "Connection refused";
    assert_string_equal(joined(), "SERVER_ERROR Connection refused\r\n");
    split("get a b\r\n", "01", 2);
    answer(0, "VALUE a 0 1\r\nx\r\nEND\r\n");
    answer(1, "SERVER_ERROR out of memory\r\n");
    assert_string_equal(joined(), "SERVER_ERROR out of memory\r\n");
    split("get a b\r\n", "01", 2);
    answer(0, "VALUE a 0 1\r\nx\r\nSERVER_ERROR late\r\n");
    answer(1, "END\r\n");
    assert_string_equal(joined(), "SERVER_ERROR late\r\n");
    options.failure_is_miss = true;
    split("get a b\r\n", "01", 2);
    answer(0, "VALUE a 0 1\r\nx\r\nEND\r\n");
    parts[1].failure = "Connection refused";
    assert_string_equal(joined(), "VALUE a 0 1\r\nx\r\nEND\r\n");
    split("get a b\r\n", "01", 2);
    answer(0, "SERVER_ERROR x\r\n");
    answer(1, "VALUE b 0 1\r\nx\r\nEND\r\n");
    assert_string_equal(joined(), "VALUE b 0 1\r\nx\r\nEND\r\n");
    options.failure_is_miss = false;
}

static void a_value_of_another_key_is_not_taken(void **state)
{
    (void)state;
    split("get a b\r\n", "01", 2);
    answer(0, "VALUE zz 0 1\r\nx\r\nEND\r\n");
    answer(1, "VALUE b 0 1\r\ny\r\nEND\r\n");
    assert_string_equal(joined(), "VALUE b 0 1\r\ny\r\nEND\r\n");
}

/* Replies that no server gives to a retrieval must not become part of the reply. */
static void a_reply_of_another_kind_is_not_shown(void **state)
{
    static const char *const REPLIES[] = {"VA 2\r\n\r\n\r\n", "VA 9\r\nERROR\r\nHD\r\n",
                                          "STORED\r\n", "17\r\n", "VALUE b 0 1\r\nx\r\nENDED\r\n"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(REPLIES); i++) {
        split("get a b\r\n", "01", 2);
        answer(0, "VALUE a 0 1\r\nx\r\nEND\r\n");
        answer(1, REPLIES[i]);
        assert_string_equal(joined(), "SERVER_ERROR Invalid argument\r\n");
    }
}

/* A list ends where the scan found its end, whatever the last packet is. */
static void statistics_end_where_they_end(void **state)
{
    static const char ASK[24] = "\x80\x10";
    static const char LIST[] = "\x81\x10\0\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\0\0\0\0\0pid1"
                               "\x81\x10\0\3\0\0\0\1\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0end";
    static const char END[24] = "\x81\x10";
    struct mr_parse_state ps = {0};
    struct mr_reply_state rs = {0};
    struct mr_buf out = {0};
    struct mr_msg msg;
    size_t len;

    (void)state;
    session = (struct mr_session){.authed = true};
    assert_int_equal(PROTO.client.parse(&CTX, &ps, ASK, sizeof(ASK), &msg), MR_OK);
    assert_int_equal(msg.action, MR_MSG_EVERYWHERE);
    memset(parts, 0, sizeof(parts));
    plan =
        (struct mr_plan){.options = &OPTIONS, .ticket = msg.ticket, .n_parts = 1, .parts = parts};
    assert_int_equal(PROTO.server.scan_reply(msg.lane, &rs, LIST, sizeof(LIST) - 1, &len), MR_OK);
    assert_int_equal(len, sizeof(LIST) - 1);
    parts[0].reply = (struct mr_slice){LIST, len};
    PROTO.keys.join(&plan, &slab, &out);
    assert_int_equal(mr_buf_len(&out), 28 + sizeof(END));
    assert_memory_equal(mr_buf_slice(&out).at, LIST, 28);
    assert_memory_equal(mr_buf_slice(&out).at + 28, END, sizeof(END));
    mr_buf_clear(&out, &slab);
}

static void statistics_are_merged(void **state)
{
    (void)state;
    split("stats\r\n", "", 3);
    assert_string_equal(part_request(2), "stats\r\n");
    answer(0, "STAT pid 7\r\nSTAT gets 10\r\nSTAT version 1.6.18\r\nSTAT rusage_user 0.500000\r\n"
              "STAT only 1\r\nSTAT odd 1\r\nEND\r\n");
    answer(1, "STAT pid 8\r\nSTAT gets 32\r\nSTAT version 1.6.21\r\nSTAT rusage_user 1.750000\r\n"
              "STAT odd x\r\nEND\r\n");
    parts[2].failure = "Connection refused";
    assert_string_equal(joined(), "STAT pid 7\r\nSTAT gets 42\r\nSTAT version 1.6.18,1.6.21\r\n"
                                  "STAT rusage_user 2.250000\r\nSTAT only 1\r\nSTAT odd 1,x\r\n"
                                  "STAT millrace_servers_failed 1\r\nEND\r\n");
    split("stats servers\r\n", "", 2);
    answer(0, "STAT gets 1\r\nEND\r\n");
    answer(1, "STAT gets 2\r\nEND\r\n");
    assert_string_equal(joined(), "STAT one:gets 1\r\nSTAT two:gets 2\r\nEND\r\n");
    split("stats reset\r\n", "", 2);
    answer(0, "RESET\r\n");
    answer(1, "RESET\r\n");
    assert_string_equal(joined(), "RESET\r\n");
    split("stats\r\n", "", 1);
    parts[0].failure = "Connection refused";
    assert_string_equal(joined(), "SERVER_ERROR Connection refused\r\n");
}

/* Servers with many different statistics must not stall the worker. */
static void statistics_cost_linear_time(void **state)
{
    static char lists[2][1 << 20];
    struct mr_buf out = {0};

    (void)state;
    split("stats sizes\r\n", "", 2);
    for (unsigned i = 0; i < 2; i++) {
        char *list = lists[i];
        size_t n = 0;
        for (unsigned row = 0; row < 30000; row++)
            n += (size_t)snprintf(list + n, sizeof(lists[0]) - n, "STAT %u 1\r\n",
                                  32 * (2 * row + i));
        strcpy(list + n, "END\r\n");
        answer(i, list);
    }
    const clock_t from = clock();
    PROTO.keys.join(&plan, &slab, &out);
    assert_true(clock() - from < 3 * CLOCKS_PER_SEC / 2);
    assert_int_equal(mr_buf_len(&out), parts[0].reply.len + parts[1].reply.len - 5);
    mr_buf_clear(&out, &slab);
    for (unsigned i = 0; i < 2; i++)
        mr_buf_clear(&parts[i].request, &slab);
}

static void a_flush_is_of_all(void **state)
{
    (void)state;
    split("flush_all 5\r\n", "", 2);
    assert_string_equal(part_request(1), "flush_all 5\r\n");
    answer(0, "OK\r\n");
    answer(1, "OK\r\n");
    assert_string_equal(joined(), "OK\r\n");
    split("flush_all\r\n", "", 2);
    answer(0, "OK\r\n");
    parts[1].failure = "Connection timed out";
    assert_string_equal(joined(), "SERVER_ERROR Connection timed out\r\n");
}

/* Every prefix of a reply is incomplete, and bytes after it are not read. */
static void replies_end_where_they_end(void **state)
{
    static const char *const REPLIES[] = {"STORED\r\n",
                                          "17\r\n",
                                          "END\r\n",
                                          "VALUE k 0 3\r\nabc\r\nEND\r\n",
                                          "VALUE k 0 0 99\r\n\r\nVALUE l 0 5\r\nEND\r\n\r\nEND\r\n",
                                          "VA 4 k1\r\nEN\r\n\r\n",
                                          "HD\r\n",
                                          "STAT a b\r\nSTAT c\r\nEND\r\n",
                                          "VALUE k 0 1\r\nx\r\nSERVER_ERROR x\r\n",
                                          "VERSION 1.6\r\n"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(REPLIES); i++) {
        const size_t len = strlen(REPLIES[i]);
        char bytes[100];
        snprintf(bytes, sizeof(bytes), "%sOK\r\n", REPLIES[i]);
        for (size_t n = 0; n <= len + 4; n++) {
            struct mr_reply_state st = {0};
            size_t end = 0;
            assert_int_equal(MR_PROTO_MEMCACHE.server.scan_reply(0, &st, bytes, n, &end),
                             n < len ? MR_AGAIN : MR_OK);
            assert_int_equal(end, n < len ? 0 : len);
        }
    }
}

static void what_is_no_reply(void **state)
{
    static const char *const BAD[] = {"hello\r\n",
                                      "\r\n",
                                      "STORED\n",
                                      "VALUE k 0 x\r\n",
                                      "VALUE k\r\n",
                                      "VALUE k 0 1\r\nxx\r\n",
                                      "VALUE k 0 1\r\nx\r\nHD\r\n",
                                      "\x81"};
    size_t end;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(BAD); i++) {
        struct mr_reply_state st = {0};
        assert_int_equal(MR_PROTO_MEMCACHE.server.scan_reply(0, &st, BAD[i], strlen(BAD[i]), &end),
                         MR_EPROTO);
    }
    struct mr_reply_state st = {0};
    assert_int_equal(MR_PROTO_MEMCACHE.server.scan_reply(1, &st, "ERROR\r\n", 7, &end), MR_EPROTO);
}

RUN(cmocka_unit_test_setup_teardown(values_in_the_order_of_the_keys, setup, teardown),
    cmocka_unit_test_setup_teardown(failed_parts, setup, teardown),
    cmocka_unit_test_setup_teardown(a_value_of_another_key_is_not_taken, setup, teardown),
    cmocka_unit_test_setup_teardown(a_reply_of_another_kind_is_not_shown, setup, teardown),
    cmocka_unit_test_setup_teardown(statistics_end_where_they_end, setup, teardown),
    cmocka_unit_test_setup_teardown(statistics_are_merged, setup, teardown),
    cmocka_unit_test_setup_teardown(statistics_cost_linear_time, setup, teardown),
    cmocka_unit_test_setup_teardown(a_flush_is_of_all, setup, teardown),
    cmocka_unit_test_setup_teardown(replies_end_where_they_end, setup, teardown),
    cmocka_unit_test_setup_teardown(what_is_no_reply, setup, teardown))
