// SPDX-License-Identifier: MIT
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/php/php_write.h"

static void writes_a_nested_array(void **state)
{
    struct bytes out = {0};
    php_write_array(&out, 4);
    php_write_key(&out, SLICE_STR("7"));
    php_write_string(&out, SLICE_STR("a\"b"));
    php_write_key(&out, SLICE_STR("name"));
    php_write_array(&out, 1);
    php_write_key_int(&out, -1);
    php_write_bool(&out, true);
    php_write_array_end(&out);
    php_write_key(&out, SLICE_STR(""));
    php_write_null(&out);
    php_write_key(&out, SLICE_STR("07"));
    php_write_float(&out, 1.5);
    php_write_array_end(&out);
    assert_true(
        slice_eq_str((struct slice){out.data, out.len},
                     "a:4:{i:7;s:3:\"a\"b\";s:4:\"name\";a:1:{i:-1;b:1;}s:0:\"\";N;s:2:\"07\";d:1.5;}"));
    bytes_fini(&out);
}

static void integers_to_the_limits(void **state)
{
    struct bytes out = {0};
    php_write_int(&out, 0);
    php_write_int(&out, INT64_MIN);
    php_write_int(&out, INT64_MAX);
    assert_true(
        slice_eq_str((struct slice){out.data, out.len}, "i:0;i:-9223372036854775808;i:9223372036854775807;"));
    bytes_fini(&out);
}

static void keys_that_are_integers(void **state)
{
    static const char *const yes[] = {"0", "1", "-1", "123", "9223372036854775807", "-9223372036854775808"};
    static const char *const no[] = {"",
                                     "-",
                                     "-0",
                                     "00",
                                     "01",
                                     "+1",
                                     " 1",
                                     "1 ",
                                     "1.0",
                                     "0x1",
                                     "9223372036854775808",
                                     "-9223372036854775809",
                                     "18446744073709551616",
                                     "99999999999999999999",
                                     "-01"};
    int64_t v;
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        assert_true(php_key_is_int((struct slice){(const uint8_t *)yes[i], strlen(yes[i])}, &v));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(php_key_is_int((struct slice){(const uint8_t *)no[i], strlen(no[i])}, &v));
}

static void floats_as_php_prints_them(void **state)
{
    static const struct {
        double v;
        const char *text;
    } cases[] = {{0.1, "0.1"},
                 {-0.0, "-0"},
                 {100000, "100000"},
                 {1e15, "1000000000000000"},
                 {1e17, "1.0E+17"},
                 {123456789012345678.0, "1.2345678901234568E+17"},
                 {1e25, "1.0E+25"},
                 {0.0001, "0.0001"},
                 {1e-5, "1.0E-5"},
                 {1.0 / 3, "0.3333333333333333"},
                 {5e-324, "5.0E-324"},
                 {0x1p-44, "5.684341886080802E-14"},
                 {1.7976931348623157e308, "1.7976931348623157E+308"},
                 {-1.5e300, "-1.5E+300"},
                 {(double)INFINITY, "INF"},
                 {-(double)INFINITY, "-INF"},
                 {(double)NAN, "NAN"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[PHP_FLOAT_LEN_MAX];
        size_t n = php_format_float(cases[i].v, 'E', text);
        assert_int_equal(n, strlen(cases[i].text));
        assert_memory_equal(text, cases[i].text, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_a_nested_array),
        cmocka_unit_test(integers_to_the_limits),
        cmocka_unit_test(keys_that_are_integers),
        cmocka_unit_test(floats_as_php_prints_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
