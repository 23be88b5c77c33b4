/* test_parse.c - requests of the three dialects: what is forwarded, where to, and what is refused.
 */
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

static enum mr_result parse_bytes(const char *wire, size_t len)
{
    struct mr_parse_state state = {0};

    session = (struct mr_session){0};
    return MR_PROTO_MEMCACHE.parse(&CTX, &state, wire, len, &msg);
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
    forwards("set k 0 0 2 noreply\r\nhi\r\n", "k", "set k 0 0 2 \r\nhi\r\n");
    assert_true(msg.edits && msg.guarded);
    forwards("delete k noreply\r\n", "k", "delete k \r\n");
    forwards("incr k 1 noreply\n", "k", "incr k 1 \r\n");
    forwards("delete noreply\r\n", "noreply", "delete noreply\r\n"); /* a key */
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
    char head[MR_HEAD_BYTES];
    size_t len = 0;
    assert_int_equal(
        MR_PROTO_MEMCACHE.present(msg.ticket, mr_slice_of("VA 1\r\nx\r\n"), head, &len), 0);
    assert_int_equal(MR_PROTO_MEMCACHE.present(msg.ticket, mr_slice_of("ERROR\r\n"), head, &len),
                     7);
    assert_memory_equal(head, "SERVER_ERROR server does not know meta", 38);
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
        assert_true(MR_PROTO_MEMCACHE.next_key(&msg, &walk, &key));
        assert_string_equal(as_text(key), *want);
    }
    assert_false(MR_PROTO_MEMCACHE.next_key(&msg, &walk, &key));
}

static void meta(void **state)
{
    (void)state;
    forwards("ms k 2 T0 F5\r\nhi\r\n", "k", "ms k 2 T0 F5\r\nhi\r\n");
    assert_true(msg.guarded);
    forwards("mg k v q k O1\r\n", "k", "mg k v k O1\r\n");
    assert_true(msg.edits);
    forwards("ms k 2 q\r\nhi\r\n", "k", "ms k 2\r\nhi\r\n");
    forwards("mg Zm9vYmFy b v\r\n", "foobar", "mg Zm9vYmFy b v\r\n");
    forwards("mg Zm8= b\r\n", "fo", "mg Zm8= b\r\n");
    refuses("ms Zm8 1 b\r\nx\r\n", "CLIENT_ERROR error decoding key\r\n");
    forwards("mg ==== b\r\n", "====", "mg ==== b\r\n"); /* the server says what is wrong */
    refuses("mn\r\n", "MN\r\n");
    refuses("mx k\r\n", "ERROR\r\n");
    refuses("ms k 2 Fx\r\nhi\r\n", "CLIENT_ERROR bad command line format\r\n");
    assert_int_equal(msg.consumed, 15); /* the value goes with it */
}

static void nothing_doubtful_reaches_a_server(void **state)
{
    static const char *const BAD[] = {"get a\tb\r\n",
                                      "set k 0 0 -1\r\n",
                                      "set k 0 0 +1\r\n",
                                      "set k 0 0 1x\r\n",
                                      "set k 0x1 0 1\r\n",
                                      "set k 0 1.5 1\r\n",
                                      "set k 0 0 2147483646\r\n",
                                      "cas k 0 0 1 -1\r\nx\r\n",
                                      "mg a\x7f\r\n",
                                      "ms k 99999999999\r\n",
                                      "set k 18446744073709551616 0 1\r\n"};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(BAD); i++)
        refuses(BAD[i], "CLIENT_ERROR bad command line format\r\n");
    refuses("set k 0 0 1\r\nxy\r\n", "CLIENT_ERROR bad data chunk\r\n");
    refuses("set k 0 0\r\n", "ERROR\r\n");
    refuses("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n");
    refuses("slabs automove 1\r\n", "CLIENT_ERROR this command administers one server, the proxy "
                                    "does not pass it on\r\n");
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
    assert_int_equal(MR_PROTO_MEMCACHE.parse(&CTX, &st, rest, 1000, &msg), MR_OK);
    assert_int_equal(msg.action, MR_MSG_SKIP);
    assert_int_equal(msg.consumed, 1000);
    assert_int_equal(MR_PROTO_MEMCACHE.parse(&CTX, &st, "x\r\nget k\r\n", 10, &msg), MR_OK);
    assert_int_equal(msg.consumed, 3);
    assert_int_equal(MR_PROTO_MEMCACHE.parse(&CTX, &st, "get k\r\n", 7, &msg), MR_OK);
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
    char wire[200], head[MR_HEAD_BYTES], reply[24] = {(char)0x81};
    size_t head_len;

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
            head_len = 0;
            const size_t cut = MR_PROTO_MEMCACHE.present(
                msg.ticket, (struct mr_slice){reply, sizeof(reply)}, head, &head_len);
            if (status == (finds ? 1 : 0)) {
                assert_int_equal(cut, MR_HIDDEN);
                continue;
            }
            assert_int_equal(cut, 24);
            assert_int_equal(head_len, 24);
            assert_int_equal((uint8_t)head[1], PAIRS[i].quiet);
        }
    }
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
    n = packet(wire, 0x55, 0, "key", "value"); /* unknown: its body is passed over */
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
    cmocka_unit_test_setup_teardown(nothing_doubtful_reaches_a_server, setup, teardown),
    cmocka_unit_test_setup_teardown(keys_have_their_limit, setup, teardown),
    cmocka_unit_test_setup_teardown(a_large_value_is_passed_over, setup, teardown),
    cmocka_unit_test_setup_teardown(endless_lines_are_cut, setup, teardown),
    cmocka_unit_test_setup_teardown(binary_by_key, setup, teardown),
    cmocka_unit_test_setup_teardown(quiet_ones_are_asked_aloud, setup, teardown),
    cmocka_unit_test_setup_teardown(binary_framing, setup, teardown))
