/*
 * fixture.h - slab and scratch buffer of a protocol test, with a check that nothing stays in use.
 */
#pragma once

#include "core/buf.h"
#include "unit/test.h"

static struct mr_slab slab;
static struct mr_buf scratch;

static int setup(void **state)
{
    (void)state;
    mr_slab_init(&slab);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mr_buf_clear(&scratch, &slab);
    assert_int_equal(slab.used_bytes, 0);
    mr_slab_fini(&slab);
    return 0;
}
