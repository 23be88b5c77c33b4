/* command.c - the table of Redis commands, looked up by name. */
#include "proto/resp/command.h"

#include "core/check.h"
#include "core/metrics.h"

#define NAME_WORDS 3u /* 24 bytes: the longest name, and its length in the last byte */
#define SLOT_BITS  10u
#define SLOTS      (1u << SLOT_BITS)

#define NO_KEYS                               MR_RESP_NO_KEYS, 0, 0, 0
#define KEYS(first, last, step)               MR_RESP_KEYS, first, last, step
#define TOPICS(first, last, step)             MR_RESP_KEYS, first, last, step
#define NUM_KEYS(n, dest)                     MR_RESP_NUM_KEYS, n, dest, 0
#define STORE_KEYS(n)                         MR_RESP_STORE_KEYS, n, 0, 0
#define STREAM_KEYS                           MR_RESP_STREAM_KEYS, 0, 0, 0
#define SORT_KEYS                             MR_RESP_SORT_KEYS, 2, 0, 0
#define COPY_KEYS                             MR_RESP_COPY_KEYS, 1, 2, 1
#define MOVE_KEYS                             MR_RESP_MOVE_KEYS, 1, 1, 1
#define USAGE_KEYS                            MR_RESP_USAGE_KEYS, 2, 2, 1
#define MEITU                                 MR_RESP_MEITU
#define OPEN                                  MR_RESP_OPEN
#define QUEUED                                MR_RESP_QUEUED
#define ENDS                                  MR_RESP_ENDS
#define LISTENS                               MR_RESP_LISTENS
#define LOCAL(name, arity, traits, function)  X(name, arity, OTHER, traits, LOCAL, NO_KEYS)
#define FACADE(name, arity, traits, function) X(name, arity, OTHER, traits, FACADE, NO_KEYS)
#define X(...)                                ROW(__VA_ARGS__)
#define ROW(name, arity, class, traits, handling, ...)                                             \
    {name, arity, MR_CLASS_##class, traits, MR_RESP_##handling, __VA_ARGS__},

const struct mr_resp_command MR_RESP_COMMANDS[] = {
#include "proto/resp/commands.def"
};
const uint32_t MR_RESP_COMMAND_COUNT = MR_COUNT(MR_RESP_COMMANDS);

struct name {
    uint64_t words[NAME_WORDS];
};

_Static_assert(MR_RESP_NAME_BYTES == 8 * NAME_WORDS - 1, "a name and its length");

static struct {
    struct name names[SLOTS];
    const struct mr_resp_command *rows[SLOTS];
    int built;
} table; /* constant once built */

/* Lowercases ASCII, eight bytes at once. */
static uint64_t to_lower(uint64_t w)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t heptets = w & (0x7f * ones);
    const uint64_t above_z = heptets + (0x7f - 'Z') * ones;
    const uint64_t from_a = heptets + (0x80 - 'A') * ones;
    const uint64_t upper = ~w & (from_a ^ above_z) & (0x80 * ones);

    return w | upper >> 2;
}

static uint64_t load(const char *at, size_t len)
{
    uint64_t w = 0;

    if (len >= 8) {
        memcpy(&w, at, 8);
    } else if (len >= 4) { /* two overlapping loads */
        uint32_t low, high;
        memcpy(&low, at, 4);
        memcpy(&high, at + len - 4, 4);
        w = low | (uint64_t)high << 8 * (len - 4);
    } else {
        for (size_t i = 0; i < len; i++)
            w |= (uint64_t)(uint8_t)at[i] << 8 * i;
    }
    return to_lower(w);
}

static struct name fold(struct mr_slice s)
{
    struct name n = {{0}};

    for (size_t i = 0; i < NAME_WORDS && s.len > 8 * i; i++)
        n.words[i] = load(s.at + 8 * i, s.len - 8 * i);
    /* the length distinguishes names that end in zero bytes */
    n.words[NAME_WORDS - 1] |= (uint64_t)s.len << 56;
    return n;
}

static uint32_t slot_of(const struct name *n)
{
    const uint64_t mixed =
        (n->words[0] ^ n->words[1] * 31 ^ n->words[2] * 1021) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mixed >> (64 - SLOT_BITS));
}

static void build(void)
{
    for (uint32_t i = 0; i < MR_RESP_COMMAND_COUNT; i++) {
        const struct mr_resp_command *row = &MR_RESP_COMMANDS[i];
        const struct name n = fold(mr_slice_of(row->name));
        uint32_t slot = slot_of(&n);
        while (table.rows[slot] != NULL)
            slot = (slot + 1) % SLOTS;
        table.names[slot] = n;
        table.rows[slot] = row;
    }
    table.built = 1;
}

const struct mr_resp_command *mr_resp_command(struct mr_slice name)
{
    if (MR_UNLIKELY(!table.built))
        build();
    if (name.len > MR_RESP_NAME_BYTES || name.len == 0)
        return NULL;
    const struct name n = fold(name);
    for (uint32_t slot = slot_of(&n); table.rows[slot] != NULL; slot = (slot + 1) % SLOTS) {
        const struct name *have = &table.names[slot];
        if (have->words[0] == n.words[0] && have->words[1] == n.words[1] &&
            have->words[2] == n.words[2])
            return table.rows[slot];
    }
    return NULL;
}

const struct mr_resp_command *mr_resp_command_among(const struct mr_resp_command *rows, uint32_t n,
                                                    struct mr_slice name)
{
    for (uint32_t i = 0; i < n; i++)
        if (mr_slice_eq_nocase(name, rows[i].name))
            return &rows[i];
    return NULL;
}
