// SPDX-License-Identifier: MIT
#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void objects_are_zeroed_and_aligned(void **state)
{
    static const uint8_t zero[40];
    struct pool *p = pool_new("test", 40, 0);

    for (unsigned i = 0; i < 10; i++) {
        uint8_t *obj = pool_get(p);
        assert_non_null(obj);
        assert_int_equal((uintptr_t)obj % 16, 0);
        assert_memory_equal(obj, zero, 40);
        memset(obj, 0xff, 40);
        pool_put(p, obj);
    }
    assert_int_equal(pool_used(p), 0);
    assert_int_equal(pool_peak(p), 1);
    pool_free(p);
}

static void the_limit_holds(void **state)
{
    void *objs[3];
    struct pool *p = pool_new("test", 100, 3);

    for (unsigned i = 0; i < 3; i++)
        assert_non_null(objs[i] = pool_get(p));
    assert_null(pool_get(p));
    pool_put(p, objs[1]);
    assert_non_null(objs[1] = pool_get(p));
    assert_null(pool_get(p));
    for (unsigned i = 0; i < 3; i++)
        pool_put(p, objs[i]);
    assert_int_equal(pool_peak(p), 3);
    pool_free(p);
}

static void memory_goes_back_after_a_burst(void **state)
{
    enum { N = 20000 };
    static void *objs[N];
    struct pool *p = pool_new("test", 256, 0);

    for (unsigned i = 0; i < N; i++)
        assert_non_null(objs[i] = pool_get(p));
    size_t full = pool_bytes(p);
    assert_true(full >= N * 256);
    assert_true(full < N * 256 + N * 256 / 10 + 65536);
    for (unsigned i = 0; i < N; i++)
        pool_put(p, objs[i]);
    assert_true(pool_bytes(p) <= 65536);
    pool_free(p);
}

#ifndef TGG_POOL_MALLOC
static void new_objects_come_from_the_lowest_chunk(void **state)
{
    enum { N = 3000 };
    static void *objs[N];
    struct pool *p = pool_new("test", 256, 0);

    for (unsigned i = 0; i < N; i++)
        objs[i] = pool_get(p);
    size_t full = pool_bytes(p);
    /* Every second one comes back; then a churn that keeps half of them out must empty the upper chunks. */
    for (unsigned i = 0; i < N; i += 2)
        pool_put(p, objs[i]);
    assert_int_equal(pool_bytes(p), full);
    for (unsigned i = N - 1; i < N; i -= 2) {
        pool_put(p, objs[i]);
        objs[i] = pool_get(p);
    }
    assert_int_equal(pool_used(p), N / 2);
    assert_true(pool_bytes(p) <= full / 2 + 2 * 65536);
    for (unsigned i = 1; i < N; i += 2)
        pool_put(p, objs[i]);
    pool_free(p);
}
#endif

static void large_objects_have_larger_chunks(void **state)
{
    void *objs[40];
    struct pool *p = pool_new("test", 100000, 0);

    for (unsigned i = 0; i < 40; i++) {
        assert_non_null(objs[i] = pool_get(p));
        memset(objs[i], (int)i, 100000);
    }
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(((uint8_t *)objs[i])[0], i);
        assert_int_equal(((uint8_t *)objs[i])[99999], i);
        pool_put(p, objs[i]);
    }
    pool_free(p);
}

static void random_life(void **state)
{
    enum { N = 5000, SIZE = 72 };
    static uint8_t *objs[N];
    static uint8_t marks[N];
    struct pool *p = pool_new("test", SIZE, 0);
    size_t used = 0;

    srand(2);
    for (unsigned round = 0; round < 200000; round++) {
        unsigned i = (unsigned)rand() % (round % 50000 < 25000 ? N : N / 10); /* bursts and lulls */
        if (objs[i] == NULL) {
            assert_non_null(objs[i] = pool_get(p));
            marks[i] = (uint8_t)(round | 1);
            assert_int_equal(objs[i][0] | objs[i][SIZE - 1], 0);
            memset(objs[i], marks[i], SIZE);
            used++;
        } else {
            assert_true(objs[i][0] == marks[i] && memcmp(objs[i], objs[i] + 1, SIZE - 1) == 0);
            pool_put(p, objs[i]);
            objs[i] = NULL;
            used--;
        }
        assert_int_equal(pool_used(p), used);
    }
    for (unsigned i = 0; i < N; i++) {
        if (objs[i] != NULL)
            pool_put(p, objs[i]);
    }
    pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_zeroed_and_aligned),         cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(memory_goes_back_after_a_burst),
#ifndef TGG_POOL_MALLOC
        cmocka_unit_test(new_objects_come_from_the_lowest_chunk),
#endif
        cmocka_unit_test(large_objects_have_larger_chunks),       cmocka_unit_test(random_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
