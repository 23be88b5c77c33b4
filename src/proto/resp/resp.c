/* resp.c - the Redis protocol's vtable. */
#include "proto/resp/resp.h"

#include "core/number.h"
#include "proto/resp/internal.h"

static const char UNSPOKEN[] = "NOPROTO the server does not speak RESP3";

static void fail(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                 struct mr_slab *slab, struct mr_buf *out)
{
    (void)options;
    (void)ticket;
    mr_resp_put_failure(out, slab, text);
}

/* AUTH comes first, as the rest requires it. */
static void put_select(uint32_t db, struct mr_slab *slab, struct mr_buf *out)
{
    char digits[20];

    mr_resp_put_head(out, slab, '*', 2);
    mr_resp_put_bulk(out, slab, mr_slice_of("SELECT"));
    mr_resp_put_bulk(out, slab, (struct mr_slice){digits, mr_format_uint(digits, db)});
}

static void put_hello(enum mr_resp_version version, struct mr_slab *slab, struct mr_buf *out)
{
    mr_resp_put_head(out, slab, '*', 2);
    mr_resp_put_bulk(out, slab, mr_slice_of("HELLO"));
    mr_resp_put_bulk(out, slab, mr_slice_of(version == MR_RESP_3 ? "3" : "2"));
}

static uint32_t hello(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                      struct mr_buf *out)
{
    const uint32_t db = mr_resp_lane_db(options, lane);
    uint32_t replies = 0;

    if (options->auth != NULL) {
        mr_resp_put_head(out, slab, '*', 2);
        mr_resp_put_bulk(out, slab, mr_slice_of("AUTH"));
        mr_resp_put_bulk(out, slab, mr_slice_of(options->auth));
        replies++;
    }
    if (mr_resp_version(lane) == MR_RESP_3) {
        put_hello(MR_RESP_3, slab, out);
        replies++;
    }
    if (db > 0) {
        put_select(db, slab, out);
        replies++;
    }
    if (options->replicas_of_slots) {
        mr_resp_put_head(out, slab, '*', 1);
        mr_resp_put_bulk(out, slab, mr_slice_of("READONLY"));
        replies++;
    }
    return replies;
}

static bool begins_with(struct mr_slice reply, const char *text)
{
    return reply.len >= strlen(text) && memcmp(reply.at, text, strlen(text)) == 0;
}

/* Finds "version" in the reply to HELLO. */
static void read_version(struct mr_slice reply, struct mr_greeting *greeting)
{
    static const char BEFORE[] = "version\r\n$";
    const char *at = memmem(reply.at, reply.len, BEFORE, sizeof(BEFORE) - 1);
    const char *end = reply.at + reply.len;
    int64_t n;

    if (at == NULL)
        return;
    at += sizeof(BEFORE) - 1;
    if (mr_resp_read_length(&at, end, &n) == MR_OK && n > 0 && n < MR_VERSION_BYTES &&
        n <= end - at)
        memcpy(greeting->version, at, (size_t)n);
}

/* Redis before 6 does not have HELLO. */
static const char *check_version(struct mr_slice reply, struct mr_greeting *greeting)
{
    if (reply.len > 0 && reply.at[0] == '%') {
        read_version(reply, greeting);
        return NULL;
    }
    greeting->lane_only =
        begins_with(reply, "-NOPROTO") || begins_with(reply, "-ERR unknown command");
    return greeting->lane_only ? UNSPOKEN : "server refused HELLO";
}

static const char *check_hello(const struct mr_proto_options *options, uint8_t lane, uint32_t index,
                               struct mr_slice reply, struct mr_greeting *greeting)
{
    if (mr_resp_version(lane) == MR_RESP_3 && index == (options->auth != NULL))
        return check_version(reply, greeting);
    if (reply.len > 0 && reply.at[0] == '+')
        return NULL;
    if (index == 0 && options->auth != NULL)
        return "server refused the password of the proxy";
    if (options->replicas_of_slots)
        return "server is no node of a cluster";
    greeting->lane_only = lane >= MR_RESP_VERSIONS;
    return greeting->lane_only ? "server refused the database of the client"
                               : "server refused the database of the pool";
}

static void probe(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                  struct mr_buf *out)
{
    (void)lane;
    mr_resp_put_head(out, slab, '*', 1);
    mr_resp_put_bulk(out, slab, mr_slice_of(options->replicated ? "ROLE" : "PING"));
}

/* The next line of a reply without its end, empty if there are no more. */
static struct mr_slice next_line(struct mr_slice *left)
{
    const char *nl = memchr(left->at, '\n', left->len);
    const size_t n = nl != NULL ? (size_t)(nl - left->at) + 1 : left->len;
    const struct mr_slice line = {left->at, n > 2 ? n - 2 : 0};

    *left = (struct mr_slice){left->at + n, left->len - n};
    return line;
}

/* The next element: text of a bulk string, digits of a number. */
static struct mr_slice next_element(struct mr_slice *left)
{
    const struct mr_slice head = next_line(left);

    if (head.len > 0 && head.at[0] == '$')
        return next_line(left);
    return head.len > 0 ? (struct mr_slice){head.at + 1, head.len - 1} : head;
}

/* https://redis.io/docs/latest/commands/role/ */
static void read_role(struct mr_slice reply, struct mr_probe *found)
{
    (void)next_line(&reply);
    const struct mr_slice role = next_element(&reply);
    if (mr_slice_eq(role, mr_slice_of("master"))) {
        found->role = MR_ROLE_MASTER;
        (void)mr_parse_uint(next_element(&reply), UINT64_MAX >> 1, &found->offset);
    } else if (mr_slice_eq(role, mr_slice_of("slave"))) {
        found->role = MR_ROLE_REPLICA;
        (void)next_element(&reply); /* skip host and port of its master */
        (void)next_element(&reply);
        found->link = mr_slice_eq(next_element(&reply), mr_slice_of("connected"));
        (void)mr_parse_uint(next_element(&reply), UINT64_MAX >> 1, &found->offset);
    }
}

/* "unknown command" or "no permission" also shows that the server is alive. */
static const char *check_probe(struct mr_slice reply, struct mr_probe *found)
{
    static const struct {
        const char *error, *why;
    } BAD[] = {{"-LOADING", "server is loading its data"},
               {"-MASTERDOWN", "replica has lost its master"},
               {"-BUSY", "server is busy with a script"},
               {"-NOAUTH", "server requires a password"}};

    for (size_t i = 0; i < MR_COUNT(BAD); i++)
        if (begins_with(reply, BAD[i].error))
            return BAD[i].why;
    if (reply.at[0] == '*')
        read_role(reply, found);
    return NULL;
}

static bool has_dialect(const struct mr_proto_options *options, uint8_t dialect)
{
    return dialect < mr_proto_lanes(&MR_PROTO_RESP, options);
}

/* ---- leases ---- */

static uint64_t read_id(struct mr_slice reply)
{
    uint64_t id = 0;

    if (reply.len < 4 || reply.at[0] != ':' ||
        !mr_parse_uint((struct mr_slice){reply.at + 1, reply.len - 3}, UINT64_MAX, &id))
        return 0;
    return id;
}

static bool is_reset(struct mr_slice reply)
{
    return reply.len > 0 && reply.at[0] == '+';
}

static void unblock(uint64_t id, bool timed_out, struct mr_slab *slab, struct mr_buf *out)
{
    char digits[24];

    mr_resp_put_head(out, slab, '*', 4);
    mr_resp_put_bulk(out, slab, mr_slice_of("CLIENT"));
    mr_resp_put_bulk(out, slab, mr_slice_of("UNBLOCK"));
    mr_resp_put_bulk(out, slab, (struct mr_slice){digits, mr_format_uint(digits, id)});
    mr_resp_put_bulk(out, slab, mr_slice_of(timed_out ? "TIMEOUT" : "ERROR"));
}

static void judge(unsigned possible, uint64_t ticket, struct mr_slice reply,
                  struct mr_verdict *verdict)
{
    (void)ticket;
    verdict->meaning = MR_REPLY_PASS;
    if (possible & MR_REPLY_REDIRECT && mr_resp_read_redirect(reply, &verdict->redirect))
        verdict->meaning = MR_REPLY_REDIRECT;
    else if (possible & MR_REPLY_RETRY && begins_with(reply, "-UNBLOCKED "))
        verdict->meaning = MR_REPLY_RETRY;
    else if (possible & MR_REPLY_PUSH && mr_resp_read_push(reply, &verdict->push))
        verdict->meaning = MR_REPLY_PUSH;
}

static uint8_t change_lane(const struct mr_proto_options *options, uint8_t from, uint8_t to,
                           struct mr_slab *slab, struct mr_buf *out)
{
    const enum mr_resp_version version = mr_resp_version(to);

    if (mr_resp_version(from) == version) {
        put_select(mr_resp_lane_db(options, to), slab, out);
        return to;
    }
    put_hello(version, slab, out);
    return (uint8_t)(from - mr_resp_version(from) + version);
}

/* Servers replicate it like any write, though it does nothing. */
static void mark(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                 struct mr_buf *out)
{
    char digits[20];
    const struct mr_slice db = {digits, mr_format_uint(digits, mr_resp_lane_db(options, lane))};

    mr_resp_put_head(out, slab, '*', 3);
    mr_resp_put_bulk(out, slab, mr_slice_of("SWAPDB"));
    mr_resp_put_bulk(out, slab, db);
    mr_resp_put_bulk(out, slab, db);
}

static bool is_error(struct mr_slice reply)
{
    return reply.len > 0 && reply.at[0] == '-';
}

static struct mr_slice say(const struct mr_session *session, enum mr_saying saying)
{
    static const char *const TEXTS[] = {
        [MR_SAY_OK] = "+OK\r\n",
        [MR_SAY_QUEUED] = "+QUEUED\r\n",
        [MR_SAY_NESTED] = "-ERR MULTI calls can not be nested\r\n",
        [MR_SAY_COMMIT_ALONE] = "-ERR EXEC without MULTI\r\n",
        [MR_SAY_DISCARD_ALONE] = "-ERR DISCARD without MULTI\r\n",
        [MR_SAY_WATCH_INSIDE] = "-ERR WATCH inside MULTI is not allowed\r\n",
        [MR_SAY_NOT_INSIDE] = "-ERR Command not allowed inside a transaction\r\n",
        [MR_SAY_TOO_LARGE] = "-ERR transaction exceeds the maximum size of a request\r\n",
        [MR_SAY_ABORTED] = "-EXECABORT Transaction discarded because of previous errors.\r\n",
        [MR_SAY_BROKEN] = "*-1\r\n",
        [MR_SAY_EMPTY] = "*0\r\n",
    };

    if (saying == MR_SAY_BROKEN && mr_resp_version(session->dialect) == MR_RESP_3)
        return mr_slice_of("_\r\n");
    return mr_slice_of(TEXTS[saying]);
}

const struct mr_proto MR_PROTO_RESP = {
    .name = "redis",
    .client = {.too_many_clients = "-ERR max number of clients reached\r\n",
               .parse = mr_resp_parse,
               .permit = mr_resp_permit,
               .answer = mr_resp_answer,
               .join_answers = mr_resp_join_answers,
               .fail = fail,
               .say = say,
               .has_dialect = has_dialect},
    .keys = {.cross_server = "-CROSSSLOT Keys in request don't live on the same server\r\n",
             .next = mr_resp_next_key,
             .begin_part = mr_resp_begin_part,
             .end_parts = mr_resp_end_parts,
             .copy = mr_resp_copy_whole,
             .join = mr_resp_join},
    .server = {.lanes = MR_RESP_VERSIONS,
               .scan_reply = mr_resp_scan_reply,
               .judge = judge,
               .hello = hello,
               .check_hello = check_hello,
               .probe = probe,
               .check_probe = check_probe},
    .lease = {.introduce = "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n",
              .read_id = read_id,
              .reset = "*1\r\n$7\r\nUNWATCH\r\n",
              .is_reset = is_reset,
              .unblock = unblock,
              .change_lane = change_lane,
              .mark = mark,
              .is_error = is_error},
    .cluster = {.cross_slot = "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
                .asking = "*1\r\n$6\r\nASKING\r\n",
                .ask_slots = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n",
                .read_slots = mr_resp_read_slots},
    .sentinel = {.ask = mr_resp_ask_sentinel,
                 .read_master = mr_resp_read_sentinel_master,
                 .read_replicas = mr_resp_read_sentinel_replicas,
                 .ask_role = "*1\r\n$4\r\nROLE\r\n"},
    .feed = {.order = mr_resp_order_topic,
             .ping = "*1\r\n$4\r\nPING\r\n",
             .confirm = mr_resp_confirm_topic,
             .mark = mr_resp_message_mark},
    .transfer = {.lane = mr_resp_transfer_lane,
                 .other_lane = mr_resp_other_lane,
                 .empties = mr_resp_empties,
                 .fetch = mr_resp_fetch,
                 .read_ttl = mr_resp_read_ttl,
                 .read_value = mr_resp_read_value,
                 .store = mr_resp_store,
                 .remove = mr_resp_remove,
                 .done = mr_resp_transferred},
};
