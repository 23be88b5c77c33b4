/* resp.c - the Redis protocol as the proxy sees it. */
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

/* AUTH first, so that the rest is asked by somebody who may. */
static uint32_t hello(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                      struct mr_buf *out)
{
    uint32_t replies = 0;

    if (options->auth != NULL) {
        mr_resp_put_head(out, slab, '*', 2);
        mr_resp_put_bulk(out, slab, mr_slice_of("AUTH"));
        mr_resp_put_bulk(out, slab, mr_slice_of(options->auth));
        replies++;
    }
    if (lane == MR_RESP_3) {
        const struct mr_slice hello3 = mr_slice_of("*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
        mr_buf_put(out, slab, hello3.at, hello3.len);
        replies++;
    }
    if (options->db > 0) {
        char db[20];
        mr_resp_put_head(out, slab, '*', 2);
        mr_resp_put_bulk(out, slab, mr_slice_of("SELECT"));
        mr_resp_put_bulk(out, slab, (struct mr_slice){db, mr_format_uint(db, options->db)});
        replies++;
    }
    return replies;
}

static bool begins_with(struct mr_slice reply, const char *text)
{
    return reply.len >= strlen(text) && memcmp(reply.at, text, strlen(text)) == 0;
}

/* Before version 6 Redis did not know the command. */
static const char *check_version(struct mr_slice reply)
{
    if (reply.len > 0 && reply.at[0] == '%')
        return NULL;
    if (begins_with(reply, "-NOPROTO") || begins_with(reply, "-ERR unknown command"))
        return UNSPOKEN;
    return "server refused HELLO";
}

static const char *check_hello(const struct mr_proto_options *options, uint8_t lane, uint32_t index,
                               struct mr_slice reply, uint8_t *able)
{
    (void)able;
    if (lane == MR_RESP_3 && index == (options->auth != NULL))
        return check_version(reply);
    if (reply.len > 0 && reply.at[0] == '+')
        return NULL;
    return index == 0 && options->auth != NULL ? "server refused the password of the proxy"
                                               : "server refused the database of the pool";
}

static void probe(const struct mr_proto_options *options, uint8_t lane, struct mr_slab *slab,
                  struct mr_buf *out)
{
    (void)lane;
    mr_resp_put_head(out, slab, '*', 1);
    mr_resp_put_bulk(out, slab, mr_slice_of(options->replicated ? "ROLE" : "PING"));
}

/* The next line of a reply, without its end; what is no longer there is empty. */
static struct mr_slice next_line(struct mr_slice *left)
{
    const char *nl = memchr(left->at, '\n', left->len);
    const size_t n = nl != NULL ? (size_t)(nl - left->at) + 1 : left->len;
    const struct mr_slice line = {left->at, n > 2 ? n - 2 : 0};

    *left = (struct mr_slice){left->at + n, left->len - n};
    return line;
}

/* The next element: of a bulk string its text, of a number its digits. */
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
        (void)next_element(&reply); /* host and port of its master */
        (void)next_element(&reply);
        found->link = mr_slice_eq(next_element(&reply), mr_slice_of("connected"));
        (void)mr_parse_uint(next_element(&reply), UINT64_MAX >> 1, &found->offset);
    }
}

/* A command that is not known or not allowed is an answer all the same. */
static const char *check_probe(struct mr_slice reply, struct mr_probe *found)
{
    static const struct {
        const char *error, *why;
    } BAD[] = {{"-LOADING", "server loads its data"},
               {"-MASTERDOWN", "replica has lost its master"},
               {"-BUSY", "server is busy with a script"},
               {"-NOAUTH", "server wants a password"}};

    for (size_t i = 0; i < MR_COUNT(BAD); i++)
        if (begins_with(reply, BAD[i].error))
            return BAD[i].why;
    if (reply.at[0] == '*')
        read_role(reply, found);
    return NULL;
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

static void unblock(uint64_t id, struct mr_slab *slab, struct mr_buf *out)
{
    char digits[24];

    mr_resp_put_head(out, slab, '*', 4);
    mr_resp_put_bulk(out, slab, mr_slice_of("CLIENT"));
    mr_resp_put_bulk(out, slab, mr_slice_of("UNBLOCK"));
    mr_resp_put_bulk(out, slab, (struct mr_slice){digits, mr_format_uint(digits, id)});
    mr_resp_put_bulk(out, slab, mr_slice_of("ERROR"));
}

static bool is_unblocked(struct mr_slice reply)
{
    return begins_with(reply, "-UNBLOCKED ");
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
        [MR_SAY_TOO_LARGE] = "-ERR the transaction is larger than a request may be\r\n",
        [MR_SAY_ABORTED] = "-EXECABORT Transaction discarded because of previous errors.\r\n",
        [MR_SAY_BROKEN] = "*-1\r\n",
        [MR_SAY_EMPTY] = "*0\r\n",
    };

    if (saying == MR_SAY_BROKEN && mr_resp_version(session) == MR_RESP_3)
        return mr_slice_of("_\r\n");
    return mr_slice_of(TEXTS[saying]);
}

const struct mr_proto MR_PROTO_RESP = {
    .name = "redis",
    .lanes = MR_RESP_VERSIONS,
    .cross_server = "-CROSSSLOT Keys in request don't live on the same server\r\n",
    .too_many_clients = "-ERR max number of clients reached\r\n",
    .unspoken = UNSPOKEN,
    .parse = mr_resp_parse,
    .next_key = mr_resp_next_key,
    .answer = mr_resp_answer,
    .split = mr_resp_split,
    .join = mr_resp_join,
    .fail = fail,
    .scan_reply = mr_resp_scan_reply,
    .hello = hello,
    .check_hello = check_hello,
    .lease = {.introduce = "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n",
              .read_id = read_id,
              .reset = "*1\r\n$7\r\nUNWATCH\r\n",
              .is_reset = is_reset,
              .unblock = unblock,
              .is_unblocked = is_unblocked,
              .say = say},
    .probe = probe,
    .check_probe = check_probe,
};
