// SPDX-License-Identifier: MIT
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct buf_stats stats(void)
{
    struct buf_stats s;
    buf_stats_get(&s);
    return s;
}

static void every_size_has_the_room_it_says(void **state)
{
    for (size_t cap = 0; cap <= 70000; cap += cap < 300 ? 1 : 997) {
        struct buf *b = buf_new(cap);
        assert_non_null(b);
        assert_int_equal(b->refs, 1);
        assert_int_equal(b->len, 0);
        assert_int_equal(b->flags, 0);
        assert_true(b->cap >= cap);
        memset(b->data, 0xee, b->cap);
        b->len = b->cap;
        b->flags = 3;
        buf_unref(b);
    }
    for (size_t cap = 100000; cap < 5000000; cap *= 2) {
        struct buf *b = buf_new(cap);
        assert_non_null(b);
        assert_true(b->cap >= cap);
        memset(b->data, 1, b->cap);
        buf_unref(b);
    }
    assert_int_equal(stats().used_count, 0);
    assert_int_equal(stats().used_bytes, 0);
}

static void the_last_reference_frees(void **state)
{
    struct buf *b = buf_new(10);
    assert_ptr_equal(buf_ref(b), b);
    buf_unref(b);
    assert_int_equal(stats().used_count, 1);
    assert_int_equal(b->refs, 1);
    buf_unref(b);
    assert_int_equal(stats().used_count, 0);
    buf_unref(NULL);
}

static void what_comes_back_is_kept_within_bounds(void **state)
{
    enum { N = 4096 };
    static struct buf *bufs[N];

    buf_trim();
    for (unsigned i = 0; i < N; i++)
        assert_non_null(bufs[i] = buf_new(1024));
    assert_int_equal(stats().used_count, N);
    assert_true(stats().used_bytes >= N * 1024);
    for (unsigned i = 0; i < N; i++)
        buf_unref(bufs[i]);
#ifdef TGG_POOL_MALLOC
    assert_int_equal(stats().idle_bytes, 0);
#else
    assert_int_equal(stats().idle_bytes, 1 << 20);
#endif
    assert_int_equal(stats().used_bytes, 0);
    buf_trim();
    assert_int_equal(stats().idle_bytes, 0);
}

/* Two live buffers never overlap, whatever the order of give and take. */
static void random_life(void **state)
{
    enum { N = 200 };
    struct buf *bufs[N] = {0};
    uint8_t marks[N] = {0};

    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned i = (unsigned)rand() % N;
        if (bufs[i] == NULL) {
            assert_non_null(bufs[i] = buf_new((size_t)rand() % 5000));
            marks[i] = (uint8_t)round;
            memset(bufs[i]->data, marks[i], bufs[i]->cap);
            continue;
        }
        for (unsigned k = 0; k < bufs[i]->cap; k++)
            assert_int_equal(bufs[i]->data[k], marks[i]);
        buf_unref(bufs[i]);
        bufs[i] = NULL;
    }
    for (unsigned i = 0; i < N; i++)
        buf_unref(bufs[i]);
    assert_int_equal(stats().used_count, 0);
    assert_int_equal(stats().used_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_has_the_room_it_says),
        cmocka_unit_test(the_last_reference_frees),
        cmocka_unit_test(what_comes_back_is_kept_within_bounds),
        cmocka_unit_test(random_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
