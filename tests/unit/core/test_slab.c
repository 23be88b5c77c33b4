/* test_slab.c - size classes, accounting and trimming. */
#include "core/slab.h"
#include "unit/test.h"

static void rounds_to_classes(void **state)
{
    static const size_t CASES[][2] = {{1, 64},      {64, 64},         {65, 128},
                                      {1024, 1024}, {1025, 2048},     {2048, 2048},
                                      {2049, 4096}, {131072, 131072}, {131073, 131073}};

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++)
        assert_int_equal(mr_slab_round(CASES[i][0]), CASES[i][1]);
}

static void gives_every_size_back(void **state)
{
    struct mr_slab slab;
    void *blocks[400];

    (void)state;
    mr_slab_init(&slab);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < MR_COUNT(blocks); i++) {
            const size_t size = i * 613 + 1;
            blocks[i] = mr_slab_get(&slab, size);
            memset(blocks[i], (int)i, mr_slab_round(size));
        }
        for (size_t i = 0; i < MR_COUNT(blocks); i++) {
            assert_int_equal(((unsigned char *)blocks[i])[i * 613], i & 0xff);
            mr_slab_put(&slab, blocks[i], i * 613 + 1);
        }
        assert_int_equal(slab.used_bytes, 0);
    }
    mr_slab_fini(&slab);
    assert_int_equal(slab.cached_bytes, 0);
}

/* Memory from a burst is freed, memory in steady use is kept. */
static void trims_what_nobody_needs(void **state)
{
    struct mr_slab slab;
    void *blocks[1000];

    (void)state;
    mr_slab_init(&slab);
    for (size_t i = 0; i < MR_COUNT(blocks); i++)
        blocks[i] = mr_slab_get(&slab, 500);
    for (size_t i = 0; i < MR_COUNT(blocks); i++)
        mr_slab_put(&slab, blocks[i], 500);
    for (int i = 0; i < 40; i++) {
        void *p = mr_slab_get(&slab, 500);
        mr_slab_put(&slab, p, 500);
        mr_slab_trim(&slab);
    }
    assert_true(slab.cached_bytes <= 2 * 512);
    mr_slab_fini(&slab);
}

RUN(T(rounds_to_classes), T(gives_every_size_back), T(trims_what_nobody_needs))
