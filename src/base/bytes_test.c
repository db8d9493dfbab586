// SPDX-License-Identifier: MIT
#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void appends_add_up(void **state)
{
    struct bytes b = {0};
    assert_true(bytes_append_str(&b, "ab"));
    assert_true(bytes_append_byte(&b, 'c'));
    assert_true(bytes_append(&b, "de", 2));
    assert_true(bytes_append(&b, NULL, 0));
    assert_true(bytes_printf(&b, "%d-%s", 42, "x"));
    assert_int_equal(b.len, 9);
    assert_memory_equal(b.data, "abcde42-x", 9);
    bytes_fini(&b);
    assert_null(b.data);
    assert_int_equal(b.cap, 0);
}

static void grows_over_many_sizes(void **state)
{
    struct bytes b = {0};
    for (unsigned i = 0; i < 100000; i++)
        assert_true(bytes_append_byte(&b, (uint8_t)(i * 7)));
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], (uint8_t)(i * 7));
    assert_true(b.cap < 300000);
    bytes_fini(&b);
}

static void consume_moves_the_rest_to_the_front(void **state)
{
    struct bytes b = {0};
    bytes_append_str(&b, "hello world");
    bytes_consume(&b, 6);
    assert_int_equal(b.len, 5);
    assert_memory_equal(b.data, "world", 5);
    bytes_consume(&b, 0);
    assert_int_equal(b.len, 5);
    bytes_consume(&b, 5);
    assert_int_equal(b.len, 0);
    bytes_fini(&b);
}

static void clear_keeps_the_memory(void **state)
{
    struct bytes b = {0};
    bytes_reserve(&b, 1000);
    uint8_t *data = b.data;
    bytes_append_str(&b, "x");
    bytes_clear(&b);
    assert_int_equal(b.len, 0);
    assert_ptr_equal(b.data, data);
    assert_true(b.cap >= 1000);
    bytes_fini(&b);
}

static void without_memory_it_says_so_and_keeps_what_it_has(void **state)
{
    struct bytes b = {0};
    bytes_append_str(&b, "abc");
    assert_false(bytes_reserve(&b, SIZE_MAX - 1));
    assert_true(b.failed);
    assert_false(bytes_append_byte(&b, 'd'));
    assert_false(bytes_printf(&b, "x"));
    assert_int_equal(b.len, 3);
    assert_memory_equal(b.data, "abc", 3);
    bytes_clear(&b);
    assert_true(bytes_append_byte(&b, 'd'));
    bytes_fini(&b);
}

static void slices_compare_by_content(void **state)
{
    struct slice empty = {NULL, 0};
    assert_true(slice_eq(SLICE_STR("ab"), SLICE_STR("ab")));
    assert_false(slice_eq(SLICE_STR("ab"), SLICE_STR("ac")));
    assert_false(slice_eq(SLICE_STR("ab"), SLICE_STR("abc")));
    assert_true(slice_eq(empty, SLICE_STR("")));
    assert_true(slice_eq_str(SLICE_STR("ab"), "ab"));
    assert_false(slice_eq_str(SLICE_STR("ab"), "a"));
    assert_true(slice_eq_str(empty, ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_add_up),
        cmocka_unit_test(grows_over_many_sizes),
        cmocka_unit_test(consume_moves_the_rest_to_the_front),
        cmocka_unit_test(clear_keeps_the_memory),
        cmocka_unit_test(without_memory_it_says_so_and_keeps_what_it_has),
        cmocka_unit_test(slices_compare_by_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
