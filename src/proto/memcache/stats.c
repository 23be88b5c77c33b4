/* stats.c - merges the statistics of several servers. */
#include "proto/memcache/stats.h"

#include "core/number.h"
#include "proto/memcache/binary.h"
#include "proto/memcache/internal.h"

#include <stdio.h>

static const char *const WORDS[] = {
    [MR_MC_STATS_GENERAL] = "",
    [MR_MC_STATS_ITEMS] = "items",
    [MR_MC_STATS_SLABS] = "slabs",
    [MR_MC_STATS_SIZES] = "sizes",
    [MR_MC_STATS_SETTINGS] = "settings",
    [MR_MC_STATS_RESET] = "reset",
    [MR_MC_STATS_SERVERS] = "servers",
    [MR_MC_STATS_PROXY] = "proxy",
    [MR_MC_STATS_DETAIL_ON] = "detail on",
    [MR_MC_STATS_DETAIL_OFF] = "detail off",
    [MR_MC_STATS_DETAIL_DUMP] = "detail dump",
};

enum mr_mc_stats mr_mc_stats_group(struct mr_slice word)
{
    for (unsigned i = 0; i < MR_COUNT(WORDS); i++)
        if (mr_slice_eq(word, mr_slice_of(WORDS[i])))
            return (enum mr_mc_stats)i;
    return MR_MC_STATS_UNKNOWN;
}

bool mr_mc_stats_local(enum mr_mc_stats stats)
{
    return stats == MR_MC_STATS_PROXY || stats == MR_MC_STATS_DETAIL_ON ||
           stats == MR_MC_STATS_DETAIL_OFF || stats == MR_MC_STATS_DETAIL_DUMP;
}

const char *mr_mc_stats_ask(enum mr_mc_stats stats)
{
    return stats == MR_MC_STATS_SERVERS ? "" : WORDS[stats];
}

void mr_mc_put_stat(uint64_t ticket, struct mr_slice name, struct mr_slice value,
                    struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_mc_ticket t = mr_mc_unpack(ticket);

    if (t.reply == MR_MC_PACKET) {
        mr_mc_put_packet(out, slab, t.verb, MR_MC_OK, t.opaque, name, value);
        return;
    }
    mr_buf_put(out, slab, "STAT ", 5);
    mr_buf_put(out, slab, name.at, name.len);
    mr_buf_put(out, slab, " ", 1);
    mr_buf_put(out, slab, value.at, value.len);
    mr_buf_put(out, slab, "\r\n", 2);
}

void mr_mc_end_stats(uint64_t ticket, struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_mc_ticket t = mr_mc_unpack(ticket);
    const struct mr_slice none = {NULL, 0};

    if (t.reply == MR_MC_PACKET)
        mr_mc_put_packet(out, slab, t.verb, MR_MC_OK, t.opaque, none, none);
    else
        mr_buf_put(out, slab, "END\r\n", 5);
}

/* Iterates over the statistics in a server's reply, which was checked on arrival. */
static bool next(bool binary, struct mr_slice *left, struct mr_slice *name, struct mr_slice *value)
{
    const char *p = left->at;

    if (binary) {
        const struct mr_mc_header h = mr_mc_read_header(p);
        const char *body = p + MR_MC_HEADER + h.extras_len;
        if (!mr_mc_goes_on(&h))
            return false;
        *name = (struct mr_slice){body, h.key_len};
        *value = (struct mr_slice){body + h.key_len, h.body_len - h.key_len - h.extras_len};
        p += MR_MC_HEADER + h.body_len;
    } else {
        const char *nl = memchr(p, '\n', left->len);
        if (left->len < 5 || memcmp(p, "STAT ", 5) != 0)
            return false;
        const char *at = p + 5;
        (void)mr_mc_word(&at, nl - 1, name);
        at += at < nl - 1;
        *value = (struct mr_slice){at, (size_t)(nl - 1 - at)};
        p = nl + 1;
    }
    *left = (struct mr_slice){p, left->len - (size_t)(p - left->at)};
    return true;
}

enum kind { WHOLE, MILLIONTHS, OTHER };

/* One statistic of one server. The first row of a name represents it for all servers. */
struct row {
    struct mr_slice name;
    struct mr_slice value;
    uint64_t sum;  /* first row: sum of whole numbers, or of millionths */
    uint32_t next; /* row of the same name from another server; 0 for none */
    uint32_t last; /* first row: last row of the same name */
    enum kind kind;
    bool first;
    bool differs;
};

/* All rows in order, and an index of first rows by name. */
struct table {
    struct row *rows; /* row 0 is unused */
    uint32_t *slots;  /* size is a power of two; at least half are empty */
    uint32_t n, n_slots;
};

/* Numbers that make sense only for one server. */
static bool is_single(struct mr_slice name)
{
    static const char *const NAMES[] = {"pid", "uptime", "time", "pointer_size"};

    for (size_t i = 0; i < MR_COUNT(NAMES); i++)
        if (mr_slice_eq(name, mr_slice_of(NAMES[i])))
            return true;
    return false;
}

static enum kind read_number(struct mr_slice value, uint64_t *v)
{
    const char *dot = memchr(value.at, '.', value.len);
    uint64_t whole, part;

    if (mr_parse_uint(value, UINT64_MAX >> 12, v))
        return WHOLE;
    if (dot == NULL || value.at + value.len - dot != 7)
        return OTHER;
    if (!mr_parse_uint((struct mr_slice){value.at, (size_t)(dot - value.at)}, 1u << 30, &whole) ||
        !mr_parse_uint((struct mr_slice){dot + 1, 6}, 999999, &part))
        return OTHER;
    *v = whole * 1000000 + part;
    return MILLIONTHS;
}

static uint32_t hash(struct mr_slice name)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < name.len; i++)
        h = (h ^ (uint8_t)name.at[i]) * 16777619u;
    return h;
}

/* The slot of the name, or an empty one for a new name. */
static uint32_t *find(const struct table *t, struct mr_slice name)
{
    uint32_t i = hash(name);

    for (;; i++) {
        uint32_t *slot = &t->slots[i & (t->n_slots - 1)];
        if (*slot == 0 || mr_slice_eq(t->rows[*slot].name, name))
            return slot;
    }
}

static void add(struct table *t, struct mr_slice name, struct mr_slice value, bool sums)
{
    const uint32_t number = t->n++;
    uint32_t *slot = find(t, name);
    uint64_t v = 0;
    const enum kind kind = !sums || is_single(name) ? OTHER : read_number(value, &v);

    t->rows[number] = (struct row){
        .name = name, .value = value, .sum = v, .last = number, .kind = kind, .first = *slot == 0};
    if (*slot == 0) {
        *slot = number;
        return;
    }
    struct row *row = &t->rows[*slot];
    t->rows[row->last].next = number;
    row->last = number;
    row->differs |= !mr_slice_eq(row->value, value);
    if (row->kind != kind)
        row->kind = OTHER;
    row->sum += v;
}

static struct mr_slice reply_of(const struct mr_plan *plan, uint32_t part)
{
    return plan->parts[part].reply;
}

/* Lists the values of all servers if they differ and are not numbers to be summed. */
static void put_all(const struct mr_plan *plan, const struct table *t, const struct row *row,
                    struct mr_slab *slab, struct mr_buf *out)
{
    struct mr_buf all = {0};

    for (const struct row *r = row;; r = &t->rows[r->next]) {
        mr_buf_put(&all, slab, r->value.at, r->value.len);
        if (r->next == 0)
            break;
        mr_buf_put(&all, slab, ",", 1);
    }
    if (mr_buf_failed(&all))
        mr_buf_fail(out, slab);
    else
        mr_mc_put_stat(plan->ticket, row->name, mr_buf_slice(&all), slab, out);
    mr_buf_clear(&all, slab);
}

static void put_row(const struct mr_plan *plan, const struct table *t, const struct row *row,
                    struct mr_slab *slab, struct mr_buf *out)
{
    char text[48];
    int n;

    if (row->kind == OTHER && row->differs && !is_single(row->name)) {
        put_all(plan, t, row, slab, out);
        return;
    }
    if (row->kind == WHOLE)
        n = snprintf(text, sizeof(text), "%llu", (unsigned long long)row->sum);
    else
        n = snprintf(text, sizeof(text), "%llu.%06llu", (unsigned long long)(row->sum / 1000000),
                     (unsigned long long)(row->sum % 1000000));
    mr_mc_put_stat(plan->ticket, row->name,
                   row->kind == OTHER ? row->value : (struct mr_slice){text, (size_t)n}, slab, out);
}

/* Appends the first reply that is not a list of statistics: an error, or RESET. */
static bool put_other(const struct mr_plan *plan, bool binary, struct mr_slab *slab,
                      struct mr_buf *out)
{
    for (uint32_t i = 0; i < plan->n_parts; i++) {
        const struct mr_slice r = reply_of(plan, i);
        if (plan->parts[i].failure != NULL)
            continue;
        const bool list = binary ? mr_mc_read_header(r.at).status == MR_MC_OK &&
                                       mr_mc_unpack(plan->ticket).stats != MR_MC_STATS_RESET
                                 : mr_mc_starts(r, "STAT ") || mr_mc_starts(r, "END\r\n");
        if (!list) {
            mr_buf_put(out, slab, r.at, r.len);
            return true;
        }
    }
    return false;
}

static void put_each(const struct mr_plan *plan, bool binary, struct mr_slab *slab,
                     struct mr_buf *out)
{
    char text[600];
    struct mr_slice name, value;

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        struct mr_slice left = reply_of(plan, i);
        while (plan->parts[i].failure == NULL && next(binary, &left, &name, &value)) {
            const int n = snprintf(text, sizeof(text), "%.250s:%.*s", plan->parts[i].name,
                                   (int)(name.len < 250 ? name.len : 250), name.at);
            for (int k = 0; k < n; k++) /* a server's name may contain blanks */
                text[k] = text[k] == ' ' ? '_' : text[k];
            mr_mc_put_stat(plan->ticket, (struct mr_slice){text, (size_t)n}, value, slab, out);
        }
    }
}

static uint32_t count_rows(const struct mr_plan *plan, bool binary)
{
    struct mr_slice name, value;
    uint32_t n = 0;

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        struct mr_slice left = reply_of(plan, i);
        while (plan->parts[i].failure == NULL && next(binary, &left, &name, &value))
            n++;
    }
    return n;
}

static void put_merged(const struct mr_plan *plan, bool binary, struct mr_slab *slab,
                       struct mr_buf *out)
{
    const bool sums = mr_mc_unpack(plan->ticket).stats != MR_MC_STATS_SETTINGS;
    const uint32_t capacity = 1 + count_rows(plan, binary);
    struct table t = {.n = 1, .n_slots = 2};
    struct mr_slice name, value;

    while (t.n_slots < 2 * capacity)
        t.n_slots *= 2;
    t.rows = mr_slab_try(slab, capacity * sizeof(*t.rows));
    t.slots = mr_slab_try(slab, t.n_slots * sizeof(*t.slots));
    if (t.rows == NULL || t.slots == NULL) {
        mr_buf_fail(out, slab);
        goto put;
    }
    memset(t.slots, 0, t.n_slots * sizeof(*t.slots));
    for (uint32_t i = 0; i < plan->n_parts; i++) {
        struct mr_slice left = reply_of(plan, i);
        while (plan->parts[i].failure == NULL && next(binary, &left, &name, &value))
            add(&t, name, value, sums);
    }
    for (uint32_t i = 1; i < t.n; i++)
        if (t.rows[i].first)
            put_row(plan, &t, &t.rows[i], slab, out);
put:
    mr_slab_put(slab, t.slots, t.n_slots * sizeof(*t.slots));
    mr_slab_put(slab, t.rows, capacity * sizeof(*t.rows));
}

void mr_mc_join_stats(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_mc_ticket t = mr_mc_unpack(plan->ticket);
    const bool binary = t.reply == MR_MC_PACKET;
    uint32_t failed = 0;
    char number[20];

    if (put_other(plan, binary, slab, out))
        return;
    if (t.stats == MR_MC_STATS_SERVERS)
        put_each(plan, binary, slab, out);
    else
        put_merged(plan, binary, slab, out);
    for (uint32_t i = 0; i < plan->n_parts; i++)
        failed += plan->parts[i].failure != NULL;
    if (failed > 0)
        mr_mc_put_stat(plan->ticket, mr_slice_of("millrace_servers_failed"),
                       (struct mr_slice){number, mr_format_uint(number, failed)}, slab, out);
    mr_mc_end_stats(plan->ticket, slab, out);
}
