/* test_ring.c - hash tags, ring shares, and known points. */
#include "route/hash.h"
#include "route/ring.h"
#include "unit/test.h"

static struct mr_ring_member *equal_members(uint32_t n)
{
    static char names[512][32];
    static struct mr_ring_member members[512];

    for (uint32_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof(names[i]), "127.0.0.1:%u", 17001 + i);
        members[i] = (struct mr_ring_member){mr_slice_of(names[i]), 1, true};
    }
    return members;
}

static uint32_t share_of(const struct mr_ring *ring, uint32_t index)
{
    uint32_t *shares = mr_ring_shares(ring, 64);
    const uint32_t share = shares[index];

    free(shares);
    return share;
}

static void tags(void **state)
{
    static const struct {
        const char *key, *tag, *want;
    } CASES[] = {
        {"user:{1000}:x", "{}", "1000"},
        {"{}{a}", "{}", "{}{a}"},
        {"{{a}}", "{}", "{a"},
        {"abc", "{}", "abc"},
        {"a{b", "{}", "a{b"},
        {"a}b{c}", "{}", "c"},
        {"$x$y", "$$", "x"},
        {"$$", "$$", "$$"},
        {"{", "{}", "{"},
        {"{a}", NULL, "{a}"},
        {"", "{}", ""},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        const struct mr_slice got = mr_hash_tag(mr_slice_of(CASES[i].key), CASES[i].tag);
        assert_true(mr_slice_eq(got, mr_slice_of(CASES[i].want)));
    }
}

/* Single-precision rounding: these numbers of equal servers lose a hash each. */
static void rounds_as_the_original(void **state)
{
    struct mr_ring ring;
    struct mr_error err;

    (void)state;
    for (uint32_t n = 1; n <= 60; n++) {
        const bool short_one = n == 25 || n == 47 || n == 50 || n == 55;
        assert_int_equal(mr_ring_build(&ring, MR_DIST_KETAMA, equal_members(n), n, &err), MR_OK);
        assert_int_equal(share_of(&ring, 0), short_one ? 156 : 160);
        assert_int_equal(ring.n_points, n * (short_one ? 156 : 160));
        mr_ring_free(&ring);
    }
}

static void weights_share_the_ring(void **state)
{
    static const struct {
        uint32_t n, weights[5], shares[5];
    } CASES[] = {
        {5, {1, 2, 3, 4, 5}, {52, 104, 160, 212, 264}},
        {2, {10, 1}, {288, 28}},
        {2, {100000, 1}, {316, 0}},
    };
    struct mr_ring ring;
    struct mr_error err;

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        struct mr_ring_member *m = equal_members(CASES[i].n);
        for (uint32_t j = 0; j < CASES[i].n; j++)
            m[j].weight = CASES[i].weights[j];
        assert_int_equal(mr_ring_build(&ring, MR_DIST_KETAMA, m, CASES[i].n, &err), MR_OK);
        for (uint32_t j = 0; j < CASES[i].n; j++)
            assert_int_equal(share_of(&ring, j), CASES[i].shares[j]);
        mr_ring_free(&ring);
    }
}

static void known_points(void **state)
{
    static const struct mr_ring_point FIRST[] = {
        {0x0009282c, 1}, {0x00baaa6d, 1}, {0x00bb1bc9, 2}, {0x017c0605, 0}};
    struct mr_ring ring;
    struct mr_error err;

    (void)state;
    assert_int_equal(mr_ring_build(&ring, MR_DIST_KETAMA, equal_members(5), 5, &err), MR_OK);
    assert_int_equal(ring.n_points, 800);
    for (size_t i = 0; i < MR_COUNT(FIRST); i++) {
        assert_int_equal(ring.points[i].value, FIRST[i].value);
        assert_int_equal(ring.points[i].index, FIRST[i].index);
    }
    assert_int_equal(ring.points[798].value, 0xffe17fd8);
    assert_int_equal(ring.points[799].value, 0xfff719a6);
    /* at a point, just above it, and past the last one */
    assert_int_equal(mr_ring_pick(&ring, 0x0009282c, 0), 1);
    assert_int_equal(mr_ring_pick(&ring, 0x00bb1bca, 0), 0);
    assert_int_equal(mr_ring_pick(&ring, 0xfff719a7, 0), 1);
    mr_ring_free(&ring);
}

static void long_names_are_cut(void **state)
{
    char name[400];
    struct mr_ring_member m[2] = {{{name, 300}, 1, true}, {mr_slice_of("b"), 1, true}};
    struct mr_ring ring;
    struct mr_error err;

    (void)state;
    memset(name, 'n', sizeof(name));
    assert_int_equal(mr_ring_build(&ring, MR_DIST_KETAMA, m, 2, &err), MR_OK);
    assert_int_equal(share_of(&ring, 0), 160);
    mr_ring_free(&ring);
}

static void modula_by_weight(void **state)
{
    struct mr_ring_member *m = equal_members(3);
    struct mr_ring ring;
    struct mr_error err;

    (void)state;
    m[0].weight = 1;
    m[1].weight = 99999999; /* costs no memory */
    m[2].weight = 2;
    assert_int_equal(mr_ring_build(&ring, MR_DIST_MODULA, m, 3, &err), MR_OK);
    assert_int_equal(mr_ring_pick(&ring, 0, 0), 0);
    assert_int_equal(mr_ring_pick(&ring, 1, 0), 1);
    assert_int_equal(mr_ring_pick(&ring, 99999999, 0), 1);
    assert_int_equal(mr_ring_pick(&ring, 100000000, 0), 2);
    assert_int_equal(mr_ring_pick(&ring, 100000001, 0), 2);
    assert_int_equal(mr_ring_pick(&ring, 100000002, 0), 0);
    mr_ring_free(&ring);
    m[0].weight = m[1].weight = m[2].weight = INT32_MAX;
    assert_int_equal(mr_ring_build(&ring, MR_DIST_MODULA, m, 3, &err), MR_ELIMIT);
}

/* The first point at or after a value, found by looking at all of them. */
static uint32_t walk_to(const struct mr_ring *ring, uint32_t value)
{
    for (uint32_t i = 0; i < ring->n_points; i++)
        if (ring->points[i].value >= value)
            return ring->points[i].index;
    return ring->points[0].index;
}

static void finds_what_a_walk_finds(void **state)
{
    static const uint32_t SIZES[] = {1, 2, 3, 7, 64, 300};
    struct mr_ring ring;
    struct mr_error err;
    uint32_t value = 1;

    (void)state;
    for (size_t s = 0; s < MR_COUNT(SIZES); s++) {
        struct mr_ring_member *m = equal_members(SIZES[s]);
        for (uint32_t i = 0; i < SIZES[s]; i++)
            m[i].weight = i % 5 == 0 ? 1000 : 1 + i;
        assert_int_equal(mr_ring_build(&ring, MR_DIST_KETAMA, m, SIZES[s], &err), MR_OK);
        for (uint32_t i = 0; i < 3000; i++) {
            value = value * 1664525u + 1013904223u;
            const uint32_t near = ring.points[value % ring.n_points].value;
            assert_int_equal(mr_ring_pick(&ring, value, 0), walk_to(&ring, value));
            assert_int_equal(mr_ring_pick(&ring, near, 0), walk_to(&ring, near));
            assert_int_equal(mr_ring_pick(&ring, near + 1, 0), walk_to(&ring, near + 1));
        }
        assert_int_equal(mr_ring_pick(&ring, 0, 0), walk_to(&ring, 0));
        assert_int_equal(mr_ring_pick(&ring, UINT32_MAX, 0), walk_to(&ring, UINT32_MAX));
        mr_ring_free(&ring);
        assert_int_equal(mr_ring_build(&ring, MR_DIST_MODULA, m, SIZES[s], &err), MR_OK);
        for (uint32_t slot = 0; slot < ring.total; slot++)
            assert_int_equal(mr_ring_pick(&ring, slot, 0), walk_to(&ring, slot + 1));
        mr_ring_free(&ring);
    }
}

static void random_uses_live_servers_only(void **state)
{
    struct mr_ring_member *m = equal_members(4);
    unsigned seen[4] = {0};
    struct mr_ring ring;
    struct mr_error err;

    (void)state;
    m[2].live = false;
    assert_int_equal(mr_ring_build(&ring, MR_DIST_RANDOM, m, 4, &err), MR_OK);
    for (uint32_t i = 0; i < 300; i++)
        seen[mr_ring_pick(&ring, 12345, i)]++;
    assert_true(seen[0] == 100 && seen[1] == 100 && seen[2] == 0 && seen[3] == 100);
    mr_ring_free(&ring);
}

static void empty_when_nobody_lives(void **state)
{
    struct mr_ring_member *m = equal_members(1);
    struct mr_ring ring;
    struct mr_error err;

    (void)state;
    m[0].live = false;
    for (int d = MR_DIST_KETAMA; d <= MR_DIST_RANDOM; d++) {
        assert_int_equal(mr_ring_build(&ring, (enum mr_distribution)d, m, 1, &err), MR_OK);
        assert_int_equal(ring.n_points, 0);
        mr_ring_free(&ring);
    }
}

static void names(void **state)
{
    enum mr_distribution d;
    enum mr_hash h;

    (void)state;
    assert_true(mr_distribution_by_name(mr_slice_of("random"), &d) && d == MR_DIST_RANDOM);
    assert_false(mr_distribution_by_name(mr_slice_of("Ketama"), &d));
    for (int i = 0; i < MR_HASH_COUNT; i++)
        assert_true(mr_hash_by_name(mr_slice_of(mr_hash_name((enum mr_hash)i)), &h) && (int)h == i);
    assert_false(mr_hash_by_name(mr_slice_of("crc"), &h));
}

RUN(T(tags), T(rounds_as_the_original), T(weights_share_the_ring), T(known_points),
    T(long_names_are_cut), T(modula_by_weight), T(finds_what_a_walk_finds),
    T(random_uses_live_servers_only), T(empty_when_nobody_lives), T(names))
