// SPDX-License-Identifier: MIT
#include "admin/json_rows.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static int count(const char *text)
{
    return json_rows_count((struct slice){(const uint8_t *)text, strlen(text)});
}

static void rows_are_counted(void **state)
{
    assert_int_equal(count(""), 0);
    assert_int_equal(count("  \n"), 0);
    assert_int_equal(count("{}"), 1);
    assert_int_equal(count(" {\"a\":[1,-2.5e+3,true,false,null,\"x\\u00e9\\n\"]} , {\"b\":{}}"), 2);
    assert_int_equal(count("{\"a\":\"\xc3\xa9\"},{},{}"), 3);
}

static void what_is_no_row_is_found(void **state)
{
    static const char *const wrong[] = {
        "{",
        "}",
        "[]",
        "1",
        "{},",
        ",{}",
        "{}{}",
        "{},,{}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":-}",
        "{\"a\":+1}",
        "{\"a\":tru}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":1,}",
        "{\"a\":[1,]}",
        "{\"a\":\"",
        "{\"a\":1e}",
        "x",
        "{}x",
        "{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (count(wrong[i]) != -EBADMSG)
            fail_msg("%s is taken for %d rows", wrong[i], count(wrong[i]));
    }
}

static void no_prefix_of_a_row_is_a_row(void **state)
{
    static const char row[] = "{\"a\":[1.5,\"x\\u00e9\xc3\xa9\",{\"b\":null}],\"c\":-1e5}";
    for (size_t len = 1; len < sizeof row - 1; len++)
        assert_int_equal(json_rows_count((struct slice){(const uint8_t *)row, len}), -EBADMSG);
    assert_int_equal(count(row), 1);
}

static void each_row_comes_as_it_stands(void **state)
{
    static const char text[] = " {\"a\":1} ,\n{\"b\":2}";
    struct slice all = {(const uint8_t *)text, sizeof text - 1}, row;
    size_t pos = 0;
    assert_int_equal(json_rows_next(all, &pos, &row), 1);
    assert_true(slice_eq_str(row, "{\"a\":1}"));
    assert_int_equal(json_rows_next(all, &pos, &row), 1);
    assert_true(slice_eq_str(row, "{\"b\":2}"));
    assert_int_equal(json_rows_next(all, &pos, &row), 0);
    assert_int_equal(json_rows_next(all, &pos, &row), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_counted),
        cmocka_unit_test(what_is_no_row_is_found),
        cmocka_unit_test(no_prefix_of_a_row_is_a_row),
        cmocka_unit_test(each_row_comes_as_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
