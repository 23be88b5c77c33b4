/* test_parse.c - requests in three dialects: what is forwarded, where to, and what is refused. */
#include "proto/memcache/binary.h"
#include "proto/memcache/internal.h"
#include "proto/memcache/memcache.h"
#include "unit/proto/fixture.h"

static const struct mr_proto_options OPTIONS = {.max_request_bytes = 100000,
                                                .max_item_bytes = 1000};
static struct mr_session session;
static const struct mr_proto_ctx CTX = {&OPTIONS, &session, &slab, &scratch, NULL};
static struct mr_msg msg;
static char text[8192];

static struct mr_verdict verdict;

static enum mr_meaning judge(unsigned possible, struct mr_slice reply)
{
    MR_PROTO_MEMCACHE.server.judge(possible, msg.ticket, reply, &verdict);
    return verdict.meaning;
}

static enum mr_result parse_bytes(const char *wire, size_t len)
{
    struct mr_parse_state state = {0};

    session = (struct mr_session){0};
    return MR_PROTO_MEMCACHE.client.parse(&CTX, &state, wire, len, &msg);
}

static enum mr_result parse(const char *wire)
{
    return parse_bytes(wire, strlen(wire));
}

static const char *as_text(struct mr_slice s)
{
    memcpy(text, s.at, s.len);
    text[s.len] = '\0';
    return text;
}

static void forwards(const char *wire, const char *key, const char *forwarded)
{
    assert_int_equal(parse(wire), MR_OK);
    assert_int_equal(msg.action, MR_MSG_BY_KEY);
    assert_int_equal(msg.consumed, strlen(wire));
    assert_string_equal(as_text(msg.key), key);
    assert_string_equal(as_text(msg.wire), forwarded);
    assert_int_equal(msg.lane, MR_MC_TEXT_LANE);
}

static void refuses(const char *wire, const char *reply)
{
    assert_int_equal(parse(wire), MR_OK);
    assert_int_equal(msg.action, MR_MSG_REFUSE);
    assert_string_equal(as_text(msg.reply), reply);
}

static void plain_text_goes_as_it_came(void **state)
{
    static const char *const WIRES[] = {"get k\r\n",
                                        "gets k\r\n",
                                        "gat 10 k\r\n",
                                        "gat -1 k\r\n",
                                        "set k 0 -1 2\r\nhi\r\n",
                                        "cas k 1 2 0 77\r\n\r\n",
                                        "incr k 18446744073709551615\r\n",
                                        "delete k\r\n",
                                        "delete k 0\r\n",
                                        "touch k -1\r\n"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(WIRES); i++) {
        forwards(WIRES[i], "k", WIRES[i]);
        assert_ptr_equal(msg.wire.at, WIRES[i]); /* not copied */
        assert_false(msg.edits);
    }
}

static void what_must_change_is_copied(void **state)
{
    (void)state;
    forwards("  get k\r\n", "k", "get k\r\n");
    forwards("get k\n", "k", "get k\r\n");
    forwards("set k 0 0 2 noreply\r\nhi\r\n", "k", "set k 0 0 2\r\nhi\r\n");
    assert_true(msg.edits && msg.guarded);
    forwards("delete k noreply\r\n", "k", "delete k\r\n");
    forwards("incr k 1 noreply\n", "k", "incr k 1\r\n");
    forwards("set k 0 0 2 what\r\nhi\r\n", "k", "set k 0 0 2\r\nhi\r\n");
    forwards("cas k 0 0 2 7 what\r\nhi\r\n", "k", "cas k 0 0 2 7\r\nhi\r\n");
    forwards("delete noreply\r\n", "noreply", "delete noreply\r\n"); /* here it is a key */
    assert_false(msg.edits);
}

static void classes(void **state)
{
    (void)state;
    forwards("get k\r\n", "k", "get k\r\n");
    assert_int_equal(msg.class, MR_CLASS_READ);
    forwards("gat 0 k\r\n", "k", "gat 0 k\r\n");
    assert_int_equal(msg.class, MR_CLASS_WRITE);
    forwards("mg k v\r\n", "k", "mg k v\r\n");
    assert_int_equal(msg.class, MR_CLASS_READ);
    assert_int_equal(judge(MR_REPLY_EDITS, mr_slice_of("VA 1\r\nx\r\n")), MR_REPLY_PASS);
    assert_int_equal(judge(MR_REPLY_EDITS, mr_slice_of("ERROR\r\n")), MR_REPLY_REWRITE);
    assert_int_equal(verdict.rewrite.cut, 7);
    assert_memory_equal(verdict.rewrite.head, "SERVER_ERROR server does not know meta", 38);
    forwards("md k\r\n", "k", "md k\r\n");
    assert_int_equal(msg.class, MR_CLASS_WRITE);
}

static void several_keys_are_walked(void **state)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;

    (void)state;
    assert_int_equal(parse("gat 5  a bb   a \r\n"), MR_OK);
    assert_int_equal(msg.action, MR_MSG_BY_KEYS);
    assert_true(msg.splittable);
    assert_int_equal(msg.n_keys, 3);
    for (const char *const *want = (const char *const[]){"a", "bb", "a", NULL}; *want; want++) {
        assert_true(MR_PROTO_MEMCACHE.keys.next(&msg, &walk, &key));
        assert_string_equal(as_text(key), *want);
    }
    assert_false(MR_PROTO_MEMCACHE.keys.next(&msg, &walk, &key));
}

static void meta(void **state)
{
    (void)state;
    forwards("ms k 2 T0 F5\r\nhi\r\n", "k", "ms k 2 T0 F5\r\nhi\r\n");
    assert_true(msg.guarded);
    assert_int_equal(msg.needs, MR_MC_META_SET);
    forwards("mg k v q k O1\r\n", "k", "mg k v k O1\r\n");
    assert_true(msg.edits);
    assert_false(msg.guarded);
    assert_int_equal(msg.needs, 0);
    forwards("ms k 2 q\r\nhi\r\n", "k", "ms k 2\r\nhi\r\n");
    forwards("mg Zm9vYmFy b v\r\n", "foobar", "mg Zm9vYmFy b v\r\n");
    forwards("mg Zm8= b\r\n", "fo", "mg Zm8= b\r\n");
    refuses("mg ==== b\r\n", "CLIENT_ERROR error decoding key\r\n");
    refuses("md Zm8 b\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n");
    refuses("mn\r\n", "MN\r\n");
    refuses("mx k\r\n", "ERROR\r\n");
}

/* `me` knows the flag only as the third word. */
static void me_is_routed_as_servers_read_its_key(void **state)
{
    (void)state;
    forwards("me Zm9vYmFy b\r\n", "foobar", "me Zm9vYmFy b\r\n");
    forwards("me Zm9vYmFy\r\n", "Zm9vYmFy", "me Zm9vYmFy\r\n");
    forwards("me Zm9vYmFy v b\r\n", "Zm9vYmFy", "me Zm9vYmFy v b\r\n");
    forwards("me Zm9vYmFy bb\r\n", "Zm9vYmFy", "me Zm9vYmFy bb\r\n");
    refuses("me Zm8 b\r\n", "CLIENT_ERROR bad command line format\r\n");
    refuses("me eA0KVkFMVUU= b\r\n", "CLIENT_ERROR the key cannot be shown in a line\r\n");
}

/* What is forwarded of storage commands, and what is skipped with a refused one, see line.c. */
static void nothing_doubtful_reaches_a_server(void **state)
{
    /* no version reads a length, so the value is not skipped, as in memcached */
    static const char *const LEFT[] = {
        "set k 0 0 -1\r\n",         "set k 0 0 1x\r\n",
        "set k 0 0 x1\r\n",         "set k 0 0 1.5\r\n",
        "ms k -2147483647\r\n",     "ms k 0x1\r\n",
        "set k 0 0 2147483646\r\n", "set k 0 0 2147483647\r\n",
        "set k 0 0 4294967295\r\n", "set k 0 0 9223372036854775808\r\n",
        "set k 0 0 -\r\n",          "set k 0 0 99999999999999999999999\r\n"};
    /* versions disagree about the value */
    static const char *const LOST[] = {"set k 0 0 +1\r\n",          "set k 0 0 1\t\r\n",
                                       "set k 0 0 \t1\r\n",         "set k 0 0 4294967298\r\n",
                                       "set k 0 0 00000000001\r\n", "set k 0 0 -0\r\n",
                                       "set k 0 0 -4294967294\r\n", "set k 0 0 1\r\r\n",
                                       "ms k 8589934592\r\n",       "ms k 2\v\r\n",
                                       "cas k 0 0 -+5 5\r\n"};
    /* the length is known, so the value is skipped with the line */
    static const char *const OVER[] = {"set k 0x1 0 2\r\n",
                                       "set k -1 0 2\r\n",
                                       "set k 4294967296 0 2\r\n",
                                       "set k 00000000000 0 2\r\n",
                                       "set k 0 1.5 2\r\n",
                                       "set k 0 2147483648 2\r\n",
                                       "set k 0 -2147483648 2\r\n",
                                       "set k 0 - 2\r\n",
                                       "set a\tb 0 0 2\r\n",
                                       "set a\177b 0 0 2\r\n",
                                       "set k 0 0 2 no\treply\r\n",
                                       "cas k 0 0 2 -1\r\n",
                                       "cas k 0 0 2 18446744073709551616\r\n",
                                       "ms a\tb 2\r\n",
                                       "ms k 2 Fx\r\n",
                                       "ms k 2 F4294967296\r\n"};

    (void)state;
    refuses("get a\tb\r\n", "CLIENT_ERROR bad command line format\r\n");
    refuses("mg a\x7f\r\n", "CLIENT_ERROR bad command line format\r\n");
    for (size_t i = 0; i < MR_COUNT(LEFT); i++) {
        refuses(LEFT[i], "CLIENT_ERROR bad command line format\r\n");
        assert_int_equal(session.skip, 0);
    }
    for (size_t i = 0; i < MR_COUNT(LOST); i++) {
        assert_int_equal(parse(LOST[i]), MR_EPROTO);
        assert_string_equal(as_text(msg.reply), "CLIENT_ERROR bad command line format\r\n");
    }
    for (size_t i = 0; i < MR_COUNT(OVER); i++) {
        refuses(OVER[i], "CLIENT_ERROR bad command line format\r\n");
        assert_int_equal(session.skip, 4);
        assert_int_equal(msg.consumed, strlen(OVER[i]));
    }
    refuses("set k 0 0 1\r\nxy\r\n", "CLIENT_ERROR bad data chunk\r\n");
    refuses("set k 0 0\r\n", "ERROR\r\n");
    refuses("set k 0 0 1 2 3\r\n", "ERROR\r\n");
    assert_int_equal(parse("cas k 0 0 2 noreply\r\n"), MR_OK);
    assert_int_equal(msg.action, MR_MSG_SKIP);
    assert_int_equal(session.skip, 4);
    refuses("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n");
}

static void flags_of_a_meta_set(void **state)
{
    static const struct {
        const char *flags, *wrong;
    } TABLE[] = {
        {"c k O1 T-1 F4294967295 C18446744073709551615 MS I N0 s E1 x v", NULL},
        {"a", "invalid flag"},
        {"S2", "invalid flag"},
        {"-", "invalid flag"},
        {"{", "invalid flag"},
        {"\xff", "duplicate flag"},
        {"k k", "duplicate flag"},
        {"I I2", "duplicate flag"},
        {"T", "bad token in command line format"},
        {"Tx", "bad token in command line format"},
        {"T2147483648", "bad token in command line format"},
        {"C", "bad token in command line format"},
        {"C-1", "bad token in command line format"},
        {"C18446744073709551616", "bad token in command line format"},
        {"E1x", "bad token in command line format"},
        {"N+1", "bad token in command line format"},
        {"F", "bad command line format"},
        {"Jx", "invalid numeric initial value"},
        {"D", "invalid numeric delta value"},
        {"M", "incorrect length for M token"},
        {"MSS", "incorrect length for M token"},
        {"MX", "invalid mode for ms M token"},
        {"Me", "invalid mode for ms M token"},
        {"O12345678901234567890123456789012", "opaque token too long"},
        {"k12345678901234567890123456789012", "invalid flag"},
        {"I c k f h l s t u v x L P C1 D1 F1", NULL},                        /* 19 words */
        {"I c k f h l s t u v x L P C1 D1 F1 J1", "options flags too long"}, /* 20 */
        {"I c k f h l s t u v x L P C1 D1 F1 J1 R1 T1 N1 E1 O1 MS", "options flags too long"},
        {"b", "error decoding key"}};
    char wire[400], error[100];

    (void)state;
    for (size_t i = 0; i < MR_COUNT(TABLE); i++) {
        snprintf(wire, sizeof(wire), "ms k 2 %s\r\nmn\r\n", TABLE[i].flags);
        if (TABLE[i].wrong == NULL) {
            forwards(wire, "k", wire);
            continue;
        }
        snprintf(error, sizeof(error), "CLIENT_ERROR %s\r\n", TABLE[i].wrong);
        refuses(wire, error);
        assert_int_equal(session.skip, 4);
        assert_int_equal(msg.consumed, strlen(wire) - 4);
    }
}

static void lines_are_as_short_as_servers_take_them(void **state)
{
    static char wire[8000];
    const size_t room = sizeof(wire) - 20;

    (void)state;
    snprintf(wire, sizeof(wire), "get %*s\r\n", (int)room, "k");
    forwards(wire, "k", "get k\r\n");
    snprintf(wire, sizeof(wire), "set %*s 0 0 2\r\nhi\r\n", 5000, "k");
    forwards(wire, "k", "set k 0 0 2\r\nhi\r\n");
    snprintf(wire, sizeof(wire), "touch k %*s\r\n", 5000, "0");
    forwards(wire, "k", "touch k 0\r\n");
    snprintf(wire, sizeof(wire), "mg k %*s\r\n", 1017, "v");
    forwards(wire, "k", wire); /* 1024 bytes */
    snprintf(wire, sizeof(wire), "mg k %*s q\r\n", 5000, "v");
    forwards(wire, "k", "mg k v\r\n");
    snprintf(wire, sizeof(wire), "mg k O%01016d\r\n", 0);
    forwards(wire, "k", wire);
    snprintf(wire, sizeof(wire), "mg k O%01017d\r\n", 0);
    refuses(wire, "CLIENT_ERROR line too long\r\n");
    snprintf(wire, sizeof(wire), "incr k %021d\r\n", 1);
    refuses(wire, "CLIENT_ERROR invalid numeric delta argument\r\n");
    snprintf(wire, sizeof(wire), "gat %011d k\r\n", 1);
    refuses(wire, "CLIENT_ERROR invalid exptime argument\r\n");
    assert_int_equal(parse("gats -2147483647 a b\r\n"), MR_OK);
    assert_in_range(msg.part_bytes, 900, 1024 - strlen("gats -2147483647\r\n"));
    assert_int_equal(parse("gets a b\r\n"), MR_OK);
    assert_in_range(msg.part_bytes, 16000, 16384 - strlen("gets\r\n"));
}

static bool in_step(const char *reply)
{
    return judge(MR_REPLY_OUT_OF_STEP, mr_slice_of(reply)) == MR_REPLY_PASS;
}

static void replies_that_are_known(void **state)
{
    static const char *const STORED[] = {"STORED\r\n", "NOT_STORED\r\n", "EXISTS\r\n",
                                         "NOT_FOUND\r\n",
                                         "SERVER_ERROR object too large for cache\r\n"};
    static const char *const SET[] = {"HD\r\n",
                                      "HD c5 O1\r\n",
                                      "NS k1\r\n",
                                      "EX\r\n",
                                      "NF\r\n",
                                      "OK\r\n",
                                      "SERVER_ERROR out of memory storing object\r\n",
                                      "CLIENT_ERROR invalid flag\r\n"};
    static const char *const NONE[] = {"ERROR\r\n",
                                       "CLIENT_ERROR bad command line format\r\n",
                                       "CLIENT_ERROR options flags too long\r\n",
                                       "CLIENT_ERROR bad data chunk\r\n",
                                       "CLIENT_ERROR line too long\r\n",
                                       "MN\r\n",
                                       "END\r\n",
                                       "VALUE k 0 1\r\nx\r\nEND\r\n",
                                       "VA 1\r\nx\r\n",
                                       "HDX\r\n",
                                       "5\r\n",
                                       "STORED x\r\n"};

    (void)state;
    forwards("set k 0 0 1\r\nx\r\n", "k", "set k 0 0 1\r\nx\r\n");
    for (size_t i = 0; i < MR_COUNT(STORED); i++)
        assert_true(in_step(STORED[i]));
    for (size_t i = 0; i < MR_COUNT(NONE); i++)
        assert_false(in_step(NONE[i]));
    assert_false(in_step("HD\r\n"));
    forwards("append k 0 0 1 noreply\r\nx\r\n", "k", "append k 0 0 1\r\nx\r\n");
    assert_true(in_step("NOT_STORED\r\n"));
    assert_false(in_step("ERROR\r\n"));
    forwards("ms k 1\r\nx\r\n", "k", "ms k 1\r\nx\r\n");
    for (size_t i = 0; i < MR_COUNT(SET); i++)
        assert_true(in_step(SET[i]));
    for (size_t i = 0; i < MR_COUNT(NONE); i++)
        assert_false(in_step(NONE[i]));
    assert_false(in_step("STORED\r\n"));
}

/* The key is "x\r\nVALUE"; a server that got it in binary shows it as it is. */
static void a_key_that_ends_a_line(void **state)
{
    (void)state;
    forwards("mg eA0KVkFMVUU= b v\r\n", "x\r\nVALUE", "mg eA0KVkFMVUU= b v\r\n");
    assert_false(msg.guarded); /* no reply shows it */
    for (const char *verb = "gda"; *verb; verb++) {
        char wire[100];
        snprintf(wire, sizeof(wire), "m%c eA0KVkFMVUU= b k O1\r\n", *verb);
        forwards(wire, "x\r\nVALUE", wire);
        assert_true(msg.guarded);
        assert_true(in_step("HD keA0KVkFMVUU= b O1\r\n"));
        assert_true(in_step("VA 1 O1 keA0KVkFMVUU= b\r\nx\r\n"));
        assert_true(in_step("NF O1 keA0KVkFMVUU= b\r\n"));
        assert_true(in_step("EN\r\n"));
        assert_true(in_step("CLIENT_ERROR invalid flag\r\n"));
        assert_true(in_step("SERVER_ERROR out of memory\r\n"));
        assert_false(in_step("HD kx\r\n"));
        assert_false(in_step("VA 1 O1 kx\r\nVALUE b\r\nx\r\n"));
        assert_false(in_step("VA 1 keA0K b\r\n"));
        assert_false(in_step("VA 1 O1\r\nx\r\n"));
    }
    forwards("ms eA0KVkFMVUU= 1 b k\r\nx\r\n", "x\r\nVALUE", "ms eA0KVkFMVUU= 1 b k\r\nx\r\n");
    assert_true(in_step("HD keA0KVkFMVUU= b\r\n"));
    assert_false(in_step("HD kx\r\n"));
    assert_false(in_step("ERROR\r\n"));
}

static void who_knows_the_meta_set(void **state)
{
    static const struct {
        const char *reply;
        uint8_t able;
    } TABLE[] = {{"VERSION 1.6.10\r\n", MR_MC_META_SET},
                 {"VERSION 1.6.18\r\n", MR_MC_META_SET},
                 {"VERSION 1.6.45-beta\r\n", MR_MC_META_SET},
                 {"VERSION 1.7.0\r\n", MR_MC_META_SET},
                 {"VERSION 1.6.9\r\n", 0},
                 {"VERSION 1.5.22\r\n", 0},
                 {"VERSION 1.4.39\r\n", 0},
                 {"VERSION 38.0.0 mcrouter\r\n", 0},
                 {"VERSION 0.6.18\r\n", 0},
                 {"VERSION 1.6\r\n", 0},
                 {"VERSION 1.6.\r\n", 0},
                 {"VERSION 1.600000.18\r\n", 0},
                 {"VERSION  1.6.18\r\n", 0},
                 {"VERSION \r\n", 0},
                 {"VERSION\r\n", 0},
                 {"ERROR\r\n", 0},
                 {"OK\r\n", 0}};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(TABLE); i++) {
        struct mr_greeting greeting = {0};
        assert_null(MR_PROTO_MEMCACHE.server.check_hello(&OPTIONS, MR_MC_TEXT_LANE, 0,
                                                         mr_slice_of(TABLE[i].reply), &greeting));
        assert_int_equal(greeting.able, TABLE[i].able);
    }
}

static const char *answer(void)
{
    static char bytes[200];
    struct mr_buf out = {0};

    assert_int_equal(msg.action, MR_MSG_LOCAL);
    (void)MR_PROTO_MEMCACHE.client.answer(&CTX, &msg, &out);
    memcpy(bytes, mr_buf_slice(&out).at, mr_buf_len(&out));
    bytes[mr_buf_len(&out)] = '\0';
    mr_buf_clear(&out, &slab);
    return bytes;
}

static void what_concerns_one_server(void **state)
{
    static const char *const ADMIN[] = {"slabs automove 1\r\n",
                                        "slabs automove ratio 0.5\r\n",
                                        "slabs reassign -1 5\r\n",
                                        "lru_crawler sleep 10\r\n",
                                        "lru_crawler crawl all\r\n",
                                        "cache_memlimit 100\r\n",
                                        "shutdown\r\n"};
    static const char *const NUMBERS[] = {"verbosity x\r\n", "slabs automove invalid\r\n",
                                          "slabs reassign 1 x\r\n", "lru_crawler tocrawl x\r\n",
                                          "lru_crawler sleep x\r\n"};
    static const char *const HTTP[] = {"GET / HTTP/1.0\r\n", "DELETE HTTP/1.1\r\n",
                                       "PUT /a/b/c HTTP/1.1\r\n"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(ADMIN); i++)
        refuses(ADMIN[i], "CLIENT_ERROR this command administers one server, the proxy "
                          "does not pass it on\r\n");
    for (size_t i = 0; i < MR_COUNT(NUMBERS); i++)
        refuses(NUMBERS[i], "CLIENT_ERROR bad command line format\r\n");
    for (size_t i = 0; i < MR_COUNT(HTTP); i++) {
        struct mr_buf out = {0};
        assert_int_equal(parse(HTTP[i]), MR_OK);
        assert_int_equal(msg.action, MR_MSG_LOCAL);
        assert_int_equal(MR_PROTO_MEMCACHE.client.answer(&CTX, &msg, &out), MR_CLOSE_CLIENT);
        assert_true(mr_buf_empty(&out));
    }
    refuses("GET / HTTP\r\n", "ERROR\r\n");
    forwards("get HTTP/1.0\r\n", "HTTP/1.0", "get HTTP/1.0\r\n");
}

static void details_stay_off(void **state)
{
    (void)state;
    assert_int_equal(parse("stats detail on\r\n"), MR_OK);
    assert_string_equal(answer(), "OK\r\n");
    assert_int_equal(parse("stats detail off\r\n"), MR_OK);
    assert_string_equal(answer(), "OK\r\n");
    assert_int_equal(parse("stats detail dump\r\n"), MR_OK);
    assert_string_equal(answer(), "END\r\n");
    refuses("stats detail\r\n", "CLIENT_ERROR usage: stats detail on|off|dump\r\n");
    refuses("stats detail what\r\n", "CLIENT_ERROR usage: stats detail on|off|dump\r\n");
    refuses("stats detail on on\r\n", "ERROR\r\n");
    refuses("stats items on\r\n", "ERROR\r\n");
}

static void keys_have_their_limit(void **state)
{
    char wire[400];

    (void)state;
    snprintf(wire, sizeof(wire), "get %0250d\r\n", 0);
    assert_int_equal(parse(wire), MR_OK);
    assert_int_equal(msg.action, MR_MSG_BY_KEY);
    snprintf(wire, sizeof(wire), "get %0251d\r\n", 0);
    refuses(wire, "CLIENT_ERROR bad command line format\r\n");
    snprintf(wire, sizeof(wire), "get a b %0251d c\r\n", 0);
    refuses(wire, "CLIENT_ERROR bad command line format\r\n");
}

static void a_large_value_is_passed_over(void **state)
{
    struct mr_parse_state st = {0};
    char rest[1003];

    (void)state;
    refuses("set k 0 0 1001\r\n", "SERVER_ERROR object too large for cache\r\n");
    assert_int_equal(msg.consumed, 16);
    assert_int_equal(session.skip, 1003);
    memset(rest, 'g', sizeof(rest));
    assert_int_equal(MR_PROTO_MEMCACHE.client.parse(&CTX, &st, rest, 1000, &msg), MR_OK);
    assert_int_equal(msg.action, MR_MSG_SKIP);
    assert_int_equal(msg.consumed, 1000);
    assert_int_equal(MR_PROTO_MEMCACHE.client.parse(&CTX, &st, "x\r\nget k\r\n", 10, &msg), MR_OK);
    assert_int_equal(msg.consumed, 3);
    assert_int_equal(MR_PROTO_MEMCACHE.client.parse(&CTX, &st, "get k\r\n", 7, &msg), MR_OK);
    assert_int_equal(msg.action, MR_MSG_BY_KEY);
    assert_int_equal(parse("set k 0 0 1001 noreply\r\n"), MR_OK);
    assert_int_equal(msg.action, MR_MSG_SKIP);
}

static void endless_lines_are_cut(void **state)
{
    static char wire[200000];

    (void)state;
    memset(wire, 'x', sizeof(wire));
    assert_int_equal(parse_bytes(wire, 16384), MR_AGAIN);
    assert_int_equal(parse_bytes(wire, 16385), MR_EPROTO);
    memcpy(wire, "get ", 4);
    assert_int_equal(parse_bytes(wire, 90000), MR_AGAIN);
    assert_int_equal(parse_bytes(wire, 100001), MR_ELIMIT);
}

/* ---- binary ---- */

static size_t packet(char *at, unsigned opcode, unsigned extras, const char *key, const char *value)
{
    const size_t k = strlen(key), v = strlen(value);

    memset(at, 0, 24 + extras);
    at[0] = (char)0x80;
    at[1] = (char)opcode;
    at[3] = (char)k;
    at[4] = (char)extras;
    at[11] = (char)(k + v + extras);
    memcpy(at + 12, "opaq", 4);
    memcpy(at + 24 + extras, key, k);
    memcpy(at + 24 + extras + k, value, v);
    return 24 + extras + k + v;
}

static void binary_by_key(void **state)
{
    char wire[200];
    const size_t n = packet(wire, MR_MC_SET, 8, "key", "value");

    (void)state;
    assert_int_equal(parse_bytes(wire, n - 1), MR_AGAIN);
    assert_int_equal(parse_bytes(wire, n), MR_OK);
    assert_int_equal(msg.action, MR_MSG_BY_KEY);
    assert_int_equal(msg.lane, MR_MC_BINARY_LANE);
    assert_string_equal(as_text(msg.key), "key");
    assert_ptr_equal(msg.wire.at, wire);
    assert_int_equal(session.dialect, MR_MC_BINARY);
}

static void quiet_ones_are_asked_aloud(void **state)
{
    static const struct {
        uint8_t quiet, aloud, extras;
    } PAIRS[] = {{MR_MC_GETQ, MR_MC_GET, 0},    {MR_MC_GETKQ, MR_MC_GETK, 0},
                 {MR_MC_SETQ, MR_MC_SET, 8},    {MR_MC_DELETEQ, MR_MC_DELETE, 0},
                 {MR_MC_INCRQ, MR_MC_INCR, 20}, {MR_MC_APPENDQ, MR_MC_APPEND, 0},
                 {MR_MC_GATQ, MR_MC_GAT, 4},    {MR_MC_GATKQ, MR_MC_GATK, 4}};
    char wire[200], reply[24] = {(char)0x81};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(PAIRS); i++) {
        const bool finds = PAIRS[i].aloud == MR_MC_GET || PAIRS[i].aloud == MR_MC_GETK ||
                           PAIRS[i].aloud == MR_MC_GAT || PAIRS[i].aloud == MR_MC_GATK;
        assert_int_equal(parse_bytes(wire, packet(wire, PAIRS[i].quiet, PAIRS[i].extras, "k", "")),
                         MR_OK);
        assert_true(msg.edits);
        assert_int_equal((uint8_t)msg.wire.at[1], PAIRS[i].aloud);
        reply[1] = (char)PAIRS[i].aloud;
        for (int status = 0; status < 3; status++) {
            reply[7] = (char)status;
            const enum mr_meaning meaning =
                judge(MR_REPLY_EDITS, (struct mr_slice){reply, sizeof(reply)});
            if (status == (finds ? 1 : 0)) {
                assert_int_equal(meaning, MR_REPLY_HIDE);
                continue;
            }
            assert_int_equal(meaning, MR_REPLY_REWRITE);
            assert_int_equal(verdict.rewrite.cut, 24);
            assert_int_equal(verdict.rewrite.head_len, 24);
            assert_int_equal((uint8_t)verdict.rewrite.head[1], PAIRS[i].quiet);
        }
    }
}

static void binary_keys_end_no_line(void **state)
{
    static const char *const BAD[] = {"a\r\nb", "a\nb", "a\rb", "\n"};
    char wire[200];

    (void)state;
    for (size_t i = 0; i < MR_COUNT(BAD); i++) {
        const size_t n = packet(wire, MR_MC_SETQ, 8, BAD[i], "value");
        assert_int_equal(parse_bytes(wire, n), MR_OK);
        assert_int_equal(msg.action, MR_MSG_REFUSE);
        assert_int_equal(msg.consumed, n);
        assert_int_equal(msg.reply.at[7], MR_MC_INVALID);
        assert_memory_equal(msg.reply.at + 12, "opaq", 4);
    }
    assert_int_equal(parse_bytes(wire, packet(wire, MR_MC_SET, 8, "a b\t\x01", "\r\n")), MR_OK);
    assert_int_equal(msg.action, MR_MSG_BY_KEY);
}

static void binary_replies_name_their_request(void **state)
{
    char wire[200], reply[24] = {(char)0x81, MR_MC_SET};

    (void)state;
    assert_int_equal(parse_bytes(wire, packet(wire, MR_MC_SETQ, 8, "k", "v")), MR_OK);
    assert_true(msg.guarded);
    const struct mr_slice r = {reply, sizeof(reply)};
    memcpy(reply + 12, "opaq", 4);
    assert_int_equal(judge(MR_REPLY_OUT_OF_STEP, r), MR_REPLY_PASS);
    reply[1] = MR_MC_GET;
    assert_int_equal(judge(MR_REPLY_OUT_OF_STEP, r), MR_REPLY_OUT_OF_STEP);
    reply[1] = MR_MC_SET;
    reply[15] = 'x';
    assert_int_equal(judge(MR_REPLY_OUT_OF_STEP, r), MR_REPLY_OUT_OF_STEP);
}

static void binary_details(void **state)
{
    char wire[200];

    (void)state;
    assert_int_equal(parse_bytes(wire, packet(wire, MR_MC_STAT, 0, "detail on", "")), MR_OK);
    assert_memory_equal(answer(), "\x81\x10\0\0\0\0\0\0\0\0\0\0opaq", 16);
    assert_int_equal(parse_bytes(wire, packet(wire, MR_MC_STAT, 0, "detail", "")), MR_OK);
    assert_int_equal(msg.reply.at[7], MR_MC_NOT_FOUND);
    assert_int_equal(parse_bytes(wire, packet(wire, MR_MC_STAT, 0, "detail dump", "")), MR_OK);
    assert_memory_equal(answer() + 24, "detailedEND\r\n", 13);
}

static void binary_framing(void **state)
{
    char wire[400];
    size_t n = packet(wire, MR_MC_GET, 0, "key", "");

    (void)state;
    wire[3] = 9; /* a key longer than the body */
    assert_int_equal(parse_bytes(wire, n), MR_EPROTO);
    assert_int_equal((uint8_t)msg.reply.at[0], MR_MC_REPLY_MAGIC);
    assert_memory_equal(msg.reply.at + 12, "opaq", 4);
    n = packet(wire, MR_MC_GET, 0, "key", "value");
    assert_int_equal(parse_bytes(wire, n), MR_EPROTO);
    n = packet(wire, MR_MC_SET, 4, "key", "value");
    assert_int_equal(parse_bytes(wire, n), MR_EPROTO);
    n = packet(wire, 0x55, 0, "key", "value"); /* unknown: its body is skipped */
    assert_int_equal(parse_bytes(wire, n), MR_OK);
    assert_int_equal(session.skip, 8);
    n = packet(wire, MR_MC_SET, 8, "key", "");
    wire[10] = 10; /* 2560 bytes and more */
    assert_int_equal(parse_bytes(wire, n), MR_OK);
    assert_int_equal(msg.reply.at[7], MR_MC_TOO_LARGE);
    assert_int_equal(session.skip, 2560 + 11);
    wire[8] = (char)0xff;
    wire[9] = (char)0xff;
    assert_int_equal(parse_bytes(wire, n), MR_OK);
    assert_int_equal(msg.action, MR_MSG_REFUSE);
}

RUN(cmocka_unit_test_setup_teardown(plain_text_goes_as_it_came, setup, teardown),
    cmocka_unit_test_setup_teardown(what_must_change_is_copied, setup, teardown),
    cmocka_unit_test_setup_teardown(classes, setup, teardown),
    cmocka_unit_test_setup_teardown(several_keys_are_walked, setup, teardown),
    cmocka_unit_test_setup_teardown(meta, setup, teardown),
    cmocka_unit_test_setup_teardown(me_is_routed_as_servers_read_its_key, setup, teardown),
    cmocka_unit_test_setup_teardown(nothing_doubtful_reaches_a_server, setup, teardown),
    cmocka_unit_test_setup_teardown(flags_of_a_meta_set, setup, teardown),
    cmocka_unit_test_setup_teardown(lines_are_as_short_as_servers_take_them, setup, teardown),
    cmocka_unit_test_setup_teardown(replies_that_are_known, setup, teardown),
    cmocka_unit_test_setup_teardown(a_key_that_ends_a_line, setup, teardown),
    cmocka_unit_test_setup_teardown(who_knows_the_meta_set, setup, teardown),
    cmocka_unit_test_setup_teardown(what_concerns_one_server, setup, teardown),
    cmocka_unit_test_setup_teardown(details_stay_off, setup, teardown),
    cmocka_unit_test_setup_teardown(keys_have_their_limit, setup, teardown),
    cmocka_unit_test_setup_teardown(a_large_value_is_passed_over, setup, teardown),
    cmocka_unit_test_setup_teardown(endless_lines_are_cut, setup, teardown),
    cmocka_unit_test_setup_teardown(binary_by_key, setup, teardown),
    cmocka_unit_test_setup_teardown(quiet_ones_are_asked_aloud, setup, teardown),
    cmocka_unit_test_setup_teardown(binary_keys_end_no_line, setup, teardown),
    cmocka_unit_test_setup_teardown(binary_replies_name_their_request, setup, teardown),
    cmocka_unit_test_setup_teardown(binary_details, setup, teardown),
    cmocka_unit_test_setup_teardown(binary_framing, setup, teardown))
