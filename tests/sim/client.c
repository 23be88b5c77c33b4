/* client.c - scripted clients: sending, reading, and the expected replies. */
#include "client.h"

#include <stdio.h>
#include <string.h>

#define HOT_KEYS 4u
#define STOP_US  8000000u /* longest pause in reading */
#define SHOWN    100

struct sim_client *sim_clients;
const char *(*sim_excuse)(struct sim_client *c);
bool (*sim_allows_error)(const struct sim_expect *e, struct mr_slice reply);
bool (*sim_may_have_failed)(const struct sim_expect *e);
bool sim_failure_is_miss;
bool sim_strict;
bool sim_one_memory;
bool sim_may_refuse;

static uint32_t n_clients;

/* ---- expectations ---- */

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

const struct sim_expect *sim_client_due(const struct sim_client *c)
{
    const struct sim_expect *e = c->head;

    while (e != NULL && e->optional)
        e = e->next;
    return e;
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
    const uint32_t most = c->plan.pool != NULL ? c->plan.pool->max_item_bytes : UINT32_MAX;
    const uint32_t size =
        sim_once_in(c->plan.huge) ? sim_magnitude(1000, 400000) : sim_below(c->plan.size + 1);

    return size < most ? size : most;
}

struct mr_slice sim_made_key(struct sim_client *c, size_t max, size_t *size)
{
    *size = sim_some_size(c);
    if (*size > max)
        *size = max;
    return mr_slice_of(
        sim_text("v%u.%llu.%zu", c->id, (unsigned long long)c->n_sent + sim_below(1000), *size));
}

void sim_set_keys(struct sim_expect *e, uint32_t n)
{
    e->keys = sim_alloc(n * sizeof(*e->keys));
    e->n_keys = n;
}

/* Chooses a key: the client's own, or one that all clients write. */
static void choose_key(struct sim_client *c, struct sim_expect *e)
{
    const uint32_t i = sim_below(SIM_OWN_KEYS + 1);

    if (e->n_keys > 0)
        return; /* chosen */
    sim_set_keys(e, 1);
    e->own = i < SIM_OWN_KEYS ? &c->own[i] : NULL;
    e->keys[0] = e->own != NULL ? e->own->name : mr_slice_of(sim_text("h%u", sim_below(HOT_KEYS)));
}

/* Records the state of the own key after everything up to this request. */
static void remember(struct sim_expect *e)
{
    if (e->own == NULL)
        return;
    e->version = e->own->version;
    e->changes = e->own->changes;
    e->number = e->own->number;
    e->size = e->own->size;
    e->acknowledged = e->own->acknowledged;
}

void sim_plan_read(struct sim_client *c, struct sim_expect *e)
{
    choose_key(c, e);
    remember(e);
}

/* ---- changes ---- */

static bool takes_place(const struct sim_own_key *own, enum sim_change change)
{
    switch (change) {
    case SIM_SET:
        return true;
    case SIM_ADD:
        return own->version == 0;
    case SIM_CAS:
        return own->version != 0 && own->cas_changes == own->changes;
    case SIM_REPLACE:
    case SIM_APPEND:
    case SIM_DELETE:
    case SIM_TOUCH:
        break;
    }
    return own->version != 0;
}

/* Appends to the value as if it had been longer from the start. */
static void add_more(struct sim_client *c, struct sim_own_key *own, struct mr_slice tag,
                     size_t size)
{
    const size_t period = tag.len + 1;

    for (size_t i = own->size; i < own->size + size; i++)
        sim_bytes_add(&c->value, i % period < tag.len ? tag.at + i % period : "|", 1);
    own->appended = true;
}

static void change_own(struct sim_client *c, struct sim_expect *e, enum sim_change change)
{
    struct sim_own_key *own = e->own;
    const size_t size = change == SIM_APPEND ? sim_below(60) : sim_some_size(c);
    const uint32_t version = change == SIM_APPEND ? own->version : ++own->versions;
    const struct mr_slice tag =
        mr_slice_of(sim_text("%.*s#%u", (int)own->name.len, own->name.at, version));

    e->yes = takes_place(own, change);
    own->deleted |= change == SIM_DELETE;
    if (change == SIM_APPEND)
        add_more(c, own, tag, size);
    else if (change != SIM_DELETE && change != SIM_TOUCH)
        sim_bytes_add_value(&c->value, tag, size);
    if (e->yes && change != SIM_TOUCH) {
        own->changes++;
        own->size = change == SIM_APPEND ? own->size + size : size;
        own->version = change == SIM_DELETE ? 0 : version;
    }
    remember(e);
    e->version = version; /* of what was sent */
}

void sim_plan_change(struct sim_client *c, struct sim_expect *e, enum sim_change change)
{
    c->value.start = c->value.end = 0;
    choose_key(c, e);
    if (e->own != NULL) {
        change_own(c, e, change);
        return;
    }
    const struct mr_slice key = e->keys[0];
    if (change == SIM_DELETE || change == SIM_TOUCH || change == SIM_APPEND)
        return; /* nothing is appended to an unknown value */
    const char *tag =
        sim_text("%.*s#%u.%llu", (int)key.len, key.at, c->id, (unsigned long long)c->n_sent);
    sim_bytes_add_value(&c->value, mr_slice_of(tag), sim_some_size(c));
}

bool sim_plan_cas(struct sim_client *c, struct sim_expect *e)
{
    struct sim_own_key *own = &c->own[sim_below(SIM_OWN_KEYS)];

    if (own->cas == 0)
        return false;
    sim_set_keys(e, 1);
    e->own = own;
    e->keys[0] = own->name;
    sim_plan_change(c, e, SIM_CAS);
    return true;
}

static void choose_counter(struct sim_client *c, struct sim_expect *e)
{
    sim_set_keys(e, 1);
    e->own = &c->counter;
    e->keys[0] = c->counter.name;
}

void sim_plan_count(struct sim_client *c, struct sim_expect *e, bool down, uint64_t delta,
                    const uint64_t *initial)
{
    struct sim_own_key *own = &c->counter;

    choose_counter(c, e);
    e->yes = own->version != 0 || initial != NULL;
    if (own->version != 0)
        own->number =
            down ? own->number - (delta < own->number ? delta : own->number) : own->number + delta;
    else if (initial != NULL)
        own->number = *initial;
    own->version = e->yes;
    remember(e);
}

void sim_plan_counter(struct sim_client *c, struct sim_expect *e, uint64_t number)
{
    choose_counter(c, e);
    c->counter.number = number;
    c->counter.version = 1;
    e->yes = true;
    remember(e);
}

bool sim_sure(const struct sim_expect *e)
{
    return sim_strict && e->own != NULL && !e->own->uncertain;
}

/* It may or may not have happened. */
static void doubt(const struct sim_expect *e)
{
    if (e->own != NULL && (e->want == SIM_WANT_STORE || e->want == SIM_WANT_COUNT))
        e->own->uncertain = true;
}

void sim_check_change(const struct sim_client *c, const struct sim_expect *e, bool changed,
                      struct mr_slice reply)
{
    if (sim_sure(e) && changed != e->yes)
        sim_wrong(c, e, reply, changed ? "a change that cannot be" : "a change is refused");
    if (changed && e->own != NULL)
        e->own->acknowledged = e->version;
}

/* The oldest version that a read may return; 0: the key may be missing. */
static uint32_t least_version(const struct sim_expect *e)
{
    const struct sim_own_key *own = e->own;

    return sim_one_memory && own != NULL && !own->uncertain && !own->deleted ? e->acknowledged : 0;
}

void sim_check_count(const struct sim_client *c, const struct sim_expect *e, uint64_t number,
                     struct mr_slice reply)
{
    sim_check_change(c, e, true, reply);
    if (sim_sure(e) && number != e->number)
        sim_wrong(c, e, reply, "another number");
}

void sim_learn_cas(const struct sim_expect *e, uint64_t cas)
{
    if (e->own == NULL || cas == 0)
        return;
    e->own->cas = cas;
    e->own->cas_changes = e->changes;
}

/* ---- checks ---- */

void sim_check_made(const struct sim_client *c, const struct sim_expect *e, uint32_t i,
                    struct mr_slice value)
{
    size_t size;

    MR_CHECK(sim_key_size(e->keys[i], &size));
    if (value.len != size || !sim_is_value(value, e->keys[i]))
        sim_wrong(c, e, value, "another value");
}

void sim_check_miss(const struct sim_client *c, const struct sim_expect *e, const char *why)
{
    if (!sim_failure_is_miss || !sim_may_have_failed(e))
        sim_wrong(c, e, (struct mr_slice){"nothing", 7}, why);
}

void sim_check_stored(const struct sim_client *c, const struct sim_expect *e, struct mr_slice value)
{
    const struct mr_slice key = e->keys[0];
    const bool sure = sim_sure(e);
    uint32_t version = 0;

    if (value.at == NULL) {
        if ((sure && e->version != 0) || least_version(e) > 0)
            sim_check_miss(c, e, "a value is lost");
        return;
    }
    if (sure && (e->version == 0 || value.len != e->size))
        sim_wrong(c, e, value, "a value of another size");
    if (!sure && e->own != NULL && e->own->appended)
        return; /* another part of the value may follow */
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
    if (version < least_version(e))
        sim_wrong(c, e, value, "an old value");
    if (e->own != NULL && version > e->own->versions)
        sim_wrong(c, e, value, "a value that was never sent");
}

void sim_check_flags(const struct sim_client *c, const struct sim_expect *e, uint32_t flags,
                     struct mr_slice reply)
{
    if (e->want == SIM_WANT_STORED && sim_sure(e) && flags != e->version)
        sim_wrong(c, e, reply, "other flags");
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

/* The proxy has closed the connection. */
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

/* The first request got no reply: it is quiet, and succeeded. */
static void pass_over(struct sim_client *c)
{
    static const struct mr_slice NONE;
    const struct sim_expect *e = c->head;

    if (e->silent || e->excused) {
        if (e->excused || sim_may_have_failed(e))
            doubt(e);
    } else if (e->want == SIM_WANT_VALUES) {
        sim_check_miss(c, e, "a value is missing");
    } else if (e->want == SIM_WANT_STORED) {
        sim_check_stored(c, e, NONE);
    } else {
        sim_check_change(c, e, true, NONE);
    }
    pop(c);
}

/* An error arrived in a run of quiet requests, and does not say which one it belongs to. */
static void excuse_quiet(struct sim_client *c)
{
    for (struct sim_expect *e = c->head; e != NULL && e->optional; e = e->next)
        if (!e->silent) {
            e->excused = true;
            doubt(e);
        }
}

static void take_reply(struct sim_client *c, struct mr_slice reply)
{
    const struct sim_client_proto *proto = c->plan.proto;

    if (sim_may_refuse && mr_slice_eq(reply, mr_slice_of(proto->too_many))) {
        c->refused = true; /* at any time, because it may have been handed over */
        return;
    }
    if (proto->take_push != NULL && proto->take_push(c, reply))
        return;
    if (c->head != NULL && c->head->optional && !proto->names_errors && proto->is_error(reply))
        excuse_quiet(c);
    while (c->head != NULL && c->head->optional &&
           (c->head->silent || !proto->is_for(c->head, reply)))
        pass_over(c);
    SIM_CHECK(c->head != NULL, "client %u: a reply that nobody asked for: %.*s", c->id,
              (int)(reply.len < SHOWN ? reply.len : SHOWN), reply.at);
    struct sim_expect *e = c->head;
    if (proto->is_error(reply) && e->want != SIM_WANT_ERROR) {
        if (!sim_allows_error(e, reply))
            sim_wrong(c, e, reply, "an error for no reason");
        doubt(e);
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
        c->scanned = 0;
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
        sim_event_set(&c->reading,
                      c->plan.long_stops ? sim_between(STOP_US / 8, STOP_US)
                                         : sim_magnitude(1000, STOP_US),
                      read_on, c);
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

/* Records where the new requests end. */
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
        say_last(c); /* after the others, in the same write */
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

void sim_client_stop_reading(struct sim_client *c)
{
    if (!c->over && c->plan.stops > 0)
        sim_event_set(&c->reading, sim_between(STOP_US / 4, STOP_US), read_on, c);
}

void sim_plan_slow_reader(struct sim_client_plan *plan)
{
    plan->n_requests = sim_between(300, 1500);
    plan->depth = plan->burst = plan->n_requests;
    plan->think_us = 0;
    plan->size = sim_between(2000, 8000);
    plan->huge = 0;
    plan->read_bytes = sim_between(10000, 400000);
    plan->read_us = sim_between(100, 50000);
    plan->stops = sim_between(2, 20);
    plan->long_stops = true;
    plan->ending = SIM_END_CLOSE;
}

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
    c->counter.name = mr_slice_of(sim_text("n%u", c->id));
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
