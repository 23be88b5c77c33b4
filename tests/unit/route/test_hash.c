/* test_hash.c - known values of every hash, including high bytes. (test_vectors.c has all rows.) */
#include "route/hash.h"
#include "unit/test.h"

static const char *const KEYS[] = {"a", "foo", "hello world", "\x80\xff\x00\x7f\xc3",
                                   "user:{1000}:profile"};
static const size_t LENGTHS[] = {1, 3, 11, 5, 19};

static void known_values(void **state)
{
    static const struct {
        const char *name;
        uint32_t want[5];
    } ROWS[] = {
        {"one_at_a_time", {0xca2e9442, 0x238678dd, 0x3e4a5a57, 0xe3ef16a9, 0x52ae3d3a}},
        {"md5", {0xb975c10c, 0xdb18bdac, 0xbb3bb65e, 0xfbef339f, 0xc85afbd8}},
        {"crc16", {0x00007c87, 0x0c3caf96, 0xf2063be4, 0x389d983b, 0x8a368296}},
        {"crc32", {0x000068b7, 0x00000c73, 0x00000d4a, 0x0000030b, 0x00006955}},
        {"crc32a", {0xe8b7be43, 0x8c736521, 0x0d4a1185, 0x030bb74d, 0xe9550092}},
        {"fnv1_64", {0x8601b7be, 0x6ba13533, 0xb1910e6f, 0xc0c03584, 0x675a5212}},
        {"fnv1a_64", {0x8601ec8c, 0xfed9d577, 0x023cd2e7, 0xc193a92a, 0x7226fdf0}},
        {"fnv1_32", {0x050c5d7e, 0x408f5e13, 0x548da96f, 0x066cdf04, 0x3cb05f92}},
        {"fnv1a_32", {0xe40c292c, 0xa9f37ed7, 0xd58b3fa7, 0x8245170a, 0x8d734850}},
        {"hsieh", {0x93642e87, 0x76d4d427, 0x4f799873, 0x8be4783d, 0xdfea975a}},
        {"murmur", {0x4b41757c, 0xc4e0338f, 0x5e19153b, 0xb54755ed, 0xb714f7fe}},
        {"jenkins", {0xe0a38690, 0x99f84f99, 0x153343fb, 0x1c3683ba, 0x79eba5d8}},
    };
    enum mr_hash h;

    (void)state;
    assert_int_equal(MR_COUNT(ROWS), MR_HASH_COUNT);
    for (size_t i = 0; i < MR_COUNT(ROWS); i++) {
        assert_true(mr_hash_by_name(mr_slice_of(ROWS[i].name), &h));
        for (size_t k = 0; k < MR_COUNT(KEYS); k++)
            assert_int_equal(mr_hash_function(h)(KEYS[k], LENGTHS[k]), ROWS[i].want[k]);
    }
}

RUN(T(known_values))
