/* client_binary.c - scripted clients of memcached's binary protocol. */
#include "client.h"

#include "proto/memcache/binary.h"

#include <arpa/inet.h>
#include <endian.h>
#include <string.h>

#define QUIET_MAX  8u
#define NEVER_MADE UINT32_MAX /* expiry time of a counter that must not be created */
#define NOT_STORED 5u
#define EXISTS     2u

/* ---- requests ---- */

struct packet {
    uint8_t opcode;
    char extras[20];
    uint8_t extras_len;
    struct mr_slice key, value;
    uint64_t cas;
};

static void put_narrow(struct packet *p, uint32_t n)
{
    n = htonl(n);
    memcpy(p->extras + p->extras_len, &n, 4);
    p->extras_len = (uint8_t)(p->extras_len + 4);
}

static void put_wide(struct packet *p, uint64_t n)
{
    n = htobe64(n);
    memcpy(p->extras + p->extras_len, &n, 8);
    p->extras_len = (uint8_t)(p->extras_len + 8);
}

/* `too_long`: contradictory lengths. */
static void send_packet(struct sim_client *c, struct sim_expect *e, const struct packet *p,
                        bool too_long)
{
    char head[MR_MC_HEADER] = {(char)MR_MC_REQUEST_MAGIC, (char)p->opcode};
    const size_t body = p->extras_len + p->key.len + p->value.len;
    const uint16_t key_len = htons((uint16_t)(p->key.len + too_long));
    const uint32_t body_len = htonl((uint32_t)body);
    const uint64_t cas = htobe64(p->cas);

    e->opcode = p->opcode;
    e->opaque = htonl(++c->opaque);
    e->reply_bytes += MR_MC_HEADER;
    memcpy(head + 2, &key_len, 2);
    head[4] = (char)p->extras_len;
    memcpy(head + 8, &body_len, 4);
    memcpy(head + 12, &e->opaque, 4);
    memcpy(head + 16, &cas, 8);
    sim_bytes_add(&c->out, head, sizeof(head));
    sim_bytes_add(&c->out, p->extras, p->extras_len);
    sim_bytes_add(&c->out, p->key.at, p->key.len);
    sim_bytes_add(&c->out, p->value.at, p->value.len);
}

static void get(struct sim_client *c, bool quiet)
{
    static const uint8_t OPCODES[2][4] = {{MR_MC_GET, MR_MC_GETK, MR_MC_GAT, MR_MC_GATK},
                                          {MR_MC_GETQ, MR_MC_GETKQ, MR_MC_GATQ, MR_MC_GATKQ}};
    const bool made = sim_once_in(2);
    struct sim_expect *e = sim_expect_add(c, made ? SIM_WANT_VALUES : SIM_WANT_STORED);
    const uint32_t kind = sim_below(4);
    struct packet p = {.opcode = OPCODES[quiet][kind]};

    e->optional = quiet;
    e->reply_bytes = c->plan.size;
    if (made) {
        sim_set_keys(e, 1);
        e->keys[0] = sim_made_key(c, SIZE_MAX, &e->reply_bytes);
    } else {
        sim_plan_read(c, e);
    }
    if (kind > 1)
        put_narrow(&p, 0);
    p.key = e->keys[0];
    send_packet(c, e, &p, false);
}

static void change(struct sim_client *c, bool quiet)
{
    static const uint8_t OPCODES[2][SIM_TOUCH + 1] = {
        {MR_MC_SET, MR_MC_ADD, MR_MC_REPLACE, MR_MC_APPEND, MR_MC_SET, MR_MC_DELETE, MR_MC_TOUCH},
        {MR_MC_SETQ, MR_MC_ADDQ, MR_MC_REPLACEQ, MR_MC_APPENDQ, MR_MC_SETQ, MR_MC_DELETEQ, 0}};
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_STORE);
    enum sim_change how = sim_once_in(2) ? SIM_SET : (enum sim_change)sim_below(SIM_TOUCH + !quiet);
    struct packet p = {0};

    e->optional = quiet;
    if (how == SIM_CAS && !sim_plan_cas(c, e))
        how = SIM_SET;
    if (how == SIM_CAS)
        p.cas = e->own->cas;
    else
        sim_plan_change(c, e, how);
    p.opcode = OPCODES[quiet][how];
    p.key = e->keys[0];
    if (how == SIM_TOUCH)
        put_narrow(&p, 100);
    else if (how != SIM_APPEND && how != SIM_DELETE) {
        put_narrow(&p, e->own != NULL ? e->version : 0);
        put_narrow(&p, 0);
    }
    if (how != SIM_TOUCH && how != SIM_DELETE)
        p.value = sim_bytes_slice(&c->value);
    send_packet(c, e, &p, false);
}

static void count(struct sim_client *c, bool quiet)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_COUNT);
    const uint64_t delta = sim_below(1000), initial = sim_below(1000);
    const bool makes = sim_once_in(2), down = sim_once_in(3);
    struct packet p = {.opcode = down ? MR_MC_DECR : MR_MC_INCR};

    if (quiet)
        p.opcode = down ? MR_MC_DECRQ : MR_MC_INCRQ;
    e->optional = quiet;
    sim_plan_count(c, e, down, delta, makes ? &initial : NULL);
    put_wide(&p, delta);
    put_wide(&p, initial);
    put_narrow(&p, makes ? 0 : NEVER_MADE);
    p.key = e->keys[0];
    send_packet(c, e, &p, false);
}

static void bare(struct sim_client *c, uint8_t opcode, const char *said)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_TEXT);
    const struct packet p = {.opcode = opcode};

    e->text = said;
    send_packet(c, e, &p, false);
}

static void refused(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_ERROR);
    struct packet p = {.opcode = 0x40, .key = mr_slice_of("k"), .value = mr_slice_of("value")};

    if (sim_once_in(3))
        p = (struct packet){.opcode = MR_MC_GETQ, .key = mr_slice_of("k\r\nversion\r\n")};
    else if (sim_once_in(2))
        p = (struct packet){.opcode = MR_MC_FLUSH};
    send_packet(c, e, &p, false);
}

/* A value that the proxy skips. */
static void too_large(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_ERROR);
    struct packet p = {.opcode = MR_MC_SET, .key = mr_slice_of("large")};

    c->value.start = c->value.end = 0;
    sim_bytes_add_value(&c->value, mr_slice_of("x"),
                        c->plan.pool->max_item_bytes + 1 + sim_below(1000));
    p.value = sim_bytes_slice(&c->value);
    put_wide(&p, 0);
    send_packet(c, e, &p, false);
}

static void one(struct sim_client *c, bool quiet)
{
    switch (sim_below(8)) {
    case 0:
        count(c, quiet);
        break;
    case 1:
    case 2:
    case 3:
        change(c, quiet);
        break;
    default:
        get(c, quiet);
        break;
    }
}

static void request(struct sim_client *c)
{
    const uint32_t dice = sim_below(24);

    if (dice == 0) {
        bare(c, MR_MC_VERSION, "1.6.18");
    } else if (dice == 1) {
        bare(c, MR_MC_STAT, NULL);
    } else if (dice == 2) {
        refused(c);
    } else if (dice == 3 && c->plan.huge > 0 && c->plan.pool->max_item_bytes < 1000000) {
        too_large(c);
    } else if (dice < 8) {
        for (uint32_t n = sim_between(1, QUIET_MAX); n > 0; n--)
            one(c, true);
        if (!sim_once_in(4)) /* not every run of quiet requests ends with one */
            bare(c, MR_MC_NOOP, "");
    } else {
        one(c, false);
    }
}

static void quit(struct sim_client *c)
{
    if (sim_once_in(2)) {
        bare(c, MR_MC_QUIT, "");
        return;
    }
    struct sim_expect none = {0};
    const struct packet p = {.opcode = MR_MC_QUITQ};
    send_packet(c, &none, &p, false);
}

static void garbage(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_ERROR);
    const struct packet p = {.opcode = MR_MC_GET, .key = mr_slice_of("k")};

    if (c->n_sent > 0 && sim_once_in(2)) { /* not a packet: the opcode is not read */
        sim_bytes_addf(&c->out, "get k\r\n");
        e->reply_bytes = MR_MC_HEADER;
        return;
    }
    send_packet(c, e, &p, true);
}

/* ---- replies ---- */

static size_t length(struct sim_client *c, struct mr_slice in)
{
    size_t at = 0;

    if (in.at[0] == 'S') { /* one client too many, in an unknown dialect */
        const char *nl = memchr(in.at, '\n', in.len);
        return nl != NULL ? (size_t)(nl - in.at) + 1 : 0;
    }
    for (;;) {
        if (in.len - at < MR_MC_HEADER)
            return 0;
        const struct mr_mc_header h = mr_mc_read_header(in.at + at);
        SIM_CHECK(h.magic == MR_MC_REPLY_MAGIC, "client %u: what is no packet", c->id);
        SIM_CHECK(h.key_len + h.extras_len <= h.body_len, "client %u: a packet of bad lengths",
                  c->id);
        at += MR_MC_HEADER + (size_t)h.body_len;
        if (at > in.len)
            return 0;
        if (!mr_mc_goes_on(&h))
            return at;
    }
}

static bool is_for(const struct sim_expect *e, struct mr_slice reply)
{
    return mr_mc_read_header(reply.at).opaque == e->opaque;
}

static bool is_error(struct mr_slice reply)
{
    if (reply.at[0] == 'S')
        return true;
    switch (mr_mc_read_header(reply.at).status) {
    case MR_MC_OK:
    case MR_MC_NOT_FOUND:
    case EXISTS:
    case NOT_STORED:
        return false;
    default:
        return true;
    }
}

static void check_found(const struct sim_client *c, const struct sim_expect *e,
                        const struct mr_mc_header *h, struct mr_slice reply)
{
    const struct mr_slice key = {reply.at + MR_MC_HEADER + h->extras_len, h->key_len};
    struct mr_slice value = {key.at + key.len, h->body_len - h->extras_len - h->key_len};
    const uint8_t aloud = mr_mc_aloud(e->opcode);
    const bool with_key = aloud == MR_MC_GETK || aloud == MR_MC_GATK;
    const bool found = h->status == MR_MC_OK;
    uint32_t flags = 0;
    uint64_t cas;

    if (!found && h->status != MR_MC_NOT_FOUND)
        sim_wrong(c, e, reply, "another status");
    if (key.len > 0 ? !with_key || !mr_slice_eq(key, e->keys[0]) : with_key && found)
        sim_wrong(c, e, reply, "another key");
    if (found) {
        if (h->extras_len != 4)
            sim_wrong(c, e, reply, "a value without flags");
        memcpy(&flags, reply.at + MR_MC_HEADER, 4);
        memcpy(&cas, reply.at + 16, 8);
        sim_check_flags(c, e, ntohl(flags), reply);
        sim_learn_cas(e, be64toh(cas));
    } else {
        value = (struct mr_slice){NULL, 0};
    }
    if (e->want == SIM_WANT_STORED)
        sim_check_stored(c, e, value);
    else if (found)
        sim_check_made(c, e, 0, value);
    else
        sim_check_miss(c, e, "a value is missing");
}

static void check_change(const struct sim_client *c, const struct sim_expect *e,
                         const struct mr_mc_header *h, struct mr_slice reply)
{
    if (h->status == MR_MC_OK && h->body_len > 0)
        sim_wrong(c, e, reply, "a reply with a body");
    sim_check_change(c, e, h->status == MR_MC_OK, reply);
}

static void check_count(const struct sim_client *c, const struct sim_expect *e,
                        const struct mr_mc_header *h, struct mr_slice reply)
{
    uint64_t number;

    if (h->status != MR_MC_OK) {
        sim_check_change(c, e, false, reply);
        return;
    }
    if (h->body_len != sizeof(number))
        sim_wrong(c, e, reply, "no number");
    memcpy(&number, reply.at + MR_MC_HEADER, sizeof(number));
    sim_check_count(c, e, be64toh(number), reply);
}

static void check(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    const struct mr_mc_header h = mr_mc_read_header(reply.at);
    const struct mr_slice body = {reply.at + MR_MC_HEADER, reply.len - MR_MC_HEADER};

    if (h.opaque != e->opaque || (h.opcode != e->opcode && e->want != SIM_WANT_ERROR))
        sim_wrong(c, e, reply, "the reply to another request");
    switch (e->want) {
    case SIM_WANT_TEXT:
        if (h.status != MR_MC_OK || (e->text != NULL && !mr_slice_eq(body, mr_slice_of(e->text))))
            sim_wrong(c, e, reply, "another reply");
        break;
    case SIM_WANT_START:
        break;
    case SIM_WANT_VALUES:
    case SIM_WANT_STORED:
        check_found(c, e, &h, reply);
        break;
    case SIM_WANT_STORE:
        check_change(c, e, &h, reply);
        break;
    case SIM_WANT_COUNT:
        check_count(c, e, &h, reply);
        break;
    case SIM_WANT_MAYBE:
    case SIM_WANT_TOPIC:
    case SIM_WANT_ERROR:
        if (!is_error(reply))
            sim_wrong(c, e, reply, "no error");
        break;
    }
}

const struct sim_client_proto SIM_CLIENT_BINARY = {
    .too_many = "SERVER_ERROR too many clients\r\n",
    .request = request,
    .quit = quit,
    .garbage = garbage,
    .length = length,
    .is_for = is_for,
    .is_error = is_error,
    .names_errors = true,
    .check = check,
};
