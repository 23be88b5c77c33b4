/* client_resp.c - scripted clients of Redis (RESP2). */
#include "client.h"

#include <stdio.h>
#include <string.h>

#define KEYS_MAX 12u

/* ---- requests ---- */

static void begin(struct sim_client *c, uint32_t n_args)
{
    sim_bytes_addf(&c->out, "*%u\r\n", n_args);
}

static void arg(struct sim_client *c, struct mr_slice a)
{
    sim_bytes_addf(&c->out, "$%zu\r\n", a.len);
    sim_bytes_add(&c->out, a.at, a.len);
    sim_bytes_add(&c->out, "\r\n", 2);
}

static void word(struct sim_client *c, const char *text)
{
    arg(c, mr_slice_of(text));
}

static void value_arg(struct sim_client *c, struct mr_slice tag, size_t size)
{
    sim_bytes_addf(&c->out, "$%zu\r\n", size);
    sim_bytes_add_value(&c->out, tag, size);
    sim_bytes_add(&c->out, "\r\n", 2);
}

/* GET or MGET of values that servers derive from the keys. */
static void ask_made(struct sim_client *c, uint32_t n)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_VALUES);
    size_t size;

    sim_set_keys(e, n);
    begin(c, 1 + n);
    word(c, n == 1 && !sim_once_in(8) ? "GET" : "mget");
    for (uint32_t i = 0; i < n; i++) {
        e->keys[i] = sim_made_key(c, SIZE_MAX, &size);
        e->reply_bytes += size + 20;
        arg(c, e->keys[i]);
    }
}

static void ask_stored(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_STORED);

    sim_plan_read(c, e);
    e->reply_bytes = c->plan.size;
    if (sim_once_in(3)) {
        sim_bytes_addf(&c->out, "get %.*s\r\n", (int)e->keys[0].len, e->keys[0].at);
        return;
    }
    begin(c, 2);
    word(c, "GET");
    arg(c, e->keys[0]);
}

static void store(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_STORE);

    sim_plan_change(c, e, SIM_SET);
    e->reply_bytes = 5;
    begin(c, 3);
    word(c, "SET");
    arg(c, e->keys[0]);
    arg(c, sim_bytes_slice(&c->value));
}

static void want_text(struct sim_client *c, const char *text)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_TEXT);

    e->text = text;
    e->reply_bytes = strlen(text);
}

/* Changes keys that nobody reads, over several servers. */
static void change_many(struct sim_client *c)
{
    const uint32_t n = sim_between(1, KEYS_MAX);
    const bool set = sim_once_in(2);

    want_text(c, set ? "+OK\r\n" : ":0\r\n");
    begin(c, 1 + n * (set ? 2 : 1));
    word(c, set ? "MSET" : "DEL");
    for (uint32_t i = 0; i < n; i++) {
        const struct mr_slice key = mr_slice_of(
            sim_text("%s%u.%llu.%u", set ? "m" : "d", c->id, (unsigned long long)c->n_sent, i));
        arg(c, key);
        if (set)
            value_arg(c, key, sim_below(50));
    }
}

/*
 * A transaction with all keys on one server. Own keys are watched, which may fail with the lease.
 */
static void transact(struct sim_client *c)
{
    const char *key = sim_text("m%u.%llu", c->id, (unsigned long long)c->n_sent);
    const char *value = sim_text("%llu", (unsigned long long)sim_below(1000000000));
    const bool watches = sim_once_in(3), drops = sim_once_in(6);

    if (watches) {
        want_text(c, "+OK\r\n");
        begin(c, 2);
        word(c, "WATCH");
        word(c, key);
        if (!sim_one_memory && sim_once_in(3)) { /* a replica may be asked later than the master */
            want_text(c, "$-1\r\n");
            begin(c, 2);
            word(c, "GET");
            word(c, key);
        }
    }
    want_text(c, "+OK\r\n");
    begin(c, 1);
    word(c, "MULTI");
    want_text(c, "+QUEUED\r\n");
    begin(c, 3);
    word(c, "SET");
    word(c, key);
    word(c, value);
    want_text(c, "+QUEUED\r\n");
    begin(c, 2);
    word(c, "GET");
    word(c, key);
    if (drops) {
        want_text(c, "+OK\r\n");
    } else {
        struct sim_expect *e = sim_expect_add(c, watches ? SIM_WANT_MAYBE : SIM_WANT_TEXT);
        e->text = sim_text("*2\r\n+OK\r\n$%zu\r\n%s\r\n", strlen(value), value);
        e->reply_bytes = strlen(e->text);
    }
    begin(c, 1);
    word(c, drops ? "DISCARD" : "EXEC");
}

/* A client that sends no more is assumed to have left while it blocks. */
static void block(struct sim_client *c)
{
    if (c->plan.ending == SIM_END_SHUT)
        return;
    const char *key = sim_text("q%u.%llu", c->id, (unsigned long long)c->n_sent);
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_MAYBE);

    e->text = sim_text("*2\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(key), key, strlen(key), key);
    e->reply_bytes = strlen(e->text);
    begin(c, 3);
    word(c, "BLPOP");
    word(c, key);
    word(c, "2");
}

/* ---- channels ---- */

static void publish(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_COUNT);
    const uint32_t number = sim_below(SIM_CHANNELS);
    const char *channel = sim_text("c%u", number);

    e->reply_bytes = 10;
    begin(c, 3);
    word(c, "PUBLISH");
    word(c, channel);
    word(c, sim_text("%s %u %u", channel, c->id, ++c->n_published));
    c->last_published[number] = c->n_published;
}

static void change_topic(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_TOPIC);
    const bool on = !sim_once_in(3);
    const char *what = on ? "subscribe" : "unsubscribe";
    const uint32_t channel = sim_below(SIM_CHANNELS);

    e->yes = on;
    e->number = channel;
    e->text = sim_text("*3\r\n$%zu\r\n%s\r\n$2\r\nc%u\r\n:", strlen(what), what, channel);
    e->reply_bytes = strlen(e->text) + 3;
    begin(c, 2);
    word(c, what);
    word(c, sim_text("c%u", channel));
}

static const struct sim_client *client_of(unsigned id)
{
    const struct sim_client *c = sim_clients;

    while (c != NULL && c->id != id)
        c = c->next;
    return c;
}

/* A message is for a channel that it is subscribed to, and comes once, and in order. */
static bool take_push(struct sim_client *c, struct mr_slice reply)
{
    static const struct mr_slice MESSAGE = {"*3\r\n$7\r\nmessage\r\n$2\r\nc", 22};
    const struct sim_expect none = {0};
    unsigned channel, named, id, number;

    if (!c->plan.listens || reply.len < MESSAGE.len ||
        memcmp(reply.at, MESSAGE.at, MESSAGE.len) != 0)
        return false;
    const char *text = sim_text("%.*s", (int)(reply.len - MESSAGE.len), reply.at + MESSAGE.len);
    if (sscanf(text, "%u\r\n$%*u\r\nc%u %u %u\r\n", &channel, &named, &id, &number) != 4 ||
        channel != named || channel >= SIM_CHANNELS || id >= SIM_HEARD_OF)
        sim_wrong(c, &none, reply, "a message is broken");
    const struct sim_client *by = client_of(id);
    if (by == NULL || number > by->n_published)
        sim_wrong(c, &none, reply, "a message that nobody has sent");
    if (!c->hears[channel] && !c->failed_partly)
        sim_wrong(c, &none, reply, "a message of a channel that it is not subscribed to");
    if (number <= c->heard_of[channel][id] && !by->failed_partly && !sim_may_fail(by->sent_us))
        sim_wrong(c, &none, reply, "a message twice, or after a later one");
    c->heard_of[channel][id] = number;
    return true;
}

static void refused(struct sim_client *c)
{
    static const char *const WORDS[] = {"MULTI", "NOSUCHCOMMAND", "BLPOP", "MONITOR", "SHUTDOWN"};
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_ERROR);

    e->reply_bytes = 200;
    begin(c, 2);
    word(c, WORDS[sim_below(MR_COUNT(WORDS))]);
    word(c, "x");
}

static void ask_id(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_START);

    e->text = ":";
    e->reply_bytes = 20;
    sim_bytes_addf(&c->out, "CLIENT ID\r\n");
}

static void request(struct sim_client *c)
{
    if (c->plan.authorizes && c->n_sent == 0) {
        want_text(c, "+OK\r\n");
        begin(c, 2);
        word(c, "AUTH");
        word(c, "secret");
        return;
    }
    if (c->plan.listens) {
        change_topic(c);
        return;
    }
    if (sim_once_in(c->plan.publishes)) {
        publish(c);
        return;
    }
    if (sim_once_in(c->plan.transacts)) {
        if (sim_once_in(4))
            block(c);
        else
            transact(c);
        return;
    }
    switch (sim_below(16)) {
    case 0:
        want_text(c, "+PONG\r\n");
        sim_bytes_addf(&c->out, sim_once_in(2) ? "PING\r\n" : "*1\r\n$4\r\nping\r\n");
        break;
    case 1:
        refused(c);
        break;
    case 2:
        ask_id(c);
        break;
    case 3:
        change_many(c);
        break;
    case 4:
    case 5:
        ask_made(c, sim_between(1, KEYS_MAX));
        break;
    case 6:
    case 7:
    case 8:
        store(c);
        break;
    case 9:
    case 10:
    case 11:
        ask_stored(c);
        break;
    default:
        ask_made(c, 1);
        break;
    }
}

static void quit(struct sim_client *c)
{
    want_text(c, "+OK\r\n");
    sim_bytes_addf(&c->out, "QUIT\r\n");
}

static void garbage(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_ERROR);

    e->reply_bytes = 100;
    sim_bytes_addf(&c->out, sim_once_in(2) ? "*2\r\n+GET\r\nx\r\n" : "*1\r\n$99999999999\r\n");
}

/* ---- replies ---- */

/* Parses the number after the type byte at `at`; SIZE_MAX if the line is incomplete. */
static size_t line_end(struct mr_slice in, size_t at)
{
    const char *nl = at < in.len ? memchr(in.at + at, '\n', in.len - at) : NULL;

    return nl != NULL ? (size_t)(nl - in.at) + 1 : SIZE_MAX;
}

static int64_t number_at(const char *p)
{
    const bool minus = *p == '-';
    int64_t n = 0;

    for (p += minus; *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (*p - '0');
    return minus ? -n : n;
}

/* End of the element at `at`; SIZE_MAX if incomplete. */
static size_t element_end(const struct sim_client *c, struct mr_slice in, size_t at)
{
    size_t end = line_end(in, at);

    if (end == SIZE_MAX)
        return SIZE_MAX;
    const int64_t n = number_at(in.at + at + 1);
    switch (in.at[at]) {
    case '+':
    case '-':
    case ':':
        return end;
    case '$':
        if (n < 0)
            return end;
        end += (size_t)n + 2;
        return end <= in.len ? end : SIZE_MAX;
    case '*':
        for (int64_t i = 0; i < n && end != SIZE_MAX; i++)
            end = element_end(c, in, end);
        return end;
    default:
        sim_fail("client %u: what is no reply: %.*s", c->id, (int)(in.len < 100 ? in.len : 100),
                 in.at + at);
    }
}

static size_t length(struct sim_client *c, struct mr_slice in)
{
    const size_t end = element_end(c, in, 0);

    return end == SIZE_MAX ? 0 : end;
}

static bool is_for(const struct sim_expect *e, struct mr_slice reply)
{
    (void)e;
    (void)reply;
    return true;
}

static bool is_error(struct mr_slice reply)
{
    return reply.at[0] == '-';
}

/* Value of a bulk string; at is NULL for the null one. */
static struct mr_slice bulk(const struct sim_client *c, const struct sim_expect *e,
                            struct mr_slice reply, size_t at)
{
    if (reply.at[at] != '$')
        sim_wrong(c, e, reply, "a reply of another type");
    const int64_t n = number_at(reply.at + at + 1);
    if (n < 0)
        return (struct mr_slice){NULL, 0};
    return (struct mr_slice){reply.at + line_end(reply, at), (size_t)n};
}

static void check_values(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    size_t at = 0;

    if (reply.at[0] == '*') {
        if (number_at(reply.at + 1) != e->n_keys)
            sim_wrong(c, e, reply, "another number of values");
        at = line_end(reply, 0);
    } else if (e->n_keys != 1) {
        sim_wrong(c, e, reply, "a reply of another type");
    }
    for (uint32_t i = 0; i < e->n_keys; i++) {
        const struct mr_slice value = bulk(c, e, reply, at);
        if (value.at == NULL)
            sim_wrong(c, e, reply, "a value is missing");
        sim_check_made(c, e, i, value);
        at = element_end(c, reply, at);
    }
}

/* A command of a transaction failed, the others did not. */
static bool has_failed_partly(struct mr_slice reply)
{
    return reply.at[0] == '*' && memmem(reply.at, reply.len, "\r\n-", 3) != NULL;
}

static void check(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    if (has_failed_partly(reply) && sim_allows_error(e, reply))
        return;
    switch (e->want) {
    case SIM_WANT_TEXT:
        if (!mr_slice_eq(reply, mr_slice_of(e->text)))
            sim_wrong(c, e, reply, "another reply");
        break;
    case SIM_WANT_MAYBE:
        if (!mr_slice_eq(reply, mr_slice_of(e->text)) &&
            !mr_slice_eq(reply, mr_slice_of("*-1\r\n")))
            sim_wrong(c, e, reply, "another reply");
        break;
    case SIM_WANT_TOPIC:
        if (reply.len < strlen(e->text) || memcmp(reply.at, e->text, strlen(e->text)) != 0)
            sim_wrong(c, e, reply, "another reply");
        c->hears[e->number] = e->yes;
        break;
    case SIM_WANT_START: {
        const uint64_t id = (uint64_t)number_at(reply.at + 1);
        if (reply.at[0] != e->text[0])
            sim_wrong(c, e, reply, "another reply");
        if (c->session_id != 0 && c->session_id != id)
            sim_wrong(c, e, reply, "another id than before");
        c->session_id = id;
        break;
    }
    case SIM_WANT_VALUES:
        check_values(c, e, reply);
        break;
    case SIM_WANT_STORED:
        sim_check_stored(c, e, bulk(c, e, reply, 0));
        break;
    case SIM_WANT_STORE:
        if (!mr_slice_eq(reply, mr_slice_of("+OK\r\n")))
            sim_wrong(c, e, reply, "another reply");
        sim_check_change(c, e, true, reply);
        break;
    case SIM_WANT_COUNT:
        break;
    case SIM_WANT_ERROR:
        if (!is_error(reply))
            sim_wrong(c, e, reply, "no error");
        break;
    }
}

const struct sim_client_proto SIM_CLIENT_RESP = {
    .too_many = "-ERR max number of clients reached\r\n",
    .request = request,
    .quit = quit,
    .garbage = garbage,
    .length = length,
    .is_for = is_for,
    .is_error = is_error,
    .check = check,
    .take_push = take_push,
};
