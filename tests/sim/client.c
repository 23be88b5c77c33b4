/* client.c - scripted clients: sending, reading, and what must come back. */
#include "client.h"

#include <stdio.h>
#include <string.h>

#define HOT_KEYS 4u
#define STOP_US  4000000u /* longest pause in reading */
#define SHOWN    100

struct sim_client *sim_clients;
const char *(*sim_excuse)(struct sim_client *c);
bool (*sim_allows_error)(const struct sim_expect *e, struct mr_slice reply);
bool sim_strict;

static uint32_t n_clients;

/* ---- what is waited for ---- */

struct sim_expect *sim_expect_add(struct sim_client *c, enum sim_want want)
{
    struct sim_expect *e = sim_alloc(sizeof(*e));

    e->want = want;
    *c->tail = e;
    c->tail = &e->next;
    return e;
}

static void pop(struct sim_client *c)
{
    struct sim_expect *e = c->head;

    c->head = e->next;
    if (c->head == NULL)
        c->tail = &c->head;
    c->n_waiting -= !e->optional;
    c->waiting_bytes -= e->reply_bytes;
}

_Noreturn void sim_wrong(const struct sim_client *c, const struct sim_expect *e,
                         struct mr_slice reply, const char *why)
{
    const struct mr_slice key = e->n_keys > 0 ? e->keys[0] : (struct mr_slice){"", 0};

    sim_fail("client %u: %s: request %llu (want %d, key %.*s, sent at %.6f) got %.*s", c->id, why,
             (unsigned long long)c->n_answered, (int)e->want, (int)key.len, key.at,
             (double)e->sent_us / 1e6 - 1000, (int)(reply.len < SHOWN ? reply.len : SHOWN),
             reply.at);
}

/* ---- keys and values ---- */

size_t sim_some_size(const struct sim_client *c)
{
    if (sim_once_in(c->plan.huge))
        return sim_magnitude(1000, 400000);
    return sim_below(c->plan.size + 1);
}

struct mr_slice sim_made_key(struct sim_client *c, size_t *size)
{
    *size = sim_some_size(c);
    return mr_slice_of(
        sim_text("v%u.%llu.%zu", c->id, (unsigned long long)c->n_sent + sim_below(1000), *size));
}

struct mr_slice sim_stored_key(struct sim_client *c, struct sim_expect *e)
{
    const uint32_t i = sim_below(SIM_OWN_KEYS + 1);

    e->shared = i == SIM_OWN_KEYS;
    e->own = e->shared ? NULL : &c->own[i];
    e->version = e->own != NULL ? e->own->version : 0;
    return e->shared ? mr_slice_of(sim_text("h%u", sim_below(HOT_KEYS))) : e->own->name;
}

struct mr_slice sim_next_tag(struct sim_client *c, struct sim_expect *e)
{
    const struct mr_slice key = e->keys[0];

    if (e->own == NULL)
        return mr_slice_of(
            sim_text("%.*s#%u.%llu", (int)key.len, key.at, c->id, (unsigned long long)c->n_sent));
    e->own->version = e->version = ++e->own->versions;
    return mr_slice_of(sim_text("%.*s#%u", (int)key.len, key.at, e->version));
}

void sim_check_made(const struct sim_client *c, const struct sim_expect *e, uint32_t i,
                    struct mr_slice value)
{
    size_t size;

    MR_CHECK(sim_key_size(e->keys[i], &size));
    if (value.len != size || !sim_is_value(value, e->keys[i]))
        sim_wrong(c, e, value, "another value");
}

void sim_check_stored(const struct sim_client *c, const struct sim_expect *e, struct mr_slice value)
{
    const struct mr_slice key = e->keys[0];
    const bool sure = sim_strict && e->own != NULL && !e->own->uncertain;
    uint32_t version = 0;

    if (value.at == NULL) {
        if (sure && e->version != 0)
            sim_wrong(c, e, value, "a value is lost");
        return;
    }
    const struct mr_slice tag = sim_tag_of(value);
    if (!sim_is_value(value, tag))
        sim_wrong(c, e, value, "a value is broken");
    if (tag.len == value.len) /* shorter than its tag */
        return;
    if (tag.len <= key.len || memcmp(tag.at, key.at, key.len) != 0 || tag.at[key.len] != '#')
        sim_wrong(c, e, value, "the value of another key");
    for (size_t i = key.len + 1; i < tag.len; i++)
        version = version * 10 + (uint32_t)(tag.at[i] - '0');
    if (sure && version != e->version)
        sim_wrong(c, e, value, "not the last value");
    if (e->own != NULL && version > e->own->versions)
        sim_wrong(c, e, value, "a value that was never sent");
}

/* ---- the end ---- */

static void over(struct sim_client *c)
{
    c->over = true;
    sim_event_cancel(&c->act);
    sim_event_cancel(&c->reading);
}

void sim_client_close(struct sim_client *c)
{
    if (c->over)
        return;
    over(c);
    sim_close(c->conn);
}

/* The proxy has ended the connection. */
static void at_end(struct sim_client *c)
{
    const char *excuse = sim_excuse(c);
    const bool asked = c->said_last || c->refused;

    sim_note("client %u: its connection has ended, %u requests unanswered%s%s", c->id, c->n_waiting,
             excuse != NULL ? ": " : "", excuse != NULL ? excuse : "");
    if (excuse == NULL && c->in.end > c->in.start)
        sim_fail("client %u: its connection has ended in the middle of a reply", c->id);
    if (excuse == NULL && c->n_waiting > 0 && !c->refused)
        sim_fail("client %u: its connection has ended with %u requests unanswered", c->id,
                 c->n_waiting);
    if (excuse == NULL && !asked)
        sim_fail("client %u: its connection has ended for no reason", c->id);
    sim_client_close(c);
}

/* ---- reading ---- */

uint64_t sim_client_silence_us(struct sim_client *c)
{
    const uint64_t last_us = c->sent_us > c->heard_us ? c->sent_us : c->heard_us;

    if (sim_now_us - last_us > c->longest_gap_us)
        c->longest_gap_us = sim_now_us - last_us;
    return c->longest_gap_us;
}

static void take_reply(struct sim_client *c, struct mr_slice reply)
{
    const struct sim_client_proto *proto = c->plan.proto;

    if (!c->refused && mr_slice_eq(reply, mr_slice_of(proto->too_many)) &&
        (c->n_answered == 0 || c->head == NULL)) {
        c->refused = true;
        return;
    }
    while (c->head != NULL && c->head->optional && !proto->is_for(c->head, reply))
        pop(c);
    SIM_CHECK(c->head != NULL, "client %u: a reply that nobody asked for: %.*s", c->id,
              (int)(reply.len < SHOWN ? reply.len : SHOWN), reply.at);
    struct sim_expect *e = c->head;
    if (proto->is_error(reply) && e->want != SIM_WANT_ERROR) {
        if (!sim_allows_error(e, reply))
            sim_wrong(c, e, reply, "an error for no reason");
        if (e->own != NULL && e->want == SIM_WANT_STORE)
            e->own->uncertain = true;
        c->failed_partly = true;
        sim_note("client %u: request %llu fails: %.*s", c->id, (unsigned long long)c->n_answered,
                 (int)(reply.len < SHOWN ? reply.len - 2 : SHOWN), reply.at);
    } else {
        proto->check(c, e, reply);
    }
    c->n_answered++;
    pop(c);
}

static void act(void *arg);

static void read_on(void *arg);

static void take_replies(struct sim_client *c)
{
    size_t n;

    while (c->in.end > c->in.start && (n = c->plan.proto->length(c, sim_bytes_slice(&c->in))) > 0) {
        take_reply(c, (struct mr_slice){c->in.memory + c->in.start, n});
        sim_bytes_drop(&c->in, n);
    }
}

static void read_some(struct sim_client *c)
{
    const size_t max = c->plan.read_bytes > 0 ? c->plan.read_bytes : SIZE_MAX;

    (void)sim_bytes_read(&c->in, c->conn, max);
    take_replies(c);
    if (sim_at_end(c->conn)) {
        at_end(c);
        return;
    }
    if (c->act.place == 0 && !c->said_last)
        sim_event_set(&c->act, sim_below(c->plan.think_us + 1), act, c);
    if (c->said_last && c->plan.ending == SIM_END_CLOSE && c->n_waiting == 0) {
        sim_client_close(c);
        return;
    }
    if (sim_once_in(c->plan.stops))
        sim_event_set(&c->reading, sim_magnitude(1000, STOP_US), read_on, c);
    else if (c->plan.read_us > 0 || sim_readable(c->conn) > 0)
        sim_event_set(&c->reading, sim_below(c->plan.read_us + 1), read_on, c);
}

static void read_on(void *arg)
{
    struct sim_client *c = arg;

    if (sim_readable(c->conn) > 0 || sim_at_end(c->conn))
        read_some(c);
}

static void on_bytes(struct sim_conn *conn)
{
    struct sim_client *c = conn->owner;

    if (sim_readable(conn) > 0) {
        (void)sim_client_silence_us(c);
        c->heard_us = sim_now_us;
    }
    if (c->reading.place == 0)
        read_some(c);
}

/* ---- sending ---- */

static void say_last(struct sim_client *c)
{
    c->said_last = true;
    sim_note("client %u: comes to its end (%d), %u requests in flight", c->id, (int)c->plan.ending,
             c->n_waiting);
    switch (c->plan.ending) {
    case SIM_END_STAY:
        c->said_last = false;
        break;
    case SIM_END_CLOSE:
        if (c->n_waiting == 0)
            sim_client_close(c);
        break;
    case SIM_END_QUIT:
        c->plan.proto->quit(c);
        break;
    case SIM_END_GARBAGE:
        c->plan.proto->garbage(c);
        break;
    case SIM_END_SHUT:
        sim_shut(c->conn);
        break;
    case SIM_END_LEAVE:
        sim_client_close(c);
        break;
    case SIM_END_RESET:
        over(c);
        sim_reset(c->conn);
        break;
    }
}

/* Notes where the new requests end. */
static void send_out(struct sim_client *c, struct sim_expect *first)
{
    for (struct sim_expect *e = first; e != NULL; e = e->next) {
        e->sent_us = sim_now_us;
        if (e->end == 0)
            e->end = c->written + (c->out.end - c->out.start);
        c->n_waiting += !e->optional;
        c->waiting_bytes += e->reply_bytes;
    }
    if (c->waiting_bytes > c->most_waiting_bytes)
        c->most_waiting_bytes = c->waiting_bytes;
    c->written += c->out.end - c->out.start;
    if (c->out.end > c->out.start) {
        (void)sim_client_silence_us(c);
        c->sent_us = sim_now_us;
    }
    if (!c->conn->reset)
        sim_bytes_send(&c->out, c->conn);
}

static void act(void *arg)
{
    struct sim_client *c = arg;
    uint32_t n = sim_between(1, c->plan.burst);
    struct sim_expect **first = c->tail;

    if (c->said_last)
        return;
    for (; n > 0 && c->n_sent < c->plan.n_requests && c->n_waiting + (uint32_t)1 <= c->plan.depth;
         n--) {
        struct sim_expect **one = c->tail;
        c->plan.proto->request(c);
        c->n_sent++;
        for (struct sim_expect *e = *one; e != NULL; e = e->next)
            e->end = c->written + (c->out.end - c->out.start);
        if (c->n_waiting + n > c->plan.depth)
            n = c->plan.depth - c->n_waiting;
    }
    const bool last = c->n_sent >= c->plan.n_requests;
    if (last && (c->plan.ending == SIM_END_QUIT || c->plan.ending == SIM_END_GARBAGE))
        say_last(c); /* behind the others, in one write */
    send_out(c, *first);
    if (last && !c->said_last)
        say_last(c);
    else if (!last && !c->over && c->n_waiting < c->plan.depth)
        sim_event_set(&c->act, sim_below(c->plan.think_us + 1), act, c);
}

static void on_open(struct sim_conn *conn)
{
    struct sim_client *c = conn->owner;

    c->opened = true;
    c->sent_us = sim_now_us;
    sim_event_set(&c->act, sim_below(c->plan.think_us + 1), act, c);
}

static const struct sim_conn_ops OPS = {.on_open = on_open, .on_bytes = on_bytes};

struct sim_client *sim_client_start(const struct sim_client_plan *plan)
{
    struct sim_client *c = sim_alloc(sizeof(*c));

    c->plan = *plan;
    c->id = n_clients++;
    c->tail = &c->head;
    c->next = sim_clients;
    sim_clients = c;
    for (uint32_t i = 0; i < SIM_OWN_KEYS; i++)
        c->own[i].name = mr_slice_of(sim_text("s%u.%u", c->id, i));
    c->conn = sim_connect(plan->listener, &OPS, c);
    sim_note("client %u: connection %u: %u requests, depth %u, ending %d", c->id, c->conn->id,
             plan->n_requests, plan->depth, (int)plan->ending);
    return c;
}

void sim_client_finish(struct sim_client *c)
{
    if (c->over || c->said_last)
        return;
    c->plan.n_requests = (uint32_t)c->n_sent;
    if (c->opened && c->act.place == 0)
        act(c);
}

void sim_client_hurry(struct sim_client *c)
{
    if (c->over)
        return;
    c->plan.read_bytes = c->plan.read_us = c->plan.stops = 0;
    sim_event_set(&c->reading, 0, read_on, c);
}

void sim_clients_begin(void)
{
    sim_clients = NULL;
    n_clients = 0;
}
