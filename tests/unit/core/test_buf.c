/* test_buf.c - the byte queue, compared with a simple model. */
#include "core/buf.h"
#include "unit/test.h"

static void appends_and_consumes(void **state)
{
    struct mr_slab slab;
    struct mr_buf b = {0};

    (void)state;
    mr_slab_init(&slab);
    assert_true(mr_buf_append(&b, &slab, "hello ", 6));
    assert_true(mr_buf_append(&b, &slab, "world", 5));
    assert_int_equal(mr_buf_len(&b), 11);
    assert_memory_equal(mr_buf_slice(&b).at, "hello world", 11);
    mr_buf_consume(&b, &slab, 6);
    assert_memory_equal(mr_buf_slice(&b).at, "world", 5);
    mr_buf_consume(&b, &slab, 5);
    assert_true(mr_buf_empty(&b));
    assert_null(b.mem); /* an empty buffer owns nothing */
    mr_buf_printf(&b, &slab, "%d-%s", 7, "x");
    assert_memory_equal(mr_buf_slice(&b).at, "7-x", 3);
    mr_buf_clear(&b, &slab);
    assert_int_equal(slab.used_bytes, 0);
    mr_slab_fini(&slab);
}

static void matches_a_model(void **state)
{
    struct mr_slab slab;
    struct mr_buf b = {0};
    static char model[4000000];
    size_t start = 0, end = 0;
    unsigned seed = 1;

    (void)state;
    mr_slab_init(&slab);
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1103515245u + 12345u;
        if (seed >> 16 & 1) {
            char bytes[400];
            const size_t n = (seed >> 17) % sizeof(bytes);
            for (size_t j = 0; j < n; j++)
                bytes[j] = (char)(seed + j);
            if (end + n > sizeof(model))
                break;
            memcpy(model + end, bytes, n);
            end += n;
            assert_true(mr_buf_append(&b, &slab, bytes, n));
        } else if (end > start) {
            const size_t n = (seed >> 17) % (end - start + 1);
            start += n;
            mr_buf_consume(&b, &slab, n);
        }
        assert_int_equal(mr_buf_len(&b), end - start);
        if (end > start)
            assert_memory_equal(mr_buf_slice(&b).at, model + start, end - start);
    }
    mr_buf_clear(&b, &slab);
    mr_slab_fini(&slab);
}

static void refuses_what_cannot_be(void **state)
{
    struct mr_slab slab;
    struct mr_buf b = {0};

    (void)state;
    mr_slab_init(&slab);
    assert_true(mr_buf_append(&b, &slab, "x", 1));
    assert_null(mr_buf_reserve(&b, &slab, MR_BUF_MAX));
    assert_int_equal(mr_buf_len(&b), 1);
    mr_buf_clear(&b, &slab);
    mr_slab_fini(&slab);
}

/* Text may have any length, as names of clients do. */
static void prints_long_texts(void **state)
{
    static const size_t LENGTHS[] = {0, 510, 511, 512, 513, 5000, 100000};
    static char text[100001];
    struct mr_slab slab;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    mr_slab_init(&slab);
    for (size_t i = 0; i < MR_COUNT(LENGTHS); i++) {
        const char *end = text + sizeof(text) - 1;
        struct mr_buf b = {0};
        mr_buf_printf(&b, &slab, "<");
        mr_buf_printf(&b, &slab, "%s", end - LENGTHS[i]);
        mr_buf_printf(&b, &slab, ">");
        assert_int_equal(mr_buf_len(&b), LENGTHS[i] + 2);
        assert_memory_equal(mr_buf_slice(&b).at + 1, text, LENGTHS[i]);
        assert_int_equal(mr_buf_slice(&b).at[LENGTHS[i] + 1], '>');
        mr_buf_fail(&b, &slab);
        mr_buf_printf(&b, &slab, "%s", end - LENGTHS[i]);
        assert_true(mr_buf_failed(&b) && mr_buf_empty(&b));
    }
    assert_int_equal(slab.used_bytes, 0);
    mr_slab_fini(&slab);
}

static void fails_once_for_all(void **state)
{
    struct mr_slab slab;
    struct mr_buf b = {0};

    (void)state;
    mr_slab_init(&slab);
    mr_buf_put(&b, &slab, "beginning", 9);
    assert_false(mr_buf_failed(&b));
    mr_buf_put(&b, &slab, "x", MR_BUF_MAX); /* never read, since there cannot be room */
    assert_true(mr_buf_failed(&b));
    assert_true(mr_buf_empty(&b));
    assert_int_equal(slab.used_bytes, 0);
    mr_buf_put(&b, &slab, "end", 3);
    assert_false(mr_buf_append(&b, &slab, "end", 3));
    assert_true(mr_buf_failed(&b) && mr_buf_empty(&b));
    mr_buf_clear(&b, &slab);
    mr_buf_put(&b, &slab, "again", 5);
    assert_int_equal(mr_buf_len(&b), 5);
    mr_buf_clear(&b, &slab);
    mr_slab_fini(&slab);
}

RUN(T(appends_and_consumes), T(matches_a_model), T(refuses_what_cannot_be), T(prints_long_texts),
    T(fails_once_for_all))
