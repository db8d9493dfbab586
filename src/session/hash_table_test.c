// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "session/hash_table.h"

static void insert_n(struct hash_table *t, struct mem *mem, uint32_t first, uint32_t n, char *values)
{
    for (uint32_t k = first; k < first + n; k++) {
        assert_int_equal(hash_table__insert(t, mem, k, &values[k]), 0);
    }
}

static void an_empty_table_finds_nothing(void **state)
{
    struct hash_table t = {0};
    assert_null(hash_table__find(&t, 1));
    assert_null(hash_table__find(&t, 0));
    assert_int_equal(hash_table__count(&t), 0);
    assert_int_equal(hash_table__slots(&t), 0);
    assert_null(hash_table__check(&t));
}

static void every_entry_is_found_at_every_size(void **state)
{
    enum { N = 3000 };
    static char values[N + 1];
    struct hash_table t = {0};
    struct mem mem = {0};
    bool was_resizing = false;
    for (uint32_t n = 1; n <= N; n++) {
        insert_n(&t, &mem, n, 1, values);
        was_resizing |= t.old.pairs != NULL;
        for (uint32_t k = n % 7 + 1; k <= n; k += 7) {
            assert_ptr_equal(hash_table__find(&t, k), &values[k]);
        }
        assert_null(hash_table__find(&t, n + 1));
        assert_true(hash_table__count(&t) <= (t.now.mask + 1) / 4 * 3);
        assert_null(hash_table__check(&t));
    }
    assert_true(was_resizing);
    for (uint32_t n = N; n >= 1; n--) {
        hash_table__remove(&t, &mem, n, &values[n]);
        for (uint32_t k = n % 7 + 1; k < n; k += 7) {
            assert_ptr_equal(hash_table__find(&t, k), &values[k]);
        }
        assert_null(hash_table__find(&t, n));
        assert_null(hash_table__check(&t));
    }
    assert_int_equal(mem.bytes, 0);
}

static void removals_in_the_middle_of_a_resize_hit_both_parts(void **state)
{
    static char values[4000];
    struct hash_table t = {0};
    struct mem mem = {0};
    insert_n(&t, &mem, 1, 769, values); /* 768 is 3/4 of 1024: just begun */
    assert_non_null(t.old.pairs);
    assert_int_equal(hash_table__count(&t), 769);
    hash_table__remove(&t, &mem, 769, &values[769]); /* in now */
    for (uint32_t k = 1; k <= 768; k += 2) {
        hash_table__remove(&t, &mem, k, &values[k]);
        assert_null(hash_table__find(&t, k));
        assert_null(hash_table__check(&t));
    }
    for (uint32_t k = 2; k <= 768; k += 2) {
        assert_ptr_equal(hash_table__find(&t, k), &values[k]);
    }
    hash_table__fini(&t, &mem);
    assert_int_equal(mem.bytes, 0);
}

static bool is_it(const void *value, const void *arg)
{
    return value == arg;
}

static void values_may_share_a_key(void **state)
{
    static char values[100];
    struct hash_table t = {0};
    struct mem mem = {0};
    for (int i = 0; i < 100; i++) {
        assert_int_equal(hash_table__insert(&t, &mem, 77, &values[i]), 0);
    }
    for (int i = 0; i < 100; i += 3) {
        hash_table__remove(&t, &mem, 77, &values[i]);
    }
    for (int i = 0; i < 100; i++) {
        assert_ptr_equal(hash_table__find_match(&t, 77, is_it, &values[i]), i % 3 ? &values[i] : NULL);
    }
    hash_table__fini(&t, &mem);
}

static void without_memory_nothing_changes(void **state)
{
    static char values[20];
    struct hash_table t = {0};
    struct mem mem = {0};
    session_alloc_fail_after = 0;
    assert_int_equal(hash_table__insert(&t, &mem, 1, &values[1]), -ENOMEM);
    assert_int_equal(hash_table__count(&t), 0);
    session_alloc_fail_after = -1;
    insert_n(&t, &mem, 1, 12, values);
    session_alloc_fail_after = 0;
    assert_int_equal(hash_table__insert(&t, &mem, 13, &values[13]), -ENOMEM);
    session_alloc_fail_after = -1;
    assert_int_equal(hash_table__count(&t), 12);
    assert_null(hash_table__find(&t, 13));
    assert_null(hash_table__check(&t));
    hash_table__fini(&t, &mem);
    assert_int_equal(mem.bytes, 0);
}

static void large_tables_give_their_pages_back(void **state)
{
    enum { N = 200000 };
    char *values = calloc(N + 1, 1);
    struct hash_table t = {0};
    struct mem mem = {0};
    insert_n(&t, &mem, 1, N, values);
    assert_true(mem.bytes > N * 12u);
    for (uint32_t k = 1; k <= N - 100; k++) {
        hash_table__remove(&t, &mem, k, &values[k]);
    }
    assert_true(mem.bytes < 20000);
    assert_null(hash_table__check(&t));
    hash_table__fini(&t, &mem);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_table_finds_nothing),
        cmocka_unit_test(every_entry_is_found_at_every_size),
        cmocka_unit_test(removals_in_the_middle_of_a_resize_hit_both_parts),
        cmocka_unit_test(values_may_share_a_key),
        cmocka_unit_test(without_memory_nothing_changes),
        cmocka_unit_test(large_tables_give_their_pages_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
